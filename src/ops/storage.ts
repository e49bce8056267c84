// Whether this device computes on activations that are stored as float16: each kernel that a U-Net needs for it, against the same kernel on float32.
import { record, Tape, threads } from '../autograd.ts';
import { Clock } from '../clock.ts';
import { DdpmError } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import type { ElementType } from '../gpu/kernel.ts';
import * as k from '../gpu/kernels.gen.ts';
import { philox4x32 } from '../philox.ts';
import { sizeOf, Tensor } from '../tensor.ts';
import { cast } from './cast.ts';
import { conv2d, type Conv2dOptions } from './conv2d.ts';
import { GEMM_TILES } from './conv2d_choice.ts';
import { groupNorm, type GroupNormOptions } from './group_norm.ts';
import { coreTiles, halfVariant } from './half.ts';
import { type ProductTrial, productTrials } from './half_trials.ts';
import { matmul } from './matmul.ts';
import { add, upsample } from './pointwise.ts';
import { softmaxBackward, softmaxForward } from './softmax.ts';

/** What is run twice: on `activations` that are float16 numbers, stored as such and as float32, and on float32 `weights`. It gives results that are rounded once. */
interface Trial {
  readonly what: string;
  readonly activations: readonly (readonly number[])[];
  readonly weights: readonly (readonly number[])[];
  readonly run: (engine: Engine, activations: readonly Tensor[], weights: readonly Tensor[], clock: Clock) => readonly Tensor[];
}

/** The op's result, and the gradients by all that it was given; the last of the activations is the gradient by the result. */
function differentiated(op: (x: readonly Tensor[], w: readonly Tensor[], clock: Clock) => Tensor): Trial['run'] {
  return (engine, activations, weights, clock) => {
    const x = activations.slice(0, -1), dy = activations.at(-1)!, tape = new Tape(engine);
    for (const input of [...x, ...weights]) input.requiresGrad = true;
    const [loss, y] = tape.record(() => {
      const result = op(x, weights, clock);
      return [record(Tensor.empty(engine, [1]), [result], (_, [d]) => d && engine.run(k.accumulate, threads(dy.size), { x: dy.slice, y: d.slice, copy: 1 - d.accumulate })), result] as const;
    });
    tape.backward(loss, y);
    return [y, ...[...x, ...weights].map((input) => tape.gradient(input))];
  };
}

const [N, H, W] = [2, 6, 5] as const;
const images = (channels: number): readonly number[] => [N, H, W, channels];

const convolution = (what: string, C: readonly number[], O: number, { stride = 1, perImage = false, residual = false, kernel = 3 } = {}): Trial => {
  const out = stride === 1 ? images(O) : [N, H / 2, Math.floor(W / 2), O], options = (x: readonly Tensor[], w: readonly Tensor[]): Conv2dOptions => ({
    stride, perImage: perImage ? w[2]! : null, residual: residual ? x.at(-1)! : null, ...(stride === 2 && { padding: [0, 1, 0, 1] as const }),
  });
  return {
    what, activations: [...C.map(images), ...(residual ? [out] : []), out], weights: [[kernel, kernel, C.reduce((a, b) => a + b, 0), O], [O], ...(perImage ? [[N, O]] : [])],
    run: differentiated((x, w) => conv2d(C.length === 2 ? [x[0]!, x[1]!] : x[0]!, w[0]!, w[1]!, options(x, w))),
  };
};

const normalisation = (what: string, C: readonly number[], groups: number, p = 0): Trial => {
  const sum = C.reduce((a, b) => a + b, 0), options = (clock: Clock): GroupNormOptions => ({ groups, silu: true, dropout: p ? { p, clock, stream: 256 } : null });
  return { what, activations: [...C.map(images), images(sum)], weights: [[sum], [sum]], run: differentiated((x, w, clock) => groupNorm(C.length === 2 ? [x[0]!, x[1]!] : x[0]!, w[0]!, w[1]!, options(clock))) };
};

const product = (what: string, [first, second]: readonly [boolean, boolean], [M, N]: readonly [number, number] = [66, 70]): Trial => ({
  what, activations: [[2, M * 52], [2, 52 * N]], weights: [],
  run: (engine, [a, b]) => {
    const c = Tensor.empty(engine, [2, M, N], a!.type), operand = (x: Tensor, ld: number, outer: number, transposed = false) => ({ slice: x.slice, ld, outer, inner: 0, transposed });
    matmul(engine, M, N, 52, operand(a!, first ? M : 52, M * 52, first), operand(b!, second ? 52 : N, 52 * N, second), operand(c, N, M * N), { batch: 2 });
    return [c];
  },
});

const ROWS = { rows: 67, size: 33, ld: 33 } as const, scores = [ROWS.rows, ROWS.ld];
const TRIALS: readonly Trial[] = [
  convolution('conv2d of few channels', [3], 40),
  convolution('conv2d to few channels', [40], 3),
  convolution('conv2d of stride 2', [40], 40, { stride: 2 }),
  convolution('conv2d of two inputs', [40, 48], 40, { perImage: true, residual: true }),
  convolution('linear layer', [40], 72, { kernel: 1 }),
  convolution('linear layer of channels that are no multiples of eight', [36], 68, { kernel: 1 }),
  normalisation('group norm', [15], 3),
  normalisation('group norm of two inputs', [24, 12], 3),
  normalisation('group norm with dropout', [15], 3, 0.3), normalisation('group norm with dropout, four channels at a time', [24], 3, 0.3),
  { what: 'upsampling', activations: [images(7), [N, 2 * H, 2 * W, 7]], weights: [], run: differentiated(([x]) => upsample(x!)) },
  // Its gradient comes from three places, and is added up.
  { what: 'casting and adding', activations: [images(7), images(7)], weights: [], run: differentiated(([x]) => add(add(x!, x!), cast(cast(x!, 'f32'), x!.type))) },
  product('product', [false, false]), product('product, the first turned', [true, false]), product('product, the second turned', [false, true]),
  product('product of whole vec4s', [false, false], [68, 72]), product('product of whole vec4s, both turned', [true, true], [68, 72]),
  { what: 'softmax', activations: [scores], weights: [], run: (engine, [x]) => {
    const y = Tensor.empty(engine, x!.shape, x!.type);
    softmaxForward(engine, x!.slice, y.slice, ROWS);
    return [y];
  } },
  { what: 'gradient of softmax', activations: [scores, scores], weights: [], run: (engine, [y, dy]) => {
    const dx = Tensor.empty(engine, y!.shape, y!.type);
    softmaxBackward(engine, y!.slice, dy!.slice, dx.slice, ROWS);
    return [dx];
  } },
];

