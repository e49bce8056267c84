// npm run info: what is in a safetensors file, a model's folder or a run: config, tensors, checkpoints, and the memory that a batch takes.
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Tape } from '../autograd.ts';
import { DdpmError } from '../errors.ts';
import { Engine } from '../gpu/engine.ts';
import { paperDevice } from '../gpu/paper.ts';
import { loadModelFolder } from '../io/checkpoint.ts';
import { readFileOr } from '../io/files.ts';
import { readSafetensors } from '../io/safetensors.ts';
import { parametersOf } from '../nn/parameter.ts';
import { Parameters } from '../nn/parameters.ts';
import { UNet } from '../nn/unet.ts';
import { mse } from '../ops/loss.ts';
import { assumePrecision, PRECISIONS } from '../ops/precision.ts';
import { sizeOf, Tensor } from '../tensor.ts';
import { mebibytes, runCommand } from './command.ts';
import { type Command, helpText, parseFlags } from './flags.ts';
import { RunFolder, wasRun } from './run-folder.ts';
import { namedRun } from './sampling.ts';
import { INFO } from './settings.ts';

const COMMAND: Command = { name: 'info', help: 'Shows what is in a safetensors file, the folder of a model, or a run.', positional: '<file | run | latest | checkpoint | folder with config.json>' };

interface Row {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly count: number;
}

/** Bytes of device memory for a batch: what training keeps with and without --checkpoint-blocks, and what sampling takes. */
interface Memory {
  readonly batchSize: number;
  readonly weights: number;
  /** Weights, gradients, AdamW's moments, averaged weights. */
  readonly trainingState: number;
  readonly activations: number;
  readonly activationsCheckpointed: number;
  readonly sampling: number;
  /** Where activations are stored as float16 (--precision f16 on a GPU whose kernels for it are right). */
  readonly float16: { readonly activations: number; readonly activationsCheckpointed: number; readonly sampling: number };
  /** The images that a run trains on, which lie on the device; null where none are named. */
  readonly data: number | null;
  readonly leftOut: readonly string[];
}

/** What the estimate leaves out. */
const LEFT_OUT = ['noise, losses and logs of a step', 'the sampler of the grids that training draws', 'what is read back', 'programs, and whatever the driver keeps'];

interface Info {
  readonly path: string;
  readonly kind: 'file' | 'model' | 'run';
  readonly settings?: Record<string, unknown>;
  readonly checkpoints?: readonly { readonly step: number; readonly path: string; readonly bytes: number }[];
  readonly config?: unknown;
  readonly metadata?: Record<string, string>;
  readonly tensors: readonly Row[];
  readonly modules: Readonly<Record<string, number>>;
  readonly count: number;
  readonly memory?: Memory;
}

async function info(): Promise<number> {
  const { settings, positional } = parseFlags(INFO, COMMAND, process.argv.slice(2), { env: process.env });
  if (settings.help) {
    process.stdout.write(`${helpText(INFO, COMMAND)}\n`);
    return 0;
  }
  const latest = positional === 'latest' ? namedRun(positional)!.run.path : null;
  const path = latest ?? [positional!, join('runs', positional!)].find((each) => existsSync(each)) ?? positional!;
  const found = existsSync(path) && statSync(path).isFile() ? await ofFile(path) : await ofFolder(path, settings.batchSize);
  process.stdout.write(settings.json ? `${JSON.stringify(found, null, 2)}\n` : asText(found));
  return 0;
}

/** Sums by module: the first part of a name, and its number where blocks are numbered. */
function modulesOf(tensors: readonly Row[]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const { name, count } of tensors) {
    const module = /^(?:[^.]+(?:\.\d+)?(?=\.)|.+)/.exec(name)![0];
    sums[module] = (sums[module] ?? 0) + count;
  }
  return sums;
}

const withSums = (tensors: readonly Row[]): Pick<Info, 'tensors' | 'modules' | 'count'> => ({ tensors, modules: modulesOf(tensors), count: tensors.reduce((sum, { count }) => sum + count, 0) });

async function ofFile(path: string): Promise<Info> {
  const { tensors, metadata } = readSafetensors(await readFileOr(path), path);
  const rows = [...tensors].map(([name, { dtype, shape }]): Row => ({ name, dtype, shape, count: sizeOf(shape) }));
  return { path, kind: 'file', metadata, ...withSums(rows) };
}

async function ofFolder(path: string, batchSize: number): Promise<Info> {
  const run = wasRun(path) ? RunFolder.open(path) : null;
  const checkpoints = run?.checkpoints().map(({ step, path: at }) => ({ step, path: at, bytes: bytesIn(at) }));
  const about = { path, kind: run ? ('run' as const) : ('model' as const), ...(run && { settings: run.config(), checkpoints }) };
  const newest = run ? run.latest()?.path : path;
  if (newest === undefined) return { ...about, ...withSums([]) };
  const { config, tensors, file } = await loadModelFolder(newest);
  const unet = new UNet(config), wanted = new Map(parametersOf(unet).map((p) => [p.name, p.shape.join()]));
  for (const [name, shape] of wanted) if (tensors.get(name)?.shape.join() !== shape) throw new DdpmError('E-MODEL', `${file} does not fit its config.json: ${name} is (${tensors.get(name)?.shape.join(', ') ?? 'missing'}), and the model has (${shape}).`);
  const rows = [...tensors].map(([name, { dtype, shape }]): Row => ({ name, dtype, shape, count: sizeOf(shape) }));
  return { ...about, config: unet.config, ...withSums(rows), ...(unet.config.sample_size !== null && { memory: memoryOf(config, batchSize, run && dataBytes(run)) }) };
}

