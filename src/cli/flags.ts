// The command line: argv and config files in, typed settings out; help and JSON from the same table.

import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { DdpmError } from '../errors.ts';
import { reason } from '../io/files.ts';
import { typedAs } from '../typed.ts';
import type { NumberSetting, Setting, Settings, Table } from './settings.ts';

/** What a command is called and takes besides flags. */
export interface Command {
  /** The npm script: `train`. */
  readonly name: string;
  /** One line for the head of --help. */
  readonly help: string;
  /** The one argument without a flag, if the command takes one; it must be given unless it stands in [brackets]. */
  readonly positional?: string;
}

export interface Parsed<T extends Table> {
  readonly settings: Settings<T>;
  /** The settings that a flag or the config file gave, by their camelCase key. */
  readonly given: ReadonlySet<string>;
  readonly positional: string | null;
}

export interface ParseOptions {
  /** For the forgotten `--` of npm; `process.env`. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Settings to start from instead of the defaults, such as the config.json of a run that goes on. */
  readonly base?: { readonly json: unknown; readonly source: string };
}

type Value = string | number | boolean | null;

const usage = (message: string): DdpmError => new DdpmError('E-USAGE', message);

/**
 * Settings from defaults, then `base`, then the file of --config, then flags; the last one wins.
 * Flags: `--kebab-case` or `--snake_case`, `--flag value` or `--flag=value`, `--flag` or `--no-flag` for switches; numbers also as 1e-4, 64k, 1_000.
 * With --help nothing else is checked.
 *
 * @throws DdpmError E-USAGE for an unknown flag or key (with the nearest one), a value of the wrong kind or out of range, a stray argument.
 */
export function parseFlags<T extends Table>(table: T, command: Command, argv: readonly string[], { env = {}, base }: ParseOptions = {}): Parsed<T> {
  const values: Record<string, Value> = {};
  for (const [name, setting] of Object.entries<Setting>(table)) values[camel(name)] = setting.default;
  const end = argv.indexOf('--');
  if (argv.some((a, i) => (a === '--help' || a === '-h') && (end < 0 || i < end))) {
    return { settings: { ...values, help: true } as unknown as Settings<T>, given: new Set(['help']), positional: null };
  }
  forgottenDashes(table, command, argv, env);

  const flags: Record<string, Value> = {};
  const positionals: string[] = [];
  for (const token of tokens(table, argv)) {
    if (token.kind === 'positional') positionals.push(token.value);
    if (token.kind !== 'option') continue;
    const [name, setting, negated] = lookUp(table, token.name, token.rawName);
    if (setting.type === 'bool') {
      flags[camel(name)] = token.value === undefined ? !negated : readValue(`--${name}`, setting, token.value) !== negated;
    } else if (token.value === undefined || (token.inlineValue === false && token.value.startsWith('--'))) {
      throw usage(`--${name} needs a value: --${name} ${placeholder(setting)}.`);
    } else flags[camel(name)] = readValue(`--${name}`, setting, token.value);
  }
  const wanted = command.positional ? 1 : 0;
  if (positionals.length < wanted && !command.positional!.startsWith('[')) throw usage(`${command.name} needs ${command.positional}. Type: ${typedAs(command.name)} ${command.positional}`);
  if (wanted && positionals[0] === '') throw usage(`${command.name} was given an empty name, as a shell makes of a variable that is not set. It takes ${command.positional}.`);
  const stray = positionals[wanted];
  if (stray !== undefined) {
    const key = kebab(stray.split('=')[0]);
    throw usage(`Unexpected argument "${stray}".${key in table ? ` Did you mean --${key}${stray.slice(key.length)}?` : ''} See: ${typedAs(command.name)} --help`);
  }

  const file = flags['config'];
  if (base) Object.assign(values, settingsFromJson(table, base.json, base.source));
  const config = typeof file === 'string' ? settingsFromJson(table, readJson(file), file) : {};
  Object.assign(values, config, flags);
  const given = new Set([...Object.keys(config), ...Object.keys(flags)]);
  return { settings: values as unknown as Settings<T>, given, positional: positionals[0] ?? null };
}

