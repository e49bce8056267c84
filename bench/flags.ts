// The flags of npm run bench, and which of them go with which mode: one that a mode would pass over in silence is refused.
import { parseArgs } from 'node:util';
import { DdpmError } from '../src/errors.ts';

/** Every other first argument is a part of kernels' names. */
const MODES = ['step', 'scale', 'peers', 'plan', 'host', 'startup', 'toggles', 'report'] as const;
const KERNELS = 'kernels';
type Mode = (typeof MODES)[number] | typeof KERNELS;

/** What else may stand after a mode: parts of kernels' names. */
const FILTERED: readonly Mode[] = [KERNELS, 'peers'];

/** The modes that read a flag; --preset and --batch-size go with all. */
const READ_BY = {
  all: [KERNELS], compare: [KERNELS],
  seconds: ['step', 'scale', 'toggles', 'report'],
  profile: ['step', 'plan'], 'checkpoint-blocks': ['step', 'plan'],
  precision: ['step', 'scale', 'plan'],
  json: [KERNELS, 'step', 'scale', 'peers'],
  out: ['report'],
} as const satisfies Record<string, readonly Mode[]>;

const listed = (words: readonly string[]): string => (words.length === 1 ? words[0]! : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`);

/** As node:util's parseArgs takes them. */
export const OPTIONS = {
  preset: { type: 'string' }, 'batch-size': { type: 'string' }, all: { type: 'boolean' }, seconds: { type: 'string' }, profile: { type: 'boolean' }, 'checkpoint-blocks': { type: 'boolean' },
  precision: { type: 'string' }, json: { type: 'string' }, out: { type: 'string' }, compare: { type: 'string' }, help: { type: 'boolean' },
} as const;

/** @throws DdpmError E-USAGE for an unknown flag, and for a flag or an argument that the mode does not read */
export function parseBench(argv: readonly string[]) {
  const { values, positionals } = parsed(argv), [first] = positionals;
  const mode: Mode = MODES.find((each) => each === first) ?? KERNELS;
  if (values.help) return { values, positionals, mode };
  for (const [flag, modes] of Object.entries<readonly Mode[]>(READ_BY))
    if (values[flag as keyof typeof READ_BY] !== undefined && !modes.includes(mode)) throw new DdpmError('E-USAGE', `--${flag} is a flag of ${listed(modes)}, not of ${mode}. Leave it out.`);
  if (positionals.length > 1 && !FILTERED.includes(mode)) throw new DdpmError('E-USAGE', `${mode} takes no more arguments, and was given ${listed(positionals.slice(1))}. Leave them out, or ask for one after another.`);
  return { values, positionals, mode };
}

function parsed(argv: readonly string[]) {
  try {
    return parseArgs({ args: [...argv], allowPositionals: true, options: OPTIONS });
  } catch (error) {
    throw new DdpmError('E-USAGE', `${(error as Error).message.split('. ')[0]}. See: npm run bench -- --help`, { cause: error });
  }
}
