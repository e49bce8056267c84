// Float64 twins of the pointwise kernels, and of everything that only moves elements about.
import { unit } from '../../src/philox.ts';

type Floats = ArrayLike<number>;

const map = (n: number, f: (i: number) => number): Float64Array => Float64Array.from({ length: n }, (_, i) => f(i));

/** x sigmoid(x) */
export const silu = (x: Floats): Float64Array => map(x.length, (i) => x[i] / (1 + Math.exp(-x[i])));

/** dy s (1 + x (1 - s)), s = sigmoid(x) */
export function siluBackward(x: Floats, dy: Floats): Float64Array {
  return map(x.length, (i) => {
    const s = 1 / (1 + Math.exp(-x[i]));
    return dy[i] * s * (1 + x[i] * (1 - s));
  });
}

export const add = (a: Floats, b: Floats): Float64Array => map(a.length, (i) => a[i] + b[i]);

/** x (N,P,C) + b (N,C): the time embedding. Its backward to b is sumPixels of conv2d.ts. */
export const addPerImage = (x: Floats, b: Floats, N: number, P: number, C: number): Float64Array =>
  map(N * P * C, (i) => x[i] + b[Math.floor(i / (P * C)) * C + (i % C)]);

/** What y += x leaves in y. */
export const accumulate = (y: Floats, x: Floats): Float64Array => add(y, x);

export const fill = (n: number, value: number): Float64Array => new Float64Array(n).fill(value);

/** Keeps an element iff unit(its word) >= p and scales it by 1 / (1 - p). The backward is the same call on dy. */
export const dropout = (x: Floats, words: ArrayLike<number>, p: number): Float64Array =>
  map(x.length, (i) => (unit(words[i]) >= p ? x[i] / (1 - p) : 0));

/** x (N,H,W,C) → (N,2H,2W,C) */
export function upsampleNearest2x(x: Floats, N: number, H: number, W: number, C: number): Float64Array {
  const y = new Float64Array(N * 2 * H * 2 * W * C);
  for (let n = 0; n < N; n++)
    for (let h = 0; h < 2 * H; h++)
      for (let w = 0; w < 2 * W; w++)
        for (let c = 0; c < C; c++) y[((n * 2 * H + h) * 2 * W + w) * C + c] = x[((n * H + (h >> 1)) * W + (w >> 1)) * C + c];
  return y;
}

/** dy (N,2H,2W,C) → dx (N,H,W,C); H and W are those of the small image. */
export function upsampleNearest2xBackward(dy: Floats, N: number, H: number, W: number, C: number): Float64Array {
  const dx = new Float64Array(N * H * W * C);
  for (let n = 0; n < N; n++)
    for (let h = 0; h < 2 * H; h++)
      for (let w = 0; w < 2 * W; w++)
        for (let c = 0; c < C; c++) dx[((n * H + (h >> 1)) * W + (w >> 1)) * C + c] += dy[((n * 2 * H + h) * 2 * W + w) * C + c];
  return dx;
}

/** a (M,C0), b (M,C1) → (M,C0+C1) */
export const concatChannels = (a: Floats, b: Floats, M: number, C0: number, C1: number): Float64Array =>
  map(M * (C0 + C1), (i) => {
    const m = Math.floor(i / (C0 + C1)), c = i % (C0 + C1);
    return c < C0 ? a[m * C0 + c] : b[m * C1 + c - C0];
  });

/** x (M,C0+C1) → [(M,C0), (M,C1)]: the backward of concatChannels. */
export const splitChannels = (x: Floats, M: number, C0: number, C1: number): [Float64Array, Float64Array] => [
  map(M * C0, (i) => x[Math.floor(i / C0) * (C0 + C1) + (i % C0)]),
  map(M * C1, (i) => x[Math.floor(i / C1) * (C0 + C1) + C0 + (i % C1)]),
];

/** x (N,C,H,W) → (N,H,W,C) */
export function nchwToNhwc(x: Floats, N: number, C: number, H: number, W: number): Float64Array {
  const y = new Float64Array(N * C * H * W);
  for (let n = 0; n < N; n++)
    for (let c = 0; c < C; c++)
      for (let h = 0; h < H; h++) for (let w = 0; w < W; w++) y[((n * H + h) * W + w) * C + c] = x[((n * C + c) * H + h) * W + w];
  return y;
}

/** x (N,H,W,C) → (N,C,H,W). Same argument order as nchwToNhwc. */
export function nhwcToNchw(x: Floats, N: number, C: number, H: number, W: number): Float64Array {
  const y = new Float64Array(N * C * H * W);
  for (let n = 0; n < N; n++)
    for (let c = 0; c < C; c++)
      for (let h = 0; h < H; h++) for (let w = 0; w < W; w++) y[((n * C + c) * H + h) * W + w] = x[((n * H + h) * W + w) * C + c];
  return y;
}

/** A conv weight as PyTorch has it, (O,I,K,K), as the kernels have it, (K,K,I,O). */
export function oihwToHwio(w: Floats, O: number, I: number, K: number): Float64Array {
  const out = new Float64Array(O * I * K * K);
  for (let o = 0; o < O; o++)
    for (let c = 0; c < I; c++)
      for (let kh = 0; kh < K; kh++) for (let kw = 0; kw < K; kw++) out[((kh * K + kw) * I + c) * O + o] = w[((o * I + c) * K + kh) * K + kw];
  return out;
}

/** (K,K,I,O) → (O,I,K,K). Same argument order as oihwToHwio. */
export function hwioToOihw(w: Floats, O: number, I: number, K: number): Float64Array {
  const out = new Float64Array(O * I * K * K);
  for (let o = 0; o < O; o++)
    for (let c = 0; c < I; c++)
      for (let kh = 0; kh < K; kh++) for (let kw = 0; kw < K; kw++) out[((o * I + c) * K + kh) * K + kw] = w[((kh * K + kw) * I + c) * O + o];
  return out;
}

/** max(x, 0) */
export const relu = (x: Floats): Float64Array => map(x.length, (i) => Math.max(x[i], 0));
