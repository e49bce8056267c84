// What the host decides for each step: the learning rate and the decay of the moving average.

/** What the learning rate does after its warm-up: it stays, or falls to 0 by half a cosine or by a line. */
export const LR_SCHEDULES = ['constant', 'cosine', 'linear'] as const;
/** One of LR_SCHEDULES. */
export type LrSchedule = (typeof LR_SCHEDULES)[number];

/** The learning rate of step `step` (from 0) of `steps`: linear warm-up over `warmup` steps, then constant, or decayed to 0 at the end. */
export function learningRate(step: number, { lr, warmup, steps, schedule }: { lr: number; warmup: number; steps: number; schedule: LrSchedule }): number {
  if (step < warmup) return (lr * (step + 1)) / warmup;
  const done = Math.min(1, (step - warmup) / Math.max(1, steps - warmup));
  if (schedule === 'cosine') return lr * 0.5 * (1 + Math.cos(Math.PI * done));
  return schedule === 'linear' ? lr * (1 - done) : lr;
}

/** min(decay, (1 + n) / (10 + n)): without a warm-up the first weights, which are noise, would stay in the average for 1 / (1 - decay) steps. */
export const emaDecay = (step: number, decay: number): number => Math.min(decay, (1 + step) / (10 + step));
