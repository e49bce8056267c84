// Half precision: products whose factors are rounded to float16 and activations that are stored so, on devices where a self-test has seen that their kernels are right.
import { DdpmError } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import type { Kernel, Slice } from '../gpu/kernel.ts';
import * as k from '../gpu/kernels.gen.ts';
import { SUBGROUP_MATRIX } from '../gpu/requirements.ts';
import { normal4, philox4x32 } from '../philox.ts';
import { Tensor } from '../tensor.ts';
import type { HalfVariant } from '../variants.ts';
import { matmul } from './attention.ts';
import { Columns } from './columns.ts';
import { backwardInput, backwardWeight, type ConvDims, forward, forwardTwo } from './conv2d_kernels.ts';
import { HALF } from './half.ts';
import { storageFailure } from './storage.ts';

/** What the products of a model take their factors in, and on GPUs what its activations are stored as. Arithmetic, sums, weights and their gradients are float32 in any case. */
export const PRECISIONS = ['f32', 'f16'] as const;
/** One of PRECISIONS. */
export type Precision = (typeof PRECISIONS)[number];

/** Largest relative error of a float32 that is rounded to float16, in whichever direction: WGSL leaves that open. */
const F16 = 2 ** -10;

/** What is tried, and `tiled`, which it is held against. */
type Variant = 'tiled' | HalfVariant;

/** A small product of two factors, computed by a variant. */
interface Trial {
  readonly what: string;
  /** Values of the factors and of the result. */
  readonly sizes: readonly [a: number, b: number, y: number];
  readonly run: (engine: Engine, variant: Exclude<Variant, 'rounded'>, a: Slice, b: Slice, y: Slice) => void;
}

// Ragged in every tile, and over the border of the largest.
const DIMS: ConvDims = {
  N: 3, H: 9, W: 7, C: 36, OH: 9, OW: 7, O: 132, KH: 3, KW: 3, stride: 1, pad_top: 1, pad_left: 1, WC: 36, C0: 0, has_bias: 0, has_per_image: 0, has_residual: 0, accumulate: 0, splits: 1,
};
const [X, W, Y] = [3 * 9 * 7 * 36, 9 * 36 * 132, 3 * 9 * 7 * 132];
const none = (slice: Slice) => ({ bias: slice, per_image: slice, residual: slice });

/** `tile`: of the kernels for tensor cores, which have two. */
type Tile = { readonly tile?: 64 | 128 };
const conv = ({ tile }: Tile = {}): readonly Trial[] => {
  const of = (variant: Exclude<Variant, 'rounded'>) => (tile && variant === 'subgroup_matrix' ? { variant, tile } : { variant });
  return [
    { what: 'conv2d', sizes: [X, W, Y], run: (engine, variant, x, w, y) => forward(engine, { ...DIMS, x, w, y, ...none(x) }, of(variant)) },
    // The same pixels twice, as 36 of 72 channels each.
    { what: 'conv2d of two inputs', sizes: [X, 2 * W, Y], run: (engine, variant, x, w, y) => forwardTwo(engine, { ...DIMS, WC: 72, x, w, y, ...none(x) }, x, variant, tile) },
    { what: 'gradient by the input', sizes: [Y, W, X], run: (engine, variant, dy, w, dx) => backwardInput(engine, DIMS, dy, w, { slice: dx, accumulate: 0 }, of(variant)) },
  ];
};
const weight = ({ tile }: Tile = {}): readonly Trial[] => [
  { what: 'gradient by the weight', sizes: [X, Y, W], run: (engine, variant, x, dy, dw) => backwardWeight(engine, DIMS, x, dy, { slice: dw, accumulate: 0 }, null, tile && variant === 'subgroup_matrix' ? { variant, tile } : { variant }) },
];
// The last are of whole vec4s, which plain float16 has a kernel of its own for, and tensor cores no other.
const product = ({ tile }: Tile = {}): readonly Trial[] =>
  ([[66, 70, false, false], [66, 70, false, true], [66, 70, true, false], [68, 72, false, false], [68, 72, false, true], [68, 72, true, false], [68, 72, true, true]] as const).slice(tile ? 3 : 0).map(([M, N, first, second]) => ({
    what: `product${first && second ? ', both turned' : first ? ', the first turned' : second ? ', the second turned' : ''}`,
    sizes: [2 * M * 52, 2 * 52 * N, 2 * M * N],
    run: (engine, variant, a, b, c) => {
      const operand = (slice: Slice, ld: number, outer: number, transposed = false) => ({ slice, ld, outer, inner: 0, transposed });
      matmul(engine, M, N, 52, operand(a, first ? M : 52, M * 52, first), operand(b, second ? 52 : N, 52 * N, second), operand(c, N, M * N), { batch: 2, variant, ...(tile && { tile }) });
    },
  }));

