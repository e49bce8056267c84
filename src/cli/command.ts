// What the commands share: how they end, how they name devices and sizes, and how they draw samples.

import type { SampleStep, Sampler } from '../diffusion/sampler.ts';
import { DdpmError } from '../errors.ts';
import { notWritten, reason } from '../io/files.ts';
import { imageGrid, type Picture, toBytes } from '../io/picture.ts';
import type { OpenedEngine } from '../node.ts';

/** Plain JavaScript, which the package does not have: nothing for TypeScript to follow. */
const SETUP: string = './setup.mjs';

/**
 * In a clone the module of kernels is generated, by the set-up that npm runs before a command. Without npm it may be of before the last pull, and its kernels may not
 * be what the rest of the program takes them for.
 *
 * @throws DdpmError E-USAGE where it is older than the kernels
 */
export async function requireKernels(): Promise<void> {
  if (!import.meta.url.endsWith('.ts')) return;
  const { kernelsAreStale } = (await import(SETUP)) as { kernelsAreStale: () => boolean };
  if (kernelsAreStale()) throw new DdpmError('E-USAGE', 'src/gpu/kernels.gen.ts is older than kernels/. Generate it anew: npm run kernels');
}

/** Runs a command to its exit code. What a user can do something about is one line with its code; anything else is a bug and shows where it is. */
export async function runCommand(command: () => Promise<number>): Promise<void> {
  let code = 1, unread: Error | null = null;
  // Whoever stops reading, as `| head` does, has what it wanted; what is under way is not lost by that. Any other error, such as a full disk, is one.
  process.stderr.on('error', () => {});
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') unread = error;
  });
  try {
    await requireKernels();
    code = await command();
  } catch (error) {
    if (error instanceof DdpmError) {
      process.stderr.write(`${error.code} ${error.message}\n`);
      code = error.exitCode;
    } else if (error instanceof Error && 'syscall' in error && 'path' in error) process.stderr.write(`E-FILE ${error.path}: ${reason(error)}\n`); // such as a folder that is another user's
    else process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  }
  // Native handles would keep the process alive; the empty write waits for what a pipe has not taken yet.
  process.stdout.write('', () => setImmediate(() => {
    if (unread) process.stderr.write(`E-FILE ${notWritten('the output', unread).message}\n`);
    process.exit(unread && code === 0 ? 1 : code);
  }));
}

/** `llvmpipe: Mesa 25.0.7 (LLVM 15.0.6) · subgroups(8)`. */
export function describeDevice({ engine, device, info }: OpenedEngine): string {
  const name = [info.vendor, info.architecture, info.device].filter(Boolean).join(' ');
  const features = (['subgroups', 'shader-f16', 'timestamp-query'] as const)
    .filter((f) => device.features.has(f))
    .map((f) => (f === 'subgroups' && engine.subgroupWidth ? `subgroups(${engine.subgroupWidth})` : f));
  return [info.description || name, ...(features.length ? [features.join(' ')] : [])].join(' · ');
}

/** A line of a command's header. */
export const say = (label: string, text: string): void => void process.stderr.write(`${label.padEnd(9)}${text}\n`);

export const mebibytes = (bytes: number): string => {
  const mib = bytes / 2 ** 20;
  return mib.toFixed(mib < 10 ? 1 : 0);
};

/** A path as it can be pasted into a shell. */
export const quoted = (path: string): string => (/^[\w./:@%+=-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`);

/** Bytes of samples that are held at once, at most. */
const MOST = 2 ** 33;

/** One step of one batch: rows `first` to `first + rows - 1` of all samples are the first `rows` of the step's tensors. */
export interface BatchStep extends SampleStep {
  readonly first: number;
  readonly rows: number;
}

export interface DrawOptions {
  /** How many samples: ids 0 to n - 1 of the seed. */
  readonly n: number;
  readonly seed: number;
  /** Starting noise (n, H, W, C) in place of drawn. */
  readonly noise?: Float32Array | undefined;
  /** Called before each batch, with the id of its first sample. */
  readonly onBatch?: ((first: number) => void) | undefined;
  readonly onStep?: ((step: BatchStep) => void | Promise<void>) | undefined;
}

/**
 * Draws n samples in batches of the sampler's size, (n, H, W, C), not clipped. The last batch is filled up and the surplus dropped: one plan serves all.
 *
 * @throws DdpmError E-LIMIT for more than fit into one array
 */
export async function drawSamples(sampler: Sampler, { n, seed, noise, onBatch, onStep }: DrawOptions): Promise<Float32Array<ArrayBuffer>> {
  const [batch, ...image] = sampler.shape;
  const size = image.reduce((a, b) => a * b, 1);
  if (4 * n * size > MOST) throw new DdpmError('E-LIMIT', `${n} images of ${size} values are more than 8 GiB. Draw at most ${Math.floor(MOST / 4 / size)} at once with --n, and others with another --seed.`);
  const samples = new Float32Array(n * size);
  for (let first = 0; first < n; first += batch) {
    const rows = Math.min(batch, n - first);
    onBatch?.(first);
    const start = noise && new Float32Array(batch * size);
    start?.set(noise!.subarray(first * size, (first + rows) * size));
    const watch = onStep && ((step: SampleStep) => onStep({ ...step, first, rows }));
    const x = await sampler.sample({ seed, firstId: first, ...(start && { noise: start }), ...(watch && { onStep: watch }) });
    samples.set(x.subarray(0, rows * size), first * size);
  }
  return samples;
}

/** How many times a small image is enlarged, or a grid of 64 would be a thumbnail. */
export const scaleOf = ([height, width]: readonly number[]): number => Math.max(1, Math.floor(64 / Math.max(height!, width!)));

/** Samples in [-1, 1], (n, H, W, C), as one picture, as square as n allows; where `classes` take turns, each in columns of its own. */
export function sampleGrid(samples: Float32Array, [height, width, channels]: readonly [number, number, number], { classes = 1, onNaN }: { classes?: number; onNaN?: (count: number) => void } = {}): Picture {
  const n = samples.length / (height * width * channels), side = Math.sqrt(n);
  const columns = classes === 1 || classes > 2 * side ? Math.ceil(side) : classes * Math.max(1, Math.round(side / classes));
  return imageGrid(toBytes(samples, onNaN), n, height, width, channels, columns, { scale: scaleOf([height, width]) });
}
