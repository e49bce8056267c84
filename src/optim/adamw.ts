// Gradient clipping, AdamW and the moving average of the weights, recorded once into the training plan.
import { pointwise } from '../autograd.ts';
import type { Clock } from '../clock.ts';
import { DdpmError } from '../errors.ts';
import type { Slice } from '../gpu/kernel.ts';
import * as k from '../gpu/kernels.gen.ts';
import type { NamedTensors, Parameters } from '../nn/parameters.ts';
import type { Tensor } from '../tensor.ts';
import { DEFAULTS } from '../variants.ts';
import { GROWTH, LEAST_SCALE, LossScale } from './loss_scale.ts';

/** AdamW's settings: betas (0.9, 0.999), eps (1e-8), weight decay (0), clipping (1), and loss scaling (none). */
export interface AdamWOptions {
  readonly beta1?: number;
  readonly beta2?: number;
  readonly eps?: number;
  readonly weightDecay?: number;
  /** Largest global gradient norm; 0 turns clipping off. */
  readonly gradClip?: number;
  /** The gradients come from a loss that was multiplied by `lossScale`, for float16: `tape.backward(loss, keep, { scaleBy: adamw.lossScale })`. */
  readonly lossScaling?: boolean;
}

/** One finished step, as the device logged it. */
export interface StepLog {
  readonly step: number;
  readonly loss: number;
  /** Global norm before clipping. */
  readonly gradNorm: number;
  /** Set where the step was skipped: the first gradient that is not finite, or `loss`, or `gradient norm` where only their sum overflowed. */
  readonly bad: string | null;
  /** What the gradients of the step were multiplied by; null without loss scaling. */
  readonly lossScale: number | null;
}

/** Whether a step was skipped because its gradients were too large for float16 at its loss scale, which is halved then. Anything else that is bad is no matter of scale. */
export const overflowed = ({ bad, loss, lossScale }: StepLog): boolean => bad !== null && lossScale !== null && lossScale > LEAST_SCALE && Number.isFinite(loss);

const STEP = 'step';
/** How many good steps there were before the first: as many as its number says. */
const UNTOLD = -1;
/** Of the beta that the shader has; of 0 it would be none. */
const logarithm = (beta: number): number => Math.log(Math.max(Math.fround(beta), 1e-30));

/** Gradients summed by one workgroup. */
const SHARE = 4096;
/** Steps whose results wait on the device to be read. */
const RING = 1024;
/** Words of a step's log. */
const ROW = 5;

/** Throws E-USAGE for a number out of range. */
export function requireAdamW(options: AdamWOptions): void {
  for (const name of ['beta1', 'beta2', 'eps', 'weightDecay', 'gradClip'] as const) {
    const value = options[name] ?? 0, below = name.startsWith('beta') ? 1 : Infinity;
    if (!(value >= 0 && value < below)) throw new DdpmError('E-USAGE', `AdamW: ${name} is ${value}; it must be a number from 0${below === 1 ? ' to below 1' : ''}.`);
  }
}

/**
 * AdamW (Loshchilov & Hutter, 2019) with clipping by the global norm and a moving average of the weights, all on the device. A step whose loss or gradient is
 * not finite changes nothing, nor counts as a step in the corrections of the moments, and is logged as bad; with loss scaling it halves the scale.
 */
export class AdamW {
  readonly parameters: Parameters;
  readonly options: Required<AdamWOptions>;
  /** Where the gradients carry a loss scale: that. */
  readonly lossScale: LossScale | null;
  readonly #scaling: LossScale;
  readonly #state: Slice;
  readonly #history: Slice;
  readonly #part: Slice;
  readonly #groups: readonly number[];

