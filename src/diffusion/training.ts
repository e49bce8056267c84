// The training step as one captured plan: batch choice, flip, t, noise, forward, loss, backward, clip, AdamW, EMA.
import { noGrad, Tape } from '../autograd.ts';
import { Clock } from '../clock.ts';
import { DdpmError, throwIfAborted } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import * as k from '../gpu/kernels.gen.ts';
import type { Plan } from '../gpu/plan.ts';
import type { Parameters } from '../nn/parameters.ts';
import type { UNet } from '../nn/unet.ts';
import type { Clip } from '../ops/clip.ts';
import { type DeviceImages, randomIntegers, shuffleIndices } from '../ops/random.ts';
import { AdamW, type AdamWOptions, requireAdamW, type StepLog } from '../optim/adamw.ts';
import { emaDecay, learningRate, LR_SCHEDULES, type LrSchedule } from '../optim/schedules.ts';
import { STREAM } from '../philox.ts';
import { Tensor } from '../tensor.ts';
import type { GaussianDiffusion } from './gaussian.ts';
import { DiffusionLoss, type LossName, type LossOptions } from './losses.ts';
import { ImportanceSampling, TIME_SAMPLINGS, type TimeSampling, WeightedSampling } from './timestep-sampling.ts';

/** Batch, length and learning rate of a training run, with the loss and AdamW's settings; the loss is scaled where the engine computes products in float16. */
export interface TrainingOptions extends AdamWOptions, LossOptions {
  /** Images a step. */
  readonly batchSize: number;
  /** Images that go through the network at a time, all of the batch by default: less memory for the same step, whose gradient is the sum over the parts. */
  readonly microBatch?: number | null;
  /** Steps of the whole run: where the schedule of the learning rate ends. */
  readonly steps: number;
  /** The learning rate once the warm-up is over. */
  readonly lr: number;
  /** `constant` by default. */
  readonly lrSchedule?: LrSchedule;
  /** Steps over which the learning rate rises to `lr` (0). */
  readonly warmup?: number;
  /** Decay of the weights' moving average, reached through a warm-up (0.9999). */
  readonly ema?: number;
  /** Of the order of the images, flips, t, noise, dropout and labels that are left out (0). */
  readonly seed?: number;
  /** How t is drawn; `uniform` by default. */
  readonly timeSampling?: TimeSampling;
  /** For a model with classes: the share of images whose label is the last row of its table instead, which stands for no class (0.1). */
  readonly labelDropout?: number;
  /** For a self-conditioned network: how training clips the x_0 that it is given, as samplers should (true). */
  readonly clipSample?: Clip;
}

/**
 * The training step as one captured plan: batch, noise, forward, backward, AdamW, moving average. `run(step)` replays it without waiting, `read` brings
 * losses back, `loop` is both as an async iterator. A step that is not finite changes nothing, and its log says so.
 */
export class Training {
  readonly engine: Engine;
  readonly options: TrainingOptions;
  readonly optimizer: AdamW;
  readonly plan: Plan<Tensor>;
  /** Where t is drawn by importance: a part of what a checkpoint must keep. */
  readonly timeSampling: ImportanceSampling | null;
  /** The learning rate after the warm-up, `options.lr` at first; it may be set between steps. */
  peakLr: number;
  /** One for each part of the batch: they differ in the sample id of their first image. */
  readonly #clocks: readonly Clock[];
  readonly #shares: Tensor;
  readonly #loss: DiffusionLoss;
  readonly #weighted: WeightedSampling | null;
  readonly #T: number;
  /** Of the latest step: t and the loss of each image. */
  readonly #latest: { readonly t: Tensor; readonly each: Tensor };
  #destroyed: Promise<void> | null = null;

