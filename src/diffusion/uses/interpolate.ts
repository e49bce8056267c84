// Between two images: through x_t with one noise for both (Ho et al. 2020, section 4.3), or through the latents that DDIM finds for them (Song et al. 2020).
import { DdpmError } from '../../errors.ts';
import { sizeOf } from '../../tensor.ts';
import type { DiffusionModel, GaussianDiffusion } from '../gaussian.ts';
import { type Draw, Sampler, type SamplerOptions } from '../sampler.ts';
import { visitedTimesteps } from '../samplers/table.ts';
import { type Batch, type BatchOptions, batchShape, checkImages, diffuse, drawNoise, fromStrength, inBatches, type Shape, type UseOptions } from './encode.ts';
import { bothWays, type InvertOptions } from './invert.ts';

/** How far up the chain two images are mixed, and with which sampler they come down. */
export interface InterpolateOptions extends SamplerOptions, UseOptions, BatchOptions {
  /** How far up the chain they are mixed, as a share of the timesteps: the higher, the more freely what lies between is made up (0.5). */
  readonly strength?: number;
  readonly onStep?: Draw['onStep'];
}

/**
 * `shape[0]` images from a to b, both included, each (H, W, C) in [-1, 1]. Both are diffused to one timestep with one noise, mixed there in equal steps, and sampled down
 * from there. The ends are a and b as the model redraws them from there.
 *
 * @throws DdpmError E-USAGE for fewer than two images, or a strength that leaves no step; E-SHAPE for images that do not fill the shape
 */
export async function interpolate(model: DiffusionModel, diffusion: GaussianDiffusion, [a, b]: readonly [Float32Array, Float32Array], shape: Shape, options: InterpolateOptions): Promise<Float32Array<ArrayBuffer>> {
  const { seed, firstId = 0, strength = 0.5, onStep, onCompile, batchSize: _, onBatch: __, steps: ___, ...sampling } = options, batch = batchShape(shape, options);
  const shares = sharesOf([a, b], shape), one = [1, ...shape.slice(1)] as unknown as Shape;
  const timesteps = fromStrength(visitedTimesteps(diffusion.schedule, options), strength), t = timesteps[0]!;
  const sampler = new Sampler(model, diffusion, batch, { ...sampling, timesteps }); // before anything is awaited: it reads the weights that are bound now
  try {
    await sampler.compile(onCompile);
    const z = await drawNoise(diffusion.engine, one, { seed, firstId }), from = diffuse(diffusion, a, t, z), to = diffuse(diffusion, b, t, z);
    const starts = rows(shares, (share) => from.map((v, i) => (1 - share) * v + share * to[i]!));
    return await inBatches(shape[0], batch, options, ({ first, rows: of }: Batch) => sampler.sample({ seed, firstId: firstId + first, noise: of(starts), ...(onStep && { onStep }) }));
  } finally {
    await sampler.destroy();
  }
}

/** The same through DDIM's latents, along the arc between them: nothing is drawn, and the ends come back as well as `invert` brings them. */
export async function interpolateLatents(model: DiffusionModel, diffusion: GaussianDiffusion, [a, b]: readonly [Float32Array, Float32Array], shape: Shape, options: InvertOptions): Promise<Float32Array<ArrayBuffer>> {
  const shares = sharesOf([a, b], shape), pair = [2, ...shape.slice(1)] as unknown as Shape;
  const both = new Float32Array(2 * a.length);
  both.set(a);
  both.set(b, a.length);
  // A model that is told nothing but x and t takes the two ends alone.
  const { batchSize, ...rest } = options, few = { ...rest, ...(batchSize && { batchSize: options.onBatch ? batchSize : Math.min(2, batchSize) }) };
  return bothWays(model, diffusion, [pair, few], [shape, options], async (up, down) => {
    const latents = await up(both);
    return down(rows(shares, (share) => slerp(latents.subarray(0, a.length), latents.subarray(a.length), share)));
  });
}

/**
 * Spherical interpolation (Shoemake, 1985). A straight mean of two independent normals would have half their variance, which the network never saw. Vectors that point
 * the same way, or opposite ways, are mixed linearly.
 */
export function slerp(a: Float32Array, b: Float32Array, share: number): Float32Array {
  let aa = 0, bb = 0, ab = 0;
  for (let i = 0; i < a.length; i++) {
    aa += a[i]! ** 2;
    bb += b[i]! ** 2;
    ab += a[i]! * b[i]!;
  }
  const angle = Math.acos(Math.min(1, Math.max(-1, ab / Math.sqrt(aa * bb)))), sine = Math.sin(angle);
  const [p, q] = sine > 1e-6 ? [Math.sin((1 - share) * angle) / sine, Math.sin(share * angle) / sine] : [1 - share, share];
  return a.map((v, i) => p * v + q * b[i]!);
}

function sharesOf([a, b]: readonly [Float32Array, Float32Array], shape: Shape): number[] {
  const [N, ...image] = shape;
  if (!(N >= 2)) throw new DdpmError('E-USAGE', `${N} images from one to the other: there must be at least 2, the ends.`);
  for (const each of [a, b]) checkImages(each, [1, ...image] as unknown as Shape, 'one end');
  return Array.from({ length: N }, (_, i) => i / (N - 1));
}

function rows(shares: readonly number[], row: (share: number) => Float32Array): Float32Array {
  const all = shares.map(row), out = new Float32Array(sizeOf([shares.length, all[0]!.length]));
  all.forEach((values, i) => out.set(values, i * values.length));
  return out;
}
