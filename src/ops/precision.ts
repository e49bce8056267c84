// Half precision: products whose factors are rounded to float16 and activations that are stored so, on devices where a self-test has seen that their kernels are right.
import { DdpmError } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import type { Kernel } from '../gpu/kernel.ts';
import * as k from '../gpu/kernels.gen.ts';
import { SUBGROUP_MATRIX } from '../gpu/requirements.ts';
import { normal4, philox4x32 } from '../philox.ts';
import { Tensor } from '../tensor.ts';
import { Columns } from './columns.ts';
import { GEMM_TILES } from './conv2d_choice.ts';
import { coreTiles, HALF } from './half.ts';
import { type ProductTrial, productTrials, type Variant } from './half_trials.ts';
import { storageFailure } from './storage.ts';

/** The precision of the factors of a model's products and, on GPUs, of its stored activations. Sums, other arithmetic, weights and their gradients are always float32. */
export const PRECISIONS = ['f32', 'f16'] as const;
/** One of PRECISIONS. */
export type Precision = (typeof PRECISIONS)[number];

/** Largest relative error of a float32 that is rounded to float16, in whichever direction: WGSL leaves that open. */
const F16 = 2 ** -10;

/** A kernel that makes factors float16, and what is tried before it may be chosen. */
interface Candidate {
  readonly kernel: Kernel;
  readonly variant: Variant;
  readonly trials: readonly ProductTrial[];
}
const PRODUCTS = ['conv', 'weight', 'matmul'] as const, PLAIN = productTrials(), PLAIN_GPU = { ...PLAIN, conv: GEMM_TILES.flatMap((gemm) => productTrials({ gemm }).conv) };
const GPU: readonly Candidate[] = PRODUCTS.map((what) => ({ kernel: HALF[what].tiled_f16, variant: 'tiled_f16', trials: PLAIN_GPU[what] }));
const tensorCores = (engine: Engine): readonly Candidate[] => PRODUCTS.map((what) => ({ kernel: HALF[what].subgroup_matrix, variant: 'subgroup_matrix', trials: coreTiles(engine).flatMap((tile) => productTrials({ tile })[what]) }));
const CPU: readonly Candidate[] = [{ kernel: k.round_half, variant: 'rounded', trials: [PLAIN.conv[0]!, ...PLAIN.weight, PLAIN.matmul[0]!] }];

/**
 * What can be tried on a device: tensor cores where the device has such, and subgroups of the width that the kernels are written for. Which matrices it multiplies only
 * the adapter says (engineRequirements asks it), not the device: where the size is another, the kernels do not compile.
 */
function candidates(engine: Engine): readonly Candidate[] {
  if (engine.deviceClass !== 'gpu') return CPU;
  return engine.device.features.has(SUBGROUP_MATRIX) && engine.subgroupWidth === 32 ? [...tensorCores(engine), ...GPU] : GPU;
}

/**
 * Sets the precision of products from here on; plans that were captured before keep theirs. For `f16` every kernel is first compared with the float32 one on this device.
 * One that is wrong is not used, and the result says which and by how much: tensor cores give way to plain float16, that to float32. Conv2d, linear layers and attention
 * round their factors to float16; sums, norms, softmax, losses, weights and moments are float32. On a GPU whose kernels for it are all right, networks also store their
 * activations and the gradients of these as float16 (`engine.storage`). Train with it under AdamW's loss scaling, as Training does. Place models after it: tensor cores then read a copy of
 * the weights that is rounded once a pass, and not one for each convolution.
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
async function failureOf(engine: Engine, trial: ProductTrial, variant: Variant): Promise<string | null> {
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
async function differs(engine: Engine, { what, sizes, run }: ProductTrial, tried: Variant, value: (i: number, factor: number) => number, share: number): Promise<string | null> {
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
