// Every kernel checked on this device against its float64 twin: one table that the page runs in a browser, `doctor` in a terminal and a test in Node.
import { pointwise } from '../../autograd.ts';
import { Clock } from '../../clock.ts';
import { isLanes } from '../../gpu/device-class.ts';
import type { Engine } from '../../gpu/engine.ts';
import { HALF_NANS } from '../../gpu/float16.ts';
import { BYTES, type ElementType, type Kernel, type Slice } from '../../gpu/kernel.ts';
import * as k from '../../gpu/kernels.gen.ts';
import { Tensor } from '../../tensor.ts';
import { type Case, type Check, type Floats, type Name, TICK, type Wanted } from './checks/case.ts';
import { DIFFUSION } from './checks/diffusion.ts';
import { LEARNING } from './checks/learning.ts';
import { NORMS } from './checks/norms.ts';
import { POINTWISE } from './checks/pointwise.ts';
import { PRODUCTS } from './checks/products.ts';
import { half, roundedToHalf } from '../../../test/ref/half.ts';

/** A kernel without a check is an error of types. */
const TABLE: { readonly [N in Exclude<Name, `${string}_stored_f16`>]: Check<(typeof k)[N]> } = { ...POINTWISE, ...PRODUCTS, ...NORMS, ...DIFFUSION, ...LEARNING };
const KERNELS: Readonly<Record<string, Kernel>> = k;

/** The same case with activations that are float16 numbers, and results that may be off by their rounding besides. */
function storedCheck({ f16 = [] }: Kernel, { twin, make }: Check): Check {
  const rounded = ({ want, off, ...rest }: Wanted): Wanted => ({ ...rest, want, off: roundedToHalf(want).map((v, i) => v + (off === 0 ? 0 : off[i]!)) });
  return {
    twin,
    make: (_, on) => {
      const one = make(half, on);
      return { ...one, outputs: Object.fromEntries(Object.entries(one.outputs as Record<string, Wanted>).map(([name, wanted]) => [name, f16.includes(name) ? rounded(wanted) : wanted])) };
    },
  };
}

export const CHECKS: Readonly<Record<string, Check>> = Object.fromEntries(
  Object.entries(TABLE as unknown as Readonly<Record<string, Check>>).flatMap(([name, one]): [string, Check][] => {
    const stored = KERNELS[name]!.half;
    return [[name, one], ...(stored ? [[stored.name, storedCheck(stored, one)] as [string, Check]] : [])];
  }),
);

export interface CheckResult {
  readonly kernel: string;
  readonly shape: string;
  readonly values: number;
  /** Largest difference, and largest share of its tolerance that a value took: at most 1 where all is well. */
  readonly error: number;
  readonly share: number;
  readonly ok: boolean;
  readonly ms: number;
  /** Why this device cannot run the kernel; null where it did. */
  readonly skipped: string | null;
}

/** What a kernel gave, what its twin says, and how far each value may be off. */
export interface Compared {
  readonly got: Floats;
  readonly want: Floats;
  readonly off: Floats;
}

/** What is written out, for GPUs and for llvmpipe. SwiftShader's compiler took minutes over the first of them, until the browser ended its process; the others are as long. None is chosen there (src/variants.ts). */
export const LONG: ReadonlySet<string> = new Set(['matmul_64', 'matmul_64_f16', 'conv2d_tiled', 'conv2d_tiled_f16', 'conv2d_3x3_tiled', 'conv2d_backward_weight_tiled', 'conv2d_backward_weight_tiled_f16', 'conv2d_backward_weight_3x3_tiled', 'matmul_subgroup_lanes4', 'conv2d_subgroup_lanes4', 'conv2d_3x3_subgroup_lanes4', 'conv2d_backward_weight_subgroup_lanes4'].flatMap((name) => [name, `${name}_stored_f16`]));