/** The settings that make a run what it is, under snake_case names, in the order of the table; what belongs to one start is left out. */
export function settingsToJson<T extends Table>(table: T, settings: Settings<T>): Record<string, Value> {
  const values = settings as unknown as Record<string, Value>;
  const lasting = Object.entries<Setting>(table).filter(([, s]) => !s.once);
  return Object.fromEntries(lasting.map(([name]) => [name.replaceAll('-', '_'), values[camel(name)]]));
}

/**
 * Checked settings, by camelCase key, from a parsed config file; keys may be snake_case, kebab-case or camelCase.
 * The key "ddpm.wgsl" marks the config.json of a run: what it leaves open is as it was then, not as a preset has it now.
 */
export function settingsFromJson(table: Table, json: unknown, source: string): Record<string, Value> {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw usage(`${source} must hold one JSON object of settings, such as { "steps": 1000 }.`);
  }
  const result: Record<string, Value> = {};
  for (const [key, raw] of Object.entries(json)) {
    if (key === 'ddpm.wgsl') continue;
    const name = kebab(key);
    const setting = Object.hasOwn(table, name) ? table[name] : undefined;
    if (!setting) throw usage(`${source}: unknown setting "${key}".${suggestion(name, lastingNames(table), '')}`);
    if (setting.once) throw usage(`${source}: "${key}" belongs on the command line, as --${name}; take it out of the file.`);
    const where = `${source}: "${key}"`;
    if (camel(name) in result) throw usage(`${where} is there twice.`);
    if (raw === null && setting.default === null) result[camel(name)] = null;
    else if (typeof raw === 'string') result[camel(name)] = readValue(where, setting, raw);
    else if (typeof raw === 'number' && isNumber(setting)) result[camel(name)] = check(where, setting, raw);
    else if (typeof raw === 'boolean' && setting.type === 'bool') result[camel(name)] = raw;
    else throw usage(`${where} must be ${kindOf(setting)}, not ${JSON.stringify(raw)}.`);
  }
  if ('ddpm.wgsl' in json) for (const [name, { before }] of Object.entries<Setting>(table)) if (before !== undefined) result[camel(name)] ??= before;
  return result;
}

/** The text of --help: usage, then the settings by group with their defaults. */
export function helpText(table: Table, command: Command): string {
  const rows = Object.entries(table).map(([name, s]) => ({
    group: s.group,
    flag: `--${name} ${placeholder(s)}`.trimEnd(),
    help: `${s.help}${defaultNote(name, s)}`,
  }));
  const width = Math.max(...rows.map((r) => r.flag.length).filter((n) => n <= 30));
  const lines = [`${typedAs(command.name)}${command.positional ? ` ${command.positional}` : ''} [flags]`, '', command.help];
  for (const group of new Set(rows.map((r) => r.group))) {
    lines.push('', group);
    for (const r of rows.filter((row) => row.group === group)) {
      // A flag too long for its column gets a line of its own.
      if (r.flag.length > width) lines.push(`  ${r.flag}`, `  ${' '.repeat(width)}  ${r.help}`);
      else lines.push(`  ${r.flag.padEnd(width)}  ${r.help}`);
    }
  }
  lines.push('', 'Names may be written --with-dashes or --with_underscores, values after a space or =, numbers also as 1e-4, 64k or 1_000.');
  return lines.join('\n') + '\n';
}

/** A number as people write it (1e-4, 64k, 1.5M, 1_000), or NaN. */
export function parseNumber(text: string): number {
  const match = /^([+-]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)([km]?)$/i.exec(text.trim());
  if (!match) return NaN;
  const value = Number(match[1].replaceAll('_', ''));
  return match[2] ? value * (match[2].toLowerCase() === 'k' ? 1e3 : 1e6) : value;
}

/** The name nearest to a mistyped word, or undefined if none is near. */
export function nearest(word: string, names: readonly string[]): string | undefined {
  const scored = names.map((name) => ({ name, edits: editDistance(word, name) })).sort((a, b) => a.edits - b.edits);
  const best = scored[0];
  if (best && best.edits <= Math.max(1, Math.ceil(Math.max(word.length, best.name.length) / 3))) return best.name;
  // A part of a name is far away in edits and near in meaning: batch for batch-size, num-steps for steps.
  return names.find((name) => (word.length > 2 && name.includes(word)) || (name.length > 2 && word.includes(name)));
}