  /** Moments and averages live in `parameters`; call outside of captures. E-USAGE for an option out of range, or parameters placed with `training: false`. */
  constructor(parameters: Parameters, { beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weightDecay = 0, gradClip = 1, lossScaling = false }: AdamWOptions = {}) {
    const { engine } = parameters;
    requireAdamW({ beta1, beta2, eps, weightDecay, gradClip });
    parameters.requireTrained('AdamW');
    this.parameters = parameters;
    this.options = { beta1, beta2, eps, weightDecay, gradClip, lossScaling };
    this.#scaling = lossScaling ? new LossScale(engine) : new LossScale(engine, 1);
    this.lossScale = lossScaling ? this.#scaling : null;
    this.#groups = parameters.chunks.map((c) => Math.ceil(c.count / SHARE));
    this.#state = engine.allocate(20);
    engine.write(this.#good, Float32Array.of(UNTOLD));
    this.#history = engine.allocate(4 * ROW * RING);
    // A new buffer reads as a finished step 0, and one out of the pool as an older run's.
    engine.write(this.#history, new Uint32Array(ROW * RING).fill(0xffffffff));
    this.#part = engine.allocate(8 * this.#groups.reduce((a, b) => a + b, 0));
  }

  /** Records: norm of all gradients, clip scale, update, and a line of log. A step with a value that is not finite changes nothing. */
  step(loss: Tensor, clock: Clock): void {
    const { engine, chunks } = this.parameters;
    const { beta1, beta2, eps, weightDecay, gradClip, lossScaling } = this.options;
    let first = 0, offset = 0;
    chunks.forEach((chunk, i) => {
      engine.run(k.sum_squares, [this.#groups[i]!], { g: chunk.slices.grads, part: this.#part, count: chunk.count, share: SHARE, first, offset, WG: DEFAULTS[engine.deviceClass].squares });
      first += this.#groups[i]!;
      offset += chunk.count;
    });
    engine.run(k.gradient_norm, [1], {
      clock: clock.slice, part: this.#part, loss: loss.slice, scaling: this.#scaling.slice, state: this.#state, history: this.#history, count: first, ring: RING,
      growth: lossScaling ? GROWTH : 0, max_norm: gradClip, log_beta1: logarithm(beta1), log_beta2: logarithm(beta2),
    });
    for (const { count, slices } of chunks)
      engine.run(k.adamw, pointwise(count), {
        clock: clock.slice, state: this.#state, g: slices.grads, w: slices.values, m: slices.m, v: slices.v, e: slices.ema, beta1, beta2, eps, weight_decay: weightDecay,
      });
  }

  /** The logs of steps `from` to `to - 1`, at most the last 1,024; waits for the device to finish them. */
  async read(from: number, to: number): Promise<StepLog[]> {
    const bytes = await this.parameters.engine.readBytes(this.#history);
    const words = new Uint32Array(bytes), floats = new Float32Array(bytes);
    const logs: StepLog[] = [];
    for (let step = Math.max(from, to - RING); step < to; step++) {
      const i = (step % RING) * ROW;
      const index = words[i + 2]!;
      const bad = index === 0xffffffff ? null : index === 0xfffffffe ? 'loss' : index === 0xfffffffd ? 'gradient norm' : `gradient of ${this.parameters.nameAt(index)}`;
      if (words[i + 3] === step) logs.push({ step, loss: floats[i]!, gradNorm: floats[i + 1]!, bad, lossScale: this.lossScale ? floats[i + 4]! : null });
    }
    return logs;
  }

  /** What steps depend on besides the moments, for a checkpoint: how many were good, as PyTorch's `step`, and the loss scale. */
  async state(): Promise<Map<string, { shape: number[]; data: Float32Array<ArrayBuffer> }>> {
    const good = await this.parameters.engine.read(this.#good), tensors = new Map(await this.lossScale?.read());
    return good[0] === UNTOLD ? tensors : tensors.set(STEP, { shape: [1], data: good });
  }

  /**
   * Takes what `state` gave. Where it is of an older version, which did not count, all steps so far are taken to have been good.
   *
   * @throws DdpmError E-FILE if it is not what steps could have left
   */
  restore(tensors: NamedTensors, source: string): void {
    const good = Array.from(tensors.get(STEP)?.data ?? [0]);
    if (good.length !== 1 || !Number.isInteger(good[0]) || good[0]! < 0) throw new DdpmError('E-FILE', `${source}: ${STEP} is (${good.join(', ')}), and should be how many steps changed the weights; it is damaged.`);
    this.lossScale?.write(tensors, source);
    this.parameters.engine.write(this.#good, Float32Array.of(tensors.has(STEP) ? good[0]! : UNTOLD));
  }

  get #good(): Slice {
    return { buffer: this.#state.buffer, offset: this.#state.offset + 16, bytes: 4 };
  }

  /** Frees the log and the partial sums. */
  destroy(): void {
    this.#scaling.free();
    for (const slice of [this.#state, this.#history, this.#part]) this.parameters.engine.free(slice);
  }
}