/** Why this device cannot run a kernel, or null. */
export function whyNot(engine: Engine, name: string): string | null {
  const { features, workgroupBytes = 0 } = KERNELS[name]!, { maxComputeWorkgroupStorageSize: most } = engine.device.limits, missing = features.find((feature) => feature !== 'subgroups' && !engine.device.features.has(feature));
  if (missing) return `needs the feature ${missing}, which this device was opened without`;
  if (workgroupBytes > most) return `needs ${workgroupBytes} bytes of workgroup memory; this device was opened with ${most}`;
  if (engine.deviceClass === 'swiftshader' && LONG.has(name)) return 'may take the compiler of SwiftShader minutes; nothing chooses it there';
  // Tensor cores take 32 lanes. On CPUs four of more lanes can do the work of a subgroup of four; eight of sixteen could, but take half a minute to compile, for nothing that is chosen there.
  const width = features.length > 1 ? 32 : Number(/_lanes(\d+)$/.exec(name)?.[1] ?? 8);
  if (!features.includes('subgroups') || engine.subgroupWidth === width || (width === 4 && isLanes(engine.subgroupWidth))) return null;
  return engine.subgroupWidth ? `needs subgroups of ${width}; here they are ${engine.subgroupWidth} wide` : `needs subgroups of ${width}, always; this device has none, or of several widths`;
}

/** Room for a result, full of NaN: what is not written shows. */
function room(engine: Engine, count: number, type: ElementType): Slice {
  const slice = engine.allocate(BYTES[type] * Math.max(8, count), type);
  engine.run(k.fill, pointwise(Math.max(8, count)), { y: { ...slice, type: 'f32' }, value: type === 'f16' ? HALF_NANS : NaN });
  return slice;
}

/** Runs a kernel on a case; every output with what it should be. All that is allocated is freed, before anything is waited for: what others allocate meanwhile is theirs. */
export async function compare(engine: Engine, name: string, { grid, inputs, numbers, outputs, clock: tick = TICK }: Case): Promise<Compared[]> {
  const kernel = KERNELS[name]!, wanted = Object.entries(outputs) as [string, Wanted][], scope = engine.openScope(false), slices: Record<string, Slice> = {}, clock = 'clock' in kernel.bindings ? new Clock(engine) : null;
  let reading: readonly Promise<Float32Array>[];
  try {
    clock?.set(tick);
    for (const binding of Object.keys(kernel.bindings)) {
      const given = inputs[binding], result = outputs[binding], type = kernel.f16?.includes(binding) ? 'f16' : 'f32';
      slices[binding] = binding === 'clock' ? clock!.slice : given ? Tensor.from(engine, [given.length], given, type).slice : room(engine, result ? result.want.length * (result.pick ? 2 : 1) : 0, type);
    }
    engine.run(kernel, grid, { ...numbers, ...slices } as never);
    reading = wanted.map(([binding]) => engine.read(slices[binding]!));
  } finally {
    engine.closeScope(scope);
  }
  const read = await Promise.all(reading);
  return wanted.map(([, { want, off, pick = (got: Float32Array | Uint32Array) => got.subarray(0, want.length) }], i) => ({
    got: pick(want instanceof Uint32Array ? new Uint32Array(read[i]!.buffer) : read[i]!), want, off: off === 0 ? new Float64Array(want.length) : off,
  }));
}

/** Runs one check, where the device can. */
export async function check(engine: Engine, name: string): Promise<CheckResult> {
  const start = performance.now(), made = CHECKS[name]!.make(undefined, engine.deviceClass), skipped = whyNot(engine, name), compared = skipped ? [] : await compare(engine, name, made);
  return { kernel: name, shape: made.shape, ...judge(compared), ms: performance.now() - start, skipped };
}

/** The largest difference and the largest share of a tolerance over all outputs. */
export function judge(compared: readonly Compared[]): { values: number; error: number; share: number; ok: boolean } {
  let values = 0, error = 0, share = 0;
  for (const { got, want, off } of compared) {
    values += want.length;
    if (got.length !== want.length) share = Infinity;
    for (let i = 0; i < want.length; i++) {
      const difference = Math.abs(got[i]! - want[i]!), part = difference === 0 ? 0 : difference / off[i]!;
      error = Math.max(error, Number.isNaN(difference) ? Infinity : difference);
      share = Math.max(share, Number.isNaN(part) ? Infinity : part);
    }
  }
  return { values, error, share, ok: share <= 1 };
}
