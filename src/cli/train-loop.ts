// The loop of `train`: keeps the device busy without running far ahead, reads the losses back late, and says when to sample, save and stop.

import type { Training } from '../diffusion/training.ts';
import { DdpmError } from '../errors.ts';
import { overflowed, type StepLog } from '../optim/adamw.ts';
import type { StepReport } from './progress.ts';

/** Steps at the start of a run, or of one that goes on, that are not like the others: first use of memory and pipelines. */
const FIRST = 3;
/** Work handed to the device ahead of time, at most. */
const AHEAD = { steps: 8, ms: 500 };
/** Losses are read back this often at least: so that the bar moves where steps are slow, and before the device writes over them where they are fast. */
const READ_MS = 1000;
const READ_STEPS = 256;
/** Parts of t for which the loss is told apart. */
const LEVELS = 10;

/** A line of metrics.jsonl. */
export type Metrics = Record<string, number | string | (number | null)[]>;

/** Steps that are not finite, in a row or of the last WINDOW, after which going on is of no use. */
const BAD = { inRow: 10, ofWindow: 20, window: 100 };

/** Counts steps that were skipped because something was not finite, but for those that only wanted a smaller loss scale. */
export class BadSteps {
  readonly #recent: boolean[] = [];
  /** How many of the latest steps, without a good one between. */
  inRow = 0;

