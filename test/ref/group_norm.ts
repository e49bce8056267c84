// Float64 twins of group normalisation, on one input or on two whose channels are concatenated, with or without SiLU after it.
import { concatChannels, silu as siluOf, siluBackward, splitChannels } from './pointwise.ts';

type Floats = ArrayLike<number>;

export interface GroupNorm {
  x: Floats; // (N,P,C0)
  x2?: Floats; // (N,P,C1)
  gamma: Floats; // (C0 + C1)
  beta: Floats; // (C0 + C1)
  N: number;
  P: number;
  C0: number;
  C1?: number;
  G: number;
  eps: number;
  silu?: boolean;
}

/** The concatenated input, its statistics, and x̂ and h = γ x̂ + β before any SiLU, all (N,P,C). */
function normalise(a: GroupNorm) {
  const { x, x2, gamma, beta, N, P, C0, C1 = 0, G, eps } = a;
  const C = C0 + C1, D = C / G;
  const joined = x2 ? concatChannels(x, x2, N * P, C0, C1) : x;
  const stats = new Float64Array(N * G * 2), xhat = new Float64Array(N * P * C), h = new Float64Array(N * P * C);
  for (let n = 0; n < N; n++)
    for (let g = 0; g < G; g++) {
      const at = (p: number, d: number) => (n * P + p) * C + g * D + d;
      let mean = 0, variance = 0;
      for (let p = 0; p < P; p++) for (let d = 0; d < D; d++) mean += joined[at(p, d)] / (P * D);
      for (let p = 0; p < P; p++) for (let d = 0; d < D; d++) variance += (joined[at(p, d)] - mean) ** 2 / (P * D);
      const rstd = 1 / Math.sqrt(variance + eps);
      stats[(n * G + g) * 2] = mean;
      stats[(n * G + g) * 2 + 1] = rstd;
      for (let p = 0; p < P; p++)
        for (let d = 0; d < D; d++) {
          const i = at(p, d), c = g * D + d;
          xhat[i] = (joined[i] - mean) * rstd;
          h[i] = gamma[c] * xhat[i] + beta[c];
        }
    }
  return { stats, xhat, h };
}

/** → y (N,P,C0+C1) and stats (N,G,2) = (mean, 1/sqrt(variance + eps)), variance biased as in PyTorch. */
export function groupNorm(a: GroupNorm): { y: Float64Array; stats: Float64Array } {
  const { stats, h } = normalise(a);
  return { y: a.silu ? siluOf(h) : h, stats };
}

/** dy (N,P,C0+C1) → dx (N,P,C0), dx2 (N,P,C1), dgamma and dbeta (C0+C1). */
export function groupNormBackward(a: GroupNorm & { dy: Floats }): Record<'dx' | 'dx2' | 'dgamma' | 'dbeta', Float64Array> {
  const { gamma, N, P, C0, C1 = 0, G } = a;
  const C = C0 + C1, D = C / G;
  const { stats, xhat, h } = normalise(a);
  const dh = a.silu ? siluBackward(h, a.dy) : a.dy;
  const dgamma = new Float64Array(C), dbeta = new Float64Array(C), d = new Float64Array(N * P * C);
  for (let i = 0; i < d.length; i++) {
    dgamma[i % C] += dh[i] * xhat[i];
    dbeta[i % C] += dh[i];
  }
  for (let n = 0; n < N; n++)
    for (let g = 0; g < G; g++) {
      const rstd = stats[(n * G + g) * 2 + 1];
      // dx = rstd (e - mean(e) - x̂ mean(e x̂)), e = γ dh, the means over the group
      let meanE = 0, meanEX = 0;
      for (let p = 0; p < P; p++)
        for (let c = g * D; c < (g + 1) * D; c++) {
          const i = (n * P + p) * C + c;
          meanE += (gamma[c] * dh[i]) / (P * D);
          meanEX += (gamma[c] * dh[i] * xhat[i]) / (P * D);
        }
      for (let p = 0; p < P; p++)
        for (let c = g * D; c < (g + 1) * D; c++) {
          const i = (n * P + p) * C + c;
          d[i] = rstd * (gamma[c] * dh[i] - meanE - xhat[i] * meanEX);
        }
    }
  const [dx, dx2] = splitChannels(d, N * P, C0, C1);
  return { dx, dx2, dgamma, dbeta };
}
