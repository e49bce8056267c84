// The sampler: a plan that takes one step for a batch in place, replayed over the rows of a table from the noisiest timestep down.
import { threads } from '../autograd.ts';
import { Clock } from '../clock.ts';
import { DdpmError, throwIfAborted } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import * as k from '../gpu/kernels.gen.ts';
import type { Plan } from '../gpu/plan.ts';
import { checkClip, type Clip, clipped } from '../ops/clip.ts';
import { randomNormal } from '../ops/random.ts';
import { philox4x32, STREAM } from '../philox.ts';
import { requireSizes, Tensor } from '../tensor.ts';
import type { DiffusionModel, GaussianDiffusion } from './gaussian.ts';
import { type Row, ROW_SIZE, rowValues } from './samplers/row.ts';
import { samplerTable, type TableOptions } from './samplers/table.ts';

/** Which sampler, over which timesteps, with how much noise. */
export interface SamplerOptions extends TableOptions {
  /** Clip the predicted x_0 to [-1, 1] (true, the default), to [-range, range] (a number), dynamically, or not. */
  readonly clipDenoised?: Clip;
  /** No fresh noise: every step goes to the mean. Not a way to sample, but one to see what the noise is for. */
  readonly meanOnly?: boolean;
}

/** A step's results on the device. Use them at once: the next step starts from x, and writes over both. */
export interface SampleStep {
  /** Steps done, of `steps`: evaluations of the network. */
  readonly done: number;
  readonly steps: number;
  /** The timestep that the network was told; predXstart is what it saw in x_t. */
  readonly t: number;
  /** The timestep whose noise x has now; -1 is x_0 itself. */
  readonly to: number;
  /** x after the step, and the x_0 that was predicted from x before it, (N, H, W, C). */
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
  /** The rows to take, in order, instead of each once (RePaint goes back and forth). A row that is repeated draws new noise. */
  readonly path?: readonly number[];
  /** Stops between two steps with E-ABORTED; the sampler can draw again. */
  readonly signal?: AbortSignal;
  /** Called after every step; may read the step's tensors, or change x. */
  readonly onStep?: (step: SampleStep) => void | Promise<void>;
}

/**
 * A chain from noise to images as one captured step that is replayed: (N, H, W, C), of one shape and one set of options. `sample` draws; `destroy` frees its
 * memory.
 */
export class Sampler {
  readonly engine: Engine;
  readonly shape: readonly [number, number, number, number];
  /** The timesteps visited, noisiest first. */
  readonly timesteps: readonly number[];
  /** One for each evaluation of the network. */
  readonly rows: readonly Row[];
  readonly #clock: Clock;
  readonly #t: Tensor;
  /** The row's factors; for ddpm the place on its chain. */
  readonly #row: Tensor;
  readonly #x: Tensor;
  readonly #x0: Tensor;
  readonly #kept: Tensor | null;
  readonly #chain: GaussianDiffusion | null;
  readonly #ownsChain: boolean;
  readonly #meanOnly: boolean;
  readonly #start: Plan;
  readonly #step: Plan;
  #drawing = false;
  #destroyed: Promise<void> | null = null;

