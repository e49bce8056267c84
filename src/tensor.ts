// A tensor is a shape and a range of a GPU buffer; a parameter is a tensor that gets its place when the model is put on a device.
import { DdpmError } from './errors.ts';
import { USAGE } from './gpu/constants.ts';
import type { Engine } from './gpu/engine.ts';
import { narrowHalf } from './gpu/float16.ts';
import { BYTES, type ElementType, type Slice } from './gpu/kernel.ts';

/** Values in a tensor of this shape: the product of its sizes. */
export const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** float32 (or 32-bit integers, where a docstring says so; or float16, where an engine stores activations so), contiguous. Activations are NHWC. */
export class Tensor {
  readonly engine: Engine;
  readonly shape: readonly number[];
  readonly slice: Slice;
  /** Set by the tape on what depends on a parameter; set it on an input to get its gradient. */
  requiresGrad = false;

  constructor(engine: Engine, shape: readonly number[], slice: Slice) {
    if (slice.bytes !== BYTES[slice.type ?? 'f32'] * sizeOf(shape)) throw new DdpmError('E-SHAPE', `shape (${shape.join(', ')}) does not fit a slice of ${slice.bytes} bytes.`);
    this.engine = engine;
    this.shape = shape;
    this.slice = slice;
  }

  /** Of undefined content, freed with the scope that it is made in. E-SHAPE for sizes that are not whole numbers from 1, E-LIMIT where the device has no buffer so large. */
  static empty(engine: Engine, shape: readonly number[], type: ElementType = 'f32'): Tensor {
    requireSizes(shape);
    return new Tensor(engine, shape, engine.allocate(BYTES[type] * sizeOf(shape), type));
  }

  /** With values from the host, the last index running fastest, rounded to the nearest where the type is f16; E-SHAPE where they are not as many, E-ENGINE inside a capture. */
  static from(engine: Engine, shape: readonly number[], data: Float32Array | Uint32Array, type: ElementType = 'f32'): Tensor {
    if (!ArrayBuffer.isView(data)) throw new DdpmError('E-USAGE', 'Tensor.from() takes its values as a Float32Array or Uint32Array, and was given something else: Float32Array.from(values).');
    if (data.length !== sizeOf(shape)) throw new DdpmError('E-SHAPE', `${data.length} values for shape (${shape.join(', ')}).`);
    const tensor = Tensor.empty(engine, shape, type);
    engine.write(tensor.slice, type === 'f16' ? narrowHalf(data) : data);
    return tensor;
  }

  /** What its values are stored as. */
  get type(): ElementType {
    return this.slice.type ?? 'f32';
  }

  /** How many values. */
  get size(): number {
    return sizeOf(this.shape);
  }

  /** The same memory under another shape of equal size; to the tape it is the same tensor. */
  view(shape: readonly number[]): Tensor {
    const view = new Tensor(this.engine, shape, this.slice);
    view.requiresGrad = this.requiresGrad;
    return view;
  }

  /** The values on the host, in the order of `from`, once the device has computed them. */
  read(): Promise<Float32Array<ArrayBuffer>> {
    return this.engine.read(this.slice);
  }

  /**
   * Where the tensor lies, for bind groups of the caller's own, as numbers of its `type`; `size` is in whole words, as bindings are. Valid until it is freed; do
   * not destroy the buffer, which others may share. What the engine still holds back of eager work is submitted first, so that a submit of the caller's comes after it.
   */
  get gpu(): { readonly buffer: GPUBuffer; readonly offset: number; readonly size: number } {
    if (!this.engine.capturing) this.engine.flush();
    return { buffer: this.engine.bufferOf(this.slice), offset: this.slice.offset, size: 4 * Math.ceil(this.slice.bytes / 4) };
  }

  /** Gives the memory back before its scope ends. E-ENGINE where that was done already. */
  free(): void {
    this.engine.free(this.slice);
  }

  /** `using x = Tensor.from(…)`: frees it, unless a scope has done so already or the buffer is borrowed. */
  [Symbol.dispose](): void {
    if (this.engine.owns(this.slice)) this.free();
  }
}

/** Runs `use` with a tensor that is freed afterwards, as `using` does, whose helpers TypeScript would put into every file that has one: 2 kB each. */
export function withTensor<T>(x: Tensor, use: (x: Tensor) => T): T {
  try {
    return use(x);
  } finally {
    if (x.engine.owns(x.slice)) x.free();
  }
}

/** Throws E-SHAPE unless the tensors go together: what `op` takes, and the shapes it was given by name. */
export function requireShapes(fit: boolean, op: string, takes: string, given: Readonly<Record<string, Tensor>>): void {
  if (!fit) throw new DdpmError('E-SHAPE', `${op} takes ${takes}; it was given ${Object.entries(given).map(([name, { shape }]) => `${name} (${shape.join(', ')})`).join(', ')}.`);
}

/** Throws E-SHAPE for sizes that are no whole numbers from 1. */
export function requireSizes(shape: readonly number[]): void {
  if (!shape.every((n) => Number.isInteger(n) && n > 0)) throw new DdpmError('E-SHAPE', `shape (${shape.join(', ')}): sizes are whole numbers from 1.`);
}

/** Whether two tensors have one shape, or with `last` = false the same but for the channels. */
export const sameShape = (a: Tensor, b: Tensor, last = true): boolean => {
  const end = last ? undefined : -1;
  return a.shape.length === b.shape.length && a.shape.slice(0, end).join() === b.shape.slice(0, end).join();
};

/** A tensor whose gradient has a fixed place in the flat gradient buffer. */
export class ParameterTensor extends Tensor {
  readonly name: string;
  readonly grad: Slice;
  /** Its values as float16, where a model keeps such a copy during its forward pass. */
  rounded: Slice | null = null;
  override requiresGrad = true;
  constructor(engine: Engine, shape: readonly number[], slice: Slice, name: string, grad: Slice) {
    super(engine, shape, slice);
    this.name = name;
    this.grad = grad;
  }
}

/** What `engine.borrow` does. */
export function borrow(engine: Engine, buffer: GPUBuffer, shape: readonly number[], { offset = 0 }: { offset?: number } = {}): Tensor {
  const bytes = 4 * sizeOf(shape), end = offset + 16 * Math.ceil(bytes / 16), align = engine.device.limits.minStorageBufferOffsetAlignment;
  requireSizes(shape);
  if (!(buffer.usage & USAGE.STORAGE)) throw new DdpmError('E-ENGINE', 'the borrowed buffer was created without the usage STORAGE, which kernels need. Add it where the buffer is created.');
  if (offset < 0 || offset % align) throw new DdpmError('E-ENGINE', `a borrowed buffer at offset ${offset}: this device binds storage at multiples of ${align} bytes.`);
  if (end > buffer.size) throw new DdpmError('E-SHAPE', `shape (${shape.join(', ')}) at offset ${offset} needs ${end} bytes${bytes % 16 ? ', since kernels take four values at a time' : ''}; the borrowed buffer has ${buffer.size}. Create it larger.`);
  return new Tensor(engine, shape, { buffer, offset, bytes });
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
