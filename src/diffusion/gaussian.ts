// GaussianDiffusion: the forward process q, the reverse process p, and the loss, on tensors, with an independent t for every image.
import { pointwise, threads } from '../autograd.ts';
import type { Clock } from '../clock.ts';
import { DdpmError } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import * as k from '../gpu/kernels.gen.ts';
import { type Clip, clipped } from '../ops/clip.ts';
import { gatherRows } from '../ops/gather.ts';
import { mse } from '../ops/loss.ts';
import { STREAM } from '../philox.ts';
import { withTensor, requireShapes, sameShape, Tensor } from '../tensor.ts';
import { type Draw, Sampler } from './sampler.ts';
import { type OutputTable, type Prediction, startTable, targetTable } from './prediction.ts';
import { respace } from './respace.ts';
import { type Schedule, TABLE_NAMES } from './schedule.ts';
import { isLearned, logVarianceTable, type Variance } from './variance.ts';

/**
 * The network: x (N, H, W, C), t (N) uint32 -> (N, H, W, C), or (N, H, W, 2 C) where the variance is learned: the mean's channels, then v. `start` is the x_0 that was
 * predicted before, (N, H, W, C), for a self-conditioned network.
 */
export type DiffusionModel = (x: Tensor, t: Tensor, start?: Tensor | null) => Tensor;

/** Columns of the table on the device; the first six are what posterior_step reads, in its order. */
const COLUMNS = [
  'startX', 'startOutput', 'posteriorMeanCoef1', 'posteriorMeanCoef2', 'logVarianceAt', 'logVarianceSlope',
  'sqrtAlphasCumprod', 'sqrtOneMinusAlphasCumprod', 'targetStart', 'targetNoise', 'sqrtRecipAlphasCumprod', 'sqrtRecipm1AlphasCumprod',
] as const;
const K = COLUMNS.length;
const column = (name: (typeof COLUMNS)[number]) => COLUMNS.indexOf(name);

/** A coefficient of the schedule that can be looked up for every image. */
export type TableName = keyof typeof TABLE_NAMES;

/** Moments of a normal distribution. */
export interface MeanVariance {
  /** (N, H, W, C) */
  readonly mean: Tensor;
  /** (N), or (N, H, W, C) where it is learned */
  readonly variance: Tensor;
  /** as variance */
  readonly logVariance: Tensor;
}

const zeros = (engine: Engine, shape: readonly number[]): Tensor => {
  const x = Tensor.empty(engine, shape);
  engine.clear(x.slice);
  return x;
};
const requireTimes = (x: Tensor, t: Tensor): void => requireShapes(t.size === x.shape[0], 'diffusion', 'one timestep for each image', { x, t });

/**
 * The diffusion process on tensors, with a t for every image (Ho et al., 2020): q(x_t | x_0), the posterior, a reverse step, the simple loss. Images are (N,
 * H, W, C), about [-1, 1]; t is (N) uint32, from 0 to T - 1. Shapes that do not go together are E-SHAPE.
 */
export class GaussianDiffusion {
  readonly engine: Engine;
  readonly schedule: Schedule;
  readonly prediction: Prediction;
  readonly variance: Variance;
  /** x_0 = start.x[t] x_t + start.output[t] · output. */
  readonly start: OutputTable;
  readonly #table: Tensor;
  readonly #columns: ReadonlyMap<TableName | 'logVariance' | 'variance', Tensor>;

