// Checks of sums of products: matrices and convolutions, in all their variants.
import { pointwise, threads } from '../../../autograd.ts';
import type { DeviceClass } from '../../../gpu/device-class.ts';
import { grid } from '../../../gpu/kernel.ts';
import { abs, bound } from '../../../../test/ref/accuracy.ts';
import * as conv from '../../../../test/ref/conv2d.ts';
import { half } from '../../../../test/ref/half.ts';
import { matmul } from '../../../../test/ref/matmul.ts';
import { filteredBound, filteredWeightBound } from '../../../../test/ref/winograd.ts';
import { DEFAULTS } from '../../../variants.ts';
import { type Checks, type Floats, type Stored, values, whole } from './case.ts';

/** What a kernel takes of a factor. */
type Rounding = (v: Floats) => Floats;
const all: Rounding = (v) => v;

function product(tile: readonly [number, number], stored: Stored = whole, of: Rounding = all, N = 50) {
  const [M, K] = [33, 72] as const, a = stored(values(M * K, 1)), b = stored(values(K * N, 2)), twin = (f: (v: Floats) => Floats) => matmul({ a: f(of(a)), b: f(of(b)), M, N, K });
  const strides = { outer_a: 0, outer_b: 0, outer_c: 0, inner_a: 0, inner_b: 0, inner_c: 0 };
  return {
    shape: `(${M}, ${K}) (${K}, ${N})`, grid: grid(Math.ceil(M / tile[0]) * Math.ceil(N / tile[1])), inputs: { a, b },
    numbers: { M, N, K, batch: 1, inner: 1, trans_a: 0, trans_b: 0, accumulate: 0, alpha: 1, lda: K, ldb: N, ldc: N, ...strides },
    outputs: { c: { want: twin((v) => v), off: bound(K, twin(abs)) } },
  };
}

const [N, H, W] = [2, 9, 7] as const, pixels = N * H * W;
/** A 3 x 3 convolution of C to O channels that keeps the size, as kernels and as twins take it. */
function shapeOf(C: number, O: number) {
  const twin = { N, H, W, C, O, KH: 3, KW: 3, stride: 1, OH: H, OW: W, pad: [1, 1] as const };
  const numbers = { N, H, W, C, OH: H, OW: W, O, KH: 3, KW: 3, stride: 1, pad_top: 1, pad_left: 1, WC: C, C0: 0, has_bias: 0, has_per_image: 0, has_residual: 0, accumulate: 0, splits: 1 };
  return { twin, numbers, weights: 9 * C * O };
}
type Tiles = (C: number, O: number) => number;
/** Workgroups for tiles of `height` x `width` of a matrix of rows x columns. */
const tiles = (rows: number, columns: number, height: number, width: number) => Math.ceil(rows / height) * Math.ceil(columns / width);
/** The kernels of subgroups, of four, eight or sixteen lanes: 3 x 3 in tiles of 7 rows by two columns a lane, counted through the images, and 16 channels. */
const subgroupProduct = (lanes: number) => product([8 * lanes, 64], whole, all, 68);
const subgroupForward = (lanes: number) => forward(8, 20, (_, O) => tiles(pixels, O, 8 * lanes, 16));
const subgroupFiltered = (lanes: number) => forwardFiltered(8, 20, 7, (_, O) => tiles(H, N * W, 7, 2 * lanes) * Math.ceil(O / 16));
const subgroupWeight = (lanes: number) => backwardBoth(8, 20, (C, O) => tiles(9 * C, O, 32, Math.min(16, 2 * lanes)));
const subgroupWeight3x3 = (lanes: number) => backwardBoth(8, 20, (C, O) => tiles(C, O, 8, Math.min(16, 2 * lanes)));

/** Four pixels, one below the other, are one of a GEMM's rows. */
const groups3x3 = N * Math.ceil(H / 4) * W;

function forward(C: number, O: number, workgroups: Tiles, stored: Stored = whole, of: Rounding = all) {
  const s = shapeOf(C, O), x = stored(values(pixels * C, 1)), w = values(s.weights, 2), bias = values(O, 3), per_image = values(N * O, 4), residual = stored(values(pixels * O, 5));
  const twin = (f: (v: Floats) => Floats) => conv.conv2d({ ...s.twin, x: f(of(x)), w: f(of(w)), bias: f(bias), perImage: f(per_image), residual: f(residual) });
  return {
    shape: `(${N}, ${H}, ${W}, ${C}) * (3, 3, ${C}, ${O})`, grid: grid(workgroups(C, O)), inputs: { x, w, bias, per_image, residual },
    numbers: { ...s.numbers, has_bias: 1, has_per_image: 1, has_residual: 1 }, outputs: { y: { want: twin((v) => v), off: bound(9 * C + 3, twin(abs)) } },
  };
}

