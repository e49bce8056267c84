// Float64 twins of what a classifier needs.
import { softmax } from './softmax.ts';

type Floats = ArrayLike<number>;

/** x (N,P,C) → (N,C) */
export function meanPixels(x: Floats, N: number, P: number, C: number): Float64Array {
  const y = new Float64Array(N * C);
  for (let n = 0; n < N; n++) for (let p = 0; p < P; p++) for (let c = 0; c < C; c++) y[n * C + c] += x[(n * P + p) * C + c] / P;
  return y;
}

/** dy (N,C) → dx (N,P,C) */
export const meanPixelsBackward = (dy: Floats, N: number, P: number, C: number): Float64Array =>
  Float64Array.from({ length: N * P * C }, (_, i) => dy[Math.floor(i / (P * C)) * C + (i % C)] / P);

/** mean_n (log sum_c exp(x[n,c]) - x[n,label[n]]) */
export function crossEntropy(x: Floats, label: Floats, N: number, C: number): number {
  let sum = 0;
  for (let n = 0; n < N; n++) {
    let top = -Infinity, total = 0;
    for (let c = 0; c < C; c++) top = Math.max(top, x[n * C + c]);
    for (let c = 0; c < C; c++) total += Math.exp(x[n * C + c] - top);
    sum += Math.log(total) + top - x[n * C + label[n]];
  }
  return sum / N;
}

/** dloss / N (softmax(x) - one-hot) */
export const crossEntropyBackward = (x: Floats, label: Floats, N: number, C: number, dloss = 1): Float64Array =>
  softmax(x, N, C).map((p, i) => (dloss / N) * (p - Number(i % C === label[Math.floor(i / C)])));
