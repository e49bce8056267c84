// The figures that explain a diffusion model: x_t and the predicted x_0 along the chain, its last steps, the forward process, and what the noise is for.

import { loadDataset } from '../data/dataset.ts';
import { type Draw, Sampler, type SampleStep } from '../diffusion/sampler.ts';
import { batchShape, diffuse, drawNoise, inBatches } from '../diffusion/uses/encode.ts';
import { DdpmError } from '../errors.ts';
import { captionedGrid, type Cell } from '../io/caption.ts';
import { type Picture, toBytes } from '../io/picture.ts';
import { STREAM } from '../philox.ts';
import { sizeOf } from '../tensor.ts';
import { scaleOf } from './command.ts';
import { readingOptions } from './data-settings.ts';
import type { Figure } from './figures.ts';
import { showCompiling } from './progress.ts';
import { dataSetOf } from './sample-inputs.ts';
import { type Batched, count, imageOf, joined, type Ready, withNetwork } from './sample-ready.ts';
import type { ImageShape } from './sampling.ts';

/** Columns of the figures that follow the chain. */
const COLUMNS = 12;
const LAST = 64;

/** One moment of the chain: x_t, and the x_0 that the network predicts from it. Both belong to t; x after the step belongs to a later one. */
export interface Moment {
  readonly t: number;
  readonly x: Float32Array;
  readonly start: Float32Array;
}

/**
 * Draws with a sampler and keeps what was there before chosen steps (counted from 0), and the x_0 predicted from that; and the end.
 * Pairing x after step i with the t of step i would be off by one.
 */
export async function moments(sampler: Sampler, steps: readonly number[], { noise, onStep, ...draw }: Draw & { readonly noise: Float32Array }): Promise<{ moments: Moment[]; end: Float32Array }> {
  const wanted = new Set(steps), before = new Map<number, Float32Array>([[0, noise]]), found: Moment[] = [];
  const end = await sampler.sample({
    ...draw, noise,
    onStep: async (step: SampleStep) => {
      const i = step.done - 1;
      if (wanted.has(i)) found.push({ t: step.t, x: before.get(i)!, start: await step.predXstart.read() });
      before.delete(i);
      if (wanted.has(i + 1)) before.set(i + 1, await step.x.read());
      await onStep?.(step);
    },
  });
  return { moments: found, end };
}

/** `count` of `total` steps, evenly spread, the first and the last among them. */
export const spread = (total: number, count: number): number[] => {
  const n = Math.min(total, count);
  return n === 1 ? [0] : Array.from({ length: n }, (_, i) => Math.round((i * (total - 1)) / (n - 1)));
};

/** @throws DdpmError E-USAGE for what the figure cannot be made with */
export async function drawFigure(ready: Ready, figure: Figure): Promise<Picture> {
  if (figure === 'forward') return forward(ready);
  if (figure === 'last-steps') return lastSteps(ready);
  if (figure === 'mean-only') return meanOnly(ready);
  return along(ready, figure === 'x0-trajectory');
}

const shapeOf = (n: number, [h, w, c]: ImageShape) => [n, h, w, c] as const;

const cell = (set: Float32Array, n: number, image: ImageShape, caption: string): Cell => ({ image: toBytes(imageOf(set, n, image)), caption });

/** Draws n images in batches; of the chosen steps it keeps the moments, each with all n images. */
async function drawn(ready: Ready, n: number, { network, batches }: Batched, steps: (total: number) => readonly number[], more: { meanOnly?: boolean } = {}): Promise<{ moments: Moment[]; end: Float32Array }> {
  const { placed: { diffusion }, options, settings: { seed } } = ready, image = ready.image(), shape = batchShape(shapeOf(n, image), batches);
  const sampler = new Sampler(network.model, diffusion, shape, { ...options, ...more }), noise = await drawNoise(diffusion.engine, shapeOf(n, image), { seed }, STREAM.prior);
  try {
    await showCompiling((progress) => sampler.compile(progress));
    const chosen = steps(sampler.rows.length), parts: Moment[][] = [];
    const end = await inBatches(n, shape, batches, async ({ first, rows }) => {
      const part = await moments(sampler, chosen, { seed, firstId: first, noise: rows(noise), onStep: batches.onStep });
      parts.push(part.moments);
      return part.end;
    });
    const all = chosen.map((_, i) => ({ t: parts[0]![i]!.t, x: joined(parts.map((part) => part[i]!.x)), start: joined(parts.map((part) => part[i]!.start)) }));
    return { moments: all, end };
  } finally {
    await sampler.destroy();
  }
}

