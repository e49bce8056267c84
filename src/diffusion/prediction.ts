// What the network predicts. Every parametrisation is linear in x_t, x_0 and eps, so it is a pair of numbers for each t, in float64 and pure; no kernel branches.

import { DdpmError } from '../errors.ts';
import type { Schedule } from './schedule.ts';

/**
 * What the network's output means: the noise (Ho et al. 2020), x_0 itself, v = sqrt(acp) eps - sqrt(1 - acp) x_0 (Salimans & Ho 2022),
 * or the mean of q(x_{t-1} | x_t, x_0) (mu, Ho et al. 2020, section 3.2).
 */
export const PREDICTIONS = ['eps', 'x0', 'v', 'mu'] as const;
/** One of PREDICTIONS: what the network's output means. */
export type Prediction = (typeof PREDICTIONS)[number];

/** diffusers' `prediction_type` of each; it has none for mu. */
export const PREDICTION_TYPES: Readonly<Record<Exclude<Prediction, 'mu'>, string>> = { eps: 'epsilon', x0: 'sample', v: 'v_prediction' };

/** Factors of x_t and of the network's output, (T,) each. */
export interface OutputTable {
  readonly x: Float64Array;
  readonly output: Float64Array;
}

/** Factors of x_0 and of eps, (T,) each. */
export interface TargetTable {
  readonly start: Float64Array;
  readonly noise: Float64Array;
}

/**
 * x_0 = x[t] x_t + output[t] · output.
 *
 * @throws DdpmError E-USAGE for eps where a schedule leaves nothing of the image, so that the noise says nothing about it
 */
export function startTable(s: Schedule, prediction: Prediction): OutputTable {
  check(prediction);
  if (prediction === 'eps' && s.alphasCumprod[s.T - 1] === 0)
    throw new DdpmError('E-USAGE', `at t = ${s.T - 1} this schedule leaves nothing of the image (alpha_bar is 0), so the noise that eps is says nothing about x_0. Predict v or x0, or take a schedule that is not rescaled.`);
  if (prediction === 'eps') return { x: s.sqrtRecipAlphasCumprod, output: s.sqrtRecipm1AlphasCumprod.map((v) => -v) };
  if (prediction === 'x0') return { x: new Float64Array(s.T), output: new Float64Array(s.T).fill(1) };
  if (prediction === 'v') return { x: s.sqrtAlphasCumprod, output: s.sqrtOneMinusAlphasCumprod.map((v) => -v) };
  return { x: s.posteriorMeanCoef2.map((c2, t) => -c2 / s.posteriorMeanCoef1[t]!), output: s.posteriorMeanCoef1.map((c1) => 1 / c1) };
}

/** eps = x[t] x_t + output[t] · output. */
export function noiseTable(s: Schedule, prediction: Prediction): OutputTable {
  if (prediction === 'eps') return { x: new Float64Array(s.T), output: new Float64Array(s.T).fill(1) };
  if (prediction === 'v') return { x: s.sqrtOneMinusAlphasCumprod, output: s.sqrtAlphasCumprod };
  // eps = (x_t - sqrt(acp) x_0) / sqrt(1 - acp), with x_0 as above.
  const { x, output } = startTable(s, prediction), root = s.sqrtAlphasCumprod, noise = s.sqrtOneMinusAlphasCumprod;
  return { x: x.map((a, t) => (1 - root[t]! * a) / noise[t]!), output: output.map((b, t) => (-root[t]! * b) / noise[t]!) };
}

/** What the network is trained to give: start[t] x_0 + noise[t] eps. */
export function targetTable(s: Schedule, prediction: Prediction): TargetTable {
  check(prediction);
  const zero = new Float64Array(s.T), one = new Float64Array(s.T).fill(1);
  if (prediction === 'eps') return { start: zero, noise: one };
  if (prediction === 'x0') return { start: one, noise: zero };
  if (prediction === 'v') return { start: s.sqrtOneMinusAlphasCumprod.map((v) => -v), noise: s.sqrtAlphasCumprod };
  // mu = coef1 x_0 + coef2 x_t with x_t = sqrt(acp) x_0 + sqrt(1 - acp) eps.
  const c2 = s.posteriorMeanCoef2;
  return { start: s.posteriorMeanCoef1.map((c1, t) => c1 + c2[t]! * s.sqrtAlphasCumprod[t]!), noise: c2.map((c, t) => c * s.sqrtOneMinusAlphasCumprod[t]!) };
}

function check(prediction: Prediction): void {
  if (!PREDICTIONS.includes(prediction)) throw new DdpmError('E-USAGE', `there is no prediction "${String(prediction)}"; a network predicts ${PREDICTIONS.join(', ')}.`);
}
