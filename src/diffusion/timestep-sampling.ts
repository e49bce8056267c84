// Which t a training step draws: uniformly, or more often where the loss is large (Nichol & Dhariwal 2021, section 3.3). All of it lives on the device.
import { threads } from '../autograd.ts';
import type { Clock } from '../clock.ts';
import { DdpmError } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import * as k from '../gpu/kernels.gen.ts';
import { STREAM } from '../philox.ts';
import { Tensor } from '../tensor.ts';

/** How t is drawn in training: uniformly, or in proportion to the root of its mean squared loss (Nichol & Dhariwal, 2021, section 3.3). */
export const TIME_SAMPLINGS = ['uniform', 'importance'] as const;
/** One of TIME_SAMPLINGS. */
export type TimeSampling = (typeof TIME_SAMPLINGS)[number];

/** Losses kept for every t, and their count. */
const ROW = 11;
/** Of the draws, so many are uniform whatever the losses are. */
const UNIFORM_SHARE = 0.001;
const NAME = 'time_sampling.losses';

/** Tensors as a checkpoint keeps them. */
type Tensors = ReadonlyMap<string, { readonly shape: readonly number[]; readonly data: ArrayLike<number> }>;

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
    const { engine, T } = this, table = { w: this.#w.slice, sums: this.#sums.slice };
    const t = Tensor.empty(engine, [N]), weight = Tensor.empty(engine, [N]);
    engine.run(k.importance_weights, [1], { history: this.#history.slice, ...table, T });
    engine.run(k.importance_draw, threads(N), { clock: clock.slice, ...table, t: t.slice, weight: weight.slice, N, T, stream: STREAM.time, share: UNIFORM_SHARE });
    return { t, weight };
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
  write(tensors: Tensors, source: string): boolean {
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