/** The same by Winograd's filtering, in tiles of so many rows. */
function forwardFiltered(C: number, O: number, rows: number, workgroups: Tiles) {
  const check = forward(C, O, workgroups), { x, w } = check.inputs, off = filteredBound({ ...shapeOf(C, O).twin, x, w }, rows);
  return { ...check, outputs: { y: { ...check.outputs.y, off: check.outputs.y.off.map((v, i) => v + off[i]!) } } };
}

function backwardInput(C: number, O: number, workgroups: Tiles, stored: Stored = whole) {
  const s = shapeOf(C, O), dy = stored(values(pixels * O, 1)), w = values(s.weights, 2), twin = (f: (v: Floats) => Floats) => conv.conv2dBackwardInput({ ...s.twin, dy: f(dy), w: f(w) });
  return { shape: `(${N}, ${H}, ${W}, ${O}) to (${N}, ${H}, ${W}, ${C})`, grid: grid(workgroups(C, O)), inputs: { dy, w }, numbers: s.numbers, outputs: { dx: { want: twin((v) => v), off: bound(9 * O, twin(abs)) } } };
}

function backwardWeight(C: number, O: number, workgroups: Tiles, stored: Stored = whole, of: Rounding = all) {
  const s = shapeOf(C, O), x = stored(values(pixels * C, 1)), dy = stored(values(pixels * O, 2)), twin = (f: (v: Floats) => Floats) => conv.conv2dBackwardWeight({ ...s.twin, x: f(of(x)), dy: f(of(dy)) });
  return { shape: `(3, 3, ${C}, ${O}) from ${pixels} pixels`, grid: grid(workgroups(C, O)), inputs: { x, dy }, numbers: s.numbers, outputs: { part: { want: twin((v) => v), off: bound(pixels, twin(abs)) } } };
}

/** The same with the bias's gradient, which the fast kernels sum from the same reading of dy. */
function backwardBoth(C: number, O: number, workgroups: Tiles, stored: Stored = whole, of: Rounding = all) {
  const weight = backwardWeight(C, O, workgroups, stored, of), dy = of(weight.inputs.dy);
  return { ...weight, numbers: { ...weight.numbers, has_bias: 1 }, outputs: { ...weight.outputs, sums: { want: conv.sumRows(dy, pixels, O), off: bound(pixels, conv.sumRows(abs(dy), pixels, O)) } } };
}

/** The same by Winograd's filtering. */
function backwardFiltered(C: number, O: number, workgroups: Tiles) {
  const check = backwardBoth(C, O, workgroups), { part } = check.outputs, off = filteredWeightBound({ ...shapeOf(C, O).twin, ...check.inputs });
  return { ...check, outputs: { ...check.outputs, part: { ...part, off: part.off.map((v, i) => v + off[i]!) } } };
}

/** Two sums in one dispatch, as a weight's and a bias's gradient: so many values of eleven terms, `unit` of them at a time, and behind them O of eleven. */
function folded(weights: number, O: number, unit: 1 | 4, on: DeviceClass) {
  const terms = 11, part = values(terms * (weights + O), 1), [w, o] = [weights / unit, O / unit] as const, first = Math.ceil(w / 256);
  const table = Uint32Array.of(0, 0, terms, w, w, w, w, w, 0, 0, first, terms * w, terms, o, o, o, o, o, w, 0);
  const twin = (v: Float32Array | Float64Array) => Float64Array.of(...conv.sumRows(v.subarray(0, terms * weights), terms, weights), ...conv.sumRows(v.subarray(terms * weights), terms, O));
  return { shape: `${terms} × ${weights} and ${terms} × ${O}`, grid: grid(first + Math.ceil(o / 256)), inputs: { table, part }, numbers: { sums: 2, WG: DEFAULTS[on].folding }, outputs: { y: { want: twin(part), off: bound(terms, twin(abs(part))) } } };
}