/** A kernel that makes factors float16, and what is tried before it may be chosen. */
interface Candidate {
  readonly kernel: Kernel;
  readonly variant: Variant;
  readonly trials: readonly Trial[];
}
const GPU: readonly Candidate[] = [
  { kernel: HALF.conv.tiled_f16, variant: 'tiled_f16', trials: conv() }, { kernel: HALF.weight.tiled_f16, variant: 'tiled_f16', trials: weight() },
  { kernel: HALF.matmul.tiled_f16, variant: 'tiled_f16', trials: product() },
];
const TENSOR_CORES: readonly Candidate[] = ([['conv', conv], ['weight', weight], ['matmul', product]] as const).map(([what, trials]) => ({ kernel: HALF[what].subgroup_matrix, variant: 'subgroup_matrix', trials: ([64, 128] as const).flatMap((tile) => trials({ tile })) }));
const CPU: readonly Candidate[] = [{ kernel: k.round_half, variant: 'rounded', trials: [conv()[0]!, ...weight(), product()[0]!] }];

/**
 * What can be tried on a device: tensor cores where the device has such, and subgroups of the width that the kernels are written for. Which matrices it multiplies only
 * the adapter says (engineRequirements asks it), not the device: where the size is another, the kernels do not compile.
 */
function candidates({ deviceClass, device, subgroupWidth }: Engine): readonly Candidate[] {
  if (deviceClass !== 'gpu') return CPU;
  const tensorCores = device.features.has(SUBGROUP_MATRIX) && subgroupWidth === 32;
  return tensorCores ? [...TENSOR_CORES, ...GPU] : GPU;
}

/**
 * Sets what products take their factors in, from here on; what was captured before stays as it was. For `f16` every kernel is tried on this device first, against
 * the float32 one; one that is wrong is not used, and the result says which and by how much: tensor cores give way to plain float16, that to float32. Conv2d, linear layers and attention
 * round their factors to float16; sums, norms, softmax, losses, weights and moments are float32. On a GPU whose kernels for it are all right, networks also store their activations
 * and the gradients of these as float16 (`engine.storage`). Train with it under AdamW's loss scaling, as Training does.
 *
 * @throws DdpmError E-LIMIT where the device was opened without the feature shader-f16
 */
export async function usePrecision(engine: Engine, precision: Precision): Promise<string[]> {
  engine.half.clear();
  engine.storage = 'f32';
  if (precision === 'f32') return [];
  if (!engine.device.features.has('shader-f16'))
    throw new DdpmError('E-LIMIT', 'float16 needs the device feature "shader-f16", which was not requested or does not exist on this adapter: requestDevice(engineRequirements(adapter, { precision: "f16" })), or stay with float32.');
  const warnings: string[] = [], right: string[] = [];
  for (const { kernel, variant, trials } of candidates(engine)) {
    let wrong: string | null = null;
    for (const trial of trials) wrong ??= await failureOf(engine, trial, variant);
    if (wrong === null) right.push(kernel.name);
    else warnings.push(`${kernel.name} is not right on this device (${wrong}): it is not used`);
  }
  for (const name of right) engine.half.add(name);
  // On CPUs the kernels that compute fast have no form for float16 activations.
  if (engine.deviceClass !== 'gpu') return warnings;
  const failure = await storageFailure(engine);
  if (failure) warnings.push(`activations stay float32 on this device: ${failure}`);
  else engine.storage = 'f16';
  return warnings;
}

