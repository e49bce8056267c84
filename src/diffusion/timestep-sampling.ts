// Which t a training step draws: uniformly, more often where the loss counts more, or where it is large (Nichol & Dhariwal 2021, section 3.3). All of it lives on the device.
import { threads } from '../autograd.ts';
import type { Clock } from '../clock.ts';
import { DdpmError } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import * as k from '../gpu/kernels.gen.ts';
import type { NamedTensors } from '../nn/parameters.ts';
import { STREAM } from '../philox.ts';
import { Tensor } from '../tensor.ts';

/**
 * How t is drawn in training. The gradient's expectation is the same in all three.
 * - `uniform`: as in Ho et al. (2020).
 * - `weighted`: in proportion to the factor of its loss (min-SNR weights; equal without), one t from each of N equally likely parts for a batch of N.
 * - `importance`: in proportion to the root of its mean squared loss (Nichol & Dhariwal, 2021, section 3.3).
 */
export const TIME_SAMPLINGS = ['uniform', 'weighted', 'importance'] as const;
/** One of TIME_SAMPLINGS. */
export type TimeSampling = (typeof TIME_SAMPLINGS)[number];

/** Losses kept for every t, and their count. */
const ROW = 11;
/** Of the draws, so many are uniform whatever the losses are. */
const UNIFORM_SHARE = 0.001;
const NAME = 'time_sampling.losses';

/** t, (N) uint32, from a table of weights and their running sums, each (T); and what a loss at it counts, 1 / (T p_t), (N). */
function draw(N: number, clock: Clock, { w, sums }: { readonly w: Tensor; readonly sums: Tensor }, stratified: boolean): { t: Tensor; weight: Tensor } {
  const t = Tensor.empty(w.engine, [N]), weight = Tensor.empty(w.engine, [N]);
  w.engine.run(k.importance_draw, threads(N), {
    clock: clock.slice, w: w.slice, sums: sums.slice, t: t.slice, weight: weight.slice, N, T: w.size, stream: STREAM.time, share: UNIFORM_SHARE, stratum: stratified ? 1 / N : 0,
  });
  return { t, weight };
}

/**
 * p_t is proportional to a given weight, but for a share of 0.001 that is uniform: image n of a batch of N draws from the n-th of N equally likely parts. With the factors
 * of the loss for weights every image counts about the same, instead of few that count much and many that hardly do: less noise in the gradient, whose expectation stays.
 */
export class WeightedSampling {
  readonly #table: { readonly w: Tensor; readonly sums: Tensor };

  /** Uploads the weights, (T); call outside of captures. */
  constructor(engine: Engine, weights: Float64Array) {
    let sum = 0;
    const upload = (values: Float64Array): Tensor => Tensor.from(engine, [values.length], Float32Array.from(values));
    this.#table = { w: upload(weights), sums: upload(weights.map((v) => (sum += v))) };
  }

  /** t, (N) uint32, and what a loss at it counts, (N). */
  draw(N: number, clock: Clock): { t: Tensor; weight: Tensor } {
    return draw(N, clock, this.#table, true);
  }

  destroy(): void {
    for (const tensor of Object.values(this.#table)) tensor.free();
  }
}

/**
 * p_t is proportional to sqrt(E[L_t^2]) over the last ten losses at t, but for a share of 0.001 that is uniform; until every t has ten, all of it is.
 * A loss counts 1 / (T p_t), so that its expectation stays that of uniform draws.
 */
export class ImportanceSampling {
  readonly engine: Engine;
  readonly T: number;
  readonly #history: Tensor;
  readonly #w: Tensor;
  readonly #sums: Tensor;

  /** Starts without losses; call outside of captures. */
  constructor(engine: Engine, T: number) {
    this.engine = engine;
    this.T = T;
    this.#history = Tensor.from(engine, [T, ROW], new Float32Array(T * ROW));
    this.#w = Tensor.empty(engine, [T]);
    this.#sums = Tensor.empty(engine, [T]);
  }

  /** t, (N) uint32, and what a loss at it counts, (N). */
  draw(N: number, clock: Clock): { t: Tensor; weight: Tensor } {
    const table = { w: this.#w, sums: this.#sums };
    this.engine.run(k.importance_weights, [1], { history: this.#history.slice, w: this.#w.slice, sums: this.#sums.slice, T: this.T });
    return draw(N, clock, table, false);
  }

  /** Remembers the losses each, (N), at t, (N). One that is not finite is passed over. */
  update(t: Tensor, each: Tensor): void {
    this.engine.run(k.importance_update, threads(this.T), { t: t.slice, each: each.slice, history: this.#history.slice, N: t.size, T: this.T });
  }

  /** All that the next draw depends on, for a checkpoint. */
  async read(): Promise<Map<string, { shape: number[]; data: Float32Array<ArrayBuffer> }>> {
    return new Map([[NAME, { shape: [this.T, ROW], data: await this.#history.read() }]]);
  }

  /**
   * Takes a checkpoint's state; false where it has none, as after uniform draws.
   *
   * @throws DdpmError E-FILE if it is of another number of timesteps or holds what no draw could have left
   */
  write(tensors: NamedTensors, source: string): boolean {
    const tensor = tensors.get(NAME);
    if (!tensor) return false;
    const data = Float32Array.from(tensor.data), count = (t: number): number => data[t * ROW + ROW - 1]!;
    if (tensor.shape[0] !== this.T || tensor.shape[1] !== ROW)
      throw new DdpmError('E-FILE', `${source}: ${NAME} has the shape (${tensor.shape.join(', ')}), and this run draws from ${this.T} timesteps: (${this.T}, ${ROW}).`);
    for (let t = 0; t < this.T; t++)
      if (!(Number.isInteger(count(t)) && count(t) >= 0 && count(t) < 20)) throw new DdpmError('E-FILE', `${source}: ${NAME} counts ${count(t)} losses at t = ${t}; it is damaged.`);
    this.engine.write(this.#history.slice, data);
    return true;
  }

  destroy(): void {
    for (const tensor of [this.#history, this.#w, this.#sums]) tensor.free();
  }
}
