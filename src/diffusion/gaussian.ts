// GaussianDiffusion: the forward process q, the reverse process p, and the loss, on tensors, with an independent t for every image.
import { pointwise, threads } from '../autograd.ts';
import type { Clock } from '../clock.ts';
import { DdpmError } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import * as k from '../gpu/kernels.gen.ts';
import { mse } from '../ops/loss.ts';
import { STREAM } from '../philox.ts';
import { Tensor } from '../tensor.ts';
import { type Draw, Sampler } from './sampler.ts';
import { type Schedule, TABLE_NAMES } from './schedule.ts';

/** eps_theta(x_t, t): x (N, H, W, C), t (N) uint32 -> (N, H, W, C). */
export type EpsModel = (x: Tensor, t: Tensor) => Tensor;

/** sigma_t^2 = beta~_t (posterior variance) or beta_t (DDPM, section 3.2). */
export const VARIANCES = ['fixed_small', 'fixed_large'] as const;
export type Variance = (typeof VARIANCES)[number];

/** Columns of the table on the device; the first five are what posterior_step reads, in its order. */
const COLUMNS = ['sqrtRecipAlphasCumprod', 'sqrtRecipm1AlphasCumprod', 'posteriorMeanCoef1', 'posteriorMeanCoef2', 'logVariance', 'sqrtAlphasCumprod', 'sqrtOneMinusAlphasCumprod'] as const;
const K = COLUMNS.length;
const column = (name: (typeof COLUMNS)[number]) => COLUMNS.indexOf(name);

export type TableName = keyof typeof TABLE_NAMES;

export interface MeanVariance {
  /** (N, H, W, C) */
  readonly mean: Tensor;
  /** (N) */
  readonly variance: Tensor;
  /** (N) */
  readonly logVariance: Tensor;
}

export class GaussianDiffusion {
  readonly engine: Engine;
  readonly schedule: Schedule;
  readonly variance: Variance;
  readonly #table: Tensor;
  readonly #columns: ReadonlyMap<TableName | 'logVariance' | 'variance', Tensor>;

  /** Uploads the schedule's tables, computed in float64 and rounded once; call outside of captures. */
  constructor(engine: Engine, schedule: Schedule, { variance = 'fixed_small' as Variance } = {}) {
    if (!VARIANCES.includes(variance)) throw new DdpmError('E-USAGE', `there is no variance "${String(variance)}"; the variances are ${VARIANCES.join(', ')}.`);
    this.engine = engine;
    this.schedule = schedule;
    this.variance = variance;
    const logVariance = variance === 'fixed_small' ? schedule.posteriorLogVarianceClipped : schedule.fixedLargeLogVariance;
    const { T } = schedule;
    const rows = new Float32Array(T * K);
    COLUMNS.forEach((name, j) => {
      const values = name === 'logVariance' ? logVariance : schedule[name];
      for (let t = 0; t < T; t++) rows[t * K + j] = values[t]!;
    });
    this.#table = Tensor.from(engine, [T, K], rows);
    const upload = (values: Float64Array) => Tensor.from(engine, [T, 1], Float32Array.from(values));
    const columns = new Map<TableName | 'logVariance' | 'variance', Tensor>();
    for (const name of Object.keys(TABLE_NAMES) as TableName[]) columns.set(name, upload(schedule[name]));
    columns.set('logVariance', upload(logVariance));
    columns.set('variance', upload(variance === 'fixed_small' ? schedule.posteriorVariance : logVariance.map(Math.exp)));
    this.#columns = columns;
  }

  get T(): number {
    return this.schedule.T;
  }

  /** table[t], (N): one coefficient for every image. */
  extract(name: TableName | 'logVariance' | 'variance', t: Tensor): Tensor {
    const table = this.#columns.get(name);
    if (!table) throw new DdpmError('E-USAGE', `there is no table "${name}"; the tables are ${[...this.#columns.keys()].join(', ')}.`);
    return this.#gather(table, t).view([t.size]);
  }

