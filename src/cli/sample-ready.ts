// What every way of sampling starts from, and the drawing itself with its bar.

import type { SamplerOptions, SampleStep } from '../diffusion/sampler.ts';
import type { BatchOptions } from '../diffusion/uses/encode.ts';
import { DdpmError } from '../errors.ts';
import { sizeOf } from '../tensor.ts';
import { say } from './command.ts';
import { Network } from './network.ts';
import { Bar, compiling } from './progress.ts';
import { BATCH, describeSampler, type ImageShape, type PlacedModel } from './sampling.ts';
import type { SampleSettings } from './settings.ts';

/** A model on a device, and what was asked for. */
export interface Ready {
  readonly placed: PlacedModel;
  readonly settings: SampleSettings;
  /** The settings that the user gave. */
  readonly given: ReadonlySet<string>;
  /** Throws where the model's config does not say the size. */
  readonly image: () => ImageShape;
  readonly options: SamplerOptions & { readonly steps: number };
}

/** Images that such a picture shows in a row or a column, at most. */
const MOST = 1000;

/**
 * As many images as --n says, otherwise fewer than a grid has: pictures of a long chain, or of what was given, show few.
 *
 * @throws DdpmError E-USAGE for more than a picture can show
 */
export function count({ settings, given }: Ready, otherwise: number): number {
  if (!given.has('n')) return otherwise;
  if (settings.n > MOST) throw new DdpmError('E-USAGE', `--n is ${settings.n}, and this picture shows at most ${MOST}. Draw others with another --seed.`);
  return settings.n;
}

/** Files that were written: what they are, and where. */
export type Written = [what: string, path: string][];

/** The network for one batch, what a use is told about batches, and what to call after every step. */
export interface Batched {
  readonly network: Network;
  readonly batches: BatchOptions & { readonly onStep: (step: SampleStep) => void };
}

/**
 * Runs fn for N images with the network for a batch, as many at a time as were asked for or as the device's limits allow. `evaluations` is how often fn
 * asks about each image; the bar counts images. Says what runs, and how long it took.
 *
 * @param fn must not have kept anything where it throws E-LIMIT: it is called again with half as many
 */
export async function withNetwork<T>({ placed, settings, image, options }: Ready, N: number, evaluations: number, what: string, fn: (batched: Batched) => Promise<T>): Promise<T> {
  const asked = settings.batchSize;
  let said = false;
  for (let batchSize = Math.min(asked ?? BATCH, N); ; batchSize = Math.ceil(batchSize / 2)) {
    const network = new Network(placed.diffusion.engine, placed.unet, [batchSize, ...image()], settings), bar = new Bar(Math.ceil(N / batchSize) * evaluations);
    if (!said) say('sampler', [describeSampler(options, options.steps), what, `seed ${settings.seed}`, network.description].filter(Boolean).join(', '));
    said = true;
    let steps = 0;
    const onStep = (): void => {
      if (steps === 0 && batchSize < N) say('batches', `of ${batchSize}`);
      bar.draw(++steps);
    };
    const begin = (first: number): void => network.begin(first);
    try {
      const result = await fn({ network, batches: { batchSize, onCompile: compiling(), ...(network.description && { onBatch: begin }), onStep } });
      say('time', bar.clear());
      return result;
    } catch (error) {
      if (asked !== null || batchSize === 1 || !(error instanceof DdpmError && error.code === 'E-LIMIT')) throw error;
    } finally {
      bar.clear();
      network.free();
    }
  }
}

/** Sets of images, (n, H, W, C) each, one after another. */
export function joined(sets: readonly ArrayLike<number>[]): Float32Array<ArrayBuffer> {
  const out = new Float32Array(sets.reduce((sum, set) => sum + set.length, 0));
  let at = 0;
  for (const set of sets) {
    out.set(set, at);
    at += set.length;
  }
  return out;
}

/** Image n of a set. */
export const imageOf = (set: Float32Array, n: number, image: ImageShape): Float32Array => set.subarray(n * sizeOf(image), (n + 1) * sizeOf(image));

/** Each image so many times. */
export const repeated = (set: Float32Array, times: number, image: ImageShape): Float32Array =>
  joined(Array.from({ length: (set.length / sizeOf(image)) * times }, (_, i) => imageOf(set, Math.floor(i / times), image)));