export const PRODUCTS = {
  matmul: { twin: ['matmul', 'matmul'], make: () => product([32, 32]) },
  matmul_f16: { twin: ['matmul', 'matmul'], make: (stored) => product([32, 32], stored, half) },
  matmul_64: { twin: ['matmul', 'matmul'], make: () => product([64, 64], whole, all, 68) },
  matmul_64_f16: { twin: ['matmul', 'matmul'], make: (stored) => product([64, 64], stored, half, 68) },
  round_half: { twin: ['half', 'half'], make: () => {
    // Of every size that float16 has and below, with what is halfway between two of its numbers.
    const x = values(1000, 1).map((v, i) => (i % 5 ? v : Math.trunc(2048 * v) + 0.5) * 2 ** ((i % 25) - 21)), want = half(x);
    return { shape: `(${x.length})`, grid: pointwise(x.length), inputs: { x }, numbers: {}, outputs: { y: { want, off: 0 } } };
  } },
  matmul_subgroup_matrix: { twin: ['matmul', 'matmul'], make: (stored) => product([64, 64], stored, half, 68) },
  matmul_subgroup: { twin: ['matmul', 'matmul'], make: () => subgroupProduct(8) },
  matmul_subgroup_lanes4: { twin: ['matmul', 'matmul'], make: () => subgroupProduct(4) },
  matmul_subgroup_lanes16: { twin: ['matmul', 'matmul'], make: () => subgroupProduct(16) },
  conv2d_forward: { twin: ['conv2d', 'conv2d'], make: (stored) => forward(3, 5, (_, O) => threads(pixels * O)[0], stored) },
  conv2d_subgroup: { twin: ['conv2d', 'conv2d'], make: () => subgroupForward(8) },
  conv2d_subgroup_lanes4: { twin: ['conv2d', 'conv2d'], make: () => subgroupForward(4) },
  conv2d_subgroup_lanes16: { twin: ['conv2d', 'conv2d'], make: () => subgroupForward(16) },
  conv2d_3x3_subgroup: { twin: ['conv2d', 'conv2d'], make: () => subgroupFiltered(8) },
  conv2d_3x3_subgroup_lanes4: { twin: ['conv2d', 'conv2d'], make: () => subgroupFiltered(4) },
  conv2d_3x3_subgroup_lanes16: { twin: ['conv2d', 'conv2d'], make: () => subgroupFiltered(16) },
  conv2d_3x3_tiled: { twin: ['winograd', 'filtered'], make: () => forwardFiltered(8, 20, 4, (_, O) => tiles(groups3x3, O, 32, 64)) },
  conv2d_tiled: { twin: ['conv2d', 'conv2d'], make: () => forward(8, 12, (_, O) => tiles(pixels, O, 128, 64)) },
  conv2d_subgroup_matrix: { twin: ['conv2d', 'conv2d'], make: (stored) => forward(8, 24, (_, O) => tiles(pixels, O, 64, 64), stored, half) },
  conv2d_tiled_f16: { twin: ['conv2d', 'conv2d'], make: (stored) => forward(8, 12, (_, O) => tiles(pixels, O, 128, 64), stored, half) },
  conv2d_backward_input: { twin: ['conv2d', 'conv2dBackwardInput'], make: (stored) => backwardInput(3, 5, (C) => threads(pixels * C)[0], stored) },
  conv2d_backward_weight: { twin: ['conv2d', 'conv2dBackwardWeight'], make: (stored) => backwardWeight(3, 5, (C, O) => threads(9 * C * O)[0], stored) },
  conv2d_backward_weight_subgroup: { twin: ['conv2d', 'conv2dBackwardWeight'], make: () => subgroupWeight(8) },
  conv2d_backward_weight_subgroup_lanes4: { twin: ['conv2d', 'conv2dBackwardWeight'], make: () => subgroupWeight(4) },
  conv2d_backward_weight_subgroup_lanes16: { twin: ['conv2d', 'conv2dBackwardWeight'], make: () => subgroupWeight(16) },
  conv2d_backward_weight_3x3_subgroup: { twin: ['conv2d', 'conv2dBackwardWeight'], make: () => subgroupWeight3x3(8) },
  conv2d_backward_weight_3x3_subgroup_lanes4: { twin: ['conv2d', 'conv2dBackwardWeight'], make: () => subgroupWeight3x3(4) },
  conv2d_backward_weight_3x3_subgroup_lanes16: { twin: ['conv2d', 'conv2dBackwardWeight'], make: () => subgroupWeight3x3(16) },
  conv2d_backward_weight_3x3_tiled: { twin: ['winograd', 'filteredWeight'], make: () => backwardFiltered(8, 20, (C, O) => tiles(3 * C, O, 32, 64)) },
  conv2d_backward_weight_tiled: { twin: ['conv2d', 'conv2dBackwardWeight'], make: () => backwardBoth(8, 20, (C, O) => tiles(9 * C, O, 128, 128)) },
  conv2d_backward_weight_subgroup_matrix: { twin: ['conv2d', 'conv2dBackwardWeight'], make: (stored) => backwardBoth(8, 24, (C, O) => 9 * tiles(C, O, 64, 64), stored, half) },
  conv2d_backward_weight_tiled_f16: { twin: ['conv2d', 'conv2dBackwardWeight'], make: (stored) => backwardBoth(8, 20, (C, O) => tiles(9 * C, O, 128, 128), stored, half) },
  fold: { twin: ['conv2d', 'sumRows'], make: (_, on = 'cpu') => folded(335, 5, 1, on) },
  fold_vec4: { twin: ['conv2d', 'sumRows'], make: (_, on = 'cpu') => folded(1340, 20, 4, on) },
} as const satisfies Checks;
