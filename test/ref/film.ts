// Float64 twin of feature-wise linear modulation, folded into a norm's scale and offset.

type Floats = ArrayLike<number>;

export interface Film {
  gamma: Floats; // (C)
  beta: Floats; // (C)
  s: Floats; // (N,2,C): scales, shifts
  N: number;
  C: number;
}

/** → (N,2,C): γ (1 + scale), β (1 + scale) + shift */
export function film({ gamma, beta, s, N, C }: Film): Float64Array {
  const y = new Float64Array(2 * N * C);
  for (let n = 0; n < N; n++)
    for (let c = 0; c < C; c++) {
      const scale = 2 * n * C + c, shift = scale + C;
      y[scale] = gamma[c] * (1 + s[scale]);
      y[shift] = beta[c] * (1 + s[scale]) + s[shift];
    }
  return y;
}

/** dy (N,2,C) → dγ and dβ (C), ds (N,2,C) */
export function filmBackward({ gamma, beta, s, N, C, dy }: Film & { dy: Floats }): Record<'dgamma' | 'dbeta' | 'ds', Float64Array> {
  const dgamma = new Float64Array(C), dbeta = new Float64Array(C), ds = new Float64Array(2 * N * C);
  for (let n = 0; n < N; n++)
    for (let c = 0; c < C; c++) {
      const scale = 2 * n * C + c, shift = scale + C;
      dgamma[c] += dy[scale] * (1 + s[scale]);
      dbeta[c] += dy[shift] * (1 + s[scale]);
      ds[scale] = dy[scale] * gamma[c] + dy[shift] * beta[c];
      ds[shift] = dy[shift];
    }
  return { dgamma, dbeta, ds };
}