/** Of the files in a folder; without those that go meanwhile, as the oldest checkpoints of a run under way do. */
function bytesIn(folder: string): number {
  try {
    return readdirSync(folder).reduce((sum, name) => sum + (statSync(join(folder, name), { throwIfNoEntry: false })?.size ?? 0), 0);
  } catch {
    return 0;
  }
}

/** As the run counted them when it last started; null for one that did not say. */
function dataBytes(run: RunFolder): number | null {
  try {
    const { memory } = JSON.parse(readFileSync(run.file('env.json'), 'utf8')) as { memory?: { data?: number } };
    return memory?.data ?? null;
  } catch {
    return null;
  }
}

/** Counted by capturing the passes on an engine that allocates nothing and chooses the kernels of a GPU. Needs none. */
function memoryOf(config: ConstructorParameters<typeof UNet>[0], batchSize: number, data: number | null): Memory {
  const [[plain, again], [half, halfAgain]] = PRECISIONS.map((precision) => {
    const engine = new Engine(paperDevice(0, {}, ['shader-f16']));
    assumePrecision(engine, precision);
    return [false, true].map((checkpointBlocks) => passes(engine, new UNet(config, { checkpointBlocks }), batchSize));
  }) as [Passes[], Passes[]];
  return {
    batchSize, data, leftOut: [...(data === null ? ['the images to train on'] : []), ...LEFT_OUT], weights: plain!.weights, trainingState: 5 * plain!.weights, activations: plain!.training, activationsCheckpointed: again!.training, sampling: plain!.sampling,
    float16: { activations: half!.training, activationsCheckpointed: halfAgain!.training, sampling: half!.sampling },
  };
}

interface Passes {
  readonly weights: number;
  readonly training: number;
  readonly sampling: number;
}

function passes(engine: Engine, unet: UNet, N: number): Passes {
  const { sample_size: size, in_channels, out_channels, class_embed_type, block_out_channels } = unet.config;
  const [H, W] = typeof size === 'number' ? [size, size] : (size as readonly [number, number]);
  const parameters = Parameters.place(engine, unet, { initial: false });
  const empty = (...shape: number[]): Tensor => Tensor.empty(engine, shape);
  const forward = (): Tensor => unet.forward(empty(N, H, W, in_channels), empty(N), { labels: unet.conditional ? (class_embed_type === 'identity' ? empty(N, 4 * block_out_channels[0]!) : empty(N)) : null });
  const training = engine.capture(() => {
    const tape = new Tape(engine), loss = tape.record(() => mse(forward(), empty(N, H, W, out_channels)));
    tape.backward(loss);
    return loss;
  });
  return { weights: parameters.chunks.reduce((sum, { slices }) => sum + slices.values.bytes, 0), training: training.pool.totalBytes, sampling: engine.capture(forward).pool.totalBytes };
}

function asText({ path, kind, settings, checkpoints, config, metadata, tensors, modules, count, memory }: Info): string {
  const lines = [`${kind.padEnd(9)}${path}`], wide = Math.max(4, ...tensors.map(({ name }) => name.length));
  const fields = (title: string, values: object): void => void lines.push('', title, ...Object.entries(values).map(([name, value]) => `  ${name.padEnd(26)}${typeof value === 'string' ? value : JSON.stringify(value)}`));
  if (settings) fields('settings', settings);
  if (checkpoints) fields('checkpoints', checkpoints.length ? Object.fromEntries(checkpoints.map(({ step, path: at, bytes }) => [`step ${step}`, `${mebibytes(bytes)} MiB  ${at}`])) : { none: 'nothing was saved yet' });
  if (config) fields('config', config);
  if (metadata && Object.keys(metadata).length) fields('metadata', metadata);
  const number = (n: number): string => n.toLocaleString('en-US').padStart(14);
  lines.push('', 'tensors', ...tensors.map(({ name, dtype, shape, count: n }) => `  ${name.padEnd(wide)}  ${dtype.padEnd(4)} ${number(n)}  (${shape.join(', ')})`));
  lines.push('', 'modules', ...Object.entries(modules).map(([name, n]) => `  ${name.padEnd(wide)}       ${number(n)}`), `  ${'all'.padEnd(wide)}       ${number(count)}  in ${tensors.length} tensors`);
  if (memory) {
    const { batchSize, data, leftOut, weights, trainingState, activations, activationsCheckpointed, sampling, float16 } = memory, mib = (bytes: number): string => `${mebibytes(bytes)} MiB`, images = data === null ? '' : ` + images ${mib(data)}`;
    fields(`memory of a GPU at batch size ${batchSize}`, {
      training: `${mib(trainingState + activations + (data ?? 0))} = weights, gradients, Adam and EMA ${mib(trainingState)} + activations ${mib(activations)}${images}`,
      'with --checkpoint-blocks': `${mib(trainingState + activationsCheckpointed + (data ?? 0))} = ${mib(trainingState)} + ${mib(activationsCheckpointed)}${images}`,
      sampling: `${mib(weights + sampling)} = weights ${mib(weights)} + activations ${mib(sampling)}`,
      'with --precision f16': `activations ${mib(float16.activations)}, with both ${mib(float16.activationsCheckpointed)}, sampling ${mib(float16.sampling)}`,
      'not counted': leftOut.join('; '),
    });
  }
  return `${lines.join('\n')}\n`;
}

await runCommand(info);
