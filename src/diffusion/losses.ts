// What training minimises: the squared, absolute or Huber error of what is predicted, the variational bound itself, or both; and how much each t counts.
import type { Clock } from '../clock.ts';
import { DdpmError } from '../errors.ts';
import { gatherRows } from '../ops/gather.ts';
import { objective, smoothL1, squaredError, variationalBound } from '../ops/loss.ts';
import { Tensor } from '../tensor.ts';
import type { DiffusionModel, GaussianDiffusion } from './gaussian.ts';
import { type OutputTable, type Prediction, startTable } from './prediction.ts';
import type { Schedule } from './schedule.ts';
import { isLearned, logVarianceTable, type Variance } from './variance.ts';

/**
 * - `mse`: L_simple (Ho et al. 2020, eq. 14, for eps); `l1`; `huber`: smooth_l1.
 * - `vlb`: T times the term of the variational bound at t, in bits a dimension: over t uniform, the bound without its constant L_T.
 * - `hybrid`: L_simple + T / 1000 of that term, whose gradient reaches only the variance (Nichol & Dhariwal 2021, section 3.1).
 */
export const LOSSES = ['mse', 'l1', 'huber', 'vlb', 'hybrid'] as const;
/** One of LOSSES. */
export type LossName = (typeof LOSSES)[number];

/** Which loss, and how timesteps are weighted. */
export interface LossOptions {
  /** `mse` by default, `hybrid` where the variance is learned. */
  readonly loss?: LossName | null;
  /** min-SNR weights with this gamma (Hang et al. 2023; 5 there); every t counts the same without. For `mse` and `hybrid`. */
  readonly snrGamma?: number | null;
  /** Where `huber` passes from squares to absolute values. */
  readonly huberDelta?: number;
}

/**
 * min(SNR, gamma) times the squared error of x_0, said of the squared error of what is predicted: since x_0 = x[t] x_t + output[t] · output, the factor is
 * min(SNR, gamma) output[t]^2. That is min(SNR, gamma) / SNR for eps, min(SNR, gamma) for x_0, min(SNR, gamma) / (SNR + 1) for v, and
 * min(SNR, gamma) / coef1^2 for the posterior mean. Where a schedule ends with an SNR of 0 (`rescaleZeroSnr`), the last t counts as one of SNR 1: sampling
 * starts there, and a weight of 0 would leave the network untrained at it. (T,)
 */
export function minSnrWeights(s: Schedule, prediction: Prediction, gamma: number): Float64Array {
  const { output } = startTable(s, prediction);
  // 1 is what the squared error of v is worth at SNR 0 without such weights (Lin et al. 2023, section 3.2).
  const snr = s.alphasCumprod.map((acp) => (acp === 0 ? 1 : acp / (1 - acp)));
  return snr.map((ratio, t) => Math.min(ratio, gamma) * output[t]! ** 2);
}

/**
 * The seven columns that `variationalBound` reads, (T, 7): x_0 from x_t and the output, the posterior mean, log sigma^2 from v, and that of q(x_{t-1} | x_t, x_0).
 * On a respaced chain `start` is the chain's own: the network predicts as at the original timesteps.
 */
export function boundTable(s: Schedule, prediction: Prediction, variance: Variance, start: OutputTable = startTable(s, prediction)): Float64Array[] {
  const log = logVarianceTable(s, variance), small = logVarianceTable(s, 'fixed_small').at;
  return [start.x, start.output, s.posteriorMeanCoef1, s.posteriorMeanCoef2, log.at, log.slope, small];
}

/** Columns as rows on the device, (T, K), rounded to float32 once. */
export function uploadColumns(diffusion: GaussianDiffusion, columns: readonly Float64Array[]): Tensor {
  const K = columns.length;
  return Tensor.from(diffusion.engine, [diffusion.T, K], Float32Array.from({ length: diffusion.T * K }, (_, i) => columns[i % K]![Math.floor(i / K)]!));
}

const SIMPLE_FACTOR = 7, VLB_FACTOR = 8;

