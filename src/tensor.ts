// A tensor is a shape and a range of a GPU buffer; a parameter is a tensor that gets its place when the model is put on a device.
import { DdpmError } from './errors.ts';
import type { Engine } from './gpu/engine.ts';
import type { Slice } from './gpu/kernel.ts';

export const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** float32 (or 32-bit integers, where a docstring says so), contiguous. Activations are NHWC. */
export class Tensor {
  readonly engine: Engine;
  readonly shape: readonly number[];
  readonly slice: Slice;
  /** Set by the tape on what depends on a parameter; set it on an input to get its gradient. */
  requiresGrad = false;

  constructor(engine: Engine, shape: readonly number[], slice: Slice) {
    if (slice.bytes !== 4 * sizeOf(shape)) throw new DdpmError('E-SHAPE', `shape (${shape.join(', ')}) does not fit a slice of ${slice.bytes} bytes.`);
    this.engine = engine;
    this.shape = shape;
    this.slice = slice;
  }

  static empty(engine: Engine, shape: readonly number[]): Tensor {
    return new Tensor(engine, shape, engine.allocate(4 * sizeOf(shape)));
  }

  static from(engine: Engine, shape: readonly number[], data: Float32Array | Uint32Array): Tensor {
    if (data.length !== sizeOf(shape)) throw new DdpmError('E-SHAPE', `${data.length} values for shape (${shape.join(', ')}).`);
    const tensor = Tensor.empty(engine, shape);
    engine.write(tensor.slice, data);
    return tensor;
  }

  get size(): number {
    return sizeOf(this.shape);
  }

  /** The same memory under another shape of equal size; to the tape it is the same tensor. */
  view(shape: readonly number[]): Tensor {
    const view = new Tensor(this.engine, shape, this.slice);
    view.requiresGrad = this.requiresGrad;
    return view;
  }

  read(): Promise<Float32Array<ArrayBuffer>> {
    return this.engine.read(this.slice);
  }

  free(): void {
    this.engine.free(this.slice);
  }
}

/** A tensor whose gradient has a fixed place in the flat gradient buffer. */
export class ParameterTensor extends Tensor {
  readonly name: string;
  readonly grad: Slice;
  override requiresGrad = true;
  constructor(engine: Engine, shape: readonly number[], slice: Slice, name: string, grad: Slice) {
    super(engine, shape, slice);
    this.name = name;
    this.grad = grad;
  }
}

/** (N, C, H, W) to (N, H, W, C), on the host: images cross the edge once. */
export function nchwToNhwc(data: Float32Array, [n, c, h, w]: readonly [number, number, number, number]): Float32Array<ArrayBuffer> {
  const out = new Float32Array(n * c * h * w), hw = h * w;
  for (let b = 0; b < n; b++) for (let k = 0; k < c; k++) for (let p = 0; p < hw; p++) out[(b * hw + p) * c + k] = data[(b * c + k) * hw + p]!;
  return out;
}

/** (N, H, W, C) to (N, C, H, W), on the host. */
export function nhwcToNchw(data: Float32Array, [n, h, w, c]: readonly [number, number, number, number]): Float32Array<ArrayBuffer> {
  const out = new Float32Array(n * c * h * w), hw = h * w;
  for (let b = 0; b < n; b++) for (let k = 0; k < c; k++) for (let p = 0; p < hw; p++) out[(b * c + k) * hw + p] = data[(b * hw + p) * c + k]!;
  return out;
}