  /** Uploads the schedule's tables, computed in float64 and rounded once; call outside of captures. */
  constructor(engine: Engine, schedule: Schedule, { prediction = 'eps' as Prediction, variance = 'fixed_small' as Variance, start = startTable(schedule, prediction) } = {}) {
    const target = targetTable(schedule, prediction), log = logVarianceTable(schedule, variance);
    this.engine = engine;
    this.schedule = schedule;
    this.prediction = prediction;
    this.variance = variance;
    this.start = start;
    const { T } = schedule;
    const own = { startX: start.x, startOutput: start.output, targetStart: target.start, targetNoise: target.noise, logVarianceAt: log.at, logVarianceSlope: log.slope };
    const tables: Readonly<Record<(typeof COLUMNS)[number], Float64Array>> = { ...schedule, ...own };
    this.#table = Tensor.from(engine, [T, K], Float32Array.from({ length: T * K }, (_, i) => tables[COLUMNS[i % K]!][Math.floor(i / K)]!));
    const upload = (values: Float64Array) => Tensor.from(engine, [T, 1], Float32Array.from(values));
    const columns = new Map<TableName | 'logVariance' | 'variance', Tensor>();
    for (const name of Object.keys(TABLE_NAMES) as TableName[]) columns.set(name, upload(schedule[name]));
    if (!isLearned(variance)) {
      columns.set('logVariance', upload(variance === 'fixed_small' ? schedule.posteriorLogVarianceClipped : log.at));
      columns.set('variance', upload(variance === 'fixed_small' ? schedule.posteriorVariance : log.at.map(Math.exp)));
    }
    this.#columns = columns;
  }

  get T(): number {
    return this.schedule.T;
  }

  /**
   * The chain that visits only some timesteps, given in any order: what it calls t is an index into them, from the least noisy up, and the network must
   * be told the timestep that stands there. With all of them it is the same chain, bit for bit. Free it with destroy().
   */
  respaced(timesteps: readonly number[]): GaussianDiffusion {
    const { engine, schedule, prediction, variance } = this;
    const short = respace(schedule, timesteps), rising = [...timesteps].sort((a, b) => a - b);
    // What an output says about x_0 is what it was trained to say, at the original timestep; a posterior mean is that of the original step.
    const picked = (table: Float64Array) => Float64Array.from(rising, (t) => table[t]!);
    return new GaussianDiffusion(engine, short, { prediction, variance, start: { x: picked(this.start.x), output: picked(this.start.output) } });
  }