/** Damerau-Levenshtein distance (optimal string alignment): insertions, deletions, replacements, swaps of neighbours. */
export function editDistance(a: string, b: string): number {
  const d = Array.from({ length: a.length + 1 }, (_, i) => Array.from({ length: b.length + 1 }, (_, j) => (i === 0 ? j : j === 0 ? i : 0)));
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      d[i][j] = Math.min(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + same);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) d[i][j] = Math.min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.length][b.length];
}

function tokens(table: Table, argv: readonly string[]) {
  const options: Record<string, { type: 'string' | 'boolean' }> = {};
  for (const [name, setting] of Object.entries(table)) options[name] = { type: setting.type === 'bool' ? 'boolean' : 'string' };
  const args: string[] = [];
  for (const [i, arg] of argv.entries()) {
    if (arg === '--') {
      args.push(...argv.slice(i));
      break;
    }
    // parseArgs would read -steps as six switches of one letter.
    if (/^-[a-z]/i.test(arg)) throw unknownFlag(table, arg.slice(1).split('=')[0], arg);
    const [name, value] = split(arg);
    const bare = bareValue(table[name]);
    if (bare !== undefined && value === '' && (argv[i + 1] ?? '-').startsWith('-')) args.push(`--${name}=${bare}`);
    else args.push(arg.startsWith('--') ? `--${name}${value}` : arg);
  }
  return parseArgs({ args, options, strict: false, allowPositionals: true, tokens: true }).tokens;
}

/** '--batch_size=4' → ['batch-size', '=4']. */
function split(arg: string): [name: string, value: string] {
  if (!arg.startsWith('--')) return ['', ''];
  const at = arg.indexOf('=');
  return at < 0 ? [kebab(arg.slice(2)), ''] : [kebab(arg.slice(2, at)), arg.slice(at)];
}

function bareValue(setting: Setting | undefined): string | undefined {
  return setting && 'bare' in setting ? setting.bare : undefined;
}

function lookUp(table: Table, name: string, rawName: string): [name: string, setting: Setting, negated: boolean] {
  if (Object.hasOwn(table, name)) return [name, table[name], false];
  const positive = name.startsWith('no-') ? name.slice(3) : '';
  if (Object.hasOwn(table, positive)) {
    if (table[positive].type === 'bool') return [positive, table[positive], true];
    throw usage(`--${positive} takes a value and has no opposite, so ${rawName} means nothing. Type --${positive} ${placeholder(table[positive])}.`);
  }
  throw unknownFlag(table, name, rawName);
}

function unknownFlag(table: Table, name: string, typed: string): DdpmError {
  return usage(`Unknown flag ${typed.split('=')[0]}.${suggestion(kebab(name), Object.keys(table), '--')} All flags: --help`);
}

/** What other programs call some of these; only ever suggested. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  epochs: 'steps',
  'learning-rate': 'lr',
  'output-dir': 'out',
  'beta-schedule': 'schedule',
  'trained-betas': 'betas',
  'prediction-type': 'predict',
  'learn-sigma': 'variance',
  'loss-type': 'loss',
  'min-snr-gamma': 'snr-gamma',
  'schedule-sampler': 'time-sampling',
  device: 'gpu',
  'num-samples': 'n',
};

function suggestion(name: string, names: readonly string[], prefix: string): string {
  const word = nearest(name, [...names, ...Object.keys(ELSEWHERE).filter((w) => names.includes(ELSEWHERE[w]))]);
  const near = word && (ELSEWHERE[word] ?? word);
  return near ? ` Did you mean ${prefix}${near}?` : '';
}

const lastingNames = (table: Table): string[] => Object.keys(table).filter((n) => !table[n].once);

/** npm keeps flags that stand before a `--` to itself, and hands them on as environment variables only. */
function forgottenDashes(table: Table, command: Command, argv: readonly string[], env: Readonly<Record<string, string | undefined>>): void {
  if (env['npm_lifecycle_event'] !== command.name) return;
  const swallowed: string[] = [];
  const rest = [...argv];
  for (const [name, setting] of Object.entries(table)) {
    if (name === 'progress') continue; // npm has a setting of this name, and people do set it
    const value = env[`npm_config_${name.replaceAll('-', '_')}`];
    if (value === undefined || (value === '' && setting.type !== 'bool')) continue;
    if (setting.type === 'bool') swallowed.push(value === 'true' ? `--${name}` : `--no-${name}`);
    // `--steps 10` comes as "true", with the 10 left over as an argument.
    else if (value === 'true') swallowed.push(`--${name} ${rest.shift() ?? (bareValue(setting) === undefined ? placeholder(setting) : '')}`.trimEnd());
    else swallowed.push(`--${name}=${value}`);
  }
  if (swallowed.length === 0) return;
  const typed = [...swallowed, ...rest].join(' ');
  throw usage(`npm kept ${swallowed.join(' ')} for itself: flags for the program go after a lone --. Did you mean \`npm run ${command.name} -- ${typed}\`?`);
}