  /** Call for each step in order; true when it is time to stop. */
  add(bad: boolean): boolean {
    this.inRow = bad ? this.inRow + 1 : 0;
    this.#recent.push(bad);
    if (this.#recent.length > BAD.window) this.#recent.shift();
    return this.inRow >= BAD.inRow || this.ofRecent >= BAD.ofWindow;
  }

  /** How many of the last hundred. */
  get ofRecent(): number {
    return this.#recent.filter(Boolean).length;
  }
}

/** How many steps may be in flight, from the time that one takes; unknown is NaN. */
export const stepsAhead = (ms: number): number => (Number.isFinite(ms) ? Math.min(AHEAD.steps, Math.max(1, Math.round(AHEAD.ms / ms))) : 2);

/**
 * One line of metrics.jsonl. Steps count from 1 there: the number of steps done. `levels` is the step's loss by noise level, which is read now and then only.
 */
export function metricsLine(log: StepLog, { ms, lr, batchSize, images, levels }: { ms: number; lr: number; batchSize: number; images: number; levels?: readonly (number | null)[] | undefined }): Metrics {
  const step = log.step + 1;
  return {
    step,
    epoch: rounded((step * batchSize) / images),
    loss: log.loss,
    grad_norm: log.gradNorm,
    lr: rounded(lr),
    ms: rounded(ms),
    images_per_s: rounded((1000 * batchSize) / ms),
    ...(log.lossScale !== null && { loss_scale: log.lossScale }),
    ...(log.bad !== null && { nonfinite: log.bad }),
    ...(levels && log.bad === null && { loss_by_t: levels.map((value) => (value === null ? null : rounded(value))) }),
  };
}

const rounded = (value: number): number => Number(value.toPrecision(6));

/** The mean of the last `size` finite values. */
class Mean {
  readonly #size: number;
  readonly #values: number[] = [];
  constructor(size: number) {
    this.#size = size;
  }
  add(value: number): void {
    if (!Number.isFinite(value)) return;
    this.#values.push(value);
    if (this.#values.length > this.#size) this.#values.shift();
  }
  get value(): number {
    return this.#values.reduce((a, b) => a + b, 0) / this.#values.length;
  }
}

export interface LoopOptions {
  readonly training: Training;
  /** Images in the data set. */
  readonly images: number;
  /** Steps done before. */
  readonly from: number;
  readonly logEvery: number;
  /** 0 is never. Neither is called after the last step. */
  readonly sampleEvery: number;
  readonly saveEvery: number;
  readonly onMetrics: (line: Metrics) => void;
  readonly onProgress: (report: StepReport) => void;
  readonly onEvent: (text: string) => void;
  readonly sample: (step: number) => Promise<void>;
  readonly save: (step: number) => Promise<void>;
  /** Set by a signal: the step that runs is the last. */
  readonly stop: { readonly requested: boolean };
}

/**
 * Trains from `from` to the training's last step. Returns the number of steps done, fewer where `stop` was set.
 *
 * @throws DdpmError E-NONFINITE when too many steps were not finite, or the last one was not
 */
export async function trainLoop(options: LoopOptions): Promise<number> {
  const { training, from, logEvery, sampleEvery, saveEvery, stop } = options;
  const { engine } = training;
  const { steps, batchSize } = training.options;
  const bad = new BadSteps();
  const loss = new Mean(logEvery), gradNorm = new Mean(logEvery), time = new Mean(logEvery);
  let read = from; // logs of the steps before this one have been asked for
  let mark = performance.now(); // when the last step that was logged had finished
  let reading: Promise<void> | null = null;
  let failure: unknown = null;

  const take = (logs: readonly StepLog[], levels: readonly (number | null)[]): void => {
    const now = performance.now(), ms = (now - mark) / Math.max(1, logs.length);
    mark = now;
    for (const log of logs) {
      options.onMetrics(metricsLine(log, { ms, lr: training.lr(log.step), batchSize, images: options.images, levels: log === logs.at(-1) ? levels : undefined }));
      const scale = overflowed(log) ? `: too large for float16 with the loss scaled by ${log.lossScale}, from here on by ${log.lossScale! / 2}` : '';
      if (log.bad !== null) options.onEvent(`step ${log.step + 1}: ${log.bad} is not finite, the step was skipped${scale}`);
      if (bad.add(log.bad !== null && !overflowed(log))) throw new DdpmError('E-NONFINITE', stopped(log, bad));
      loss.add(log.loss);
      gradNorm.add(log.gradNorm);
      if (log.step >= from + FIRST) time.add(ms);
    }
    const last = logs.at(-1);
    if (!last) return;
    // Until there is an average, what was measured is all there is.
    const lately = Number.isFinite(time.value) ? time.value : ms;
    options.onProgress({ step: last.step + 1, loss: loss.value, gradNorm: gradNorm.value, lr: training.lr(last.step), ms: lately, imagesPerSecond: (1000 * batchSize) / lately });
  };
  /** Asks for the logs of the steps up to `to` without waiting for them; only for those asked for before. */
  const ask = async (to: number): Promise<void> => {
    await reading;
    if (to === read) return;
    // Both are asked for before another step is submitted, so the levels are those of the last log.
    reading = Promise.all([training.read(read, to), training.levels(LEVELS)]).then(([logs, levels]) => take(logs, levels)).catch((error: unknown) => {
      failure ??= error;
    });
    read = to;
  };
  const drain = async (to: number): Promise<void> => {
    await ask(to);
    await reading;
    if (failure) throw failure;
  };

  const inFlight: Promise<unknown>[] = [];
  let step = from, asked = mark;
  while (step < steps && !stop.requested) {
    training.run(step++);
    // A lost device is reported by engine.check().
    inFlight.push(engine.device.queue.onSubmittedWorkDone().catch(() => {}));
    while (inFlight.length >= stepsAhead(time.value)) await engine.settle(inFlight.shift()!);
    engine.check();
    if (failure) throw failure;
    if (step % logEvery === 0 || step === from + FIRST || step - read === READ_STEPS || performance.now() - asked > READ_MS) {
      await ask(step);
      asked = performance.now();
    }
    const due = (every: number): boolean => every > 0 && step % every === 0 && step < steps && !stop.requested;
    if (!due(sampleEvery) && !due(saveEvery)) continue;
    await drain(step);
    // What follows a step that was not finite is no picture of the training, and may be the end of it.
    if (due(saveEvery) && bad.inRow === 0) await options.save(step);
    if (due(sampleEvery) && bad.inRow === 0) await options.sample(step);
    mark = asked = performance.now();
  }
  await drain(step);
  if (bad.inRow > 0) throw new DdpmError('E-NONFINITE', `the last step, ${step}, was not finite, so its weights are not saved.`);
  return step;
}

function stopped({ step, bad }: StepLog, counts: BadSteps): string {
  const many = counts.inRow >= BAD.inRow ? `the last ${counts.inRow} steps were not finite` : `${counts.ofRecent} of the last ${BAD.window} steps were not finite`;
  return `${many} and changed nothing; at step ${step + 1} it was ${bad}. The training has diverged.`;
}
