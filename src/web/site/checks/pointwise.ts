// Checks of what works value by value, window by window or row by row.
import { pointwise, threads } from '../../../autograd.ts';
import { frequencies } from '../../../ops/embedding.ts';
import { softmaxLaunch } from '../../../ops/softmax.ts';
import { STREAM } from '../../../philox.ts';
import { abs, bound, DIVIDE, expUlps, logError, sigmoidError, ULP } from '../../../../test/ref/accuracy.ts';
import * as classes from '../../../../test/ref/classification.ts';
import { sumPixels } from '../../../../test/ref/conv2d.ts';
import { half, roundedToHalf } from '../../../../test/ref/half.ts';
import * as embed from '../../../../test/ref/embedding.ts';
import * as point from '../../../../test/ref/pointwise.ts';
import * as pool from '../../../../test/ref/pool.ts';
import { words } from '../../../../test/ref/random.ts';
import * as soft from '../../../../test/ref/softmax.ts';
import { timestepEmbedding } from '../../../../test/ref/timestep_embedding.ts';
import { type Checks, draw, integers, type Stored, values, whole } from './case.ts';

/** 1,030 values: vec4s that do not fill a workgroup, and two values that do not fill a vec4. */
const n = 1030;
const [N, H, W, C] = [2, 5, 3, 7] as const, size = N * H * W * C;
/** Half a unit in the last place: one rounding. */
const round = (v: Float64Array) => v.map((x) => (ULP / 2) * Math.abs(x));
const relative = (v: Float64Array, by: number) => v.map((x) => by * Math.abs(x));

function sumOf(channels: number, lanes: number, stored: Stored = whole) {
  const P = 37, x = stored(values(N * P * channels, 1)), WG = 64, COLUMNS = 4;
  return {
    shape: `(${N}, ${P}, ${channels})`, grid: [Math.ceil((N * channels) / lanes / COLUMNS)] as const, inputs: { x }, numbers: { N, P, C: channels, accumulate: 0, WG, COLUMNS },
    outputs: { y: { want: sumPixels(x, N, P, channels), off: bound(P, sumPixels(abs(x), N, P, channels)) } },
  };
}

function pooled(channels: number, lanes: number, f: typeof pool.maxPool, roundings: number) {
  const s = { N, H: 9, W: 7, C: channels, K: 3, stride: 2, pad: 1 }, x = values(N * 63 * channels, 1), want = f(s, x);
  return {
    shape: `(${N}, 9, 7, ${channels})`, grid: threads(want.length / lanes), inputs: { x }, numbers: { ...s, OH: 5, OW: 4 },
    outputs: { y: { want, off: roundings ? bound(roundings, pool.averagePool(s, abs(x))) : (0 as const) } },
  };
}

const rows = 37, width = 49;
/** Logits, and how far below the largest of its row each lies. */
function logits(stored: Stored = whole) {
  const x = stored(values(rows * width, 1).map((v) => 3 * v)), label = integers(rows, width);
  const top = Array.from({ length: rows }, (_, r) => Math.max(...x.subarray(r * width, (r + 1) * width)));
  return { x, label, p: soft.softmax(x, rows, width), depth: (i: number) => top[Math.floor(i / width)] - x[i] };
}

