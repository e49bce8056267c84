// Heun's method on the probability flow ODE as rows (Karras et al. 2022, algorithm 1), written for x = alpha x_0 + sigma eps.
import { type Chain, type Row, visits } from './row.ts';

/**
 * Algorithm 1 without churn. With y = x / alpha and s = sigma / alpha the ODE is dy/ds = (y - x_0) / s; a step takes Euler's to s' and then
 * goes from where it started along the mean of both slopes. Two evaluations a step, one where s' = 0.
 */
export function heunRows(chain: Chain): Row[] {
  return visits(chain).flatMap(({ to, from, next, row }, i, all) => {
    const s = from.sigma / from.alpha, s2 = next.sigma / next.alpha, h = s2 - s;
    const euler: Row = { ...row, x: next.sigma / from.sigma, start: -next.alpha * (h / s), keep: true };
    // The correction asks the network at `to`, with the tables of the visit that follows; after the last visit there is none.
    const after = all[i + 1];
    if (to < 0 || !after) return [euler];
    const correct: Row = {
      ...after.row, to,
      kept: (next.alpha / from.alpha) * (1 + h / (2 * s)), last: (-next.alpha * h) / (2 * s),
      x: h / (2 * s2), start: (-next.alpha * h) / (2 * s2),
    };
    return [euler, correct];
  });
}
