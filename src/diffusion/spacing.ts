// Which timesteps a short sampler visits, in float64 and pure.

import { DdpmError } from '../errors.ts';
import type { Schedule } from './schedule.ts';

/** diffusers' `timestep_spacing`. */
export const SPACINGS = ['leading', 'trailing', 'linspace'] as const;
/** One of SPACINGS. */
export type Spacing = (typeof SPACINGS)[number];

/** Those, the noise levels of Karras et al. (2022), and levels that fall by one factor (Song & Ermon 2019). */
export const SAMPLER_SPACINGS = [...SPACINGS, 'karras', 'geometric'] as const;
/** One of SAMPLER_SPACINGS. */
export type SamplerSpacing = (typeof SAMPLER_SPACINGS)[number];

/** log(alpha / sigma) below which the solvers do not start: a cosine schedule ends at -9.9, where x_0 is 20,000 times as far off as eps (diffusers' advice). */
export const LAMBDA_MIN = -5.1;

/**
 * The timesteps that a sampler of `steps` steps visits, from the noisiest down, equal to those of diffusers' DDIMScheduler
 * (the spacings are table 2 of Lin et al. 2023):
 *
 * - `leading` (diffusers' default): multiples of floor(T / steps), plus `stepsOffset`. It never visits t = T-1: 50 of 1000 start at 980.
 *   Where `steps` does not divide T it covers even less (600 of 1000 start at 599).
 * - `trailing`: round(T - i T / steps) - 1, always from T-1.
 * - `linspace`: round of linspace(0, T-1, steps), from T-1 to 0.
 *
 * @throws DdpmError E-USAGE if steps is not an integer from 1 to T, the spacing is not one of the three, or the offset passes T-1.
 */
export function timesteps(
  T: number,
  steps: number,
  spacing: Spacing = 'leading',
  { stepsOffset = 0 }: { readonly stepsOffset?: number } = {},
): number[] {
  checkSteps(T, steps);
  const at = (f: (i: number) => number): number[] => Array.from({ length: steps }, (_, i) => f(i));
  if (spacing === 'trailing') {
    const delta = T - T / steps - T; // numpy.arange rounds its step this way, which decides ties such as 48 of 1000
    return at((i) => roundHalfEven(T + i * delta) - 1);
  }
  if (spacing === 'linspace') return steps === 1 ? [0] : at((i) => roundHalfEven((steps - 1 - i) * ((T - 1) / (steps - 1))));
  if (spacing !== 'leading') throw unknownSpacing(spacing);

  const ratio = Math.floor(T / steps);
  const first = (steps - 1) * ratio + stepsOffset;
  if (!(Number.isInteger(stepsOffset) && stepsOffset >= 0 && first < T)) {
    throw new DdpmError(
      'E-USAGE',
      `A steps offset of ${stepsOffset} does not go with ${steps} of ${T} timesteps: it would start at ${first}, and there are 0 to ${T - 1}.`,
    );
  }
  return at((i) => (steps - 1 - i) * ratio + stepsOffset);
}

/**
 * The timesteps of diffusers' DPMSolverMultistepScheduler: one point more than steps, the last of which is where the last step leads, each once.
 * Those whose log(alpha / sigma) lies below `lambdaMin` are left out at the noisy end (`lambda_min_clipped`).
 *
 * @throws DdpmError E-USAGE as `timesteps` does
 */
export function solverTimesteps(
  schedule: Schedule,
  steps: number,
  spacing: Spacing = 'linspace',
  { stepsOffset = 0, lambdaMin = LAMBDA_MIN }: { readonly stepsOffset?: number; readonly lambdaMin?: number } = {},
): number[] {
  const last = countAbove(schedule, lambdaMin);
  checkSteps(last, steps);
  const at = (f: (i: number) => number): number[] => Array.from({ length: steps }, (_, i) => f(i));
  if (spacing === 'linspace') {
    // With as many steps as timesteps two may round to the same one.
    const list = at((i) => roundHalfEven((steps - i) * ((last - 1) / steps)));
    return list.filter((t, i) => t !== list[i - 1]);
  }
  if (spacing === 'trailing') {
    const stride = schedule.T / steps, list = at((i) => roundHalfEven(last - i * stride) - 1);
    return list.filter((t) => t >= 0);
  }
  if (spacing !== 'leading') throw unknownSpacing(spacing);
  const ratio = Math.floor(last / (steps + 1));
  if (ratio < 1 || steps * ratio + stepsOffset >= schedule.T)
    throw new DdpmError('E-USAGE', `${steps} steps of leading spacing do not go with ${last} timesteps; take fewer, or linspace.`);
  return at((i) => (steps - i) * ratio + stepsOffset);
}

/**
 * The timesteps whose sigma / alpha lie nearest to the noise levels of Karras et al. (2022), eq. 5, from the noisiest with log(alpha / sigma) >= lambdaMin
 * down to t = 0; the network is only ever asked at a timestep that it was trained at. Neighbours that would fall together move apart.
 *
 * @param rho how much denser the levels lie near the image; 7 in the paper, and Infinity makes them fall by one factor
 * @throws DdpmError E-USAGE for a number of steps that does not fit, or a rho that is not positive
 */
export function karrasTimesteps(schedule: Schedule, steps: number, { rho = 7, lambdaMin = LAMBDA_MIN }: { readonly rho?: number; readonly lambdaMin?: number } = {}): number[] {
  const last = countAbove(schedule, lambdaMin), { alphasCumprod: acp } = schedule;
  checkSteps(last, steps);
  if (!(rho > 0)) throw new DdpmError('E-USAGE', `rho is ${rho}; it must be positive, such as 7.`);
  const logs = Array.from({ length: last }, (_, t) => 0.5 * Math.log((1 - acp[t]!) / acp[t]!)); // of sigma / alpha, rising
  const top = logs[last - 1]!, bottom = logs[0]!, high = Math.exp(top / rho), low = Math.exp(bottom / rho);
  const list: number[] = [];
  for (let i = 0; i < steps; i++) {
    const share = steps === 1 ? 0 : i / (steps - 1);
    const wanted = rho === Infinity ? top + share * (bottom - top) : rho * Math.log(high + share * (low - high));
    let t = logs.findIndex((l) => l >= wanted);
    if (t < 0) t = last - 1;
    if (t > 0 && wanted - logs[t - 1]! < logs[t]! - wanted) t--;
    // Room for those that follow, and below the one before.
    list.push(Math.min(Math.max(t, steps - 1 - i), (list.at(-1) ?? last) - 1));
  }
  return list;
}

/** How many timesteps lie below the first whose log(alpha / sigma) is less than lambdaMin: what the solvers and the levels of Karras et al. choose from. */
export function countAbove({ T, alphasCumprod }: Schedule, lambdaMin: number): number {
  const first = alphasCumprod.findIndex((a) => 0.5 * Math.log(a / (1 - a)) < lambdaMin);
  return first < 0 ? T : first;
}

function checkSteps(T: number, steps: number): void {
  if (Number.isInteger(steps) && steps >= 1 && steps <= T) return;
  throw new DdpmError('E-USAGE', `A sampler cannot take ${steps} steps: the model has ${T} timesteps for it, so choose a whole number from 1 to ${T}.`);
}

const unknownSpacing = (spacing: unknown): DdpmError => new DdpmError('E-USAGE', `There is no timestep spacing "${String(spacing)}". The spacings are ${SAMPLER_SPACINGS.join(', ')}.`);

/** Ties go to the even neighbour, as in NumPy; Math.round would differ from diffusers by one timestep. */
export function roundHalfEven(v: number): number {
  const low = Math.floor(v), rest = v - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
}
