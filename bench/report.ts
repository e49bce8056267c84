// npm run bench -- report: everything that is measured of a device, beside PyTorch where python3 has it, as files for bench/results/.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PRESETS, type PresetName } from '../src/cli/presets.ts';
import type { StepResult } from './step.ts';

/** What is measured, and where the report goes. `half`: the device takes --precision f16. */
export interface Report {
  readonly device: string;
  readonly software: boolean;
  readonly half: boolean;
  readonly preset: PresetName;
  readonly batch: number;
  readonly seconds: number;
  readonly folder: string;
}

/** The line of JSON that bench/peers/pytorch.py prints. */
interface Peer {
  readonly torch: string;
  readonly ms_per_step: number;
  readonly sample_ms_per_step: Readonly<Record<string, number>>;
}

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const MINUTES = 10;

/** Runs a program to its end and shows what it prints. One that fails, or takes longer than MINUTES, gives what it printed until then, and why. */
async function output(program: string, args: readonly string[], env: NodeJS.ProcessEnv = process.env): Promise<{ text: string; failure: string | null }> {
  const child = spawn(program, args, { cwd: ROOT, env, stdio: ['ignore', 'pipe', 'pipe'], timeout: 60_000 * MINUTES });
  let text = '', errors = '';
  child.stdout.on('data', (data: Buffer) => {
    process.stdout.write(data);
    text += data.toString();
  });
  child.stderr.on('data', (data: Buffer) => (errors += data.toString()));
  const why = await new Promise<string | null>((done) => {
    child.on('error', (error) => done(error.message));
    child.on('close', (code, signal) => done(signal ? `${signal}, after ${MINUTES} minutes at most` : code ? `exit code ${code}` : null));
  });
  return { text: text.trimEnd(), failure: why && [why, ...errors.trim().split('\n').slice(-3)].join(' · ') };
}

/** The Python that imports PyTorch, and what it has; null where none does. A distribution's packages are not those of another python3 that comes first. */
async function pytorch(): Promise<[python: string, torch: string | null]> {
  for (const python of ['python3', '/usr/bin/python3']) {
    const { text, failure } = await output(python, ['-c', 'import torch; print("PyTorch", torch.__version__, "on a GPU" if torch.cuda.is_available() else "on the CPU")']);
    if (failure === null) return [python, text];
  }
  return ['python3', null];
}

/** FOLDER/DATE-DEVICE, with a number behind it where that is taken: reports are edited by hand afterwards. */
function freePath(folder: string, device: string): string {
  const slug = device.toLowerCase().replace(/:.*/, '').replace(/[^a-z0-9]+/g, '-').replace(/^-|-$/g, ''), path = join(folder, `${new Date().toISOString().slice(0, 10)}-${slug}`);
  let free = path;
  for (let n = 2; existsSync(`${free}.md`); n++) free = `${path}-${n}`;
  return free;
}

