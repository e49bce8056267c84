// Samplers: a plan that takes one step for a batch in place, replayed from the noisiest timestep down.
import { threads } from '../autograd.ts';
import { Clock } from '../clock.ts';
import { DdpmError } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import * as k from '../gpu/kernels.gen.ts';
import type { Plan } from '../gpu/plan.ts';
import { randomNormal } from '../ops/random.ts';
import { STREAM } from '../philox.ts';
import { Tensor } from '../tensor.ts';
import type { DiffusionModel, GaussianDiffusion } from './gaussian.ts';
import { ddimTable, type Spacing, timesteps } from './spacing.ts';

export const SAMPLERS = ['ddpm', 'ddim'] as const;
export type SamplerName = (typeof SAMPLERS)[number];

export interface SamplerOptions {
  readonly method: SamplerName;
  /** DDIM: how many of the T timesteps are visited. DDPM visits all. */
  readonly steps?: number;
  /** DDIM: 0 is deterministic, 1 as noisy as DDPM. */
  readonly eta?: number;
  readonly spacing?: Spacing;
  readonly stepsOffset?: number;
  /** Clip the predicted x_0 to [-1, 1]; true by default. */
  readonly clipDenoised?: boolean;
  /** DDIM: derive eps again from the clipped x_0 (diffusers' use_clipped_model_output); true by default. */
  readonly rederive?: boolean;
  /** DDIM: the last step leads to x_0 itself; true by default. */
  readonly setAlphaToOne?: boolean;
}

/** What a step left on the device; read them at once, the next step writes over them. */
export interface SampleStep {
  /** Steps done, of `steps`. */
  readonly done: number;
  readonly steps: number;
  readonly t: number;
  /** x after the step and the x_0 that it predicted, (N, H, W, C). */
  readonly x: Tensor;
  readonly predXstart: Tensor;
}

/** Which samples to draw. */
export interface Draw {
  readonly seed: number;
  /** Sample id of the first; a sample is the same whatever batch it comes in. */
  readonly firstId?: number;
  /** (N, H, W, C), in place of the drawn x_T. */
  readonly noise?: Float32Array;
  /** Called after every step; may read the step's tensors. */
  readonly onStep?: (step: SampleStep) => void | Promise<void>;
}

export class Sampler {
  readonly engine: Engine;
  readonly shape: readonly [number, number, number, number];
  /** The timesteps visited, noisiest first. */
  readonly timesteps: readonly number[];
  readonly #clock: Clock;
  readonly #t: Tensor;
  readonly #row: Tensor;
  readonly #x: Tensor;
  readonly #x0: Tensor;
  readonly #table: Tensor | null;
  readonly #start: Plan;
  readonly #step: Plan;

  /** Captures the step for batches of `shape` (N, H, W, C). `model` reads whatever weights are bound now. */
  constructor(model: DiffusionModel, diffusion: GaussianDiffusion, shape: readonly [number, number, number, number], options: SamplerOptions) {
    const { engine, T } = diffusion;
    const { method, clipDenoised = true, rederive = true } = options;
    if (!SAMPLERS.includes(method)) throw new DdpmError('E-USAGE', `there is no sampler "${String(method)}"; the samplers are ${SAMPLERS.join(', ')}.`);
    if (method === 'ddpm' && options.steps !== undefined && options.steps !== T)
      throw new DdpmError('E-USAGE', `the ddpm sampler visits all ${T} timesteps; for ${options.steps} steps use the ddim sampler.`);
    const N = shape[0];
    this.engine = engine;
    this.shape = shape;
    this.timesteps = method === 'ddpm' ? Array.from({ length: T }, (_, i) => T - 1 - i) : timesteps(T, options.steps ?? 50, options.spacing, options);
    // Before anything is allocated: it throws where eta is out of range.
    const rows = method === 'ddpm' ? [] : ddimTable(diffusion.schedule, this.timesteps, options).flatMap((r) => [r.sqrtRecipAcp, r.sqrtRecipm1Acp, r.sqrtAcpPrev, r.dirCoef, r.sigma]);
    this.#clock = new Clock(engine);
    this.#t = Tensor.empty(engine, [N]);
    this.#row = Tensor.empty(engine, [N]);
    this.#x = Tensor.empty(engine, shape);
    this.#x0 = Tensor.empty(engine, shape);

    this.#start = engine.capture(() => {
      const noise = randomNormal(shape, this.#clock, STREAM.prior);
      engine.copy(noise.slice, this.#x.slice);
    });
    if (method === 'ddpm') {
      this.#table = null;
      this.#step = engine.capture(() => engine.scope(() => diffusion.posteriorStep(this.#x, model(this.#x, this.#t), this.#t, this.#x0, { clipDenoised, clock: this.#clock })));
      return;
    }
    const table = (this.#table = Tensor.from(engine, [this.timesteps.length, 5], Float32Array.from(rows)));
    this.#step = engine.capture(() =>
      engine.scope(() => {
        const eps = model(this.#x, this.#t);
        const coef = Tensor.empty(engine, [N, 5]);
        engine.run(k.schedule_gather, threads(5 * N), { table: table.slice, t: this.#row.slice, coef: coef.slice, N, K: 5, T: this.timesteps.length });
        const size = this.#x.size / N;
        engine.run(k.ddim_step, threads(N * Math.ceil(size / 4)), {
          clock: this.#clock.slice, t: this.#t.slice, coef: coef.slice, eps: eps.slice, x: this.#x.slice, x0: this.#x0.slice,
          N, size, K: 5, clip: Number(clipDenoised), rederive: Number(rederive), stream: STREAM.sample,
        });
      }),
    );
  }

  /** Compiles the kernels in parallel. */
  async compile(progress?: (done: number, total: number) => void): Promise<void> {
    await this.#start.compile();
    await this.#step.compile(progress);
  }

  /** Dispatches of one step. */
  get dispatches(): number {
    return this.#step.dispatches;
  }

  /** Bytes that the sampler holds on the device. */
  get bytes(): number {
    return this.#start.pool.totalBytes + this.#step.pool.totalBytes;
  }

  /** Draws samples `firstId` to `firstId + N - 1` of a seed. Returns x_0, not clipped, (N, H, W, C). */
  async sample({ seed, firstId = 0, noise, onStep }: Draw): Promise<Float32Array<ArrayBuffer>> {
    const { engine } = this;
    const N = this.shape[0], steps = this.timesteps.length;
    if (noise && noise.length !== this.#x.size) throw new DdpmError('E-SHAPE', `${noise.length} values of noise for samples of shape (${this.shape.join(', ')}).`);
    this.#clock.set({ seed, first: firstId });
    if (noise) engine.write(this.#x.slice, noise);
    else this.#start.run();
    for (const [i, t] of this.timesteps.entries()) {
      engine.write(this.#t.slice, new Uint32Array(N).fill(t));
      engine.write(this.#row.slice, new Uint32Array(N).fill(i));
      this.#step.run();
      // A queue that runs hundreds of steps ahead would only hold memory and report progress that has not happened.
      if (i % 8 === 7) await engine.finished();
      await onStep?.({ done: i + 1, steps, t, x: this.#x, predXstart: this.#x0 });
    }
    return this.#x.read();
  }

  async destroy(): Promise<void> {
    await this.#start.destroy();
    await this.#step.destroy();
    for (const tensor of [this.#t, this.#row, this.#x, this.#x0, this.#table]) tensor?.free();
    this.engine.free(this.#clock.slice);
  }
}
