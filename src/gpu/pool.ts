// Buffers by size class: what is given back is handed out again. WebGPU executes in order, so reuse needs no fence.
import { USAGE } from './constants.ts';
import { DdpmError } from '../errors.ts';

/** Size classes are quarters of powers of two: at most a quarter is wasted, and nearly equal sizes share. */
export function sizeClass(bytes: number): number {
  const least = Math.max(256, bytes);
  const step = 2 ** Math.max(8, Math.floor(Math.log2(least)) - 2);
  return Math.ceil(least / step) * step;
}

export class Pool {
  readonly #device: GPUDevice;
  readonly #guard: <T>(fn: () => T) => T;
  readonly #free = new Map<number, GPUBuffer[]>();
  readonly #owned = new Set<GPUBuffer>();
  readonly #live = new Set<GPUBuffer>();
  /** Bytes handed out now, at most at any time, at most at once, and held in all. */
  liveBytes = 0;
  peakBytes = 0;
  largestBytes = 0;
  totalBytes = 0;

  /** `guard` runs what the device may refuse. */
  constructor(device: GPUDevice, guard: <T>(fn: () => T) => T = (fn) => fn()) {
    this.#device = device;
    this.#guard = guard;
  }

  take(bytes: number): GPUBuffer {
    const size = sizeClass(bytes);
    let buffer = this.#free.get(size)?.pop();
    if (!buffer) {
      if (size > this.#device.limits.maxBufferSize)
        throw new DdpmError('E-LIMIT', `a tensor needs a buffer of ${size} bytes; this device allows ${this.#device.limits.maxBufferSize}. Use a smaller batch size, or request a larger maxBufferSize.`);
      buffer = this.#guard(() => this.#device.createBuffer({ size, usage: USAGE.STORAGE | USAGE.COPY_SRC | USAGE.COPY_DST }));
      this.#owned.add(buffer);
      this.totalBytes += size;
    }
    this.#live.add(buffer);
    this.largestBytes = Math.max(this.largestBytes, bytes);
    this.liveBytes += size;
    this.peakBytes = Math.max(this.peakBytes, this.liveBytes);
    return buffer;
  }

  owns(buffer: GPUBuffer): boolean {
    return this.#owned.has(buffer);
  }

  isLive(buffer: GPUBuffer): boolean {
    return this.#live.has(buffer);
  }

  give(buffer: GPUBuffer): void {
    if (!this.#live.delete(buffer)) throw new DdpmError('E-ENGINE', this.#owned.has(buffer) ? 'a buffer was freed twice' : 'a buffer was given to a pool that does not own it');
    this.liveBytes -= buffer.size;
    const list = this.#free.get(buffer.size);
    if (list) list.push(buffer);
    else this.#free.set(buffer.size, [buffer]);
  }

  /** Destroys everything; the caller has waited for the last submit that uses it. */
  destroy(): void {
    for (const buffer of this.#owned) buffer.destroy();
    this.#owned.clear();
    this.#free.clear();
    this.#live.clear();
    this.liveBytes = this.totalBytes = 0;
  }
}