const isNumber = (s: Setting): s is NumberSetting => s.type === 'int' || s.type === 'float';

/** A value from text, as a flag or a quoted value in a file gives it. */
function readValue(where: string, setting: Setting, text: string): Value {
  if (isNumber(setting)) return check(where, setting, parseNumber(text), text);
  switch (setting.type) {
    case 'bool':
      if (text !== 'true' && text !== 'false') throw usage(`${where} is true or false, not "${text}".`);
      return text === 'true';
    case 'choice': {
      if (setting.choices.includes(text)) return text;
      const near = nearest(text.toLowerCase(), setting.choices);
      throw usage(`${where} is one of ${setting.choices.join(', ')}, not "${text}".${near ? ` Did you mean ${near}?` : ''}`);
    }
    default:
      if (text === '') throw usage(`${where} is empty; it needs ${kindOf(setting)}.`);
      return text;
  }
}

function check(where: string, setting: NumberSetting, value: number, text = String(value)): number {
  const ok = setting.type === 'int' ? Number.isSafeInteger(value) : Number.isFinite(value);
  const { min = -Infinity, max = Infinity, below = Infinity } = setting;
  if (ok && value >= min && value <= max && value < below) return value;
  throw usage(`${where} must be ${kindOf(setting)}, not ${text === '' ? 'empty' : text}.`);
}

function kindOf(s: Setting): string {
  if (isNumber(s)) {
    const bounds = [s.min !== undefined && `at least ${s.min}`, s.max !== undefined && `at most ${s.max}`, s.below !== undefined && `below ${s.below}`];
    return [`a ${s.type === 'int' ? 'whole ' : ''}number`, bounds.filter(Boolean).join(' and ')].filter(Boolean).join(', ');
  }
  if (s.type === 'choice') return `one of ${s.choices.join(', ')}`;
  return s.type === 'bool' ? 'true or false' : 'text';
}

function placeholder(s: Setting): string {
  if (s.value) return s.value;
  if (s.type === 'choice') return s.choices.join('|');
  return { int: 'N', float: 'X', bool: '', string: 'NAME', path: 'PATH' }[s.type];
}

function defaultNote(name: string, s: Setting): string {
  if (s.type === 'bool') return s.default === false ? '' : ` (${s.default === null ? s.unset : 'on'}; --no-${name})`;
  return ` (${s.default ?? s.unset ?? 'none'})`;
}

function readJson(path: string): unknown {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new DdpmError('E-USAGE', `Cannot read the config file ${path}: ${reason(cause)}.`, { cause });
  }
  try {
    return JSON.parse(text.replace(/^\ufeff/, '')); // a byte order mark, as editors of Windows write it
  } catch (cause) {
    throw new DdpmError('E-USAGE', `The config file ${path} is not JSON: ${(cause as Error).message}`, { cause });
  }
}

/** 'batch-size' → 'batchSize'. */
export const camel = (name: string): string => name.replace(/-(.)/g, (_, c: string) => c.toUpperCase());

/** 'batch_size' and 'batchSize' → 'batch-size'. */
const kebab = (name: string): string => name.replaceAll('_', '-').replace(/([a-z0-9])([A-Z])/g, '$1-$2').toLowerCase();