  /** Frees the tables. */
  destroy(): void {
    for (const table of [this.#table, ...this.#columns.values()]) table.free();
  }

  /** table[t], (N): one coefficient for every image. */
  extract(name: TableName | 'logVariance' | 'variance', t: Tensor): Tensor {
    const table = this.#columns.get(name);
    if (!table) throw new DdpmError('E-USAGE', `there is no table "${name}"; the tables are ${[...this.#columns.keys()].join(', ')}.`);
    return gatherRows(table, t).view([t.size]);
  }

  /** x_t = sqrt(acp_t) x_0 + sqrt(1 - acp_t) eps (DDPM, eq. 4). */
  qSample(x0: Tensor, t: Tensor, noise: Tensor): Tensor {
    return this.#combine(x0, noise, t, 'sqrtAlphasCumprod', 'sqrtOneMinusAlphasCumprod', 1);
  }

  /** What the network is to predict for this noise: eps, x_0, v or the posterior mean. */
  target(x0: Tensor, t: Tensor, noise: Tensor): Tensor {
    return this.#combine(x0, noise, t, 'targetStart', 'targetNoise', 1);
  }

  /** x_t and the target with eps drawn from the clock's counter, in one pass. */
  qSampleTarget(x0: Tensor, t: Tensor, clock: Clock): { xt: Tensor; target: Tensor } {
    const { engine } = this;
    const N = x0.shape[0]!, size = x0.size / N;
    requireTimes(x0, t);
    const xt = Tensor.empty(engine, x0.shape), target = Tensor.empty(engine, x0.shape);
    this.#withRows(t, (coef) => engine.run(k.q_sample, threads(N * Math.ceil(size / 4)), {
      clock: clock.slice, x0: x0.slice, coef: coef.slice, xt: xt.slice, goal: target.slice,
      N, size, K, a: column('sqrtAlphasCumprod'), b: column('sqrtOneMinusAlphasCumprod'), start: column('targetStart'), noise: column('targetNoise'), stream: STREAM.noise,
    }));
    return { xt, target };
  }

  /** Moments of q(x_t | x_0). */
  qMeanVariance(x0: Tensor, t: Tensor): MeanVariance {
    // 1 - acp as exp(log(1 - acp)) would lose digits; the square of the float64-rounded root keeps them.
    const variance = withTensor(this.extract('sqrtOneMinusAlphasCumprod', t), (oneMinus) => this.#square(oneMinus));
    return { mean: withTensor(zeros(this.engine, x0.shape), (nothing) => this.qSample(x0, t, nothing)), variance, logVariance: this.extract('logOneMinusAlphasCumprod', t) };
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

  /** Moments of p(x_{t-1} | x_t): output -> x_0, clipped to [-1, 1] by default, -> posterior mean; and that x_0. */
  pMeanVariance(model: DiffusionModel, xt: Tensor, t: Tensor, { clipDenoised = true }: { clipDenoised?: Clip } = {}): MeanVariance & { predXstart: Tensor } {
    const output = model(xt, t);
    const { sample: mean, predXstart } = withTensor(zeros(this.engine, xt.shape), (noise) => this.pSample(() => output, xt, t, { clipDenoised, noise }));
    if (!isLearned(this.variance)) return { mean, predXstart, variance: this.extract('variance', t), logVariance: this.extract('logVariance', t) };
    const [variance, logVariance] = [Tensor.empty(this.engine, xt.shape), Tensor.empty(this.engine, xt.shape)];
    const N = t.size, dims = { N, size: xt.size / N, K, C: xt.shape.at(-1)!, c: column('logVarianceAt'), d: column('logVarianceSlope') };
    this.#withRows(t, (coef) => this.engine.run(k.log_variance, threads(xt.size), { output: output.slice, coef: coef.slice, variance: variance.slice, log_variance: logVariance.slice, ...dims }));
    return { mean, predXstart, variance, logVariance };
  }

  /** One reverse step for every image at its own t; no noise where t = 0. The noise is given, or drawn from the clock and t. */
  pSample(model: DiffusionModel, xt: Tensor, t: Tensor, options: { clipDenoised?: Clip } & ({ noise: Tensor } | { clock: Clock })): { sample: Tensor; predXstart: Tensor } {
    const sample = Tensor.empty(this.engine, xt.shape), predXstart = Tensor.empty(this.engine, xt.shape);
    this.engine.run(k.accumulate, pointwise(xt.size), { x: xt.slice, y: sample.slice, copy: 1 });
    this.posteriorStep(sample, model(xt, t), t, predXstart, options);
    return { sample, predXstart };
  }

  /** The fused reverse step in place: x becomes x_{t-1}, predXstart is written. One pass over memory. `output` is the network's, for x at t. */
  posteriorStep(x: Tensor, output: Tensor, t: Tensor, predXstart: Tensor, options: { clipDenoised?: Clip } & ({ noise: Tensor } | { clock: Clock })): void {
    const { engine } = this;
    const N = x.shape[0]!, size = x.size / N, C = x.shape.at(-1)!, M = this.checkOutput(x, output);
    const given = 'noise' in options;
    requireTimes(x, t);
    requireShapes(sameShape(x, predXstart) && (!given || sameShape(x, options.noise)), 'a reverse step', 'x, its x_0 and its noise of one shape', { x, predXstart, ...(given && { noise: options.noise }) });
    this.#withRows(t, (coef) => clipped(options.clipDenoised ?? true, { coef, x, output }, (seen, range) => engine.run(k.posterior_step, threads(N * Math.ceil(size / 4)), {
      // With given noise the clock is not read.
      clock: given ? { ...coef.slice, bytes: 64 } : options.clock.slice, t: t.slice, coef: coef.slice, output: seen.slice, z: given ? options.noise.slice : output.slice,
      x: x.slice, x0: predXstart.slice, N, size, K, C, M, clip: range, given: Number(given), stream: STREAM.sample,
    })));
  }

  /**
   * The whole reverse process (algorithm 2), from T - 1 down to 0: x_0, not clipped, (N, H, W, C). `onStep` sees x_t and the predicted x_0 of every step.
   * The step is captured once and replayed; keep a Sampler yourself to draw more than once.
   */
  async pSampleLoop(model: DiffusionModel, shape: readonly [number, number, number, number], { clipDenoised = true, ...draw }: { clipDenoised?: Clip } & Draw): Promise<Float32Array<ArrayBuffer>> {
    const sampler = new Sampler(model, this, shape, { method: 'ddpm', clipDenoised });
    try {
      return await sampler.sample(draw);
    } finally {
      await sampler.destroy();
    }
  }

  /** `batchSize` square images: pSampleLoop with its shape spelt out. */
  sample(model: DiffusionModel, imageSize: number, { batchSize = 8, channels = 3, ...draw }: { batchSize?: number; channels?: number } & Draw): Promise<Float32Array<ArrayBuffer>> {
    return this.pSampleLoop(model, [batchSize, imageSize, imageSize, channels], draw);
  }

  /** L_simple: the mean squared error against the target (DDPM, eq. 14, for eps). With a clock the noise is drawn; otherwise it is given. */
  trainLosses(model: DiffusionModel, x0: Tensor, t: Tensor, options: { noise: Tensor } | { clock: Clock }): Tensor {
    const { xt, target } = 'noise' in options ? { xt: this.qSample(x0, t, options.noise), target: this.target(x0, t, options.noise) } : this.qSampleTarget(x0, t, options.clock);
    return mse(model(xt, t), target);
  }

  /** What a self-conditioned network is given in training: for half of the images the x_0 that its output predicts, clipped as a sampler clips it, and zeros for the others. */
  selfCondition(output: Tensor, xt: Tensor, t: Tensor, clock: Clock, { clipDenoised = true }: { clipDenoised?: Clip } = {}): Tensor {
    const { engine } = this, N = xt.shape[0]!, C = xt.shape.at(-1)!, M = this.checkOutput(xt, output);
    requireTimes(xt, t);
    const start = Tensor.empty(engine, xt.shape);
    this.#withRows(t, (coef) => clipped(clipDenoised, { coef, x: xt, output }, (seen, range) => engine.run(k.self_condition, threads(xt.size), {
      clock: clock.slice, coef: coef.slice, output: seen.slice, xt: xt.slice, start: start.slice, N, size: xt.size / N, K, C, M, clip: range, stream: STREAM.self,
    })));
    return start;
  }

  /** Throws E-SHAPE unless the network's output goes with these images and the variance; returns its channels. */
  checkOutput(x: Tensor, output: Tensor): number {
    const C = x.shape.at(-1)!, M = isLearned(this.variance) ? 2 * C : C;
    if (output.size * C === x.size * M) return M;
    throw new DdpmError('E-SHAPE', `the network gave (${output.shape.join(', ')}) for images of (${x.shape.join(', ')}); with the variance ${this.variance} it has ${M} channels for their ${C}.`);
  }

  #combine(u: Tensor, v: Tensor, t: Tensor, a: (typeof COLUMNS)[number], b: (typeof COLUMNS)[number], sign: 1 | -1): Tensor {
    const N = u.shape[0]!;
    if (u.size !== v.size || t.size !== N) throw new DdpmError('E-SHAPE', `shapes (${u.shape.join(', ')}) and (${v.shape.join(', ')}) with ${t.size} timesteps do not go together.`);
    const y = Tensor.empty(this.engine, u.shape);
    this.#withRows(t, (coef) => this.engine.run(k.combine, threads(u.size), { u: u.slice, v: v.slice, coef: coef.slice, y: y.slice, N, size: u.size / N, K, a: column(a), b: column(b), sign }));
    return y;
  }

  /** Runs `use` with the tables' row of each image, (N, K). */
  #withRows(t: Tensor, use: (coef: Tensor) => void): void {
    withTensor(gatherRows(this.#table, t), use);
  }

  #square(x: Tensor): Tensor {
    const y = Tensor.empty(this.engine, x.shape);
    withTensor(zeros(this.engine, x.shape), (zero) => this.engine.run(k.combine, threads(x.size), { u: x.slice, v: zero.slice, coef: x.slice, y: y.slice, N: x.size, size: 1, K: 1, a: 0, b: 0, sign: 1 }));
    return y;
  }
}
