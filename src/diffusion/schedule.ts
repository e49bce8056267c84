// The noise schedule: betas and the thirteen tables of the classic GaussianDiffusion class, in float64 and pure.

import { DdpmError } from '../errors.ts';

/** The schedules by name. `quadratic` is diffusers' `scaled_linear`, `cosine` its `squaredcos_cap_v2`. */
export const SCHEDULES = ['linear', 'quadratic', 'cosine', 'sigmoid'] as const;
/** One of SCHEDULES. */
export type ScheduleName = (typeof SCHEDULES)[number];

/** The ends of a schedule's betas. */
export interface BetaOptions {
  /** First beta of all but `cosine` (1e-4, Ho et al. 2020, section 4). */
  readonly betaStart?: number;
  /** Last beta of all but `cosine` (0.02). */
  readonly betaEnd?: number;
  /** `linear` only: scale by 1000 / T, so that x_T is close to N(0, I) for every T. `false` is diffusers' `linear`. */
  readonly scale?: boolean;
  /** Rescale them so that nothing of the image is left at t = T - 1 (`rescaleZeroSnr`; diffusers' `rescale_betas_zero_snr`). */
  readonly rescaleBetasZeroSnr?: boolean;
}

/** A named schedule with T steps. */
export interface ScheduleSpec extends BetaOptions {
  readonly name: ScheduleName;
  readonly T: number;
}

/** A schedule by name, or by its betas. */
export type ScheduleSource = ScheduleSpec | ArrayLike<number>;

/**
 * Everything q(x_t | x_0), q(x_{t-1} | x_t, x_0) and p(x_{t-1} | x_t) need, indexed by t = 0 … T-1; each table is (T,).
 * t = 0 is one step of noise, not clean data. The name in the classic class (and in files) stands before each formula.
 * Source: Ho et al. 2020, equations 4, 6, 7 and 11.
 */
export interface Schedule {
  readonly T: number;
  /** `betas`: variance of q(x_t | x_{t-1}). */
  readonly betas: Float64Array;
  /** `alphas` = 1 - beta. */
  readonly alphas: Float64Array;
  /** `alphas_cumprod`: alpha_bar, the product of alphas up to and including t. */
  readonly alphasCumprod: Float64Array;
  /** `alphas_cumprod_prev`: alpha_bar of t-1, 1 at t = 0. */
  readonly alphasCumprodPrev: Float64Array;
  /** `sqrt_alphas_cumprod`: mean factor of q(x_t | x_0). */
  readonly sqrtAlphasCumprod: Float64Array;
  /** `sqrt_one_minus_alphas_cumprod`: standard deviation of q(x_t | x_0). */
  readonly sqrtOneMinusAlphasCumprod: Float64Array;
  /** `log_one_minus_alphas_cumprod`: log variance of q(x_t | x_0). */
  readonly logOneMinusAlphasCumprod: Float64Array;
  /** `sqrt_recip_alphas_cumprod`: factor of x_t in x_0 from eps. */
  readonly sqrtRecipAlphasCumprod: Float64Array;
  /** `sqrt_recipm1_alphas_cumprod`: factor of eps in x_0 from eps, sqrt(1 / alpha_bar - 1). */
  readonly sqrtRecipm1AlphasCumprod: Float64Array;
  /** `posterior_variance`: beta~ = beta (1 - alpha_bar_prev) / (1 - alpha_bar); 0 at t = 0. */
  readonly posteriorVariance: Float64Array;
  /** `posterior_log_variance_clipped` = log(max(beta~, 1e-20)): log variance of the reverse step, `fixed_small`. */
  readonly posteriorLogVarianceClipped: Float64Array;
  /** `posterior_mean_coef1`: factor of x_0 in the posterior mean, beta sqrt(alpha_bar_prev) / (1 - alpha_bar). */
  readonly posteriorMeanCoef1: Float64Array;
  /** `posterior_mean_coef2`: factor of x_t in the posterior mean, (1 - alpha_bar_prev) sqrt(alpha) / (1 - alpha_bar). */
  readonly posteriorMeanCoef2: Float64Array;
  /** log variance of the reverse step, `fixed_large`: log(beta), at t = 0 log(beta~ of t = 1). Not one of the thirteen. */
  readonly fixedLargeLogVariance: Float64Array;
}