  /** x_t = sqrt(acp_t) x_0 + sqrt(1 - acp_t) eps (DDPM, eq. 4). */
  qSample(x0: Tensor, t: Tensor, noise: Tensor): Tensor {
    return this.#combine(x0, noise, t, 'sqrtAlphasCumprod', 'sqrtOneMinusAlphasCumprod', 1);
  }

  /** The same with eps drawn from the clock's counter in the same pass; both are returned. */
  qSampleNoise(x0: Tensor, t: Tensor, clock: Clock): { xt: Tensor; noise: Tensor } {
    const { engine } = this;
    const N = x0.shape[0]!, size = x0.size / N;
    const xt = Tensor.empty(engine, x0.shape), noise = Tensor.empty(engine, x0.shape);
    const coef = this.#gather(this.#table, t);
    engine.run(k.q_sample, threads(N * Math.ceil(size / 4)), {
      clock: clock.slice, x0: x0.slice, coef: coef.slice, xt: xt.slice, eps: noise.slice,
      N, size, K, a: column('sqrtAlphasCumprod'), b: column('sqrtOneMinusAlphasCumprod'), stream: STREAM.noise,
    });
    return { xt, noise };
  }

  /** Moments of q(x_t | x_0). */
  qMeanVariance(x0: Tensor, t: Tensor): MeanVariance {
    const nothing = Tensor.empty(this.engine, x0.shape);
    this.engine.clear(nothing.slice);
    const oneMinus = this.extract('sqrtOneMinusAlphasCumprod', t);
    // 1 - acp as exp(log(1 - acp)) would lose digits; the square of the float64-rounded root keeps them.
    const variance = this.#square(oneMinus);
    return { mean: this.qSample(x0, t, nothing), variance, logVariance: this.extract('logOneMinusAlphasCumprod', t) };
  }

  /** Moments of q(x_{t-1} | x_t, x_0) (DDPM, eq. 6 and 7). */
  qPosteriorMeanVariance(x0: Tensor, xt: Tensor, t: Tensor): MeanVariance {
    return {
      mean: this.#combine(x0, xt, t, 'posteriorMeanCoef1', 'posteriorMeanCoef2', 1),
      variance: this.extract('posteriorVariance', t),
      logVariance: this.extract('posteriorLogVarianceClipped', t),
    };
  }

  /** x_0 = sqrt(1 / acp_t) x_t - sqrt(1 / acp_t - 1) eps. */
  predictStartFromNoise(xt: Tensor, t: Tensor, noise: Tensor): Tensor {
    return this.#combine(xt, noise, t, 'sqrtRecipAlphasCumprod', 'sqrtRecipm1AlphasCumprod', -1);
  }

  /** Moments of p(x_{t-1} | x_t): eps -> x_0, clipped to [-1, 1] by default, -> posterior mean; and that x_0. */
  pMeanVariance(model: EpsModel, xt: Tensor, t: Tensor, { clipDenoised = true } = {}): MeanVariance & { predXstart: Tensor } {
    const zero = Tensor.empty(this.engine, xt.shape);
    this.engine.clear(zero.slice);
    const { sample, predXstart } = this.pSample(model, xt, t, { clipDenoised, noise: zero });
    return { mean: sample, predXstart, variance: this.extract('variance', t), logVariance: this.extract('logVariance', t) };
  }

  /** One reverse step for every image at its own t; no noise where t = 0. The noise is given, or drawn from the clock and t. */
  pSample(model: EpsModel, xt: Tensor, t: Tensor, options: { clipDenoised?: boolean } & ({ noise: Tensor } | { clock: Clock })): { sample: Tensor; predXstart: Tensor } {
    const sample = Tensor.empty(this.engine, xt.shape), predXstart = Tensor.empty(this.engine, xt.shape);
    this.engine.run(k.accumulate, pointwise(xt.size), { x: xt.slice, y: sample.slice, copy: 1 });
    this.posteriorStep(sample, model(xt, t), t, predXstart, options);
    return { sample, predXstart };
  }