  /**
   * Captures the step for batches of `shape` (N, H, W, C). `model` reads whatever weights are bound now. Throws E-USAGE for options that are of another sampler or
   * out of range, E-SHAPE where the network's output does not fit the images.
   */
  constructor(model: DiffusionModel, diffusion: GaussianDiffusion, shape: readonly [number, number, number, number], options: SamplerOptions) {
    const { engine, T } = diffusion, N = shape[0];
    const { method, clipDenoised = true, meanOnly = false } = options;
    // Before anything is allocated: it throws where an option is out of range.
    const { timesteps, rows } = samplerTable(diffusion.schedule, diffusion.prediction, options);
    checkClip(clipDenoised);
    requireSizes(shape);
    // Such a row reads what the network said of eps, and a thresholded output says something else.
    if (typeof clipDenoised === 'object' && rows.some((row) => row.output !== 0)) throw new DdpmError('E-USAGE', 'dynamic thresholding goes with an eps that is derived again from x_0: leave out `rederive: false`.');
    this.engine = engine;
    this.shape = shape;
    this.timesteps = timesteps;
    this.rows = rows;
    this.#meanOnly = meanOnly;
    // With all timesteps the chain is the trained one.
    this.#ownsChain = method === 'ddpm' && timesteps.length !== T;
    this.#chain = method !== 'ddpm' ? null : this.#ownsChain ? diffusion.respaced(timesteps) : diffusion;
    this.#clock = new Clock(engine);
    this.#t = Tensor.empty(engine, [N]);
    this.#row = Tensor.empty(engine, [this.#chain ? N : ROW_SIZE]);
    this.#x = Tensor.empty(engine, shape);
    this.#x0 = Tensor.empty(engine, shape);
    this.#kept = this.#chain ? null : Tensor.empty(engine, shape);

    try {
      this.#step = engine.capture(() =>
        engine.scope(() => {
          // The last argument is for networks that are conditioned on the x_0 that they predicted before; zero at first.
          const output = model(this.#x, this.#t, this.#x0);
          if (this.#chain) this.#ancestral(this.#chain, output, clipDenoised);
          else this.#linear(output, clipDenoised);
        }),
      );
      this.#start = engine.capture(() => {
        const noise = randomNormal(shape, this.#clock, STREAM.prior);
        engine.copy(noise.slice, this.#x.slice);
      });
    } catch (error) {
      this.#free();
      throw error;
    }
  }

  #ancestral(chain: GaussianDiffusion, output: Tensor, clipDenoised: Clip): void {
    const none = this.#meanOnly ? Tensor.empty(this.engine, this.shape) : null;
    if (none) this.engine.clear(none.slice);
    chain.posteriorStep(this.#x, output, this.#row, this.#x0, { clipDenoised, ...(none ? { noise: none } : { clock: this.#clock }) });
  }

  #linear(output: Tensor, clipDenoised: Clip): void {
    const N = this.shape[0], C = this.shape[3], M = output.shape.at(-1)!, size = this.#x.size / N;
    if (output.size * C !== this.#x.size * M || M < C) throw new DdpmError('E-SHAPE', `the network gave (${output.shape.join(', ')}) for images of (${this.shape.join(', ')}).`);
    clipped(clipDenoised, { coef: this.#row, x: this.#x, output }, (seen, range) => this.engine.run(k.sampler_step, threads(N * Math.ceil(size / 4)), {
      clock: this.#clock.slice, coef: this.#row.slice, output: seen.slice, x: this.#x.slice, start: this.#x0.slice, kept: this.#kept!.slice,
      N, size, C, M, clip: range, stream: STREAM.sample,
    }));
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

  /**
   * Draws samples `firstId` to `firstId + N - 1` of a seed. Returns x_0, not clipped, (N, H, W, C). Throws E-ABORTED by the signal, E-SHAPE for noise of another
   * size, E-ENGINE while the sampler draws already or once it was destroyed, and what the device reports, such as E-DEVICE-LOST.
   */
  async sample(draw: Draw): Promise<Float32Array<ArrayBuffer>> {
    this.#requireWhole();
    // Two draws would take turns with one x.
    if (this.#drawing) throw new DdpmError('E-ENGINE', 'this sampler is drawing already: await that first, or make another Sampler.');
    this.#drawing = true;
    try {
      return await this.#draw(draw);
    } finally {
      this.#drawing = false;
    }
  }

  async #draw({ seed, firstId = 0, noise, path = this.rows.map((_, i) => i), signal, onStep }: Draw): Promise<Float32Array<ArrayBuffer>> {
    const { engine } = this;
    if (noise && noise.length !== this.#x.size) throw new DdpmError('E-SHAPE', `${noise.length} values of noise for samples of shape (${this.shape.join(', ')}).`);
    this.#clock.set({ seed, first: firstId });
    if (noise) engine.write(this.#x.slice, noise);
    else this.#start.run();
    for (const tensor of [this.#x0, this.#kept]) if (tensor) engine.clear(tensor.slice);
    const visited = new Map<number, number>();
    for (const [i, at] of path.entries()) {
      throwIfAborted(signal, 'sampling');
      this.#requireWhole();
      const row = this.rows[at];
      if (!row) throw new DdpmError('E-USAGE', `row ${at} of a sampler that has ${this.rows.length}.`);
      const visit = visited.get(at) ?? 0;
      visited.set(at, visit + 1);
      this.#load(row, visit === 0 ? seed : philox4x32([visit, 0, 0, 0], [seed, STREAM.visit])[0], firstId);
      this.#step.run();
      // A queue that runs hundreds of steps ahead would only hold memory and report progress that has not happened.
      if (i % 8 === 7) await engine.finished();
      await onStep?.({ done: i + 1, steps: path.length, t: row.t, to: row.to, x: this.#x, predXstart: this.#x0 });
    }
    this.#requireWhole();
    return this.#x.read();
  }

  #requireWhole(): void {
    if (this.#destroyed) throw new DdpmError('E-ENGINE', 'the sampler was destroyed: make another.');
  }

  /** Writes all that differs from step to step. */
  #load(row: Row, seed: number, firstId: number): void {
    const { engine } = this, N = this.shape[0];
    this.#clock.set({ seed, step: row.draw, first: firstId });
    engine.write(this.#t.slice, new Uint32Array(N).fill(row.t));
    if (this.#chain) engine.write(this.#row.slice, new Uint32Array(N).fill(row.draw));
    else engine.write(this.#row.slice, Float32Array.from(rowValues(this.#meanOnly ? { ...row, z: 0 } : row)));
  }

  /** Frees its memory; a draw that is going on ends with E-ENGINE. */
  destroy(): Promise<void> {
    return (this.#destroyed ??= Promise.all([this.#start.destroy(), this.#step.destroy()]).then(() => this.#free()));
  }

  #free(): void {
    if (this.#ownsChain) this.#chain!.destroy();
    for (const tensor of [this.#t, this.#row, this.#x, this.#x0, this.#kept]) tensor?.free();
    this.engine.free(this.#clock.slice);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.destroy();
  }
}