/** The thirteen tables of a `Schedule` with their names in the classic class. */
export const TABLE_NAMES = {
  betas: 'betas',
  alphas: 'alphas',
  alphasCumprod: 'alphas_cumprod',
  alphasCumprodPrev: 'alphas_cumprod_prev',
  sqrtAlphasCumprod: 'sqrt_alphas_cumprod',
  sqrtOneMinusAlphasCumprod: 'sqrt_one_minus_alphas_cumprod',
  logOneMinusAlphasCumprod: 'log_one_minus_alphas_cumprod',
  sqrtRecipAlphasCumprod: 'sqrt_recip_alphas_cumprod',
  sqrtRecipm1AlphasCumprod: 'sqrt_recipm1_alphas_cumprod',
  posteriorVariance: 'posterior_variance',
  posteriorLogVarianceClipped: 'posterior_log_variance_clipped',
  posteriorMeanCoef1: 'posterior_mean_coef1',
  posteriorMeanCoef2: 'posterior_mean_coef2',
} as const satisfies Partial<Record<keyof Schedule, string>>;

/**
 * The betas of a named schedule, (T,).
 *
 * - `linear`: linspace(betaStart, betaEnd, T), scaled by 1000 / T (Ho et al. 2020; the scaling is Nichol & Dhariwal's code).
 * - `quadratic`: linspace(sqrt(betaStart), sqrt(betaEnd), T)^2, never scaled (Song et al. 2020, code).
 * - `cosine`: 1 - f(t+1) / f(t) with f(t) = cos^2((t/T + 0.008) / 1.008 · pi/2), at most 0.999 (Nichol & Dhariwal 2021, equation 17).
 * - `sigmoid`: betaStart + (betaEnd - betaStart) sigmoid(linspace(-6, 6, T)), never scaled (Song et al. 2020, code).
 *
 * With `rescaleBetasZeroSnr` they are rescaled at the end (`rescaleZeroSnr`).
 *
 * @throws DdpmError E-USAGE for another name, a T that is not an integer of at least 2, or a beta outside (0, 1), as `linear` has for T <= 20.
 */
export function makeBetas(name: ScheduleName, T: number, { betaStart = 1e-4, betaEnd = 0.02, scale = true, rescaleBetasZeroSnr = false }: BetaOptions = {}): Float64Array {
  if (!SCHEDULES.includes(name)) throw unknownSchedule(name);
  checkT(T);
  let betas: Float64Array;
  if (name === 'linear') {
    const k = scale ? 1000 / T : 1;
    betas = linspace(k * betaStart, k * betaEnd, T);
  } else if (name === 'quadratic') {
    betas = linspace(Math.sqrt(betaStart), Math.sqrt(betaEnd), T).map((b) => b * b);
  } else if (name === 'sigmoid') {
    betas = linspace(-6, 6, T).map((x) => betaStart + (betaEnd - betaStart) / (1 + Math.exp(-x)));
  } else {
    const f = (t: number): number => Math.cos(((t / T + 0.008) / 1.008) * (Math.PI / 2)) ** 2;
    betas = Float64Array.from({ length: T }, (_, t) => Math.min(1 - f(t + 1) / f(t), 0.999));
  }
  // Clipping would silently make another schedule, so too small a T is an error.
  if (name === 'linear' && scale && betas[T - 1] >= 1) {
    throw new DdpmError(
      'E-USAGE',
      `The linear schedule does not go with ${T} timesteps: its betas are scaled by 1000 / ${T}, the last becomes ${betas[T - 1].toPrecision(3)}, ` +
        `and a beta must stay below 1. Use more than ${Math.floor(1000 * betaEnd + 1e-9)} timesteps, or the cosine schedule.`,
    );
  }
  checkBetas(betas);
  return rescaleBetasZeroSnr ? rescaleZeroSnr(betas) : betas;
}

/**
 * Betas with which x_{T-1} is pure noise, as samplers take it to be: sqrt(alpha_bar) is shifted to end at 0 and scaled to begin where it did
 * (Lin et al. 2023, algorithm 1). The last beta is 1, and eps says nothing about x_0 there: the network must predict v or x_0.
 *
 * @throws DdpmError E-USAGE for betas that are no schedule
 */