  /** The fused reverse step in place: x becomes x_{t-1}, predXstart is written. One pass over memory. */
  posteriorStep(x: Tensor, eps: Tensor, t: Tensor, predXstart: Tensor, options: { clipDenoised?: boolean } & ({ noise: Tensor } | { clock: Clock })): void {
    const { engine } = this;
    const N = x.shape[0]!, size = x.size / N;
    const given = 'noise' in options;
    const coef = this.#gather(this.#table, t);
    engine.run(k.posterior_step, threads(N * Math.ceil(size / 4)), {
      // With given noise the clock is not read.
      clock: given ? { ...coef.slice, bytes: 64 } : options.clock.slice, t: t.slice, coef: coef.slice, eps: eps.slice, z: given ? options.noise.slice : eps.slice,
      x: x.slice, x0: predXstart.slice, N, size, K, clip: Number(options.clipDenoised ?? true), given: Number(given), stream: STREAM.sample,
    });
    coef.free();
  }

  /**
   * The whole reverse process (algorithm 2), from T - 1 down to 0: x_0, not clipped, (N, H, W, C). `onStep` sees x_t and the predicted x_0 of every step.
   * The step is captured once and replayed; keep a Sampler yourself to draw more than once.
   */
  async pSampleLoop(model: EpsModel, shape: readonly [number, number, number, number], { clipDenoised = true, ...draw }: { clipDenoised?: boolean } & Draw): Promise<Float32Array<ArrayBuffer>> {
    const sampler = new Sampler(model, this, shape, { method: 'ddpm', clipDenoised });
    try {
      return await sampler.sample(draw);
    } finally {
      await sampler.destroy();
    }
  }

  /** `batchSize` square images: pSampleLoop with its shape spelt out. */
  sample(model: EpsModel, imageSize: number, { batchSize = 8, channels = 3, ...draw }: { batchSize?: number; channels?: number } & Draw): Promise<Float32Array<ArrayBuffer>> {
    return this.pSampleLoop(model, [batchSize, imageSize, imageSize, channels], draw);
  }

  /** L_simple = mean (eps - eps_theta(x_t, t))^2 (DDPM, eq. 14). With a clock the noise is drawn; otherwise it is given. */
  trainLosses(model: EpsModel, x0: Tensor, t: Tensor, options: { noise: Tensor } | { clock: Clock }): Tensor {
    const { xt, noise } = 'noise' in options ? { xt: this.qSample(x0, t, options.noise), noise: options.noise } : this.qSampleNoise(x0, t, options.clock);
    return mse(model(xt, t), noise);
  }

  #gather(table: Tensor, t: Tensor): Tensor {
    const N = t.size, columns = table.shape[1]!;
    const coef = Tensor.empty(this.engine, [N, columns]);
    this.engine.run(k.schedule_gather, threads(N * columns), { table: table.slice, t: t.slice, coef: coef.slice, N, K: columns, T: this.T });
    return coef;
  }

  #combine(u: Tensor, v: Tensor, t: Tensor, a: (typeof COLUMNS)[number], b: (typeof COLUMNS)[number], sign: 1 | -1): Tensor {
    const N = u.shape[0]!;
    if (u.size !== v.size || t.size !== N) throw new DdpmError('E-SHAPE', `shapes (${u.shape.join(', ')}) and (${v.shape.join(', ')}) with ${t.size} timesteps do not go together.`);
    const y = Tensor.empty(this.engine, u.shape);
    const coef = this.#gather(this.#table, t);
    this.engine.run(k.combine, threads(u.size), { u: u.slice, v: v.slice, coef: coef.slice, y: y.slice, N, size: u.size / N, K, a: column(a), b: column(b), sign });
    coef.free();
    return y;
  }

  #square(x: Tensor): Tensor {
    const y = Tensor.empty(this.engine, x.shape);
    const zero = Tensor.empty(this.engine, x.shape);
    this.engine.clear(zero.slice);
    this.engine.run(k.combine, threads(x.size), { u: x.slice, v: zero.slice, coef: x.slice, y: y.slice, N: x.size, size: 1, K: 1, a: 0, b: 0, sign: 1 });
    zero.free();
    return y;
  }
}
