// What a kernel is to the host: the interface that kernels/build.ts reads out of a WGSL file, and the arguments a call must give.
import { DdpmError } from '../errors.ts';

/** What numbers are stored as: float32, or float16 where an engine stores activations so. */
export type ElementType = 'f32' | 'f16';

/** Bytes of one number. */
export const BYTES: Readonly<Record<ElementType, number>> = { f32: 4, f16: 2 };

/** A range of a GPUBuffer in bytes; offset is a multiple of 256. Where no type is given it holds float32, or 32-bit integers. */
export interface Slice {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly bytes: number;
  readonly type?: ElementType;
}

/**
 * WGSL and its interface, with the WGSL's own names. For kernels/*.wgsl, kernels/build.ts reads the interface out of the file; a kernel written by hand lists it, as
 * test/examples/custom-op.ts does. It is E-KERNEL to list bindings or dims in another order than the WGSL.
 */
export interface Kernel {
  readonly name: string;
  /** Without comments, where it is a kernel of this package: `ddpm.wgsl/kernels/NAME.wgsl` has them, in the same lines. */
  readonly wgsl: string;
  /** Features that the device must have been opened with. */
  readonly features: readonly string[];
  /** The storage buffers, in the order of their @binding, from 0. */
  readonly bindings: { readonly [name: string]: 'read' | 'read_write' };
  /** Overrides without a default, by type: they specialise the pipeline. */
  readonly overrides: { readonly [name: string]: string };
  /** Overrides with a default. */
  readonly optional: { readonly [name: string]: string };
  /** The fields of `struct Dims`, a uniform that is bound last: `u32`, `i32` or `f32`. Shapes that differ in them share a pipeline. */
  readonly dims: { readonly [name: string]: string };
  /** The bindings that hold float16; all others hold 32-bit numbers. */
  readonly f16?: readonly string[];
  /** Bytes of workgroup memory, where they are more than every device has (16,384). */
  readonly workgroupBytes?: number;
  /** The same kernel for activations that are stored as float16. */
  readonly half?: Kernel;
}

/** What a call of `engine.run` must give: names only, so that kernels with the same interface share their arguments' type. */
export type Args<K extends Kernel> = ArgsOf<K['bindings'], K['overrides'], K['optional'], K['dims']>;

/** One flat object: a slice for every binding, a number for every override and every field of dims. */
type ArgsOf<B, O, P, D> = { readonly [N in keyof B]: Slice } & { readonly [N in keyof O | keyof D]: number } & { readonly [N in keyof P]?: number };

/** The kernel itself, or the one for float16 activations where it is given such. Throws E-KERNEL for a slice of another type than the kernel reads or writes. */
export function forTypes(kernel: Kernel, given: Readonly<Record<string, unknown>>): Kernel {
  const type = (name: string): ElementType => (given[name] as Slice | undefined)?.type ?? 'f32';
  const chosen = kernel.half?.f16?.some((name) => type(name) === 'f16' && !kernel.f16?.includes(name)) ? kernel.half : kernel;
  for (const name in chosen.bindings) {
    const takes = chosen.f16?.includes(name) ? 'f16' : 'f32';
    if (type(name) !== takes) throw new DdpmError('E-KERNEL', `${chosen.name}: ${name} is ${takes} there, and was given as ${type(name)}${takes === 'f32' ? `: ${kernel.name} has no form for it` : ''}. Cast one to the other first.`);
  }
  return chosen;
}

/** Throws E-KERNEL where a kernel lists its bindings, or the fields of `struct Dims`, otherwise than its WGSL does: values would silently land in each other's places. */
export function requireOrder({ name, wgsl, bindings, dims }: Kernel): void {
  const require = (listed: readonly string[], declared: readonly string[]): void => {
    if (`${listed}` !== `${declared}`) throw new DdpmError('E-KERNEL', `${name} lists ${listed}, and its WGSL has ${declared}: they must be the same, in one order.`);
  };
  const bound = [...wgsl.matchAll(/@binding\((\d+)\)[^;]*?var<storage[^>]*>\s*(\w+)/g)].sort((a, b) => Number(a[1]) - Number(b[1]));
  require(Object.keys(bindings), bound.map((found) => found[2]!));
  const struct = /struct Dims\s*\{([^}]*)/.exec(wgsl);
  if (struct) require(Object.entries(dims).map((field) => field.join(':')), [...struct[1]!.replace(/\/\/.*/g, '').matchAll(/(\w+)\s*:\s*(\w+)/g)].map(([, field, type]) => `${field}:${type}`));
}

/** Workgroups in x, y, z. */
export type Grid = readonly [x: number, y?: number, z?: number];

/** Workgroups a dimension that every WebGPU device takes. */
const MAX_WORKGROUPS = 65535;

/** A grid of `count` workgroups, folded into y where x alone cannot hold them; kernels unfold it with workgroup_index() and skip the overhang. */
export function grid(count: number): Grid {
  return count <= MAX_WORKGROUPS ? [count] : [MAX_WORKGROUPS, Math.ceil(count / MAX_WORKGROUPS)];
}

/** The bytes of the uniform `dims`, padded to 16. `number` gives the value of a field. */
export function packDims(kernel: Kernel, number: (name: string) => number): ArrayBuffer {
  const fields = Object.entries(kernel.dims);
  const data = new DataView(new ArrayBuffer(Math.ceil(fields.length / 4) * 16));
  for (const [i, [name, type]] of fields.entries())
    if (type === 'f32') data.setFloat32(4 * i, number(name), true);
    else data.setInt32(4 * i, number(name), true);
  return data.buffer;
}