export function rescaleZeroSnr(betas: ArrayLike<number>): Float64Array {
  const { T, sqrtAlphasCumprod: root } = makeSchedule(betas), first = root[0]!, last = root[T - 1]!;
  if (last === 0) return Float64Array.from(betas); // once is as good as twice
  const acp = root.map((r) => ((r - last) * (first / (first - last))) ** 2);
  return acp.map((a, t) => 1 - (t === 0 ? a : a / acp[t - 1]!));
}

/**
 * All tables of a schedule, from a named schedule or from any betas.
 *
 * @throws DdpmError E-USAGE if the betas are fewer than 2, or one is not finite or not in (0, 1), but for the last, which may be 1; the message names the first.
 */
export function makeSchedule(source: ScheduleSource): Schedule {
  const betas = 'name' in source ? makeBetas(source.name, source.T, source) : Float64Array.from(source);
  const T = betas.length;
  checkT(T);
  checkBetas(betas);

  const table = (f: (t: number) => number): Float64Array => Float64Array.from({ length: T }, (_, t) => f(t));
  const alphas = betas.map((b) => 1 - b);
  const acp = new Float64Array(T);
  for (let t = 0, product = 1; t < T; t++) acp[t] = product *= alphas[t];
  const prev = table((t) => (t === 0 ? 1 : acp[t - 1]));
  const posteriorVariance = table((t) => (betas[t] * (1 - prev[t])) / (1 - acp[t]));
  return {
    T,
    betas,
    alphas,
    alphasCumprod: acp,
    alphasCumprodPrev: prev,
    sqrtAlphasCumprod: acp.map(Math.sqrt),
    sqrtOneMinusAlphasCumprod: acp.map((a) => Math.sqrt(1 - a)),
    logOneMinusAlphasCumprod: acp.map((a) => Math.log(1 - a)),
    sqrtRecipAlphasCumprod: acp.map((a) => Math.sqrt(1 / a)),
    sqrtRecipm1AlphasCumprod: acp.map((a) => Math.sqrt(1 / a - 1)),
    posteriorVariance,
    // At t = 0 the posterior has no variance and log 0 is not a number to store; nothing is sampled there.
    posteriorLogVarianceClipped: posteriorVariance.map((v) => Math.log(Math.max(v, 1e-20))),
    posteriorMeanCoef1: table((t) => (betas[t] * Math.sqrt(prev[t])) / (1 - acp[t])),
    posteriorMeanCoef2: table((t) => ((1 - prev[t]) * Math.sqrt(alphas[t])) / (1 - acp[t])),
    fixedLargeLogVariance: table((t) => Math.log(t === 0 ? posteriorVariance[1] : betas[t])),
  };
}

function linspace(start: number, end: number, n: number): Float64Array {
  return Float64Array.from({ length: n }, (_, i) => start + ((end - start) * i) / (n - 1));
}

function checkT(T: number): void {
  if (Number.isInteger(T) && T >= 2) return;
  throw new DdpmError('E-USAGE', `A schedule needs a whole number of timesteps, at least 2; got ${T}. 1000 is the usual choice.`);
}

function checkBetas(betas: Float64Array): void {
  // Also for NaN. A last beta of 1 leaves nothing of the image, which a schedule may (rescaleZeroSnr).
  const i = betas.findIndex((b, t) => !(b > 0 && (b < 1 || (b === 1 && t === betas.length - 1))));
  if (i < 0) return;
  throw new DdpmError(
    'E-USAGE',
    `betas[${i}] of ${betas.length} is ${betas[i]}: a beta is the share of noise one step adds, so it must lie between 0 and 1, both excluded.`,
  );
}

function unknownSchedule(name: unknown): DdpmError {
  // Other libraries' names first; otherwise the first letter tells them apart.
  const aliases: Record<string, ScheduleName> = { scaled_linear: 'quadratic', squaredcos_cap_v2: 'cosine' };
  const word = String(name).toLowerCase();
  const guess = aliases[word] ?? SCHEDULES.find((s) => s[0] === word[0]);
  return new DdpmError(
    'E-USAGE',
    `There is no schedule "${String(name)}". The schedules are ${SCHEDULES.join(', ')}.${guess ? ` Did you mean ${guess}?` : ''}`,
  );
}
