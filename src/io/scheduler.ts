// scheduler_config.json: the fields of diffusers' DDPMScheduler, both ways.

import { type Prediction, PREDICTION_TYPES } from '../diffusion/prediction.ts';
import { makeSchedule, type Schedule, type ScheduleName, type ScheduleSource } from '../diffusion/schedule.ts';
import { SPACINGS, type Spacing } from '../diffusion/spacing.ts';
import type { Variance } from '../diffusion/variance.ts';
import { DdpmError } from '../errors.ts';
import type { UNetFields } from '../nn/config.ts';

/** The file's name in a checkpoint. */
export const SCHEDULER = 'scheduler_config.json';

/** What a scheduler_config.json says, in the terms of this library. */
export interface Scheduler {
  readonly schedule: Schedule;
  /** What the schedule is made from. */
  readonly source: ScheduleSource;
  readonly prediction: Prediction;
  readonly variance: Variance;
  /** Clip the predicted x_0 to [-1, 1]. */
  readonly clipSample: boolean;
  readonly spacing: Spacing;
  readonly stepsOffset: number;
  readonly setAlphaToOne: boolean;
}

/** Our names of schedules and those of diffusers. */
const BETA_SCHEDULES: readonly (readonly [ScheduleName, string])[] = [['linear', 'linear'], ['quadratic', 'scaled_linear'], ['cosine', 'squaredcos_cap_v2'], ['sigmoid', 'sigmoid']];

/** Those of what is predicted; for mu, which diffusers does not know, the file has our own. */
const PREDICTIONS: readonly (readonly [Prediction, string])[] = [...(Object.entries(PREDICTION_TYPES) as [Prediction, string][]), ['mu', 'mu']];

/**
 * Those of variances. diffusers' `learned` is the variance itself and ours its logarithm, so ours has a name that diffusers does not take;
 * its `fixed_small_log` is `fixed_small` by another path.
 */
const VARIANCE_TYPES: readonly (readonly [Variance, string])[] = [
  ['fixed_small', 'fixed_small'], ['fixed_large', 'fixed_large'], ['learned_range', 'learned_range'], ['learned', 'learned_log'], ['fixed_small', 'fixed_small_log'],
];

/** The fields of diffusers' DDPMScheduler for a schedule. Betas are the effective ones: diffusers scales none by 1000 / T. */
export function schedulerConfig(source: ScheduleSource, { prediction = 'eps', variance = 'fixed_small' }: { prediction?: Prediction; variance?: Variance } = {}): Record<string, unknown> {
  const betas = 'name' in source ? null : Array.from(source);
  const { name, T, betaStart = 1e-4, betaEnd = 0.02, scale = true } = 'name' in source ? source : ({ name: 'linear', T: source.length, scale: false } as const);
  const k = name === 'linear' && scale ? 1000 / T : 1;
  return {
    _class_name: 'DDPMScheduler',
    beta_end: k * betaEnd,
    beta_schedule: BETA_SCHEDULES.find(([ours]) => ours === name)![1],
    beta_start: k * betaStart,
    clip_sample: true,
    num_train_timesteps: T,
    prediction_type: PREDICTIONS.find(([ours]) => ours === prediction)![1],
    steps_offset: 0,
    timestep_spacing: 'leading',
    trained_betas: betas,
    variance_type: VARIANCE_TYPES.find(([ours]) => ours === variance)![1],
  };
}

/** Fields with one value that is implemented, and those that change nothing here. */
const ONLY: Readonly<Record<string, readonly unknown[]>> = {
  _class_name: ['DDPMScheduler', 'DDIMScheduler', 'PNDMScheduler'], thresholding: [false], rescale_betas_zero_snr: [false], clip_sample_range: [1],
};
const IGNORED = ['_diffusers_version', '_scheduleNameor_path', 'dynamic_thresholding_ratio', 'sample_max_value', 'skip_prk_steps', 'tensor_format', 'timestep_values'];

/**
 * Reads the fields of a scheduler_config.json; what is absent has diffusers' default.
 *
 * @param name the file's name, for messages
 * @throws DdpmError E-MODEL for a field or a value that is not implemented, by name
 */
export function readScheduler(fields: UNetFields, name = SCHEDULER): Scheduler {
  const refuse = (why: string): never => {
    throw new DdpmError('E-MODEL', `${name}: ${why}`);
  };
  const left = new Map(Object.entries(fields));
  const take = <T>(field: string, usual: T, good: (value: unknown) => boolean, wanted: string): T => {
    const value = left.get(field);
    left.delete(field);
    if (value === undefined) return usual;
    if (!good(value)) refuse(`${field} = ${JSON.stringify(value)} is not implemented; ${wanted}.`);
    return value as T;
  };
  const oneOf = <T>(field: string, values: readonly T[]): T =>
    take(field, values[0]!, (v) => values.includes(v as T), `it is ${values.map((v) => JSON.stringify(v)).join(' or ')} here`);
  const number = (field: string, usual: number): number => take(field, usual, (v) => typeof v === 'number' && Number.isFinite(v) && v >= 0, 'it is a number of at least 0');
  const named = <T>(field: string, names: readonly (readonly [T, string])[]): T => {
    const value = oneOf(field, names.map(([, theirs]) => theirs));
    return names.find(([, theirs]) => theirs === value)![0];
  };
  const flag = (field: string, usual: boolean): boolean => take(field, usual, (v) => typeof v === 'boolean', 'it is true or false');

  for (const [field, values] of Object.entries(ONLY)) oneOf(field, values);
  for (const field of IGNORED) left.delete(field);
  const T = number('num_train_timesteps', 1000), betaStart = number('beta_start', 1e-4), betaEnd = number('beta_end', 0.02);
  const scheduleName = named('beta_schedule', BETA_SCHEDULES);
  const isList = (v: unknown): boolean => Array.isArray(v) && v.every((b) => typeof b === 'number');
  const trained = take<number[] | null>('trained_betas', null, (v) => v === null || isList(v), 'it is a list of numbers or null');
  const settings = {
    prediction: named('prediction_type', PREDICTIONS),
    variance: named('variance_type', VARIANCE_TYPES),
    clipSample: flag('clip_sample', true),
    spacing: oneOf<Spacing>('timestep_spacing', SPACINGS),
    stepsOffset: number('steps_offset', 0),
    setAlphaToOne: flag('set_alpha_to_one', true),
  };
  // A field that is off changes nothing, whatever it is.
  for (const [field, value] of left) if (value !== null && value !== false) refuse(`the field "${field}" (${JSON.stringify(value)}) is not known.`);
  if (trained && 'num_train_timesteps' in fields && trained.length !== T) refuse(`num_train_timesteps is ${T}, and there are ${trained.length} trained_betas.`);
  const source: ScheduleSource = trained ?? { name: scheduleName, T, betaStart, betaEnd, scale: false };
  try {
    return { schedule: makeSchedule(source), source, ...settings };
  } catch (error) {
    return refuse((error as Error).message);
  }
}