  /**
   * Captures the step; nothing runs yet. Throws E-USAGE for options that cannot be, E-DATA for labels that the model has no row for, E-SHAPE where the model does not take the images, E-LIMIT
   * where the step is too large for the device.
   */
  constructor(unet: UNet, parameters: Parameters, diffusion: GaussianDiffusion, images: DeviceImages, options: TrainingOptions) {
    const { engine } = parameters;
    this.engine = engine;
    this.options = options;
    this.peakLr = options.lr;
    this.#T = diffusion.T;
    // Before anything is allocated: they throw where an option is out of range.
    requireOptions(options);
    requireAdamW(options);
    requireLabels(unet, images, options);
    const objective = (this.#loss = new DiffusionLoss(diffusion, options));
    const optimizer = (this.optimizer = new AdamW(parameters, { ...options, lossScaling: options.lossScaling ?? engine.precision === 'f16' }));
    const { batchSize: N } = options, size = Math.min(options.microBatch ?? N, N);
    const starts = Array.from({ length: Math.ceil(N / size) }, (_, i) => i * size), lengths = starts.map((first) => Math.min(size, N - first));
    const clocks = (this.#clocks = starts.map(() => new Clock(engine)));
    // Each part counts by its share of the batch, the last one too where it is smaller.
    const shares = (this.#shares = Tensor.from(engine, [1, 1 + lengths.length], Float32Array.from([1, ...lengths.map((n) => n / N)])));
    const selfConditioned = unet.config.in_channels === 2 * images.shape[2];
    const sampling = (this.timeSampling = options.timeSampling === 'importance' ? new ImportanceSampling(engine, diffusion.T) : null);
    const weighted = (this.#weighted = options.timeSampling === 'weighted' ? new WeightedSampling(engine, objective.weights) : null);
    const latest = (this.#latest = { t: Tensor.empty(engine, [N]), each: Tensor.empty(engine, [N]) });

    /** Loss and gradients of images `first` to `first + n`, drawn as in the whole batch. */
    const part = (first: number, n: number, clock: Clock, accumulate: boolean, inputs: () => { index: Tensor; t: Tensor; weight: Tensor | null }) => {
      const tape = new Tape(engine);
      const { loss, each } = tape.record(() => {
        const { index, t, weight } = inputs(), x0 = images.gather(index, clock);
        const labels = unet.conditional ? images.gatherLabels(index, clock, { none: (unet.config.num_class_embeds ?? 1) - 1, dropout: options.labelDropout ?? 0.1 }) : null;
        const network = (x: Tensor, at: Tensor) => {
          if (!selfConditioned) return unet.forward(x, at, { clock, labels });
          const start = noGrad(engine, () => diffusion.selfCondition(unet.forward([x, null], at, { clock, labels }), x, at, clock, { clipDenoised: options.clipSample ?? true }));
          return unet.forward([x, start], at, { clock, labels });
        };
        const found = objective.of(network, x0, t, { clock, weight });
        if (n === N) sampling?.update(t, found.each);
        for (const [from, to] of [[t, latest.t], [found.each, latest.each]] as const) engine.copy(from.slice, { buffer: to.slice.buffer, offset: to.slice.offset + 4 * first, bytes: 4 * n });
        return found;
      });
      tape.backward(loss, n === N ? null : each, { scale: n / N, scaleBy: optimizer.lossScale, accumulate });
      return { loss, each };
    };
    const draw = () => {
      const index = shuffleIndices(N, images.count, clocks[0]!);
      return { index, ...((sampling ?? weighted)?.draw(N, clocks[0]!) ?? { t: randomIntegers(N, diffusion.T, clocks[0]!, STREAM.time), weight: null }) };
    };
    try {
      this.plan = engine.capture(() => {
        const loss = starts.length === 1 ? part(0, N, clocks[0]!, false, draw).loss : inParts();
        this.optimizer.step(loss, clocks[0]!);
        return loss;
      });
    } catch (error) {
      this.#free();
      throw error;
    }
    engine.write(latest.t.slice, new Uint32Array(N).fill(NEVER));

    // Every draw of a step is made for the whole batch, and cut: the step is the same function of the seed whatever the parts.
    function inParts(): Tensor {
      const all = draw(), each = Tensor.empty(engine, [N]);
      let loss: Tensor | null = null;
      starts.forEach((first, i) => {
        const n = lengths[i]!;
        const range = (tensor: Tensor) => ({ buffer: tensor.slice.buffer, offset: tensor.slice.offset + 4 * first, bytes: 4 * n });
        const cut = (tensor: Tensor) => {
          const copy = Tensor.empty(engine, [n]);
          engine.copy(range(tensor), copy.slice);
          return copy;
        };
        const its = part(first, n, clocks[i]!, i > 0, () => ({ index: cut(all.index), t: cut(all.t), weight: all.weight && cut(all.weight) }));
        if (sampling) engine.copy(its.each.slice, range(each));
        const sum = Tensor.empty(engine, [1]);
        // The first term is weighted here as well: there is no sum yet to add to.
        const dims = { N: 1, size: 1, K: 1 + lengths.length, a: i === 0 ? 1 : 0, b: i + 1, sign: i === 0 ? 0 : 1 };
        engine.run(k.combine, [1], { u: (loss ?? its.loss).slice, v: its.loss.slice, coef: shares.slice, y: sum.slice, ...dims });
        for (const done of [its.loss, its.each, ...(loss ? [loss] : [])]) done.free();
        loss = sum;
      });
      sampling?.update(all.t, each);
      for (const done of [all.index, all.t, each, ...(all.weight ? [all.weight] : [])]) done.free();
      return loss!;
    }
  }

  /** The loss that is trained: the one that was asked for, or what the variance wants. */
  get lossName(): LossName {
    return this.#loss.name;
  }

  /** The learning rate of a step (from 0). */
  lr(step: number): number {
    const { warmup = 0, steps, lrSchedule = 'constant' } = this.options;
    return learningRate(step, { lr: this.peakLr, warmup, steps, schedule: lrSchedule });
  }

  /** Submits step number `step` (from 0): a pure function of the parameters, the step and the seed. */
  run(step: number): void {
    if (this.#destroyed) throw new DdpmError('E-ENGINE', 'the training was destroyed: make another.');
    const { seed = 0, ema = 0.9999 } = this.options;
    const { batchSize, microBatch } = this.options;
    this.#clocks.forEach((clock, i) => clock.set({ seed, step, first: i * Math.min(microBatch ?? batchSize, batchSize), lr: this.lr(step), emaDecay: emaDecay(step, ema) }));
    this.plan.run();
  }

  /** What the device logged for steps `from` to `to - 1`, of the last 1,024; waits until it has done them. */
  read(from: number, to: number): Promise<StepLog[]> {
    return this.optimizer.read(from, to);
  }

  /** The latest step's loss by noise level: the mean over its images in each of `parts` equal parts of t, least noise first; null where it had none. */
  async levels(parts: number): Promise<(number | null)[]> {
    const [t, each] = await Promise.all([this.#latest.t.read(), this.#latest.each.read()]), steps = new Uint32Array(t.buffer);
    const sums = Array.from({ length: parts }, () => ({ sum: 0, count: 0 }));
    each.forEach((loss, n) => {
      if (steps[n] === NEVER) return;
      const at = sums[Math.floor((steps[n]! * parts) / this.#T)]!;
      at.sum += loss;
      at.count++;
    });
    return sums.map(({ sum, count }) => (count ? sum / count : null));
  }

  /**
   * Trains from step `from` to `to` (exclusive; all the options' steps by default), `every` steps at a time, and gives what each did: `for await (const log of
   * training.loop()) …`. Leaving the loop ends it, at a multiple of `every`; an aborted signal ends it with E-ABORTED. Either way the parameters are those of the
   * last step that was run, `run(step)` goes on from it, and in between the page or process stays awake.
   */
  async *loop({ from = 0, to = this.options.steps, every = 1, signal }: { from?: number; to?: number; every?: number; signal?: AbortSignal } = {}): AsyncGenerator<StepLog, void, void> {
    if (!(Number.isInteger(every) && every >= 1 && every <= 1024)) throw new DdpmError('E-USAGE', `a loop of ${every} steps at a time; 1 to 1024, which is what the device keeps the log of.`);
    await this.plan.compile();
    for (let first = from; first < to; first += every) {
      const end = Math.min(first + every, to);
      throwIfAborted(signal, 'training');
      for (let step = first; step < end; step++) this.run(step);
      yield* await this.read(first, end);
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.destroy();
  }

  /** Frees the plan, the clock and the optimizer's own buffers; the parameters stay. */
  destroy(): Promise<void> {
    return (this.#destroyed ??= this.plan.destroy().then(() => this.#free()));
  }

  #free(): void {
    this.optimizer.destroy();
    this.timeSampling?.destroy();
    this.#weighted?.destroy();
    for (const tensor of Object.values(this.#latest)) tensor.free();
    this.#loss.destroy();
    this.#shares.free();
    for (const clock of this.#clocks) this.engine.free(clock.slice);
  }
}

/** The t of an image before any step. */
const NEVER = 0xffffffff;

/** Throws E-USAGE for numbers that no step could be made with, or names that there are not. */
function requireOptions({ batchSize, microBatch, steps, lr, warmup = 0, ema = 0, labelDropout = 0, timeSampling = 'uniform', lrSchedule = 'constant' }: TrainingOptions): void {
  const refuse = (why: string): never => {
    throw new DdpmError('E-USAGE', why);
  };
  const whole = (n: number, least: number): boolean => Number.isInteger(n) && n >= least;
  if (!whole(batchSize, 1)) refuse(`a batch of ${batchSize} images: it must be a whole number, at least 1.`);
  if (!whole(microBatch ?? 1, 1)) refuse(`a step cannot take ${microBatch} images at a time; use 1 to ${batchSize}.`);
  const most = 1024;
  if (batchSize > most * (microBatch ?? batchSize)) refuse(`a step of ${batchSize} images, ${microBatch} at a time, is more than ${most} passes: take at least ${Math.ceil(batchSize / most)} at a time.`);
  if (!whole(steps, 0) || !whole(warmup, 0)) refuse(`${steps} steps with a warm-up of ${warmup}: they must be whole numbers.`);
  if (!(Number.isFinite(lr) && lr >= 0)) refuse(`a learning rate of ${lr}: it must be a number from 0, such as 2e-4.`);
  if (!(ema >= 0 && ema < 1)) refuse(`an average with a decay of ${ema}: it must lie from 0 to below 1, such as 0.999.`);
  if (!(labelDropout >= 0 && labelDropout <= 1)) refuse(`a label dropout of ${labelDropout}: it is a share, from 0 to 1.`);
  if (!TIME_SAMPLINGS.includes(timeSampling)) refuse(`there is no time sampling "${String(timeSampling)}"; t is drawn ${TIME_SAMPLINGS.join(', ')}.`);
  if (!LR_SCHEDULES.includes(lrSchedule)) refuse(`there is no learning rate schedule "${String(lrSchedule)}"; the schedules are ${LR_SCHEDULES.join(', ')}.`);
}

/** Throws E-DATA where a label has no row in the model's table, or the one that stands for no class. */
function requireLabels({ config: { num_class_embeds: rows } }: UNet, { classes }: DeviceImages, { labelDropout = 0.1 }: TrainingOptions): void {
  const most = rows !== null && labelDropout > 0 ? rows - 1 : rows;
  if (most === null || classes <= most) return;
  const last = labelDropout > 0 ? ', the last of which stands for no class (labelDropout)' : '';
  throw new DdpmError('E-DATA', `the images have labels up to ${classes - 1}, and the model ${rows} rows for them${last}: its config needs num_class_embeds ${classes + (labelDropout > 0 ? 1 : 0)}.`);
}
