// scheduler_config.json: the fields of diffusers' DDPMScheduler, both ways.

import { type Prediction, PREDICTION_TYPES, startTable } from '../diffusion/prediction.ts';
import { makeSchedule, rescaleZeroSnr, type Schedule, type ScheduleName, type ScheduleSource, type ScheduleSpec } from '../diffusion/schedule.ts';
import type { SamplerOptions } from '../diffusion/sampler.ts';
import { visitedTimesteps } from '../diffusion/samplers/table.ts';
import { SPACINGS, type Spacing } from '../diffusion/spacing.ts';
import type { Variance } from '../diffusion/variance.ts';
import { DdpmError } from '../errors.ts';
import type { Clip } from '../ops/clip.ts';
import type { UNetFields } from '../nn/config.ts';

/** The file's name in a checkpoint. */
export const SCHEDULER = 'scheduler_config.json';

/** How a model is to be sampled: what a scheduler_config.json says besides the diffusion that it was trained on. */
export interface SamplingFields {
  /** Clip the predicted x_0 to [-1, 1] (true), to [-range, range] (a number), dynamically, or not. */
  readonly clipSample: Clip;
  readonly spacing: Spacing;
  /** Added to the timesteps of leading spacing. */
  readonly stepsOffset: number;
  /** ddim's last step leads to x_0 itself, not to the noise of t = 0. */
  readonly setAlphaToOne: boolean;
}

/** What a scheduler_config.json says, in the terms of this library. */
export interface Scheduler extends SamplingFields {
  readonly schedule: Schedule;
  /** What the schedule is made from. */
  readonly source: ScheduleSource;
  readonly prediction: Prediction;
  readonly variance: Variance;
}

/** diffusers' defaults, that of a class first where they differ: PNDMScheduler has no clip_sample, and clips nothing. */
const DEFAULTS: SamplingFields = { clipSample: true, spacing: 'leading', stepsOffset: 0, setAlphaToOne: true };
const PNDM = { clipSample: false, setAlphaToOne: false };

/** Our names of schedules and those of diffusers. */
const BETA_SCHEDULES: readonly (readonly [ScheduleName, string])[] = [['linear', 'linear'], ['quadratic', 'scaled_linear'], ['cosine', 'squaredcos_cap_v2'], ['sigmoid', 'sigmoid']];

/** Those of what is predicted; for mu, which diffusers does not know, the file has our own. */
const PREDICTIONS: readonly (readonly [Prediction, string])[] = [...(Object.entries(PREDICTION_TYPES) as [Prediction, string][]), ['mu', 'mu']];

/**
 * Those of variances. Ours, `learned`, is log sigma^2 = v, as the classic code has it; diffusers' is sigma^2 = v, whose root it takes. One name for both
 * would be read without a word and give other noise, so ours has one that diffusers does not know: it fails there at the first step.
 * Its `fixed_small_log` is `fixed_small` by another path.
 */
const VARIANCE_TYPES: readonly (readonly [Variance, string])[] = [
  ['fixed_small', 'fixed_small'], ['fixed_large', 'fixed_large'], ['learned_range', 'learned_range'], ['learned', 'learned_log'], ['fixed_small', 'fixed_small_log'],
];

/** What of a scheduler can be written; the rest has defaults. */
export type SchedulerFields = Partial<SamplingFields> & { readonly prediction?: Prediction; readonly variance?: Variance };

/**
 * The fields of diffusers' DDPMScheduler for a schedule. Betas are the effective ones: diffusers scales none by 1000 / T. set_alpha_to_one is
 * DDIMScheduler's, which is made from the same file.
 */
export function schedulerConfig(source: ScheduleSource, { prediction = 'eps', variance = 'fixed_small', ...sampling }: SchedulerFields = {}): Record<string, unknown> {
  const betas = 'name' in source ? null : Array.from(source);
  const { name, T, betaStart = 1e-4, betaEnd = 0.02, scale = true, rescaleBetasZeroSnr = false } = 'name' in source ? source : ({ name: 'linear', T: source.length, scale: false } as ScheduleSpec);
  const k = name === 'linear' && scale ? 1000 / T : 1, { clipSample, spacing, stepsOffset, setAlphaToOne } = { ...DEFAULTS, ...sampling };
  return {
    _class_name: 'DDPMScheduler',
    beta_end: k * betaEnd,
    beta_schedule: BETA_SCHEDULES.find(([ours]) => ours === name)![1],
    beta_start: k * betaStart,
    clip_sample: clipSample !== false,
    clip_sample_range: typeof clipSample === 'number' ? clipSample : 1,
    ...(typeof clipSample === 'object' && { dynamic_thresholding_ratio: clipSample.ratio, sample_max_value: clipSample.max, thresholding: true }),
    num_train_timesteps: T,
    prediction_type: PREDICTIONS.find(([ours]) => ours === prediction)![1],
    rescale_betas_zero_snr: rescaleBetasZeroSnr,
    set_alpha_to_one: setAlphaToOne,
    steps_offset: stepsOffset,
    timestep_spacing: spacing,
    trained_betas: betas,
    variance_type: VARIANCE_TYPES.find(([ours]) => ours === variance)![1],
  };
}

