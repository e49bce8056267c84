// A sampler as a table: one row for each evaluation of the network, linear in a few tensors, in float64 and pure. One kernel (sampler_step) takes them all.
import { DdpmError } from '../../errors.ts';
import { noiseTable, type OutputTable, type Prediction, startTable } from '../prediction.ts';
import type { Schedule } from '../schedule.ts';

/**
 * start = clip(startX · x + startOutput · output), and then
 * next = x · x + start · start + last · last + kept · kept + output · output + z · z.
 */
export interface Row {
  /** The timestep that the network is told; x has its noise. */
  readonly t: number;
  /** The timestep whose noise x has after the row; -1 is x_0 itself. */
  readonly to: number;
  readonly startX: number;
  readonly startOutput: number;
  readonly x: number;
  readonly start: number;
  /** Factor of the x_0 that the row before predicted. */
  readonly last: number;
  /** Factor of x as it was before the last row with `keep`. */
  readonly kept: number;
  /** Factor of the network's output as it is, clipping aside. */
  readonly output: number;
  /** Standard deviation of fresh noise. */
  readonly z: number;
  /** Keep x as it is before this row. */
  readonly keep: boolean;
  /** Third word of the noise's counter: rows that draw must differ in it. */
  readonly draw: number;
}

/** The numbers of a row in the order of the kernel's `coef`. */
export const ROW_SIZE = 9;
export const rowValues = (r: Row): number[] => [r.startX, r.startOutput, r.x, r.start, r.last, r.kept, r.output, r.z, Number(r.keep)];

/** x_t = alpha x_0 + sigma eps; lambda = log(alpha / sigma). */
export interface Level {
  readonly alpha: number;
  readonly sigma: number;
  readonly lambda: number;
}

/** What a table is made from: the trained schedule, what the network predicts, and which timesteps are visited, noisiest first. */
export interface Chain {
  readonly schedule: Schedule;
  readonly prediction: Prediction;
  readonly timesteps: readonly number[];
  /** Where the last row leads: -1, x_0 itself, or 0, the noise of the first timestep. */
  readonly final: -1 | 0;
}

/** The noise of timestep t; t = -1 is x_0 itself. */
export function level({ alphasCumprod }: Schedule, t: number): Level {
  const acp = t < 0 ? 1 : alphasCumprod[t]!;
  return { alpha: Math.sqrt(acp), sigma: Math.sqrt(1 - acp), lambda: 0.5 * Math.log(acp / (1 - acp)) };
}

/** One visit of a timestep: where from, where to, and what turns the output into x_0 and eps. */
export interface Visit {
  readonly i: number;
  readonly t: number;
  readonly to: number;
  readonly from: Level;
  readonly next: Level;
  /** A row that does nothing but predict x_0. */
  readonly row: Row;
  readonly noise: { readonly x: number; readonly output: number };
}

/** Walks a chain. Each timestep leads to the next of the list, whatever their spacing. */
export function visits({ schedule, prediction, timesteps, final }: Chain): Visit[] {
  checkTimesteps(schedule.T, timesteps);
  const start = startTable(schedule, prediction), noise = noiseTable(schedule, prediction);
  const at = (table: OutputTable, t: number) => ({ x: table.x[t]!, output: table.output[t]! });
  return timesteps.map((t, i) => {
    const to = timesteps[i + 1] ?? final, { x, output } = at(start, t);
    const row: Row = { t, to, startX: x, startOutput: output, x: 0, start: 0, last: 0, kept: 0, output: 0, z: 0, keep: false, draw: t };
    return { i, t, to, from: level(schedule, t), next: level(schedule, to), row, noise: at(noise, t) };
  });
}

/** @throws DdpmError E-USAGE unless the list falls strictly, within the schedule. */
export function checkTimesteps(T: number, timesteps: readonly number[]): void {
  if (timesteps.length === 0) throw new DdpmError('E-USAGE', 'the list of timesteps is empty: a sampler visits at least one.');
  timesteps.forEach((t, i) => {
    if (!(Number.isInteger(t) && t >= 0 && t < T)) throw new DdpmError('E-USAGE', `timestep ${t} is not one of the schedule's: it has 0 to ${T - 1}.`);
    if (i > 0 && t >= timesteps[i - 1]!) throw new DdpmError('E-USAGE', `the timesteps must fall, noisiest first: ${timesteps[i - 1]} is followed by ${t}.`);
  });
}
