// The variational bound on the likelihood of images, in bits a dimension: L_T + the sum of L_t + L_0 (Ho et al. 2020, eq. 5), term by term.
import { Clock } from '../clock.ts';
import { DdpmError } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import type { Plan } from '../gpu/plan.ts';
import type { Clip } from '../ops/clip.ts';
import { gatherRows } from '../ops/gather.ts';
import { variationalBound } from '../ops/loss.ts';
import { Tensor } from '../tensor.ts';
import type { DiffusionModel, GaussianDiffusion } from './gaussian.ts';
import { boundTable, uploadColumns } from './losses.ts';
import type { Schedule } from './schedule.ts';

/** L_T of each image: KL(q(x_T | x_0), N(0, 1)), in bits a dimension. No network has a part in it. */
export function priorBits(s: Schedule, x0: ArrayLike<number>, N: number): Float64Array {
  const size = x0.length / N, acp = s.alphasCumprod[s.T - 1]!, log = s.logOneMinusAlphasCumprod[s.T - 1]!;
  return Float64Array.from({ length: N }, (_, n) => {
    let squares = 0;
    for (let i = n * size; i < (n + 1) * size; i++) squares += x0[i]! ** 2;
    // Half of -1 - log(1 - acp) + (1 - acp) + acp x_0^2; the first three are -acp - log(1 - acp).
    return (-acp - log + (acp * squares) / size) / 2 / Math.LN2;
  });
}

/** A likelihood, in bits a dimension, and its parts. */
export interface Bits {
  /** L_T, (N) */
  readonly prior: Float64Array;
  /** The term at t, (T, N): t = 0 is L_0, the decoder's. */
  readonly terms: Float32Array;
  /** Their sum, (N): an upper bound on the bits a dimension that the image takes. */
  readonly total: Float64Array;
}

/**
 * The variational bound on -log p(x_0) of images, in bits a dimension: its terms at every t and the prior's (Ho et al., 2020, eq. 5; Nichol & Dhariwal,
 * 2021).
 */
export class Likelihood {
  readonly engine: Engine;
  /** The chain whose bound it is. */
  readonly diffusion: GaussianDiffusion;
  readonly shape: readonly [number, number, number, number];
  /** What the network is told at each t of the chain, rising. */
  readonly timesteps: readonly number[];
  readonly #ownsChain: boolean;
  readonly #clock: Clock;
  readonly #table: Tensor;
  readonly #x0: Tensor;
  readonly #t: Tensor;
  readonly #told: Tensor;
  readonly #bits: Tensor;
  readonly #step: Plan<Tensor>;

  /**
   * Captures one term for batches of `shape` (N, H, W, C). The predicted x_0 is clipped as it is for samples. With `timesteps`, in any order, the bound is that
   * of the chain that visits only those, as `GaussianDiffusion.respaced` makes it: a model that samples in fewer steps is another one, with a likelihood of its own.
   */
  constructor(
    model: DiffusionModel,
    diffusion: GaussianDiffusion,
    shape: readonly [number, number, number, number],
    { clipDenoised = true, timesteps = null }: { readonly clipDenoised?: Clip; readonly timesteps?: readonly number[] | null } = {},
  ) {
    const { engine } = diffusion, N = shape[0], chain = timesteps ? diffusion.respaced(timesteps) : diffusion;
    this.engine = engine;
    this.diffusion = chain;
    this.#ownsChain = chain !== diffusion;
    this.timesteps = timesteps ? [...timesteps].sort((a, b) => a - b) : Array.from({ length: chain.T }, (_, t) => t);
    this.shape = shape;
    this.#clock = new Clock(engine);
    this.#table = uploadColumns(chain, boundTable(chain.schedule, chain.prediction, chain.variance, chain.start));
    this.#x0 = Tensor.empty(engine, shape);
    this.#t = Tensor.empty(engine, [N]);
    this.#told = Tensor.empty(engine, [N]);
    this.#bits = Tensor.empty(engine, [chain.T, N]);
    try {
      this.#step = engine.capture(() =>
        engine.scope(() => {
          const { xt } = chain.qSampleTarget(this.#x0, this.#t, this.#clock), output = model(xt, this.#told);
          chain.checkOutput(this.#x0, output);
          return variationalBound({ t: this.#t, coef: gatherRows(this.#table, this.#t), output, x0: this.#x0, xt }, { clip: clipDenoised });
        }),
      );
    } catch (error) {
      this.#free();
      throw error;
    }
  }

  async compile(progress?: (done: number, total: number) => void): Promise<void> {
    await this.#step.compile(progress);
  }

  /**
   * All terms for images of 256 levels, (N, H, W, C), each exactly level / 127.5 - 1. The noise is that of `seed`, the image's id and
   * the timestep that the network is told, whatever the batch and the chain.
   *
   * @throws DdpmError E-NONFINITE where a term is not finite: the weights are damaged
   */
  async measure(x0: Float32Array, { seed, firstId = 0, onTerm }: { seed: number; firstId?: number; onTerm?: (done: number) => void | Promise<void> }): Promise<Bits> {
    const { engine } = this, { T } = this.diffusion, N = this.shape[0];
    if (x0.length !== this.#x0.size) throw new DdpmError('E-SHAPE', `${x0.length} values for images of (${this.shape.join(', ')}).`);
    engine.write(this.#x0.slice, x0);
    for (let t = T - 1; t >= 0; t--) {
      const told = this.timesteps[t]!;
      engine.write(this.#t.slice, new Uint32Array(N).fill(t));
      engine.write(this.#told.slice, new Uint32Array(N).fill(told));
      this.#clock.set({ seed, step: told, first: firstId });
      this.#step.run();
      const { buffer, offset } = this.#bits.slice;
      engine.copy(this.#step.result.slice, { buffer, offset: offset + 4 * N * t, bytes: 4 * N });
      // A queue that runs hundreds of steps ahead would only report progress that has not happened.
      if (t % 8 === 0) await engine.finished();
      await onTerm?.(T - t);
    }
    const prior = priorBits(this.diffusion.schedule, x0, N), terms = await this.#bits.read(), total = Float64Array.from(prior);
    terms.forEach((bits, i) => (total[i % N]! += bits));
    const odd = terms.findIndex((bits) => !Number.isFinite(bits));
    if (odd >= 0) throw new DdpmError('E-NONFINITE', `the bound of image ${firstId + (odd % N)} at t = ${Math.floor(odd / N)} is ${terms[odd]}: the weights are damaged, or the training diverged.`);
    return { prior, terms, total };
  }

  async destroy(): Promise<void> {
    await this.#step.destroy();
    this.#free();
  }

  #free(): void {
    for (const tensor of [this.#table, this.#x0, this.#t, this.#told, this.#bits]) tensor.free();
    if (this.#ownsChain) this.diffusion.destroy();
    this.engine.free(this.#clock.slice);
  }
}
