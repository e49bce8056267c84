// Images on their way into the chain: how far up it, and with which noise.
import { Clock } from '../../clock.ts';
import { DdpmError } from '../../errors.ts';
import type { Engine } from '../../gpu/engine.ts';
import { randomNormal } from '../../ops/random.ts';
import { STREAM } from '../../philox.ts';
import { sizeOf } from '../../tensor.ts';
import type { GaussianDiffusion } from '../gaussian.ts';

/** (N, H, W, C) */
export type Shape = readonly [number, number, number, number];

/** What every use of a trained model is told besides the sampler's options. */
export interface UseOptions {
  readonly seed: number;
  readonly firstId?: number;
}

/** How images are split into batches where they do not all fit into memory. */
export interface BatchOptions {
  /** Images at a time, all by default. The last batch is filled up with others, and no result depends on it. */
  readonly batchSize?: number;
  /** Called before each batch with the index of its first image, for models that need more than x and t. */
  readonly onBatch?: (first: number) => void;
  /** Told how many kernels are compiled, before the first batch. */
  readonly onCompile?: (done: number, total: number) => void;
}

/** One batch: the place of its first image, and the rows of values (n, ...) that belong to it, filled up with zeros. */
export interface Batch {
  readonly first: number;
  readonly rows: (values: Float32Array) => Float32Array;
}

/** The shape of one batch. @throws DdpmError E-USAGE for one without images */
export function batchShape([N, ...image]: Shape, { batchSize = N }: BatchOptions): Shape {
  if (!(Number.isInteger(batchSize) && batchSize >= 1)) throw new DdpmError('E-USAGE', `batches of ${batchSize} images: it must be a whole number, at least 1.`);
  return [batchSize, ...image];
}

/** (n, H, W, C) from what `draw` makes of one batch after another, (batch, H, W, C) each. One plan serves all: the surplus of the last is dropped. */
export async function inBatches(n: number, shape: Shape, { onBatch }: BatchOptions, draw: (batch: Batch) => Promise<Float32Array>): Promise<Float32Array<ArrayBuffer>> {
  const [batch, ...image] = shape, size = sizeOf(image), out = new Float32Array(n * size);
  for (let first = 0; first < n; first += batch) {
    const count = Math.min(batch, n - first);
    const rows = (values: Float32Array): Float32Array => {
      const row = values.length / n, part = values.subarray(first * row, (first + count) * row);
      if (count === batch) return part;
      const full = new Float32Array(batch * row);
      full.set(part);
      return full;
    };
    onBatch?.(first);
    out.set((await draw({ first, rows })).subarray(0, count * size), first * size);
  }
  return out;
}

/**
 * The last part of a list of timesteps: strength 1 is all of it, 0.6 the 60 % nearest to the image. An image starts at the first that is left, inclusive:
 * it gets the noise of that timestep, and that timestep is the first that the network is asked about.
 *
 * @throws DdpmError E-USAGE for a strength that is not in (0, 1], or too small for the number of timesteps
 */
export function fromStrength(timesteps: readonly number[], strength: number): readonly number[] {
  if (!(strength > 0 && strength <= 1)) throw new DdpmError('E-USAGE', `a strength of ${strength}: it must lie above 0 and be at most 1, where nothing of the image is left.`);
  // Products such as 10 * 0.3 fall short of whole numbers by their rounding.
  const kept = Math.floor(timesteps.length * strength + 1e-9);
  if (kept < 1) throw new DdpmError('E-USAGE', `a strength of ${strength} is less than one of ${timesteps.length} steps. Take more steps, or more strength.`);
  return timesteps.slice(timesteps.length - kept);
}

/** x_t = sqrt(acp) x_0 + sqrt(1 - acp) z for whole images on the host, (N, H, W, C). */
export function diffuse({ schedule }: GaussianDiffusion, images: Float32Array, t: number, z: Float32Array): Float32Array {
  const a = schedule.sqrtAlphasCumprod[t]!, b = schedule.sqrtOneMinusAlphasCumprod[t]!;
  return images.map((v, i) => a * v + b * z[i]!);
}

/** Standard normals for images firstId to firstId + N - 1: those that images are diffused with, or with STREAM.prior those that a sampler starts from. */
export async function drawNoise(engine: Engine, shape: Shape, { seed, firstId = 0 }: UseOptions, stream: number = STREAM.encode): Promise<Float32Array<ArrayBuffer>> {
  const clock = new Clock(engine);
  clock.set({ seed, first: firstId });
  const z = randomNormal(shape, clock, stream);
  try {
    return await z.read();
  } finally {
    z.free();
    engine.free(clock.slice);
  }
}

/** @throws DdpmError E-SHAPE unless the values fill the shape */
export function checkImages(images: Float32Array, shape: Shape, what = 'images'): void {
  if (images.length !== sizeOf(shape)) throw new DdpmError('E-SHAPE', `${images.length} values for ${what} of shape (${shape.join(', ')}).`);
}
