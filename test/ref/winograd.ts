// Float64 twin of Winograd's filtering of 3 x 3 convolutions, and how far it may be off in float32.
import { bound } from './accuracy.ts';
import { type ConvShape, turned } from './conv2d.ts';

type Floats = ArrayLike<number>;

/**
 * The matrices of F(4, 3) and F(3, 3) at the points 0, 1, -1, 2, -2 and infinity, a row for each point, with all that does not divide evenly in B: rows of y are A^T ((G w) * (B^T x))
 * (Lavin & Gray 2016, arXiv:1509.09308, equation 7). F(3, 3) goes without -2.
 */
const B = {
  4: [[1, 0, -5 / 4, 0, 1 / 4, 0], [0, 2 / 3, 2 / 3, -1 / 6, -1 / 6, 0], [0, -2 / 3, 2 / 3, 1 / 6, -1 / 6, 0], [0, -1 / 12, -1 / 24, 1 / 12, 1 / 24, 0], [0, 1 / 12, -1 / 24, -1 / 12, 1 / 24, 0], [0, 4, 0, -5, 0, 1]],
  3: [[1, -1 / 2, -1, 1 / 2, 0], [0, 1, 1 / 2, -1 / 2, 0], [0, -1 / 3, 1 / 2, -1 / 6, 0], [0, -1 / 6, 0, 1 / 6, 0], [], [0, 2, -1, -2, 1]],
} as const;
const POINTS = [0, 1, -1, 2, -2], G = [...POINTS.map((p) => [1, p, p * p]), [0, 0, 1]];
const A = (row: number, rows: number) => [...POINTS.map((p) => p ** row), row === rows - 1 ? 1 : 0];

/** How a tile of so many rows is filtered. */
const FILTERS: Readonly<Record<number, readonly (3 | 4)[]>> = { 4: [4], 7: [4, 3], 8: [4, 4] };

/**
 * x (N,H,W,C), w (3,3,wC,O) → y (N,H,W,O), filtered in tiles of `rows` rows. With `size` the absolute value, everything that is added or multiplied on the way
 * is so without its sign: y is then a difference of sums so large, and off by their roundings.
 */
export function filtered(s: ConvShape & { x: Floats; w: Floats }, rows: number, size: (v: number) => number = (v) => v): Float64Array {
  const { N, H, W, C, O, x, w, wC = C, c0 = 0 } = s, y = new Float64Array(N * H * W * O);
  const dot = (a: readonly number[], of: (k: number) => number) => a.reduce((sum, v, k) => (v ? sum + size(v) * size(of(k)) : sum), 0);
  const points = G.map((g) => Float64Array.from({ length: 3 * C * O }, (_, i) => dot(g, (kh) => w[((kh * 3 + Math.floor(i / (C * O))) * wC + c0 + (Math.floor(i / O) % C)) * O + (i % O)])));
  for (let tile = 0; tile < N * Math.ceil(H / rows) * W; tile++) {
    const column = tile % W, n = Math.floor(tile / W / Math.ceil(H / rows)), top = (Math.floor(tile / W) % Math.ceil(H / rows)) * rows;
    FILTERS[rows].forEach((high, which) => {
      const first = top + 4 * which;
      const products = points.map((weights, p) => {
        const sums = new Float64Array(O);
        for (let kw = 0; kw < 3; kw++)
          for (let c = 0; c < C; c++) {
            const at = column + kw - 1;
            if (at < 0 || at >= W) continue;
            const v = dot(B[high][p], (k) => (first + k < 1 || first + k > H ? 0 : x[((n * H + first + k - 1) * W + at) * C + c]));
            for (let o = 0; o < O; o++) sums[o] += v * weights[(kw * C + c) * O + o];
          }
        return sums;
      });
      for (let row = 0; row < high && first + row < H; row++)
        for (let o = 0; o < O; o++) y[((n * H + first + row) * W + column) * O + o] = dot(A(row, high), (p) => products[p][o]);
    });
  }
  return y;
}

/**
 * x (N,H,W,C), dy (N,H,W,O) → dw (3,3,wC,O) by the transposed equation dw = G^T sum((A dy) * (B^T x)) over groups of four rows; `size` as in `filtered`. Zero outside of the input channels of this call.
 */
export function filteredWeight(s: ConvShape & { x: Floats; dy: Floats }, size: (v: number) => number = (v) => v): Float64Array {
  const { N, H, W, C, O, x, dy, wC = C, c0 = 0 } = s, products = G.map(() => new Float64Array(3 * C * O));
  for (let group = 0; group < N * Math.ceil(H / 4) * W; group++) {
    const column = group % W, n = Math.floor(group / W / Math.ceil(H / 4)), top = (Math.floor(group / W) % Math.ceil(H / 4)) * 4;
    for (let p = 0; p < G.length; p++) {
      const gradients = Float64Array.from({ length: O }, (_, o) => {
        let sum = 0;
        for (let row = 0; row < 4 && top + row < H; row++) sum += size(A(row, 4)[p]) * size(dy[((n * H + top + row) * W + column) * O + o]);
        return sum;
      });
      for (let kw = 0; kw < 3; kw++)
        for (let c = 0; c < C; c++) {
          const at = column + kw - 1;
          if (at < 0 || at >= W) continue;
          let v = 0;
          for (let k = 0; k < 6; k++) if (top + k >= 1 && top + k <= H) v += size(B[4][p][k]) * size(x[((n * H + top + k - 1) * W + at) * C + c]);
          for (let o = 0; o < O; o++) products[p][(kw * C + c) * O + o] += v * gradients[o];
        }
    }
  }
  const dw = new Float64Array(9 * wC * O);
  for (let i = 0; i < 9 * C * O; i++) {
    const kh = Math.floor(i / (3 * C * O)), rest = i % (3 * C * O), kw = Math.floor(rest / (C * O)), c = Math.floor(rest / O) % C;
    dw[((kh * 3 + kw) * wC + c0 + c) * O + (i % O)] = G.reduce((sum, g, p) => sum + size(g[kh]) * products[p][rest], 0);
  }
  return dw;
}

/** How often a result is rounded: 18 products for each channel, four roundings of x and three of w before them, six in the end. */
const terms = (channels: number) => 18 * channels + 13;

/** How far y may be off by filtering. What is added to it, for which bound() holds, comes on top. */
export const filteredBound = (s: ConvShape & { x: Floats; w: Floats }, rows: number): Float64Array => bound(terms(s.C), filtered(s, rows, Math.abs));

/** How far the input's gradient may be: filtering dy with the weight turned around. */
export const filteredGradientBound = ({ dy, w, ...s }: ConvShape & { dy: Floats; w: Floats }, rows: number): Float64Array =>
  filteredBound({ ...s, C: s.O, O: s.C, wC: s.O, c0: 0, x: dy, w: turned(s, w) }, rows);

/** How far the weight's gradient may be: six products for each group, four roundings of x and three of dy before them, six in the end. */
export const filteredWeightBound = (s: ConvShape & { x: Floats; dy: Floats }): Float64Array => bound(6 * s.N * Math.ceil(s.H / 4) * s.W + 13, filteredWeight(s, Math.abs));
