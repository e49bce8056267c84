// What every way of sampling starts from, and the drawing itself with its bar.

import type { SamplerOptions, SampleStep } from '../diffusion/sampler.ts';
import { sizeOf } from '../tensor.ts';
import { say } from './command.ts';
import { Network } from './network.ts';
import { Bar } from './progress.ts';
import { describeSampler, type ImageShape, type PlacedModel } from './sampling.ts';
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

/** Files that were written: what they are, and where. */
export type Written = [what: string, path: string][];

/** Runs fn with the network for a batch and a bar over `evaluations` of it; says what runs, and how long it took. */
export async function withNetwork<T>({ placed, settings, image, options }: Ready, batch: number, evaluations: number, what: string, fn: (network: Network, onStep: (step: SampleStep) => void) => Promise<T>): Promise<T> {
  const network = new Network(placed, image(), batch, settings);
  say('sampler', [describeSampler(options, options.steps), what, `seed ${settings.seed}`, network.description].filter(Boolean).join(', '));
  const bar = new Bar(evaluations);
  let steps = 0;
  try {
    return await fn(network, () => bar.draw(++steps));
  } finally {
    say('time', bar.clear());
    network.free();
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