/** Sets what `usePrecision` sets where every kernel is right, but for those of tensor cores: for a device of paper, on which nothing can be tried. */
export function assumePrecision(engine: Engine, precision: Precision): void {
  engine.half.clear();
  if (precision === 'f16') for (const { kernel } of candidates(engine)) engine.half.add(kernel.name);
  engine.storage = precision === 'f16' && engine.deviceClass === 'gpu' ? 'f16' : 'f32';
}

/** As `of` is set: for another engine on the same device, or on one of paper. */
export function takePrecision(engine: Engine, of: Pick<Engine, 'half' | 'storage'>): void {
  engine.half.clear();
  for (const name of of.half) engine.half.add(name);
  engine.storage = of.storage;
}

/** What is wrong with a trial's result, or null. */
async function failureOf(engine: Engine, trial: Trial, variant: Variant): Promise<string | null> {
  try {
    // Eighths up to 2 are float16 numbers, and their sums of products float32 numbers, whatever the order: nothing is rounded, so all bits must agree.
    return (await differs(engine, trial, variant, (i, id) => ((philox4x32([i, 0, 0, 0], [7, id])[0] % 33) - 16) / 8, 0)) ??
      // Two factors are off by F16 each, and float32 sums by little.
      (await differs(engine, trial, variant, (i, id) => Math.fround(normal4(philox4x32([i, 0, 0, 1], [7, id]))[0]), 2 * F16 + F16 ** 2 + 2 ** -18));
  } catch (error) {
    if (error instanceof DdpmError && error.code === 'E-KERNEL') return error.message;
    throw error;
  }
}

/** Runs a trial on values of (element, factor); `share` of the sum of the absolute products is what a result may be off. */
async function differs(engine: Engine, { what, sizes, run }: Trial, tried: Variant, value: (i: number, factor: number) => number, share: number): Promise<string | null> {
  const [a, b] = [0, 1].map((factor) => Float32Array.from({ length: sizes[factor]! }, (_, i) => value(i, factor))) as [Float32Array, Float32Array];
  const result = async (variant: Variant, first: Float32Array, second: Float32Array): Promise<Float32Array> => {
    const [ta, tb] = [first, second].map((data) => Tensor.from(engine, [data.length], data)) as [Tensor, Tensor];
    const plan = engine.capture(() => {
      const y = Tensor.empty(engine, [sizes[2]]);
      if (variant === 'rounded') {
        const copies = new Columns(engine);
        run(engine, 'tiled', copies.rounded(ta.slice), copies.rounded(tb.slice), y.slice);
        copies.free();
      } else run(engine, variant, ta.slice, tb.slice, y.slice);
      return y;
    });
    try {
      await plan.compile();
      plan.run();
      return await plan.result.read();
    } finally {
      await plan.destroy();
      for (const each of [ta, tb]) each.free();
    }
  };
  const got = await result(tried, a, b), want = await result('tiled', a, b), most = share ? await result('tiled', a.map(Math.abs), b.map(Math.abs)) : null;
  // A comparison that a NaN fails as well.
  if (want.every((v) => v === 0)) return `${what}: float32 gives nothing but zeros`;
  const at = want.findIndex((v, i) => !(Math.abs(got[i]! - v) <= share * (most?.[i] ?? 0)));
  return at < 0 ? null : `${what}: value ${at} of ${want.length} is ${got[at]}, and ${want[at]} in float32; rounding allows ${most ? (share * most[at]!).toPrecision(2) : 'nothing'} here`;
}
