// Float64 twins of pooling and resizing.

type Floats = ArrayLike<number>;

export interface PoolShape {
  N: number;
  H: number;
  W: number;
  C: number;
  K: number;
  stride: number;
  pad: number;
}

/** Calls f with the values of every window, in the order of y. */
function windows({ N, H, W, C, K, stride, pad }: PoolShape, x: Floats, f: (values: number[]) => number): Float64Array {
  const y: number[] = [];
  for (let n = 0; n < N; n++)
    for (let oh = 0; oh * stride + K <= H + 2 * pad; oh++)
      for (let ow = 0; ow * stride + K <= W + 2 * pad; ow++)
        for (let c = 0; c < C; c++) {
          const values: number[] = [];
          for (let kh = 0; kh < K; kh++)
            for (let kw = 0; kw < K; kw++) {
              const h = oh * stride + kh - pad, w = ow * stride + kw - pad;
              if (h >= 0 && h < H && w >= 0 && w < W) values.push(x[((n * H + h) * W + w) * C + c]);
            }
          y.push(f(values));
        }
  return Float64Array.from(y);
}

export const maxPool = (s: PoolShape, x: Floats): Float64Array => windows(s, x, (values) => Math.max(...values));
export const averagePool = (s: PoolShape, x: Floats): Float64Array => windows(s, x, (values) => values.reduce((a, b) => a + b) / values.length);

/** x (N,H,W,C) → (N,OH,OW,C), PyTorch's interpolate(mode='bilinear', align_corners=False) */
export function resizeBilinear(x: Floats, N: number, H: number, W: number, C: number, OH: number, OW: number): Float64Array {
  const y = new Float64Array(N * OH * OW * C);
  for (let n = 0; n < N; n++)
    for (let h = 0; h < OH; h++)
      for (let w = 0; w < OW; w++)
        for (let c = 0; c < C; c++) {
          const v = Math.max(0, ((h + 0.5) * H) / OH - 0.5), u = Math.max(0, ((w + 0.5) * W) / OW - 0.5);
          const v0 = Math.floor(v), u0 = Math.floor(u), at = (i: number, j: number): number => x[((n * H + Math.min(i, H - 1)) * W + Math.min(j, W - 1)) * C + c];
          const row = (i: number): number => at(i, u0) + (u - u0) * (at(i, u0 + 1) - at(i, u0));
          y[((n * OH + h) * OW + w) * C + c] = row(v0) + (v - v0) * (row(v0 + 1) - row(v0));
        }
  return y;
}
