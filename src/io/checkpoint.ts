// Checkpoints: all that a run needs to go on, in a folder that diffusers loads as a model; and the reading of any such folder for sampling.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type Prediction, PREDICTION_TYPES } from '../diffusion/prediction.ts';
import { makeSchedule, type Schedule, type ScheduleName, type ScheduleSource } from '../diffusion/schedule.ts';
import { SPACINGS, type Spacing } from '../diffusion/spacing.ts';
import type { ImportanceSampling } from '../diffusion/timestep-sampling.ts';
import type { Variance } from '../diffusion/variance.ts';
import { DdpmError } from '../errors.ts';
import type { UNetFields } from '../nn/config.ts';
import type { NamedTensors, Parameters } from '../nn/parameters.ts';
import type { UNet } from '../nn/unet.ts';
import { readFileOr, writeAtomic } from './files.ts';
import { modelFile, parseConfig, readModel } from './model.ts';
import { safetensorsChunks, type TensorToWrite } from './safetensors.ts';

const CONFIG = 'config.json';
const SCHEDULER = 'scheduler_config.json';
/** The averaged weights have the name that diffusers looks for: they are the ones to sample with. */
const EMA = 'diffusion_pytorch_model.safetensors';
const MODEL = 'model.safetensors';
const OPTIMIZER = 'optimizer.safetensors';
const STATE = 'state.json';

/** Version of state.json and of the set of files beside it. */
const FORMAT = 1;

/** What a step depends on besides the tensors. */
export interface TrainingState {
  /** Steps done. */
  readonly step: number;
  readonly seed: number;
  /** How many numbers the model learns. */
  readonly parameters: number;
  /** The data set that `seed` puts in order. */
  readonly data: { readonly name: string; readonly count: number };
  /** The settings of the run, as in its config.json; for people. */
  readonly settings: object;
}

export interface CheckpointContent {
  readonly unet: UNet;
  readonly parameters: Parameters;
  readonly schedule: ScheduleSource;
  readonly prediction?: Prediction;
  readonly variance?: Variance;
  /** Where t is drawn by importance: what its draws depend on goes with the moments. */
  readonly timeSampling?: ImportanceSampling | null;
  readonly state: Omit<TrainingState, 'parameters'>;
}

type Tensors = Map<string, { readonly shape: readonly number[]; readonly data: Float32Array<ArrayBuffer> }>;

/**
 * Writes a checkpoint into a folder: config.json and scheduler_config.json as diffusers has them, the averaged weights under its name, the weights,
 * AdamW's moments, and state.json last. Every number is float32 and comes back the same.
 *
 * @throws DdpmError E-NONFINITE if a tensor holds a value that is not finite, naming it; such a checkpoint would be of no use
 * @throws DdpmError E-FILE if a file cannot be written
 */
export async function saveCheckpoint(folder: string, { unet, parameters, schedule, state, timeSampling, ...diffusion }: CheckpointContent): Promise<void> {
  const finite = (tensors: Tensors, what: string): Tensors => {
    const bad = [...tensors].find(([, { data }]) => !data.every(Number.isFinite));
    if (bad) throw new DdpmError('E-NONFINITE', `the ${what} of ${bad[0]} are not finite after step ${state.step}, so no checkpoint was saved.`);
    return tensors;
  };
  const write = async (file: string, tensors: Map<string, TensorToWrite>): Promise<void> => {
    const { metadata } = modelFile(tensors);
    await writeAtomic(join(folder, file), safetensorsChunks(tensors, metadata));
  };
  // One buffer after another: the copies of a large model need not be in memory together.
  await write(EMA, finite(await parameters.read('ema'), 'averaged weights'));
  await write(MODEL, finite(await parameters.read('values'), 'weights'));
  const moments = new Map<string, TensorToWrite>();
  for (const which of ['m', 'v'] as const)
    for (const [name, tensor] of finite(await parameters.read(which), "optimiser's moments")) moments.set(`${which}.${name}`, tensor);
  for (const [name, tensor] of (await timeSampling?.read()) ?? []) moments.set(name, tensor);
  await write(OPTIMIZER, moments);
  await writeAtomic(join(folder, CONFIG), json(unet.config));
  await writeAtomic(join(folder, SCHEDULER), json(schedulerConfig(schedule, diffusion)));
  await writeAtomic(join(folder, STATE), json({ format: FORMAT, ...state, parameters: parameters.count }));
}

/**
 * Reads a checkpoint back into a placed model: weights, averages and moments. Returns what its state.json says.
 *
 * @throws DdpmError E-MODEL if it is of another model, with the first three tensors that differ; E-FILE if a file is missing or damaged
 */
