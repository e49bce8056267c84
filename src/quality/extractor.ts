// What turns images into the features that distances are measured between.

import { DdpmError } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import type { Plan } from '../gpu/plan.ts';
import { Tensor } from '../tensor.ts';
import type { Features } from './frechet.ts';

/** Images of 8 bits a channel, (count, height, width, channels): both the real ones and, quantised, the generated ones. */
export interface Images {
  readonly count: number;
  readonly height: number;
  readonly width: number;
  /** 1 or 3. */
  readonly channels: number;
  readonly pixels: Uint8Array;
}

export interface Extractor {
  readonly name: string;
  /** Part of a file's name that no other extractor has, other weights of the same network included. */
  readonly key: string;
  /** Says which features they are, for the protocol; figures of different protocols cannot be compared. */
  readonly protocol: string;
  features(images: Images, onProgress?: (done: number) => void): Promise<Features>;
}

/** The pixels themselves, in [-1, 1]: needs no weights, and sees brightness and position rather than what is shown. */
export const pixels: Extractor = {
  name: 'pixels',
  key: 'pixels',
  protocol: 'pixels in [-1, 1]',
  features: async ({ count, height, width, channels, pixels: bytes }) => ({
    count,
    width: height * width * channels,
    data: Float32Array.from(bytes, (byte) => byte / 127.5 - 1),
  }),
};

export interface NetworkOptions {
  readonly name: string;
  readonly key: string;
  readonly protocol: string;
  /** Features an image. */
  readonly width: number;
  /** The images that it takes. */
  readonly shape: { readonly height: number; readonly width: number; readonly channels: number };
  readonly batchSize?: number;
  /** (N, H, W, C) in [-1, 1] -> (N, width) */
  readonly forward: (x: Tensor) => Tensor;
}

/** Features by a network on the device: one plan, replayed for every batch. */
export class NetworkExtractor implements Extractor {
  readonly name: string;
  readonly key: string;
  readonly protocol: string;
  readonly #options: NetworkOptions;
  readonly #x: Tensor;
  readonly #plan: Plan<Tensor>;

  /** Captures the network; its weights must be on the device. */
  constructor(engine: Engine, options: NetworkOptions) {
    const { name, key, protocol, shape, forward, batchSize = 64 } = options;
    this.name = name;
    this.key = key;
    this.protocol = protocol;
    this.#options = options;
    const x = (this.#x = Tensor.empty(engine, [batchSize, shape.height, shape.width, shape.channels]));
    this.#plan = engine.capture(() => engine.scope(() => forward(x)));
  }

  /** @throws DdpmError E-SHAPE where the images are not of the network's shape */
  async features(images: Images, onProgress?: (done: number) => void): Promise<Features> {
    const { shape, width } = this.#options, { height, channels } = shape;
    if (images.height !== height || images.width !== shape.width || images.channels !== channels)
      throw new DdpmError('E-SHAPE', `${this.name} takes images of ${height}×${shape.width}×${channels}, and these are ${images.height}×${images.width}×${images.channels}.`);
    const batch = this.#x.shape[0]!, size = this.#x.size / batch;
    const data = new Float32Array(images.count * width), input = new Float32Array(batch * size);
    await this.#plan.compile();
    for (let first = 0; first < images.count; first += batch) {
      // The last batch is filled up with images of the one before; they are dropped again.
      const count = Math.min(batch, images.count - first);
      for (let i = 0; i < count * size; i++) input[i] = images.pixels[first * size + i]! / 127.5 - 1;
      this.#x.engine.write(this.#x.slice, input);
      this.#plan.run();
      data.set((await this.#plan.result.read()).subarray(0, count * width), first * width);
      onProgress?.(first + count);
    }
    return { count: images.count, width, data };
  }

  async destroy(): Promise<void> {
    await this.#plan.destroy();
    this.#x.free();
  }
}