export const POINTWISE = {
  relu_forward: { twin: ['pointwise', 'relu'], make: () => {
    const x = values(n, 1);
    return { shape: `(${n})`, grid: pointwise(n), inputs: { x }, numbers: {}, outputs: { y: { want: point.relu(x), off: 0 } } };
  } },
  silu_forward: { twin: ['pointwise', 'silu'], make: (stored = whole) => {
    const x = stored(values(n, 1).map((v) => 4 * v)), want = point.silu(x);
    return { shape: `(${n})`, grid: pointwise(n), inputs: { x }, numbers: {}, outputs: { y: { want, off: want.map((v, i) => Math.abs(v) * (sigmoidError(x[i]) + ULP) + 2 ** -126) } } };
  } },
  silu_backward: { twin: ['pointwise', 'siluBackward'], make: (stored = whole) => {
    const x = stored(values(n, 1).map((v) => 4 * v)), dy = stored(values(n, 2)), want = point.siluBackward(x, dy);
    // The two terms of 1 + x (1 - s) may cancel: their own sizes bound the error.
    const off = want.map((_, i) => Math.abs(dy[i]) * (1 + Math.abs(x[i])) * (sigmoidError(x[i]) * (1 + Math.abs(x[i])) + 3 * ULP));
    return { shape: `(${n})`, grid: pointwise(n), inputs: { x, dy }, numbers: { accumulate: 0 }, outputs: { dx: { want, off } } };
  } },
  add_forward: { twin: ['pointwise', 'addPerImage'], make: (stored = whole) => {
    const a = stored(values(size, 1)), b = stored(values(N * C, 2)), want = point.addPerImage(a, b, N, H * W, C);
    return { shape: `(${N}, ${H * W}, ${C}) + (${N}, ${C})`, grid: threads(size), inputs: { a, b }, numbers: { N, P: H * W, C, per_image: 1 }, outputs: { y: { want, off: round(want) } } };
  } },
  fill: { twin: ['pointwise', 'fill'], make: () => ({ shape: `(${n})`, grid: pointwise(n), inputs: {}, numbers: { value: 0.25 }, outputs: { y: { want: point.fill(n, 0.25), off: 0 } } }) },
  cast_f16: { twin: ['half', 'half'], make: () => {
    const x = values(n, 1).map((v, i) => v * 2 ** ((i % 24) - 12)), y = half(values(n, 2)), want = point.accumulate(y, x);
    return { shape: `(${n})`, grid: pointwise(n), inputs: { x, y }, numbers: { size: n, accumulate: 1 }, outputs: { y: { want, off: roundedToHalf(want) } } };
  } },
  cast_f32: { twin: ['half', 'half'], make: () => {
    const x = half(values(n, 1).map((v, i) => v * 2 ** ((i % 24) - 12)));
    return { shape: `(${n})`, grid: pointwise(n), inputs: { x }, numbers: { size: n, accumulate: 0 }, outputs: { y: { want: x, off: 0 } } };
  } },
  accumulate: { twin: ['pointwise', 'accumulate'], make: (stored = whole) => {
    const x = stored(values(n, 1)), y = stored(values(n, 2)), want = point.accumulate(y, x);
    return { shape: `(${n})`, grid: pointwise(n), inputs: { x, y }, numbers: { copy: 0 }, outputs: { y: { want, off: round(want) } } };
  } },
  dropout: { twin: ['pointwise', 'dropout'], make: (stored = whole) => {
    const samples = 5, each = 33, x = stored(values(samples * each, 1)), p = Math.fround(0.3), stream = STREAM.dropout, want = point.dropout(x, words(draw(stream, samples, each)), p);
    return { shape: `(${samples}, ${each}), p = 0.3`, grid: threads(samples * Math.ceil(each / 4)), inputs: { x }, numbers: { N: samples, size: each, stream, p, accumulate: 0 }, outputs: { y: { want, off: relative(want, DIVIDE + ULP) } } };
  } },
  upsample_forward: { twin: ['pointwise', 'upsampleNearest2x'], make: (stored = whole) => {
    const x = stored(values(size, 1));
    return { shape: `(${N}, ${H}, ${W}, ${C})`, grid: threads(size), inputs: { x }, numbers: { N, H, W, C }, outputs: { y: { want: point.upsampleNearest2x(x, N, H, W, C), off: 0 } } };
  } },
  upsample_backward: { twin: ['pointwise', 'upsampleNearest2xBackward'], make: (stored = whole) => {
    const dy = stored(values(4 * size, 1)), twin = (v: ArrayLike<number>) => point.upsampleNearest2xBackward(v, N, H, W, C);
    return { shape: `(${N}, ${H}, ${W}, ${C})`, grid: threads(size), inputs: { dy }, numbers: { N, H, W, C, accumulate: 0 }, outputs: { dx: { want: twin(dy), off: bound(4, twin(abs(dy))) } } };
  } },
  copy_columns: { twin: ['pointwise', 'splitChannels'], make: (stored = whole) => {
    const x = stored(values(rows * 7, 1));
    return { shape: `columns 3 to 6 of (${rows}, 7)`, grid: threads(rows), inputs: { x }, numbers: { rows, width: 4, x_stride: 7, x_first: 3, y_stride: 4, y_first: 0, y_width: 4, accumulate: 0 }, outputs: { y: { want: point.splitChannels(x, rows, 3, 4)[1], off: 0 } } };
  } },
  sum_pixels: { twin: ['conv2d', 'sumPixels'], make: (stored) => sumOf(30, 1, stored) },
  sum_pixels_vec4: { twin: ['conv2d', 'sumPixels'], make: (stored) => sumOf(36, 4, stored) },
  mean: { twin: ['classification', 'meanPixels'], make: () => {
    const x = values(n, 1);
    return { shape: `(${n})`, grid: [1], inputs: { x }, numbers: { N: n }, outputs: { y: { want: classes.meanPixels(x, 1, n, 1), off: bound(n + 4, classes.meanPixels(abs(x), 1, n, 1)) } } };
  } },
  mean_pixels_forward: { twin: ['classification', 'meanPixels'], make: () => {
    const P = 37, channels = 30, x = values(N * P * channels, 1), twin = (v: ArrayLike<number>) => classes.meanPixels(v, N, P, channels);
    return { shape: `(${N}, ${P}, ${channels})`, grid: threads(N * channels), inputs: { x }, numbers: { N, P, C: channels }, outputs: { y: { want: twin(x), off: bound(P + 4, twin(abs(x))) } } };
  } },
  mean_pixels_backward: { twin: ['classification', 'meanPixelsBackward'], make: () => {
    const dy = values(N * C, 1), want = classes.meanPixelsBackward(dy, N, H * W, C);
    return { shape: `(${N}, ${H * W}, ${C})`, grid: threads(size), inputs: { dy }, numbers: { N, P: H * W, C, accumulate: 0 }, outputs: { dx: { want, off: relative(want, DIVIDE) } } };
  } },
  max_pool: { twin: ['pool', 'maxPool'], make: () => pooled(5, 1, pool.maxPool, 0) },
  max_pool_vec4: { twin: ['pool', 'maxPool'], make: () => pooled(8, 4, pool.maxPool, 0) },
  average_pool: { twin: ['pool', 'averagePool'], make: () => pooled(5, 1, pool.averagePool, 15) },
  average_pool_vec4: { twin: ['pool', 'averagePool'], make: () => pooled(8, 4, pool.averagePool, 15) },
  resize_bilinear: { twin: ['pool', 'resizeBilinear'], make: () => {
    const [OH, OW] = [11, 4], x = values(size, 1), twin = (v: ArrayLike<number>) => pool.resizeBilinear(v, N, H, W, C, OH, OW);
    // Three interpolations; the share rounds once, and counts by the difference of two neighbours.
    return { shape: `(${N}, ${H}, ${W}, ${C}) to ${OH} × ${OW}`, grid: threads(N * OH * OW * C), inputs: { x }, numbers: { N, H, W, C, OH, OW }, outputs: { y: { want: twin(x), off: bound(12, twin(abs(x)).map((v) => v + 2)) } } };
  } },
  softmax_forward: { twin: ['softmax', 'softmax'], make: (stored, on = 'cpu') => {
    const { x, p, depth } = logits(stored), { grid, overrides } = softmaxLaunch(on, rows);
    // exp(x - max), whose sum adds sqrt(width) roundings, and a division.
    const off = p.map((v, i) => v * (ULP * (expUlps(depth(i)) + depth(i) + expUlps(20)) + 4 * Math.sqrt(width) * ULP + DIVIDE) + 2 ** -126);
    return { shape: `(${rows}, ${width})`, grid, inputs: { x }, numbers: { rows, size: width, ld: width, ...overrides }, outputs: { y: { want: p, off } } };
  } },
  softmax_backward: { twin: ['softmax', 'softmaxBackward'], make: (stored = whole, on = 'cpu') => {
    const { grid, overrides } = softmaxLaunch(on, rows);
    const y = stored(Float32Array.from(logits().p)), dy = stored(values(rows * width, 2)), dot = sumPixels(abs(y.map((v, i) => v * dy[i])), 1, 1, rows * width);
    const sizes = y.map((v, i) => v * (Math.abs(dy[i]) + dot.subarray(i - (i % width), i - (i % width) + width).reduce((a, b) => a + b, 0)));
    return { shape: `(${rows}, ${width})`, grid, inputs: { y, dy }, numbers: { rows, size: width, ld: width, ...overrides }, outputs: { dx: { want: soft.softmaxBackward(y, dy, rows, width), off: bound(width + 2, sizes) } } };
  } },
  cross_entropy_forward: { twin: ['classification', 'crossEntropy'], make: () => {
    const { x, label } = logits(), want = Float64Array.from({ length: rows }, (_, r) => classes.crossEntropy(x.subarray(r * width, (r + 1) * width), [label[r]], 1, width));
    return { shape: `${rows} images, ${width} classes`, grid: threads(rows), inputs: { x, label }, numbers: { N: rows, C: width }, outputs: { each: { want, off: want.map((v) => ULP * (expUlps(20) + 20 + width) + logError(width) + 2 ** -21 + 3 * ULP * v) } } };
  } },
  cross_entropy_backward: { twin: ['classification', 'crossEntropyBackward'], make: () => {
    const { x, label, p, depth } = logits(), want = classes.crossEntropyBackward(x, label, rows, width, 3);
    const off = p.map((v, i) => (3 / rows) * (v * (ULP * (expUlps(depth(i)) + depth(i) + expUlps(20) + width) + DIVIDE) + 2 * ULP + DIVIDE * Math.abs(v - Number(i % width === label[Math.floor(i / width)]))));
    return { shape: `${rows} images, ${width} classes`, grid: threads(rows), inputs: { x, label, dloss: Float32Array.of(3) }, numbers: { N: rows, C: width, accumulate: 0 }, outputs: { dx: { want, off } } };
  } },
  embedding_gather: { twin: ['embedding', 'embedding'], make: () => {
    const K = 13, table = values(K * C, 1), ids = integers(rows, K);
    return { shape: `${rows} rows of (${K}, ${C})`, grid: threads(rows * C), inputs: { table, ids }, numbers: { N: rows, K, C }, outputs: { y: { want: embed.embedding(table, ids, K, C), off: 0 } } };
  } },
  embedding_scatter: { twin: ['embedding', 'embeddingBackward'], make: () => {
    const K = 13, dy = values(rows * C, 1), ids = integers(rows, K), twin = (v: ArrayLike<number>) => embed.embeddingBackward(ids, v, K, C);
    return { shape: `${rows} rows of (${K}, ${C})`, grid: threads(K * C), inputs: { ids, dy }, numbers: { N: rows, K, C, accumulate: 0 }, outputs: { dtable: { want: twin(dy), off: bound(rows, twin(abs(dy))) } } };
  } },
  gather_integers: { twin: ['embedding', 'embedding'], make: () => {
    const table = integers(90, 1000), index = integers(70, 90);
    return { shape: '70 of (90)', grid: threads(70), inputs: { table, index }, numbers: { N: 70 }, outputs: { y: { want: Uint32Array.from(embed.embedding(table, index, 90, 1)), off: 0 } } };
  } },
  gather_labels: { twin: ['embedding', 'dropLabels'], make: () => {
    const labels = integers(90, 7), index = integers(70, 90), p = Math.fround(0.3), want = embed.dropLabels(labels, index, words(draw(STREAM.label, 70, 1)), p, 7);
    return { shape: '70 of (90), p = 0.3', grid: threads(70), inputs: { index, labels }, numbers: { N: 70, none: 7, stream: STREAM.label, p }, outputs: { y: { want, off: 0 } } };
  } },
  timestep_embedding: { twin: ['timestep_embedding', 'timestepEmbedding'], make: () => {
    const t = Uint32Array.of(0, 1, 2, 10, 499, 500, 998, 999, 1000, 2047, 4001, 4095), wide = 9, half = 4, want = timestepEmbedding(t, wide);
    // In turns: two numbers below 1 are added (2^-24), and the low part of a frequency leaves 2^-36 t f; then three roundings of a sine.
    const off = want.map((_, i) => (i % wide === 2 * half ? 0 : 2 * Math.PI * 2 ** -24 + t[Math.floor(i / wide)] * 10000 ** (-(i % wide % half) / (half - 1)) * 2 ** -36 + 2 * ULP));
    return { shape: `(${t.length}, ${wide})`, grid: threads(want.length), inputs: { t, freq: frequencies({ size: wide, flipSinToCos: false, freqShift: 1 }) }, numbers: { N: t.length, half, size: wide, flip: 0 }, outputs: { y: { want, off } } };
  } },
} as const satisfies Checks;