/** A row for each image: x_t from noise to image; with `predicted` a second one below it, the x_0 that the network sees in each x_t. */
async function along(ready: Ready, predicted: boolean): Promise<Picture> {
  const { options } = ready, image = ready.image(), n = count(ready, predicted ? 4 : 6);
  return withNetwork(ready, n, options.steps, `${n} images`, async (batched) => {
    const chain = await drawn(ready, n, batched, (total) => spread(total, COLUMNS - 1));
    const cells: (Cell | null)[] = [];
    for (let i = 0; i < n; i++) {
      cells.push(...chain.moments.map(({ t, x }) => cell(x, i, image, `t=${t}`)), cell(chain.end, i, image, 'x0'));
      if (predicted) cells.push(...chain.moments.map(({ t, start }) => cell(start, i, image, `x0^${t}`)), null);
    }
    return captionedGrid(cells, image, chain.moments.length + 1, { scale: scaleOf(image) });
  });
}

/** The last 64 steps of one image: x_t in eight rows, and below them the x_0 predicted from each. */
async function lastSteps(ready: Ready): Promise<Picture> {
  const { options, settings } = ready, image = ready.image(), n = count(ready, 1);
  if (n !== 1) throw new DdpmError('E-USAGE', `--figure last-steps shows one image, and --n is ${settings.n}. Choose another one by its --seed.`);
  return withNetwork(ready, 1, options.steps, 'one image', async (batched) => {
    const chain = await drawn(ready, 1, batched, (total) => Array.from({ length: Math.min(LAST, total) }, (_, i) => total - Math.min(LAST, total) + i));
    const blank = Array<null>((8 - (chain.moments.length % 8)) % 8).fill(null);
    const cells = [...chain.moments.map(({ t, x }) => cell(x, 0, image, `t=${t}`)), ...blank, ...chain.moments.map(({ t, start }) => cell(start, 0, image, `x0^${t}`))];
    return captionedGrid(cells, image, 8, { scale: scaleOf(image) });
  });
}

/** Real images and what q(x_t | x_0) makes of them, with one noise for each. t = 0 has had one step of noise. */
async function forward(ready: Ready): Promise<Picture> {
  const { placed, settings } = ready, image = ready.image(), { diffusion } = placed, { T } = diffusion.schedule, n = count(ready, 6);
  const data = await loadDataset(dataSetOf(placed, settings.data), { limit: n, ...readingOptions(settings, placed.from?.run) });
  if (sizeOf([data.height, data.width, data.channels]) !== sizeOf(image) || data.height !== image[0])
    throw new DdpmError('E-SHAPE', `the images of ${data.name} are ${data.height}×${data.width}×${data.channels}, and the model makes ${image.join('×')}. Choose the data that it was trained on with --data.`);
  const images = Float32Array.from(data.pixels, (b) => b / 127.5 - 1), times = spread(T, COLUMNS - 1);
  const z = await drawNoise(diffusion.engine, shapeOf(data.count, image), { seed: settings.seed });
  const noised = times.map((t) => diffuse(diffusion, images, t, z)), cells: Cell[] = [];
  for (let i = 0; i < data.count; i++) cells.push(cell(images, i, image, 'x0'), ...noised.map((x, j) => cell(x, i, image, `t=${times[j]}`)));
  return captionedGrid(cells, image, times.length + 1, { scale: scaleOf(image) });
}

/** The same starts, sampled with noise in every step and without any. */
async function meanOnly(ready: Ready): Promise<Picture> {
  const { options } = ready, image = ready.image(), n = count(ready, 8);
  if (options.method !== 'ddpm' && options.method !== 'langevin' && !options.eta)
    throw new DdpmError('E-USAGE', `--figure mean-only leaves the noise out of the steps, and ${options.method} has none. Take --sampler ddpm, or --sampler ddim --eta 1.`);
  return withNetwork(ready, n, 2 * options.steps, `${n} images with noise and ${n} without`, async (batched) => {
    const cells: Cell[] = [];
    for (const without of [false, true]) {
      const { end } = await drawn(ready, n, batched, () => [], { meanOnly: without });
      for (let i = 0; i < n; i++) cells.push(cell(end, i, image, without ? 'MEAN' : 'NOISE'));
    }
    return captionedGrid(cells, image, n, { scale: scaleOf(image) });
  });
}