/**
 * A sampler's options with what the scheduler says wherever they say nothing. Spacing and offset were chosen for ddpm and ddim; the other samplers have
 * their own. The offset is left out as far as it would pass the last timestep, as any would on the whole chain.
 */
export function withSampling<O extends SamplerOptions>(options: O, { schedule, clipSample, setAlphaToOne, spacing, stepsOffset }: SamplingFields & { readonly schedule: Schedule }): O {
  const ancestral = (options.method === 'ddpm' || options.method === 'ddim') && !options.timesteps;
  const full = { clipDenoised: clipSample, setAlphaToOne, ...(ancestral && { spacing }), ...options };
  if (!ancestral || full.spacing !== 'leading' || stepsOffset === 0) return full;
  return { ...full, stepsOffset: Math.min(stepsOffset, schedule.T - 1 - visitedTimesteps(schedule, full)[0]!) };
}

const CLASSES = ['DDPMScheduler', 'DDIMScheduler', 'PNDMScheduler'];
/** Fields that change nothing here: the first belongs to a sampler that is not here, the other has no meaning any more. */
const IGNORED = ['skip_prk_steps', 'tensor_format'];
/** Variances that diffusers has and cannot be taken here, and why. */
const OTHER_VARIANCES: Readonly<Record<string, string>> = {
  learned: "diffusers' is the variance itself, and the one that is learnt here its logarithm, learned_log in files: the outputs of such a network mean something else",
  fixed_large_log: 'diffusers takes the root of log(beta) for it, which is no number; fixed_large is what was meant',
};

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

  const usual = fields['_class_name'] === 'PNDMScheduler' ? { ...DEFAULTS, ...PNDM } : DEFAULTS;
  oneOf('_class_name', CLASSES);
  // What begins with _ is diffusers' own, such as its version.
  for (const field of left.keys()) if (field.startsWith('_') || IGNORED.includes(field)) left.delete(field);
  const T = number('num_train_timesteps', 1000), betaStart = number('beta_start', 1e-4), betaEnd = number('beta_end', 0.02);
  const scheduleName = named('beta_schedule', BETA_SCHEDULES);
  const isList = (v: unknown): boolean => Array.isArray(v) && v.every((b) => typeof b === 'number');
  const trained = take<number[] | null>('trained_betas', null, (v) => v === null || isList(v), 'it is a list of numbers or null');
  const other = OTHER_VARIANCES[String(fields['variance_type'])];
  if (other) refuse(`variance_type = ${JSON.stringify(fields['variance_type'])} is not implemented: ${other}.`);
  const rescale = flag('rescale_betas_zero_snr', false), clips = flag('clip_sample', usual.clipSample !== false), range = take('clip_sample_range', 1, (v) => typeof v === 'number' && v > 0, 'it is a number above 0');
  const dynamic = flag('thresholding', false), threshold = {
    ratio: take('dynamic_thresholding_ratio', 0.995, (v) => typeof v === 'number' && v >= 0 && v <= 1, 'it is a number from 0 to 1'),
    max: take('sample_max_value', 1, (v) => typeof v === 'number' && v >= 1, 'it is a number of at least 1'),
  };
  const settings: SamplingFields & { prediction: Prediction; readonly variance: Variance } = {
    prediction: named('prediction_type', PREDICTIONS),
    variance: named('variance_type', VARIANCE_TYPES),
    // The range counts where there is clipping, and thresholding comes before it.
    clipSample: dynamic ? threshold : clips && range !== 1 ? range : clips,
    spacing: oneOf<Spacing>('timestep_spacing', SPACINGS),
    stepsOffset: take('steps_offset', usual.stepsOffset, (v) => Number.isInteger(v) && (v as number) >= 0, 'it is a whole number of at least 0'),
    setAlphaToOne: flag('set_alpha_to_one', usual.setAlphaToOne),
  };
  // Before prediction_type there was predict_epsilon.
  const epsilon = flag('predict_epsilon', settings.prediction === 'eps');
  if (epsilon !== (settings.prediction === 'eps')) {
    if ('prediction_type' in fields) refuse(`predict_epsilon is ${epsilon}, and prediction_type ${JSON.stringify(fields['prediction_type'])}: one of them is wrong.`);
    settings.prediction = 'x0';
  }
  // Any other field that is off belongs to a class that is not here, and changes nothing in these.
  for (const [field, value] of left) if (value !== null && value !== false) refuse(`the field "${field}" (${JSON.stringify(value)}) is not known.`);
  if (trained && 'num_train_timesteps' in fields && trained.length !== T) refuse(`num_train_timesteps is ${T}, and there are ${trained.length} trained_betas.`);
  try {
    // Betas of its own are kept as they are once rescaled: what is written of them needs no rescaling.
    const source: ScheduleSource = trained ? (rescale ? rescaleZeroSnr(trained) : trained) : { name: scheduleName, T, betaStart, betaEnd, scale: false, ...(rescale && { rescaleBetasZeroSnr: true }) };
    const schedule = makeSchedule(source);
    startTable(schedule, settings.prediction);
    return { schedule, source, ...settings };
  } catch (error) {
    return refuse((error as Error).message);
  }
}
