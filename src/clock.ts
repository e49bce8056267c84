// The 64 bytes that the host writes before a step; everything else that a step depends on lies on the device (kernels/shared/clock.wgsl).
import type { Engine } from './gpu/engine.ts';
import type { Slice } from './gpu/kernel.ts';

/** What a clock is set to. */
export interface Tick {
  /** The seed of every random stream. */
  readonly seed: number;
  /** Steps done before this one; the third word of Philox's counter. */
  readonly step?: number;
  /** Sample id of the batch's first row: a sample is the same whatever the batch it is drawn in. */
  readonly first?: number;
  readonly lr?: number;
  readonly emaDecay?: number;
}

/**
 * 64 bytes on the device that say which step it is: the counters of every random stream, the learning rate and the decay of the average. `set` it before
 * each replay of a plan, which reads it; nothing else changes between steps.
 */
export class Clock {
  readonly engine: Engine;
  readonly slice: Slice;

  constructor(engine: Engine) {
    this.engine = engine;
    this.slice = engine.allocate(64);
  }

  set({ seed, step = 0, first = 0, lr = 0, emaDecay = 0 }: Tick): void {
    const bytes = new Uint32Array(16);
    bytes.set([seed >>> 0, step, first, 0]);
    new Float32Array(bytes.buffer).set([lr, emaDecay], 4);
    this.engine.write(this.slice, bytes);
  }
}