/** In tiles of such a side: the small shapes of the others do not fill the larger ones, and their products on tensor cores no smaller ones. */
const inTiles = (variant: 'tiled_f16' | 'subgroup_matrix', tile: number) => ({ what, sizes, activations: [first, second, result], run }: ProductTrial): Trial => {
  const of = (activations: boolean) => [first, second].flatMap((is, i) => (is === activations ? [[sizes[i]!]] : []));
  return {
    what: `${what} in tiles of ${tile}`, activations: of(true), weights: of(false),
    run: (engine, x, w) => {
      const [a, b] = second ? x : [x[0], w[0]], y = Tensor.empty(engine, [sizes[2]], result ? a!.type : 'f32');
      run(engine, variant, a!.slice, b!.slice, y.slice);
      return [y];
    },
  };
};

/** What a network would run here, in all tiles; on tensor cores, where they are used for a product, in those that there is room for. */
function trials(engine: Engine): readonly Trial[] {
  const cores = (['conv', 'weight', 'matmul'] as const).filter((product) => halfVariant(engine, product) === 'subgroup_matrix');
  return [
    ...TRIALS, ...GEMM_TILES.flatMap((gemm) => productTrials({ gemm }).conv.map(inTiles('tiled_f16', gemm))),
    ...coreTiles(engine).flatMap((tile) => cores.flatMap((product) => productTrials({ tile })[product].map(inTiles('subgroup_matrix', tile)))),
  ];
}

/** What keeps this device from storing activations as float16, or null. */
export async function storageFailure(engine: Engine): Promise<string | null> {
  if ((['conv', 'weight', 'matmul'] as const).some((product) => [true, false].some((cores) => halfVariant(engine, product, cores) === null))) return 'not every product has a kernel with float16 factors that is right';
  try {
    if (!(await overflows(engine))) return 'what is too large for float16 becomes a number, and dynamic loss scaling would not see it';
    for (const trial of trials(engine)) {
      const wrong = await differs(engine, trial);
      if (wrong) return `${trial.what} on float16 is not right (${wrong})`;
    }
    return null;
  } catch (error) {
    if (error instanceof DdpmError && error.code === 'E-KERNEL') return error.message;
    throw error;
  }
}

/** Whether a number beyond float16 is infinite or NaN once it is stored. */
async function overflows(engine: Engine): Promise<boolean> {
  const x = Tensor.from(engine, [4], Float32Array.of(1e6, -1e6, 1e30, 65600)), plan = engine.capture(() => cast(x, 'f16'));
  try {
    await plan.compile();
    plan.run();
    return (await plan.result.read()).every((v) => !Number.isFinite(v));
  } finally {
    await plan.destroy();
    x.free();
  }
}

/** A result may be off by one rounding of float16, in whichever direction, and by float32's in sums: these, and numbers that count as zero, by the largest of all. */
async function differs(engine: Engine, trial: Trial): Promise<string | null> {
  const want = await results(engine, trial, 'f32'), got = await results(engine, trial, 'f16');
  for (const [i, { type, values }] of got.entries()) {
    const right = want[i]!.values, largest = right.reduce((most, v) => Math.max(most, Math.abs(v)), 0), least = 2 ** -14 * largest;
    if (!(largest > 0)) return 'float32 gives nothing but zeros';
    // A comparison that a NaN fails as well.
    const at = right.findIndex((v, j) => !(Math.abs(values[j]! - v) <= least + (type === 'f16' ? 2 ** -10 * Math.abs(v) : 0)));
    if (at >= 0) return `value ${at} of ${right.length} in ${i === 0 ? 'the result' : `gradient ${i}`} is ${values[at]}, and ${right[at]} in float32`;
  }
  return null;
}

async function results(engine: Engine, { activations, weights, run }: Trial, type: ElementType): Promise<{ type: ElementType; values: Float32Array }[]> {
  // Eighths up to 2 are float16 numbers.
  const make = (as: ElementType, first: number) => (shape: readonly number[], id: number) =>
    Tensor.from(engine, shape, Float32Array.from({ length: sizeOf(shape) }, (_, i) => ((philox4x32([i, 0, 0, 2], [7, first + id])[0] % 33) - 16) / 8), as);
  const x = activations.map(make(type, 0)), w = weights.map(make('f32', activations.length)), clock = new Clock(engine);
  clock.set({ seed: 7, step: 1 });
  const plan = engine.capture(() => run(engine, x, w, clock));
  try {
    await plan.compile();
    plan.run();
    return await Promise.all(plan.result.map(async (tensor) => ({ type: tensor.type, values: await tensor.read() })));
  } finally {
    await plan.destroy();
    for (const each of [...x, ...w]) each.free();
    engine.free(clock.slice);
  }
}