/** The training loss for one prediction, variance and weighting: each image's, and the batch's mean. */
export class DiffusionLoss {
  readonly diffusion: GaussianDiffusion;
  readonly name: LossName;
  /** The factor of the loss at each t, (T). It does not apply to the bound in `hybrid`. */
  readonly weights: Float64Array;
  readonly #delta: number;
  readonly #table: Tensor;
  readonly #scaled: boolean;

  /**
   * Uploads the table of coefficients; call outside of captures.
   *
   * @throws DdpmError E-USAGE where the loss leaves a learned variance without a gradient, has none to learn, or cannot be weighted
   */
  constructor(diffusion: GaussianDiffusion, { loss, snrGamma = null, huberDelta = 1 }: LossOptions = {}) {
    const { schedule, prediction, variance } = diffusion, learned = isLearned(variance);
    const name = (this.name = loss ?? (learned ? 'hybrid' : 'mse'));
    const refuse = (why: string): never => {
      throw new DdpmError('E-USAGE', why);
    };
    if (!LOSSES.includes(name)) refuse(`there is no loss "${String(name)}"; the losses are ${LOSSES.join(', ')}.`);
    if (learned && name !== 'hybrid' && name !== 'vlb') refuse(`the loss ${name} teaches the network no variance, and ${variance} asks it for one: use the loss hybrid or vlb, or a fixed variance.`);
    if (!learned && name === 'hybrid') refuse(`the hybrid loss teaches the network its variance, and ${variance} is fixed: use the variance learned_range, or the loss mse.`);
    if (snrGamma !== null && name !== 'mse' && name !== 'hybrid') refuse(`min-SNR weights are those of squared errors; the loss ${name} has its own. Leave the gamma out (--snr-gamma 0), or use the loss mse or hybrid.`);
    if (snrGamma !== null && !(snrGamma > 0)) refuse(`the gamma of min-SNR weights is ${snrGamma}; it must be positive, and 5 is the usual choice.`);
    if (!(huberDelta > 0)) refuse(`the Huber loss needs a positive delta, not ${huberDelta}; use the loss l1 for 0.`);
    this.diffusion = diffusion;
    this.#delta = name === 'l1' ? 0 : huberDelta;
    this.#scaled = snrGamma !== null || name === 'vlb' || name === 'hybrid';
    const constant = (value: number) => new Float64Array(schedule.T).fill(value);
    const simple = (this.weights = name === 'vlb' ? constant(schedule.T) : snrGamma === null ? constant(1) : minSnrWeights(schedule, prediction, snrGamma));
    this.#table = uploadColumns(diffusion, [...boundTable(schedule, prediction, variance), simple, constant(schedule.T / 1000)]);
  }

  /**
   * The loss, (1), and what each image adds to it, (N), at its own t. With a clock the noise is drawn; otherwise it is given.
   * `weight` (N) is what each image counts where t was not drawn uniformly; it is not in `each`.
   */
  of(model: DiffusionModel, x0: Tensor, t: Tensor, { weight = null, ...options }: ({ noise: Tensor } | { clock: Clock }) & { weight?: Tensor | null }): { loss: Tensor; each: Tensor } {
    const { diffusion } = this;
    const { xt, target } =
      'noise' in options ? { xt: diffusion.qSample(x0, t, options.noise), target: diffusion.target(x0, t, options.noise) } : diffusion.qSampleTarget(x0, t, options.clock);
    const output = model(xt, t);
    diffusion.checkOutput(x0, output);
    const rows = gatherRows(this.#table, t);
    const bound = () => variationalBound({ t, coef: rows, output, x0, xt }, { fixedMean: this.name === 'hybrid' });
    const factors = this.#scaled ? { rows, a: SIMPLE_FACTOR, b: VLB_FACTOR } : null;
    if (this.name === 'vlb') return objective(bound(), { factors, weight });
    const simple = this.name === 'l1' || this.name === 'huber' ? smoothL1(output, target, this.#delta) : squaredError(output, target);
    return objective(simple, { vlb: this.name === 'hybrid' ? bound() : null, factors, weight });
  }

  destroy(): void {
    this.#table.free();
  }
}
