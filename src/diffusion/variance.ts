// The variance of the reverse step: log sigma^2 = at[t] + slope[t] v, linear in the network's second output v, in float64 and pure.

import { DdpmError } from '../errors.ts';
import type { Schedule } from './schedule.ts';

/**
 * - `fixed_small`: beta~_t, the posterior's; `fixed_large`: beta_t (Ho et al. 2020, section 3.2). The network has no say.
 * - `learned_range`: between the two, log sigma^2 = f log beta + (1 - f) log beta~ with f = (v + 1) / 2 (Nichol & Dhariwal 2021, eq. 15).
 * - `learned`: log sigma^2 = v.
 */
export const VARIANCES = ['fixed_small', 'fixed_large', 'learned_range', 'learned'] as const;
/** One of VARIANCES: what the variance of a reverse step is. */
export type Variance = (typeof VARIANCES)[number];

/** Whether the network has a second half of channels, for the variance. */
export const isLearned = (variance: Variance): boolean => variance === 'learned_range' || variance === 'learned';

/**
 * log sigma^2 = at[t] + slope[t] v, (T,) each; slope is 0 where the variance is fixed.
 * At t = 0 beta~ is zero, and the value of t = 1 stands in: the decoder of L_0 needs a width, and the range a lower end.
 */
export function logVarianceTable(s: Schedule, variance: Variance): { readonly at: Float64Array; readonly slope: Float64Array } {
  if (!VARIANCES.includes(variance)) throw new DdpmError('E-USAGE', `there is no variance "${String(variance)}"; the variances are ${VARIANCES.join(', ')}.`);
  const zero = new Float64Array(s.T), small = s.posteriorVariance.map((v, t) => Math.log(t === 0 ? s.posteriorVariance[1]! : v));
  if (variance === 'fixed_small') return { at: small, slope: zero };
  if (variance === 'fixed_large') return { at: s.fixedLargeLogVariance, slope: zero };
  if (variance === 'learned') return { at: zero, slope: new Float64Array(s.T).fill(1) };
  const large = s.betas.map(Math.log);
  return { at: small.map((v, t) => (v + large[t]!) / 2), slope: small.map((v, t) => (large[t]! - v) / 2) };
}
