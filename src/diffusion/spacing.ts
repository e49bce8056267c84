// Which timesteps a short sampler visits, and the coefficients of DDIM at each of them, in float64 and pure.

import { DdpmError } from '../errors.ts';
import type { Schedule } from './schedule.ts';

/** diffusers' `timestep_spacing`. */
export const SPACINGS = ['leading', 'trailing', 'linspace'] as const;
export type Spacing = (typeof SPACINGS)[number];

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
  if (!(Number.isInteger(steps) && steps >= 1 && steps <= T)) {
    throw new DdpmError(
      'E-USAGE',
      `A sampler cannot take ${steps} steps: the model was trained with ${T} timesteps, so choose a whole number from 1 to ${T}.`,
    );
  }
  const at = (f: (i: number) => number): number[] => Array.from({ length: steps }, (_, i) => f(i));
  if (spacing === 'trailing') {
    const delta = T - T / steps - T; // numpy.arange rounds its step this way, which decides ties such as 48 of 1000
    return at((i) => roundHalfEven(T + i * delta) - 1);
  }
  if (spacing === 'linspace') return steps === 1 ? [0] : at((i) => roundHalfEven((steps - 1 - i) * ((T - 1) / (steps - 1))));
  if (spacing !== 'leading') throw new DdpmError('E-USAGE', `There is no timestep spacing "${String(spacing)}". The spacings are ${SPACINGS.join(', ')}.`);

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

/** One step of DDIM: all that depends on t and not on the image. */
export interface DdimRow {
  readonly t: number;
  /** sqrt(1 / alpha_bar_t): x_0 = sqrtRecipAcp · x_t - sqrtRecipm1Acp · eps, and back: eps = (sqrtRecipAcp · x_t - x_0) / sqrtRecipm1Acp. */
  readonly sqrtRecipAcp: number;
  /** sqrt(1 / alpha_bar_t - 1). */
  readonly sqrtRecipm1Acp: number;
  /** sqrt(alpha_bar_prev), the factor of x_0. */
  readonly sqrtAcpPrev: number;
  /** sqrt(1 - alpha_bar_prev - sigma^2), the factor of eps. */
  readonly dirCoef: number;
  /** Standard deviation of the fresh noise; 0 for eta = 0. */
  readonly sigma: number;
}

export interface DdimOptions {
  /** 0 is deterministic DDIM, 1 has the variance of DDPM's posterior (beta~). */
  readonly eta?: number;
  /** Where the last step leads: alpha_bar = 1, that is x_0 itself (true), or alphas_cumprod[0] (false). */
  readonly setAlphaToOne?: boolean;
}

/**
 * DDIM (Song et al. 2020, equations 12 and 16) at the given timesteps: x_prev = sqrtAcpPrev · x_0 + dirCoef · eps + sigma · z.
 *
 * A row leads from t to t - floor(T / number of timesteps), as in diffusers 0.14; for `leading` that is the next timestep of the list.
 * Whether eps is derived again from a clipped x_0 is the caller's choice and changes no coefficient.
 *
 * @throws DdpmError E-USAGE if eta is not in [0, 1] or a timestep is not one of the schedule.
 */
export function ddimTable(schedule: Schedule, timesteps: readonly number[], { eta = 0, setAlphaToOne = true }: DdimOptions = {}): DdimRow[] {
  if (!(eta >= 0 && eta <= 1)) throw new DdpmError('E-USAGE', `eta is ${eta}; it must lie between 0 (deterministic) and 1 (as noisy as DDPM).`);
  const acp = schedule.alphasCumprod;
  const ratio = Math.floor(schedule.T / timesteps.length);
  return timesteps.map((t) => {
    const a = acp[t];
    if (a === undefined) throw new DdpmError('E-USAGE', `Timestep ${t} is not one of the schedule's: it has 0 to ${schedule.T - 1}.`);
    const prev = t - ratio;
    const aPrev = prev >= 0 ? acp[prev] : setAlphaToOne ? 1 : acp[0];
    const sigma = eta * Math.sqrt(Math.max(0, ((1 - aPrev) / (1 - a)) * (1 - a / aPrev)));
    return {
      t,
      sqrtRecipAcp: Math.sqrt(1 / a),
      sqrtRecipm1Acp: Math.sqrt(1 / a - 1),
      sqrtAcpPrev: Math.sqrt(aPrev),
      dirCoef: Math.sqrt(Math.max(0, 1 - aPrev - sigma * sigma)),
      sigma,
    };
  });
}

/** Ties go to the even neighbour, as in NumPy; Math.round would differ from diffusers by one timestep. */
function roundHalfEven(v: number): number {
  const low = Math.floor(v), rest = v - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
}
