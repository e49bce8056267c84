// The commands as tests start them: bundled once by each process of tests, since Node starts a bundle in a fifth of a second, and tsx takes a second for the modules in it.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { build, type Plugin } from 'esbuild';
import * as assert from 'uvu/assert';

const root = resolve(import.meta.dirname, '../..'), cli = join(root, 'src', 'cli');
const COMMANDS = ['train', 'sample', 'eval', 'info', 'fetch', 'tune'] as const;
export type Command = (typeof COMMANDS)[number];

/** A module in the bundle still says where it lies, and that it is TypeScript in a clone. */
const places: Plugin = {
  name: 'places',
  setup: ({ onLoad }) => onLoad({ filter: /[/\\]src[/\\].*\.ts$/ }, ({ path }) => {
    const place: Readonly<Record<string, string>> = { filename: path, dirname: dirname(path), url: pathToFileURL(path).href };
    return { loader: 'ts', contents: readFileSync(path, 'utf8').replace(/\bimport\.meta\.(filename|dirname|url)\b/g, (_, what: string) => JSON.stringify(place[what])) };
  }),
};

// In the repository, so that it finds the packages.
const folder = mkdtempSync(join(root, 'node_modules', '.commands-'));
process.on('exit', () => rmSync(folder, { recursive: true }));
await build({ entryPoints: COMMANDS.map((name) => join(cli, `${name}.ts`)), outdir: folder, bundle: true, splitting: true, packages: 'external', format: 'esm', platform: 'node', target: 'node20', plugins: [places] });
writeFileSync(join(folder, 'setup.mjs'), `export * from ${JSON.stringify(pathToFileURL(join(cli, 'setup.mjs')).href)};\n`);

/** What `node` is to run as `npm run name`. */
export const script = (name: Command): string => join(folder, `${name}.js`);

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface How {
  /** Beside the environment of the tests, less what npm has put there. */
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  /** Modules that the process loads before the command. */
  readonly before?: readonly string[];
  /** Sees what has come so far on stdout and stderr, whenever there is more. */
  readonly watch?: (stdout: string, stderr: string, child: ChildProcess) => void;
}

const { npm_lifecycle_event: _, ...environment } = process.env;

/** Runs a command to its end. A line is split at its spaces. */
export function start(name: Command, line: string | readonly string[], { env = {}, cwd = root, before = [], watch }: How = {}): Promise<Ended> {
  const words = typeof line === 'string' ? line.split(' ').filter(Boolean) : line;
  const child = spawn(process.execPath, [...before.flatMap((module) => ['--import', module]), script(name), ...words], { cwd, env: { ...environment, NO_COLOR: '1', ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  const said = { stdout: '', stderr: '' };
  for (const stream of ['stdout', 'stderr'] as const)
    child[stream].setEncoding('utf8').on('data', (text: string) => {
      said[stream] += text;
      watch?.(said.stdout, said.stderr, child);
    });
  return new Promise((done) => child.on('close', (code, signal) => done({ code, signal, ...said })));
}

/** Fails with what the command said where it ended otherwise, or did not say these words. */
export function ended({ code, stdout, stderr }: Ended, wanted: number, ...words: readonly (string | RegExp)[]): void {
  const text = stdout + stderr;
  assert.is(code, wanted, `exit code ${code}, wanted ${wanted}:\n${text}`);
  for (const word of words) assert.ok(typeof word === 'string' ? text.includes(word) : word.test(text), `should say ${word}:\n${text}`);
}
