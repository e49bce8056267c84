// Which samplers there are, and the table of each: the timesteps that it visits and a row for every evaluation of the network.
import { DdpmError } from '../../errors.ts';
import type { Prediction } from '../prediction.ts';
import type { Schedule } from '../schedule.ts';
import { countAbove, karrasTimesteps, LAMBDA_MIN, type SamplerSpacing, solverTimesteps, timesteps } from '../spacing.ts';
import { ddimInverseRows, ddimRows } from './ddim.ts';
import { dpmSolverRows } from './dpm_solver.ts';
import { heunRows } from './heun.ts';
import { langevinRows } from './langevin.ts';
import { type Chain, checkTimesteps, type Row, rowValues, visits } from './row.ts';

/**
 * `ddpm`: ancestral sampling (Ho et al. 2020, algorithm 2). `ddim`: Song et al. (2020). `dpm++1`, `dpm++2m`: DPM-Solver++ (Lu et al. 2022).
 * `heun`: Karras et al. (2022), algorithm 1. `langevin`: annealed Langevin dynamics (Song & Ermon 2019).
 */
export const SAMPLERS = ['ddpm', 'ddim', 'dpm++1', 'dpm++2m', 'heun', 'langevin'] as const;
/** One of SAMPLERS. */
export type SamplerName = (typeof SAMPLERS)[number];

/** A sampler and its timesteps. An option that belongs to another sampler is E-USAGE. */
export interface TableOptions {
  readonly method: SamplerName;
  /** Timesteps visited: all for ddpm, otherwise 50 (ddim, langevin), 20 (dpm++) or 18 (heun), and never more than there are. */
  readonly steps?: number;
  /** The timesteps themselves, noisiest first, in place of steps and spacing. */
  readonly timesteps?: readonly number[];
  /** `leading` for ddpm and ddim, `linspace` for dpm++, `karras` for heun, `geometric` for langevin. */
  readonly spacing?: SamplerSpacing;
  readonly stepsOffset?: number;
  /** Spacing `karras`: how much denser the levels lie near the image (7). */
  readonly rho?: number;
  /** Spacings `karras` and `geometric`, and dpm++: log(alpha / sigma) below which no timestep is visited (-5.1: it only matters for schedules as noisy as cosine). */
  readonly lambdaMin?: number;
  /** The last step leads to x_0 itself (true), or to the noise of t = 0, as diffusers' `set_alpha_to_one` and `final_sigmas_type` have it. */
  readonly setAlphaToOne?: boolean;
  /** ddim: 0 is deterministic, 1 as noisy as ddpm. */
  readonly eta?: number;
  /** ddim: derive eps again from the clipped x_0 (diffusers' use_clipped_model_output); true by default. */
  readonly rederive?: boolean;
  /** ddim without noise, backwards: from images to the noise that they come from (DDIM inversion). */
  readonly inverse?: boolean;
  /** langevin: steps at each level (7), their signal-to-noise ratio (0.25), and whether to end with the predicted x_0 (true). */
  readonly innerSteps?: number;
  readonly snr?: number;
  readonly denoise?: boolean;
}

/** A sampler as numbers: everything that differs between samplers is in its rows. */
export interface SamplerTable {
  /** The timesteps visited, noisiest first. */
  readonly timesteps: readonly number[];
  /** One for each evaluation of the network. Those of ddpm name timesteps only; `draw` is the index on the respaced chain. */
  readonly rows: readonly Row[];
}

const STEPS: Readonly<Record<SamplerName, number>> = { ddpm: Infinity, ddim: 50, 'dpm++1': 20, 'dpm++2m': 20, heun: 18, langevin: 50 };
const SPACING: Readonly<Record<SamplerName, SamplerSpacing>> = { ddpm: 'leading', ddim: 'leading', 'dpm++1': 'linspace', 'dpm++2m': 'linspace', heun: 'karras', langevin: 'geometric' };
/** Options that belong to one sampler. */
const ONLY: readonly (readonly [keyof TableOptions, SamplerName])[] = [['eta', 'ddim'], ['inverse', 'ddim'], ['innerSteps', 'langevin'], ['snr', 'langevin']];

/** @throws DdpmError E-USAGE for an unknown sampler, an option of another one, or timesteps that do not fit the schedule */
export function samplerTable(schedule: Schedule, prediction: Prediction, options: TableOptions): SamplerTable {
  const { method, setAlphaToOne = true } = options;
  if (!SAMPLERS.includes(method)) throw new DdpmError('E-USAGE', `there is no sampler "${String(method)}"; the samplers are ${SAMPLERS.join(', ')}.`);
  for (const [name, owner] of ONLY)
    if (options[name] && method !== owner) throw new DdpmError('E-USAGE', `${name} belongs to the ${owner} sampler; ${method} has no such setting. Leave it out, or take ${owner}.`);
  const list = visitedTimesteps(schedule, options);
  const chain: Chain = { schedule, prediction, timesteps: list, final: setAlphaToOne ? -1 : 0 };
  const rows = rowsOf(chain, options), odd = rows.find((row) => !rowValues(row).every(Number.isFinite));
  if (odd) throw new DdpmError('E-USAGE', `${method} cannot visit t = ${list[0]}, where this schedule leaves nothing of the image (alpha_bar is 0): its steps are those of sigma / alpha. Leave that timestep out, or take ddim or ddpm.`);
  return { timesteps: list, rows };
}

function rowsOf(chain: Chain, options: TableOptions): Row[] {
  switch (options.method) {
    case 'ddpm': return visits({ ...chain, final: -1 }).map(({ row, i }) => ({ ...row, draw: chain.timesteps.length - 1 - i }));
    case 'ddim': return options.inverse ? ddimInverseRows(chain) : ddimRows(chain, options);
    case 'dpm++1': return dpmSolverRows(chain, { order: 1 });
    case 'dpm++2m': return dpmSolverRows(chain, { order: 2 });
    case 'heun': return heunRows(chain);
    case 'langevin': return langevinRows(chain, options);
  }
}

/** The timesteps that these options visit, noisiest first. */
export function visitedTimesteps(schedule: Schedule, options: TableOptions): readonly number[] {
  const { method, rho = 7, lambdaMin = LAMBDA_MIN } = options, { T } = schedule;
  if (options.timesteps) {
    checkTimesteps(T, options.timesteps);
    if (options.steps !== undefined && options.steps !== options.timesteps.length)
      throw new DdpmError('E-USAGE', `${options.steps} steps and a list of ${options.timesteps.length} timesteps: leave out the number of steps.`);
    return options.timesteps;
  }
  const solver = method === 'dpm++1' || method === 'dpm++2m';
  const spacing = options.spacing ?? SPACING[method];
  const levels = spacing === 'karras' || spacing === 'geometric', most = solver || levels ? countAbove(schedule, lambdaMin) : T;
  // `leading` divides the solvers' timesteps into one part more than it takes.
  const steps = options.steps ?? Math.min(STEPS[method], solver && spacing === 'leading' ? Math.max(1, most - 1) : most);
  if (levels) return karrasTimesteps(schedule, steps, { rho: spacing === 'karras' ? rho : Infinity, lambdaMin });
  return solver ? solverTimesteps(schedule, steps, spacing, { ...options, lambdaMin }) : timesteps(T, steps, spacing, options);
}
