// The device's queue as an engine uses it: what the device may refuse is done in error scopes, the first failure stops all that follows, and waiting may sleep.
import { MAP_READ, USAGE } from './constants.ts';
import { DdpmError } from '../errors.ts';

/** Bytes in whole words, which is what WebGPU copies; nothing else lies behind a slice up to there. */
export const words = (bytes: number): number => Math.ceil(bytes / 4) * 4;

const NO_MEMORY = 'the device has no memory left. Use a smaller batch size; in training --micro-batch and --checkpoint-blocks take less.';

export class Queue {
  readonly #device: GPUDevice;
  readonly #idle: (() => Promise<void>) | null;
  #failure: Error | null = null;
  /** Whether the engine was destroyed. */
  closed = false;

  /** `idle` is awaited over and over while the device is waited for. */
  constructor(device: GPUDevice, idle: (() => Promise<void>) | null) {
    this.#device = device;
    this.#idle = idle;
    void device.lost.then((info) => {
      this.#failure ??= new DdpmError('E-DEVICE-LOST', `the GPU device was lost (${info.reason}): ${info.message}`);
    });
  }

  /**
   * Runs what the device may refuse in error scopes: what this engine does wrong does not reach the owner's `uncapturederror`, and the owner's errors do not stop the
   * engine. A submit that names one bad buffer is dropped whole, so that after any error everything is stale: `check` throws from then on.
   */
  guard<T>(fn: () => T): T {
    const device = this.#device;
    for (const filter of ['internal', 'out-of-memory', 'validation'] as const) device.pushErrorScope(filter);
    try {
      return fn();
    } finally {
      // A lost device has no scopes, and says so itself.
      const popped = [1, 2, 3].map(() => device.popErrorScope().catch(() => null));
      void Promise.all(popped).then(([validation, memory, internal]) => {
        // A buffer that there was no memory for is invalid wherever it is named: of both errors that is the reason.
        if (memory) this.#failure ??= new DdpmError('E-MEMORY', NO_MEMORY, { cause: memory });
        const error = validation ?? internal;
        if (error) this.#failure ??= new DdpmError('E-ENGINE', error.message);
      });
    }
  }

  /** Whether the device has reported an error. */
  get failed(): boolean {
    return this.#failure !== null;
  }

  /** From now on everything throws. */
  close(): void {
    this.closed = true;
  }

  /** Throws E-ENGINE once the engine was destroyed. */
  requireOpen(): void {
    if (this.closed) throw new DdpmError('E-ENGINE', 'the engine was destroyed. Its device can have another: new Engine(device).');
  }

  /** Throws the first error that the device reported, or that the engine was destroyed. */
  check(): void {
    this.requireOpen();
    if (this.#failure) throw this.#failure;
  }

  /** Submits an encoder, or what `record` puts into one. */
  submit(given: GPUCommandEncoder | ((encoder: GPUCommandEncoder) => void)): void {
    this.check();
    this.guard(() => {
      const encoder = typeof given === 'function' ? this.#device.createCommandEncoder() : given;
      if (typeof given === 'function') given(encoder);
      this.#device.queue.submit([encoder.finish()]);
    });
  }

  /** Whole words to a place in a buffer, in the order of the calls. */
  write(buffer: GPUBuffer, offset: number, data: Uint8Array<ArrayBuffer>): void {
    this.requireOpen();
    this.guard(() => this.#device.queue.writeBuffer(buffer, offset, data));
  }

  /** Bytes of a buffer, once everything submitted before is done; it is copied up to a whole word of four. */
  async read(buffer: GPUBuffer, offset: number, bytes: number): Promise<ArrayBuffer> {
    this.check();
    const size = words(bytes);
    const staging = this.#device.createBuffer({ size, usage: USAGE.COPY_DST | USAGE.MAP_READ });
    try {
      this.submit((encoder) => encoder.copyBufferToBuffer(buffer, offset, staging, 0, size));
      await this.settle(this.#map(staging));
      this.check();
      return staging.getMappedRange().slice(0, bytes);
    } catch (error) {
      this.check();
      await this.#hear();
      this.check();
      throw error;
    } finally {
      staging.destroy();
    }
  }

  /**
   * Awaits what the device will resolve. Implementations may look for finished work rarely (Firefox 153: every 100 ms), but do with each submit: while nothing else
   * was given to do, one of nothing is made now and then.
   */
  async settle<T>(promise: Promise<T>): Promise<T> {
    let done = false;
    const end = () => {
      done = true;
    };
    const ended = promise.then(end, end);
    for (let ms = 1; !done; ms = Math.min(2 * ms, NUDGE_MS)) {
      if (this.#idle) await this.#idle();
      else if (!(await endsWithin(ended, ms))) this.#device.queue.submit([]);
    }
    return promise;
  }

  /** Maps a buffer. What is wrong the rejection says; the scope keeps it from the device's owner. */
  #map(staging: GPUBuffer): Promise<undefined> {
    this.#device.pushErrorScope('validation');
    const mapped = staging.mapAsync(MAP_READ);
    this.#device.popErrorScope().catch(() => {}); // of a lost device
    return mapped;
  }

  /** After something failed: waits for what would have been its reason. That it is lost a device may say only once it has done what it was given before. */
  async #hear(): Promise<void> {
    await this.done();
    await endsWithin(this.#device.lost, HEAR_MS);
  }

  /** Resolves when the device has done what it was given, or is lost. */
  async done(): Promise<void> {
    await this.settle(Promise.race([this.#device.queue.onSubmittedWorkDone().catch(() => {}), this.#device.lost]));
  }
}

/** The longest time between two submits of nothing, in milliseconds. */
const NUDGE_MS = 8;

/** Milliseconds between the end of a device's work and the news of its loss. */
const HEAR_MS = 50;

async function endsWithin(promise: Promise<unknown>, ms: number): Promise<boolean> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<false>((done) => (timer = setTimeout(done, ms, false)));
  const ended = await Promise.race([promise.then(() => true), late]);
  clearTimeout(timer);
  return ended;
}