/** Measures part by part. The file is written anew after each, so that an interrupted report keeps what it has; a part that fails says so in its place. Gives the file's path. */
export async function report({ device, software, half, preset, batch, seconds, folder }: Report): Promise<string> {
  mkdirSync(folder, { recursive: true });
  const path = freePath(folder, device), scratch = mkdtempSync(join(tmpdir(), 'ddpm-report-'));
  const rows: string[] = [], parts: string[] = [];

  async function part(title: string, program: string, args: readonly string[], { env, keep = () => true }: { env?: NodeJS.ProcessEnv; keep?: (line: string) => boolean } = {}): Promise<string | null> {
    console.log(`\n${title}`);
    const { text, failure } = await output(program, args, env);
    parts.push('', `## ${title}`, '', `\`${[program === process.execPath ? 'node' : program, ...args].join(' ').replace(path, path.slice(folder.length + 1))}\``, '', '```', ...text.split('\n').filter(keep), ...(failure ? [`failed: ${failure}`] : []), '```');
    const table = ['| step | batch | ms | images/s | beside PyTorch | its ms | ratio of speed |', '|---|---|---|---|---|---|---|', ...rows];
    writeFileSync(`${path}.md`, `${[`# ${device}, preset ${preset}`, '', `Written by \`npm run bench -- report\` on ${new Date().toISOString().slice(0, 10)}: Node ${process.version}, ${availableParallelism()} processors. Each part names its command; a time is a median.`, ...(rows.length ? ['', ...table] : []), ...parts].join('\n')}\n`);
    return failure ? null : text;
  }
  const own = (title: string, program: string, args: readonly string[], more = {}) => part(title, process.execPath, ['--import', 'tsx', program, ...args], more);
  const shape = ['--preset', preset, '--batch-size', String(batch)];

  try {
    await own('The device', 'src/cli/doctor.ts', half ? ['--precision', 'f16'] : [], { keep: (line: string) => !/^(ok|left) /.test(line) });

    const measured: { how: string; step: StepResult }[] = [];
    const steps = [['f32', ['--profile']], ...(half ? [['f16', ['--precision', 'f16', '--profile']]] : []), ['f32-checkpoint-blocks', ['--checkpoint-blocks']]] as [string, string[]][];
    for (const [how, flags] of steps) {
      const json = `${path}-step-${how}.json`;
      if ((await own(`Whole steps, ${how}`, 'bench/run.ts', ['step', ...shape, '--seconds', String(seconds), ...flags, '--json', json])) === null) continue;
      for (const step of (JSON.parse(readFileSync(json, 'utf8')) as { benchmarks: StepResult[] }).benchmarks) {
        measured.push({ how, step });
        rows.push(`| ${step.name}, ${how} | ${step.batch} | ${step.ms.toFixed(2)} | ${step.imagesPerSecond.toFixed(1)} | | | |`);
      }
    }

    const [python, torch] = await pytorch();
    // A CPU that plays a GPU is held against PyTorch on that CPU, a GPU against PyTorch on a GPU.
    const modes: [string, string[]][] = torch === null || torch.endsWith('GPU') === software ? [] : software
      ? [['eager, float32', ['--mode', 'fp32', '--threads', String(availableParallelism())]]]
      : [['eager, float32 without TF32', ['--mode', 'fp32']], ['eager, its defaults (TF32)', ['--mode', 'tf32']], ['autocast, channels last, torch.compile', ['--mode', 'amp', '--compile']]];
    if (!modes.length) parts.push('', `PyTorch was not measured: ${torch === null ? '`python3` cannot import `torch`' : `python3 has it for another device than this (${torch})`}.`);
    for (const [title, flags] of modes) {
      const text = await part(`PyTorch, ${title}`, python, ['bench/peers/pytorch.py', ...shape, '--sample-batch-sizes', '1', '64', '--dropout', String(PRESETS[preset].dropout), ...flags]);
      if (text === null) continue;
      const peer = JSON.parse(text.split('\n').at(-1)!) as Peer;
      for (const { how, step } of measured) {
        const ms = step.name.startsWith('train') ? peer.ms_per_step : peer.sample_ms_per_step[step.batch]!;
        rows.push(`| ${step.name}, ${how} | ${step.batch} | ${step.ms.toFixed(2)} | ${step.imagesPerSecond.toFixed(1)} | ${peer.torch}, ${title} | ${ms.toFixed(2)} | ${(ms / step.ms).toFixed(2)} |`);
      }
    }

    await own('Kernels at the shapes of the step', 'bench/run.ts', [...shape, '--json', `${path}-kernels.json`]);
    await own('A fresh process to its first finished step', 'bench/run.ts', ['startup', ...shape]);
    // With a cache of its own: a report leaves what this user's runs are computed with as it is.
    await own('What npm run tune gains', 'src/cli/tune.ts', [...shape, '--rounds', '5'], { env: { ...process.env, XDG_CACHE_HOME: scratch }, keep: (line: string) => !line.startsWith('written ') });
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  return `${path}.md`;
}
