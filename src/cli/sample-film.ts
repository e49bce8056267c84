// What a sampler passed on its way, kept for an animation.

import type { Picture } from '../io/picture.ts';
import { sizeOf } from '../tensor.ts';
import { type BatchStep, sampleGrid } from './command.ts';
import type { ImageShape } from './sampling.ts';

const FRAMES = 40;

/** Collects x_t of the first samples at some of the steps. */
export class Film {
  readonly #shown: number;
  readonly #image: ImageShape;
  readonly #at: readonly number[];
  readonly #frames: readonly Float32Array[];

  constructor(shown: number, steps: number, image: ImageShape) {
    this.#shown = shown;
    this.#image = image;
    const count = Math.min(FRAMES, steps);
    // Evenly spread, ending with the last step.
    this.#at = Array.from({ length: count }, (_, i) => steps - Math.floor(((count - 1 - i) * steps) / count));
    this.#frames = this.#at.map(() => new Float32Array(shown * sizeOf(image)));
  }

  async take({ first, rows, done, x }: BatchStep): Promise<void> {
    const frame = this.#at.indexOf(done), count = Math.min(rows, this.#shown - first);
    if (frame < 0 || count <= 0) return;
    const size = sizeOf(this.#image);
    this.#frames[frame]!.set((await x.read()).subarray(0, count * size), first * size);
  }

  frames(): Picture[] {
    return this.#frames.map((frame) => sampleGrid(frame, this.#image));
  }
}
