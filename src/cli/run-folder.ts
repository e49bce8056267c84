// The folder of a run: its settings, its environment, its metrics, its pictures and its checkpoints.

import { execFileSync } from 'node:child_process';
import { appendFileSync, existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { cpus, platform, release } from 'node:os';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { DdpmError } from '../errors.ts';
import { makeFolder, notWritten, readFolderOr, reason, writeAtomic } from '../io/files.ts';
import { typedAlone, typedAs } from '../typed.ts';
import { quoted } from './command.ts';

/** Marks the config.json of a run, so that it is never taken for a model's config.json; the value is the version of the layout. */
const MARK = 'ddpm.wgsl';
const CHECKPOINT = /^step-(\d{7,})$/;

export interface Checkpoint {
  readonly step: number;
  readonly path: string;
}

export class RunFolder {
  readonly path: string;
  /** The date in the env.json that this process wrote, told from another's; null while it has written none, and the run is only read. */
  #began: unknown = null;

  private constructor(path: string) {
    this.path = path;
  }

  /**
   * A new run folder out/name with its config.json (what settingsToJson gives) and env.json.
   *
   * @throws DdpmError E-FILE if the folder is there already and not empty. With `overwrite` it is deleted first, but only if it is a run.
   * @throws DdpmError E-USAGE if the name is not the name of a folder.
   */
  static async create(
    out: string,
    name: string,
    { config, environment, overwrite = false }: { readonly config: object; readonly environment: object; readonly overwrite?: boolean },
  ): Promise<RunFolder> {
    if (name === '' || name !== basename(name) || name === '.' || name === '..') {
      throw new DdpmError('E-USAGE', `--name "${name}" is not the name of a folder. The run goes to ${join(out, 'NAME')}; say where with --out.`);
    }
    const path = join(out, name);
    if (existsSync(path) && !(statSync(path).isDirectory() && readdirSync(path).length === 0)) {
      if (!overwrite) {
        throw new DdpmError(
          'E-FILE',
          `${path} is there already, and a run is never written over by itself. Go on with it: --resume ${quoted(path)}. ` +
            'Start it again from nothing: --overwrite. Or choose another --name.',
        );
      }
      if (!isRun(path)) {
        throw new DdpmError(
          'E-FILE',
          `${path} is not a run of this program (it has no config.json of one), so --overwrite leaves it alone. Move it away, or choose another --name.`,
        );
      }
    }
    const run = new RunFolder(path), made = overwrite || !existsSync(path);
    try {
      if (overwrite) rmSync(path, { recursive: true, force: true });
      makeFolder(path);
    } catch (cause) {
      throw new DdpmError('E-FILE', `Cannot make the run folder ${path}: ${reason(cause)}. Choose another place with --out.`, { cause });
    }
    try {
      await run.describe({ config, environment });
    } catch (error) {
      // Half a run could neither be gone on with nor be started again.
      if (made) rmSync(path, { recursive: true, force: true });
      throw error;
    }
    return run;
  }

  /**
   * An existing run folder.
   *
   * @throws DdpmError E-FILE if it is not one.
   */
  static open(path: string): RunFolder {
    const run = new RunFolder(path);
    if (isRun(path)) return run;
    if (wasRun(path)) {
      const last = run.latest()!.path, config = run.file('config.json'), text = existsSync(config) ? readFileSync(config, 'utf8') : null;
      throw new DdpmError(
        'E-FILE',
        `${config} is ${text === null ? 'missing' : text === '' ? 'empty, as after a crash' : 'damaged'}, so the settings of the run are not known. ` +
          `To go on with it, write there what ${join(last, 'state.json')} has as "settings", with "${MARK}": 1 as the first of them. To draw with it, name the checkpoint: ${typedAs('sample')} ${quoted(last)}`,
      );
    }
    throw new DdpmError('E-FILE', `${path} is ${existsSync(path) ? 'not a run folder: it has no config.json of a run' : 'not there'}.`);
  }

  /**
   * What `--resume` means: `latest` is the run in `out` whose last checkpoint is the newest; otherwise a run folder, the name of one in `out`,
   * or one checkpoint of a run.
   *
   * @throws DdpmError E-FILE if there is no such run, or no checkpoint in it.
   */
  static resume(target: string, out: string): { run: RunFolder; checkpoint: Checkpoint } {
    if (target === 'latest') {
      const runs = namesIn(out)
        .map((name) => join(out, name))
        .filter(isRun)
        .map((path) => ({ run: new RunFolder(path), checkpoint: new RunFolder(path).latest() }))
        .filter((r): r is { run: RunFolder; checkpoint: Checkpoint } => r.checkpoint !== null)
        .sort((a, b) => statSync(b.checkpoint.path).mtimeMs - statSync(a.checkpoint.path).mtimeMs);
      if (runs.length === 0) {
        throw new DdpmError('E-FILE', `There is no run with a checkpoint in ${out}/. Start one with ${typedAlone('train')}, or name one that lies elsewhere.`);
      }
      return runs[0];
    }
    const there = [target, join(out, target)].filter((p) => existsSync(p));
    const path = there.find(isRun) ?? there.at(0);
    if (path === undefined) throw new DdpmError('E-FILE', `There is no run folder or checkpoint ${target}.${listRuns(out)}`);
    const step = CHECKPOINT.exec(basename(resolve(path)));
    const parent = dirname(dirname(resolve(path)));
    if (step && wasRun(parent)) return { run: RunFolder.open(relative('', parent) || '.'), checkpoint: { step: Number(step[1]), path } };
    const run = RunFolder.open(path);
    run.#restore();
    const checkpoint = run.latest();
    if (!checkpoint) {
      throw new DdpmError('E-FILE', `${path} has no checkpoint yet, to go on from or to draw with: the first is saved after --save-every steps, or when the run ends. One that stopped before is started again with --overwrite.`);
    }
    return { run, checkpoint };
  }

  /** A path inside the run. */
  file(...parts: string[]): string {
    return join(this.path, ...parts);
  }

  /** Writes config.json and env.json; again when a run goes on with other settings or on another machine. */
  async describe({ config, environment }: { readonly config: object; readonly environment: object }): Promise<void> {
    await writeAtomic(this.file('config.json'), toJson({ [MARK]: 1, ...config }));
    await writeAtomic(this.file('env.json'), toJson(environment));
    this.#began = this.#beganThere();
  }

  /**
   * The process that described a run last is the one that writes to it; one from before ends, or the steps of both would mix.
   *
   * @throws DdpmError E-FILE where another process goes on with the run, or the folder is gone
   */
  requireOwn(): void {
    if (this.#began === null) return;
    const there = this.#beganThere(), edited = there === undefined && isRun(this.path);
    if (there === this.#began || edited) return;
    throw new DdpmError('E-FILE', there === undefined
      ? `${this.path} is not there any more: it was deleted or moved while it was trained in, and nothing more is written. Where it was moved, go on from its last checkpoint there: ${typedAs('train')} --resume FOLDER`
      : `another process has begun to train in ${this.path}, from its last checkpoint, so this one ends: the steps of two would mix. To train beside it, start a run of another --name.`);
  }

  /** When the process that described the run last began, which tells it from others; undefined where that cannot be read. The rest of env.json may be edited. */
  #beganThere(): unknown {
    try {
      return (JSON.parse(readFileSync(this.file('env.json'), 'utf8')) as { date?: unknown }).date;
    } catch {
      return undefined;
    }
  }

  /** config.json, parsed. */
  config(): Record<string, unknown> {
    return JSON.parse(readFileSync(this.file('config.json'), 'utf8')) as Record<string, unknown>;
  }

  /** samples/step-0001000.png. */
  samplePath(step: number): string {
    return this.file('samples', `${stepName(step)}.png`);
  }

  /** Adds a line to metrics.jsonl (E-FILE where it cannot be written). JSON has no NaN: a number that is not finite becomes null, and the line gets "nonfinite": true unless it says what was not. */
  appendMetrics(metrics: Readonly<Record<string, number | string | readonly (number | null)[]>>): void {
    const nonfinite = Object.values(metrics).some((v) => typeof v === 'number' && !Number.isFinite(v));
    const path = this.file('metrics.jsonl');
    this.requireOwn();
    try {
      appendFileSync(path, JSON.stringify(nonfinite ? { ...metrics, nonfinite: metrics['nonfinite'] ?? true } : metrics) + '\n');
    } catch (error) {
      throw notWritten(path, error);
    }
  }

  /** Before going on from `step`: drops the lines of later steps, which will be written again, and a last line that a crash cut short. */
  async truncateMetrics(step: number): Promise<void> {
    const path = this.file('metrics.jsonl');
    if (!existsSync(path)) return;
    const kept = readFileSync(path, 'utf8').split('\n').filter((line) => (stepOf(line) ?? Infinity) <= step);
    await writeAtomic(path, kept.map((line) => line + '\n').join(''));
  }

  /** The complete checkpoints, oldest step first. */
  checkpoints(): Checkpoint[] {
    const folder = this.file('checkpoints');
    if (!existsSync(folder)) return [];
    return readdirSync(folder)
      .map((name) => ({ match: CHECKPOINT.exec(name), path: join(folder, name) }))
      .flatMap(({ match, path }) => (match ? [{ step: Number(match[1]), path }] : []))
      .sort((a, b) => a.step - b.step);
  }

  /** The checkpoint that the file `latest` names; the highest step where the file is missing or names one that is gone. */
  latest(): Checkpoint | null {
    const all = this.checkpoints();
    const named = statSync(this.file('latest'), { throwIfNoEntry: false })?.isFile() ? readFileSync(this.file('latest'), 'utf8').trim() : '';
    return all.find((c) => basename(c.path) === basename(named)) ?? all.at(-1) ?? null;
  }

  /**
   * Saves checkpoints/step-0001000/: `write` fills a folder of another name, which is renamed once it is complete; then `latest` changes, and
   * only then go the oldest checkpoints but `keep` (0 keeps all). A crash at any point leaves a run that can go on. `bytes` is about what a checkpoint takes, for
   * the message where the disk is full.
   *
   * @throws DdpmError E-FILE where it cannot be written, with nothing left of it and `latest` as it was
   */
  async saveCheckpoint(step: number, write: (folder: string) => Promise<void> | void, { keep = 0, bytes }: { readonly keep?: number; readonly bytes?: number } = {}): Promise<Checkpoint> {
    const folder = this.file('checkpoints');
    const path = join(folder, stepName(step));
    const partial = `${path}.part`, replaced = `${path}.old`;
    this.requireOwn();
    try {
      this.#restore();
      for (const name of existsSync(folder) ? readdirSync(folder) : []) if (/\.(old|part)$/.test(name)) rmSync(join(folder, name), { recursive: true });
      makeFolder(partial);
      await write(partial);
      if (existsSync(path)) renameSync(path, replaced); // saved before, when the run went on from an earlier step
      renameSync(partial, path);
    } catch (error) {
      try {
        rmSync(partial, { recursive: true, force: true });
        this.#restore();
      } catch {} // where nothing can be written nothing can be deleted, and the first error says why
      this.requireOwn();
      const cause = error instanceof DdpmError ? error.cause : error;
      throw cause instanceof Error && 'syscall' in cause ? notWritten(path, cause, bytes) : error;
    }
    await writeAtomic(this.file('latest'), `checkpoints/${stepName(step)}\n`);
    rmSync(replaced, { recursive: true, force: true });
    if (keep > 0) {
      // Checkpoints of later steps are from a future that this run has left; they are the first to go.
      const others = this.checkpoints().filter((c) => c.step !== step);
      const oldest = [...others.filter((c) => c.step > step), ...others.filter((c) => c.step < step)];
      try {
        for (const c of oldest.slice(0, Math.max(0, others.length + 1 - keep))) rmSync(c.path, { recursive: true });
      } catch (cause) {
        throw new DdpmError('E-FILE', `cannot delete the oldest checkpoints: ${(cause as Error).message}. With --keep 0 all are kept.`, { cause });
      }
    }
    return { step, path };
  }

  /** After a crash in saveCheckpoint: a replaced checkpoint without its replacement comes back. Half a one may be of a process that is writing it. */
  #restore(): void {
    const folder = this.file('checkpoints');
    for (const name of existsSync(folder) ? readdirSync(folder) : []) {
      const path = join(folder, name);
      if (name.endsWith('.old') && !existsSync(path.slice(0, -4))) renameSync(path, path.slice(0, -4));
    }
  }
}

/** Whether a folder is a run: it has a config.json that this program wrote for one. A model's folder has a config.json too. */
export const isRun = (path: string): boolean => marked(path) === true;

/** Whether a folder is a run, or has its checkpoints and no config.json that can be read: RunFolder.open says so then. */
export const wasRun = (path: string): boolean => marked(path) ?? namesIn(join(path, 'checkpoints')).some((name) => CHECKPOINT.test(name));

/** Whether the config.json of a folder is that of a run; null where there is none that can be read. */
function marked(path: string): boolean | null {
  try {
    return Object.hasOwn(JSON.parse(readFileSync(join(path, 'config.json'), 'utf8')) as object, MARK);
  } catch {
    return null;
  }
}

/** A name for a run that is free in `out`: 2026-11-22-1815-fashion-mnist, with -2, -3 … in the same minute. */
export function freeRunName(out: string, data: string, now: Date = new Date()): string {
  const two = (n: number): string => String(n).padStart(2, '0');
  const day = `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;
  const name = `${day}-${two(now.getHours())}${two(now.getMinutes())}-${basename(resolve(data)).replace(/[^\w.-]+/g, '-')}`;
  for (let i = 2, free = name; ; free = `${name}-${i++}`) if (!existsSync(join(out, free))) return free;
}

/** What env.json holds: enough to know later how a run was made. `adapter` is what the engine says about its device. */
export function describeEnvironment(adapter: object, argv: readonly string[] = process.argv.slice(2)): Record<string, unknown> {
  const root = join(import.meta.dirname, '..', '..');
  return {
    date: new Date().toISOString(),
    argv,
    commit: gitCommit(root),
    node: process.version,
    webgpu: webgpuVersion(root),
    platform: `${platform()} ${release()} ${process.arch}`,
    cpu: `${cpus().length} x ${cpus()[0]?.model ?? 'unknown'}`,
    adapter,
  };
}

function gitCommit(root: string): string | null {
  if (!existsSync(join(root, '.git'))) return null; // installed as a package: git would name the commit of another project
  try {
    return execFileSync('git', ['rev-parse', 'HEAD'], { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return null;
  }
}

function webgpuVersion(root: string): string | null {
  // In a clone, or beside this package where it is installed.
  const file = [join(root, 'node_modules'), dirname(root)].map((folder) => join(folder, 'webgpu', 'package.json')).find((path) => existsSync(path));
  return file ? (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version : null;
}

/** What lies in a folder, nothing where there is none. */
const namesIn = (folder: string): string[] => (existsSync(folder) ? readFolderOr(folder, () => readdirSync(folder)) : []);

function listRuns(out: string): string {
  const runs = namesIn(out).filter((name) => isRun(join(out, name)));
  return runs.length ? ` The runs in ${out}/ are ${runs.slice(-5).join(', ')}.` : ` There are no runs in ${out}/ either.`;
}

function stepOf(line: string): number | null {
  try {
    return (JSON.parse(line) as { step: number }).step;
  } catch {
    return null;
  }
}

const stepName = (step: number): string => `step-${String(step).padStart(7, '0')}`;
const toJson = (value: object): string => JSON.stringify(value, null, 2) + '\n';
