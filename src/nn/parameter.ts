// Parameters and modules: plain classes that are built without a device; a parameter's name is the path of fields that leads to it.
import { DdpmError } from '../errors.ts';
import { sizeOf, type ParameterTensor } from '../tensor.ts';
import type { Init } from './init.ts';

/** How a tensor lies in a file (PyTorch's layout) and on the device. Convolutions and linear layers are (K, K, I, O) on the device. */
export type Layout = 'conv' | 'linear' | 'plain';

/**
 * A weight of a module: its shape in files (PyTorch's), its layout on the device, and how it starts. It has a tensor once Parameters.place has put the model
 * on a device; before, `tensor` throws E-ENGINE.
 */
export class Parameter {
  /** Shape in files: OIHW for conv, (out, in) for linear. */
  readonly shape: readonly number[];
  readonly layout: Layout;
  readonly init: Init;
  /** Dotted path, such as `down_blocks.0.resnets.0.conv1.weight`; set by parametersOf. */
  name = '';
  #tensor: ParameterTensor | null = null;

  constructor(shape: readonly number[], layout: Layout, init: Init) {
    this.shape = shape;
    this.layout = layout;
    this.init = init;
  }

  get size(): number {
    return sizeOf(this.shape);
  }

  get deviceShape(): readonly number[] {
    const [o, i, kh = 1, kw = 1] = this.shape as [number, number, number?, number?];
    return this.layout === 'plain' ? this.shape : [kh, kw, i, o];
  }

  get tensor(): ParameterTensor {
    if (!this.#tensor) throw new DdpmError('E-ENGINE', `${this.name || 'a parameter'} is not on a device yet: call Parameters.place(engine, model) first.`);
    return this.#tensor;
  }

  set tensor(tensor: ParameterTensor) {
    this.#tensor = tensor;
  }

  /** From a file's layout to the device's. */
  toDevice(data: ArrayLike<number>, out: Float32Array): void {
    if (this.layout === 'plain') return out.set(data);
    const [kh, kw, i, o] = this.deviceShape as [number, number, number, number];
    const taps = kh * kw;
    for (let a = 0; a < o; a++) for (let b = 0; b < i; b++) for (let t = 0; t < taps; t++) out[(t * i + b) * o + a] = data[(a * i + b) * taps + t]!;
  }

  /** From the device's layout to a file's. */
  toFile(data: Float32Array): Float32Array<ArrayBuffer> {
    if (this.layout === 'plain') return new Float32Array(data);
    const [kh, kw, i, o] = this.deviceShape as [number, number, number, number];
    const taps = kh * kw;
    const out = new Float32Array(data.length);
    for (let a = 0; a < o; a++) for (let b = 0; b < i; b++) for (let t = 0; t < taps; t++) out[(a * i + b) * taps + t] = data[(t * i + b) * o + a]!;
    return out;
  }
}

/** Anything whose fields hold parameters, modules, or arrays of modules. Field names are the tensor names of diffusers, hence their spelling. */
export abstract class Module {}

/** Every parameter below a module, in the order of fields, with its name set. */
export function parametersOf(module: Module, path = ''): Parameter[] {
  const found: Parameter[] = [];
  for (const [field, value] of Object.entries(module)) {
    const name = path ? `${path}.${field}` : field;
    if (value instanceof Parameter) {
      value.name = name;
      found.push(value);
    } else if (value instanceof Module) found.push(...parametersOf(value, name));
    else if (Array.isArray(value)) value.forEach((item, i) => item instanceof Module && found.push(...parametersOf(item, `${name}.${i}`)));
  }
  return found;
}