export async function loadCheckpoint(folder: string, { parameters, timeSampling }: { readonly parameters: Parameters; readonly timeSampling?: ImportanceSampling | null }): Promise<TrainingState> {
  const state = await readState(join(folder, STATE));
  const tensors = async (file: string): Promise<NamedTensors> => readModel(await readFileOr(join(folder, file)), join(folder, file));
  // All is read before anything is written, so that a damaged file leaves the model as it was.
  const model = await tensors(MODEL), ema = await tensors(EMA), moments = await tensors(OPTIMIZER);
  const moment = (which: 'm' | 'v'): NamedTensors => new Map([...moments].flatMap(([name, t]) => (name.startsWith(`${which}.`) ? [[name.slice(2), t]] : [])));
  parameters.write('values', model, join(folder, MODEL));
  parameters.write('ema', ema, join(folder, EMA));
  for (const which of ['m', 'v'] as const) parameters.write(which, moment(which), `${join(folder, OPTIMIZER)} (${which})`);
  timeSampling?.write(moments, join(folder, OPTIMIZER));
  return state;
}

async function readState(path: string): Promise<TrainingState> {
  const state = await readJson(path);
  const { format } = state;
  if (typeof format === 'number' && format > FORMAT)
    throw new DdpmError('E-FILE', `${path} has the format ${format}, and this version reads up to ${FORMAT}: it was written by a newer one. Update to go on.`);
  const whole = (name: string): boolean => Number.isSafeInteger(state[name]) && (state[name] as number) >= 0;
  if (format !== FORMAT || !whole('step') || !whole('seed'))
    throw new DdpmError('E-FILE', `${path} is not the state of a checkpoint: it needs format, step and seed as whole numbers.`);
  return state as unknown as TrainingState;
}

const json = (value: object): string => JSON.stringify(value, null, 2) + '\n';

const readJson = async (path: string): Promise<UNetFields> => parseConfig(new TextDecoder().decode(await readFileOr(path)), path);

// ---- scheduler_config.json

/** What a scheduler_config.json says, in the terms of this library. */
export interface Scheduler {
  readonly schedule: Schedule;
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
  try {
    return { schedule: makeSchedule(trained ?? { name: scheduleName, T, betaStart, betaEnd, scale: false }), ...settings };
  } catch (error) {
    return refuse((error as Error).message);
  }
}

// ---- a folder with a model

/** A model as it lies in a folder, ready to be placed. */
export interface ModelFolder {
  /** The folder that holds config.json. */
  readonly folder: string;
  /** The file that the weights come from. */
  readonly file: string;
  readonly config: UNetFields;
  readonly tensors: NamedTensors;
  readonly scheduler: Scheduler;
  /** Where the scheduler was described; null where nothing was, and DDPM's own schedule of 1,000 steps is taken. */
  readonly schedulerFile: string | null;
}

/**
 * Reads a model to sample from: a checkpoint, or a folder as diffusers saves it, a whole pipeline's included. Old names of tensors are understood.
 *
 * @param weights `ema` takes diffusion_pytorch_model.safetensors, or model.safetensors where that is the only one; `model` takes model.safetensors
 * @throws DdpmError E-FILE if something is missing or damaged, E-MODEL for a scheduler that is not implemented
 */
export async function loadModelFolder(path: string, { weights = 'ema' as 'ema' | 'model' } = {}): Promise<ModelFolder> {
  const folder = [path, join(path, 'unet')].find((each) => existsSync(join(each, CONFIG)));
  if (!folder) throw new DdpmError('E-FILE', `${path} ${existsSync(path) ? `has no ${CONFIG}` : 'is not there'}. Name a run, a checkpoint, or a folder with ${CONFIG} and ${EMA}.`);
  const there = (file: string): boolean => existsSync(join(folder, file));
  const file = weights === 'ema' && there(EMA) ? EMA : MODEL;
  if (!there(file)) {
    const other = weights === 'model' ? ` It has no ${MODEL}; leave out --weights model.` : ' Convert its weights to safetensors first, with save_pretrained of diffusers for one.';
    throw new DdpmError('E-FILE', `${folder} has a ${CONFIG} and no weights that can be read (${weights === 'ema' ? `${EMA} or ` : ''}${MODEL}).${other}`);
  }
  const schedulerFile = [join(folder, SCHEDULER), join(folder, 'scheduler', SCHEDULER), join(folder, '..', 'scheduler', SCHEDULER)].find((each) => existsSync(each)) ?? null;
  return {
    folder,
    file: join(folder, file),
    config: await readJson(join(folder, CONFIG)),
    tensors: readModel(await readFileOr(join(folder, file)), join(folder, file)),
    scheduler: readScheduler(schedulerFile ? await readJson(schedulerFile) : {}, schedulerFile ?? SCHEDULER),
    schedulerFile,
  };
}
