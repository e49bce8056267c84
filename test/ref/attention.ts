// Float64 twins of multi-head self-attention between its projections: o = softmax(q kᵀ / sqrt(C / heads)) v.
import { softmax, softmaxBackward } from './softmax.ts';

type Floats = ArrayLike<number>;

/** q, k, v (N,T,C); head h owns the channels [h C/heads, (h+1) C/heads). */
export interface Attention {
  q: Floats;
  k: Floats;
  v: Floats;
  N: number;
  T: number;
  C: number;
  heads: number;
}

/** → o (N,T,C) and the weights p (N,heads,T,T), a row for each query. */
export function attention({ q, k, v, N, T, C, heads }: Attention): { o: Float64Array; p: Float64Array } {
  const D = C / heads, scale = 1 / Math.sqrt(D);
  const s = new Float64Array(N * heads * T * T), o = new Float64Array(N * T * C);
  for (let n = 0; n < N; n++)
    for (let h = 0; h < heads; h++)
      for (let i = 0; i < T; i++)
        for (let j = 0; j < T; j++)
          for (let d = h * D; d < (h + 1) * D; d++)
            s[((n * heads + h) * T + i) * T + j] += scale * q[(n * T + i) * C + d] * k[(n * T + j) * C + d];
  const p = softmax(s, N * heads * T, T);
  for (let n = 0; n < N; n++)
    for (let h = 0; h < heads; h++)
      for (let i = 0; i < T; i++)
        for (let j = 0; j < T; j++)
          for (let d = h * D; d < (h + 1) * D; d++) o[(n * T + i) * C + d] += p[((n * heads + h) * T + i) * T + j] * v[(n * T + j) * C + d];
  return { o, p };
}

/** dy = ∂L/∂o (N,T,C) → dq, dk, dv (N,T,C) */
export function attentionBackward(a: Attention & { dy: Floats }): { dq: Float64Array; dk: Float64Array; dv: Float64Array } {
  const { q, k, v, dy, N, T, C, heads } = a;
  const D = C / heads, scale = 1 / Math.sqrt(D);
  const { p } = attention(a);
  const dp = new Float64Array(p.length), dq = new Float64Array(N * T * C), dk = new Float64Array(N * T * C), dv = new Float64Array(N * T * C);
  for (let n = 0; n < N; n++)
    for (let h = 0; h < heads; h++)
      for (let i = 0; i < T; i++)
        for (let j = 0; j < T; j++)
          for (let d = h * D; d < (h + 1) * D; d++) {
            const at = ((n * heads + h) * T + i) * T + j;
            dp[at] += dy[(n * T + i) * C + d] * v[(n * T + j) * C + d];
            dv[(n * T + j) * C + d] += p[at] * dy[(n * T + i) * C + d];
          }
  const ds = softmaxBackward(p, dp, N * heads * T, T);
  for (let n = 0; n < N; n++)
    for (let h = 0; h < heads; h++)
      for (let i = 0; i < T; i++)
        for (let j = 0; j < T; j++)
          for (let d = h * D; d < (h + 1) * D; d++) {
            const at = ((n * heads + h) * T + i) * T + j;
            dq[(n * T + i) * C + d] += scale * ds[at] * k[(n * T + j) * C + d];
            dk[(n * T + j) * C + d] += scale * ds[at] * q[(n * T + i) * C + d];
          }
  return { dq, dk, dv };
}
