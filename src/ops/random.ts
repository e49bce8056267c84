// Draws from counters: normals, integers, a shuffled order, and the batch that it picks. Nothing here has a gradient or a state.
import { threads } from '../autograd.ts';
import type { Clock } from '../clock.ts';
import { DdpmError } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import type { Slice } from '../gpu/kernel.ts';
import * as k from '../gpu/kernels.gen.ts';
import { STREAM } from '../philox.ts';
import { Tensor } from '../tensor.ts';

/** Standard normals of a shape (N, ...), by Philox and Box-Muller: row n is a function of the clock's seed and step, the stream, and the sample id, the clock's first + n. */
export function randomNormal(shape: readonly number[], clock: Clock, stream: number): Tensor {
  const z = Tensor.empty(clock.engine, shape);
  const N = shape[0]!, size = z.size / N;
  clock.engine.run(k.random_normal, threads(N * Math.ceil(size / 4)), { clock: clock.slice, z: z.slice, N, size, stream });
  return z;
}

/** (N) uint32, uniform on {0, ..., high - 1}. */
export function randomIntegers(N: number, high: number, clock: Clock, stream: number): Tensor {
  const integers = Tensor.empty(clock.engine, [N]);
  clock.engine.run(k.random_integers, threads(N), { clock: clock.slice, k: integers.slice, N, high, stream });
  return integers;
}

/** (N) uint32, from 0 to count - 1: the indices of the clock's batch, every image once an epoch, in an order keyed by (seed, epoch). */
export function shuffleIndices(N: number, count: number, clock: Clock): Tensor {
  const index = Tensor.empty(clock.engine, [N]);
  const half = Math.max(1, Math.ceil(Math.log2(count) / 2));
  clock.engine.run(k.shuffle_indices, threads(N), { clock: clock.slice, index: index.slice, N, count, half, stream: STREAM.order });
  return index;
}

/** Images on the device, as bytes: 47 MB for Fashion-MNIST where float32 would take 188. */
export class DeviceImages {
  readonly engine: Engine;
  readonly count: number;
  readonly shape: readonly [height: number, width: number, channels: number];
  readonly flip: boolean;
  /** One more than the largest label; 0 without labels. */
  readonly classes: number;
  /** (count) uint32, or null where the data have none. */
  readonly labels: Tensor | null;
  readonly #split: number;
  readonly #parts: readonly [Slice, Slice];

  /**
   * pixels: (count, height, width, channels) uint8, which `toBytes` makes of numbers in [-1, 1]; labels: (count), where there are any. `flip` mirrors half of what is gathered.
   *
   * @throws DdpmError E-USAGE for pixels that are not bytes, E-SHAPE where the lengths do not fit, E-LIMIT where the images need more than two bindings of the device
   */
  constructor(engine: Engine, data: { count: number; height: number; width: number; channels: number; pixels: Uint8Array; labels?: ArrayLike<number> | null }, flip: boolean) {
    this.engine = engine;
    this.count = data.count;
    this.shape = [data.height, data.width, data.channels];
    this.flip = flip;
    const size = data.height * data.width * data.channels;
    if (!(data.count >= 1 && size >= 1)) throw new DdpmError('E-SHAPE', `${data.count} images of ${data.height} x ${data.width} x ${data.channels}: there must be at least one, and something in it.`);
    if (data.pixels.BYTES_PER_ELEMENT !== 1) throw new DdpmError('E-USAGE', 'DeviceImages takes its pixels as bytes, and was given other numbers: pixels: toBytes(values) for a Float32Array in [-1, 1].');
    if (data.pixels.length !== data.count * size || (data.labels && data.labels.length !== data.count))
      throw new DdpmError('E-SHAPE', `${data.count} images of ${data.height} x ${data.width} x ${data.channels} have ${data.count * size} bytes; ${data.pixels.length} were given${data.labels ? `, and ${data.labels.length} labels` : ''}.`);
    // Whole images a binding, and a length in whole words for the upload.
    const limit = Math.floor(engine.device.limits.maxStorageBufferBindingSize / size / 4) * 4;
    this.#split = Math.min(data.count, limit);
    if (limit === 0) throw new DdpmError('E-LIMIT', `four images of ${size} bytes are more than one binding of ${engine.device.limits.maxStorageBufferBindingSize} bytes on this device. Use smaller images (--image-size).`);
    if (data.count > 2 * limit)
      throw new DdpmError('E-LIMIT', `${data.count} images of ${size} bytes need more than two bindings of ${engine.device.limits.maxStorageBufferBindingSize} bytes on this device. Use --limit ${2 * limit}.`);
    const labels = data.labels ? Uint32Array.from(data.labels) : null;
    this.labels = labels && Tensor.from(engine, [data.count], labels);
    this.classes = labels?.reduce((most, label) => Math.max(most, label + 1), 0) ?? 0;
    const upload = (pixels: Uint8Array): Slice => {
      const slice = engine.allocate(Math.max(16, Math.ceil(pixels.length / 4) * 4));
      engine.write(slice, pixels);
      return slice;
    };
    this.#parts = [upload(data.pixels.subarray(0, this.#split * size)), upload(data.pixels.subarray(this.#split * size))];
  }

  /** The labels at `index` (N), (N) uint32; each is `none` with probability `dropout`. */
  gatherLabels(index: Tensor, clock: Clock, { none, dropout }: { none: number; dropout: number }): Tensor {
    if (!this.labels) throw new DdpmError('E-DATA', 'the model has classes, and the images have no labels to train it with.');
    const N = index.size, y = Tensor.empty(this.engine, [N]);
    this.engine.run(k.gather_labels, threads(N), { clock: clock.slice, index: index.slice, labels: this.labels.slice, y: y.slice, N, none, stream: STREAM.label, p: dropout });
    return y;
  }

  /** Frees the images and their labels; no plan that reads them may run afterwards. */
  free(): void {
    for (const part of this.#parts) this.engine.free(part);
    this.labels?.free();
  }

  /** The images at `index` (N) -> (N, H, W, C) in [-1, 1], flipped at random where the data allows it. */
  gather(index: Tensor, clock: Clock): Tensor {
    const N = index.size, [H, W, C] = this.shape;
    const x = Tensor.empty(this.engine, [N, H, W, C]);
    const [data, rest] = this.#parts;
    const dims = { N, H, W, C, split: this.#split, flip: Number(this.flip), stream: STREAM.flip };
    this.engine.run(k.gather_batch, threads(x.size), { clock: clock.slice, index: index.slice, data, data_rest: rest, x: x.slice, ...dims });
    return x;
  }
}
