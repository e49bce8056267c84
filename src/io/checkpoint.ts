// Checkpoints: all that a run needs to go on, in a folder that diffusers loads as a model; and the reading of any such folder for sampling.

import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { ScheduleSource } from '../diffusion/schedule.ts';
import type { Training } from '../diffusion/training.ts';
import { DdpmError } from '../errors.ts';
import { configFields, type UNetFields } from '../nn/config.ts';
import type { NamedTensors, Parameters } from '../nn/parameters.ts';
import type { UNet } from '../nn/unet.ts';
import { readFileOr, writeAtomic } from './files.ts';
import { modelFile, type ModelTensor, parseConfig, readClassNames, readModel, withOldNorm } from './model.ts';
import { safetensorsChunks, type TensorToWrite } from './safetensors.ts';
import { readScheduler, type Scheduler, SCHEDULER, schedulerConfig, type SchedulerFields } from './scheduler.ts';

const CONFIG = 'config.json';
/** The averaged weights have the name that diffusers looks for: they are the ones to sample with. */
const EMA = 'diffusion_pytorch_model.safetensors';
const MODEL = 'model.safetensors';
const OPTIMIZER = 'optimizer.safetensors';
const STATE = 'state.json';
/** Makes a folder of a model and a scheduler a pipeline of diffusers. */
const PIPELINE = 'model_index.json';

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

/** What saveCheckpoint() writes. */
export interface CheckpointContent {
  readonly unet: UNet;
  readonly parameters: Parameters;
  readonly schedule: ScheduleSource;
  /** What else scheduler_config.json is to say: what is predicted, the variance, and how to sample. */
  readonly scheduler?: SchedulerFields;
  /** What else its steps depend on goes with the moments: how many were good, the loss scale, the losses by t where t is drawn by importance. */
  readonly training?: Training;
  /** The names of the classes that a model with classes knows; they go into the metadata of its weights. */
  readonly classes?: readonly string[] | null;
  readonly state: Omit<TrainingState, 'parameters'>;
}

type Tensors = Map<string, { readonly shape: readonly number[]; readonly data: Float32Array<ArrayBuffer> }>;

/**
 * Writes a checkpoint into a folder: config.json, scheduler_config.json and model_index.json as diffusers has them, the averaged weights under its name, the weights,
 * AdamW's moments, and state.json last. Every number is float32 and comes back the same.
 *
 * @throws DdpmError E-NONFINITE if a tensor holds a value that is not finite, naming it; such a checkpoint would be of no use
 * @throws DdpmError E-FILE if a file cannot be written
 */
export async function saveCheckpoint(folder: string, { unet, parameters, schedule, scheduler, state, training, classes = null }: CheckpointContent): Promise<void> {
  const finite = (tensors: Tensors, what: string): Tensors => {
    const bad = [...tensors].find(([, { data }]) => !data.every(Number.isFinite));
    if (bad) throw new DdpmError('E-NONFINITE', `the ${what} of ${bad[0]} are not finite after step ${state.step}, so no checkpoint was saved.`);
    return tensors;
  };
  const write = async (file: string, tensors: Map<string, TensorToWrite>): Promise<void> => {
    const { metadata } = modelFile(tensors, unet.conditional && file !== OPTIMIZER ? classes : null);
    await writeAtomic(join(folder, file), safetensorsChunks(tensors, metadata));
  };
  // One buffer after another: the copies of a large model need not be in memory together.
  await write(EMA, finite(await parameters.read('ema'), 'averaged weights'));
  await write(MODEL, finite(await parameters.read('values'), 'weights'));
  const moments = new Map<string, TensorToWrite>();
  for (const which of ['m', 'v'] as const)
    for (const [name, tensor] of finite(await parameters.read(which), "optimiser's moments")) moments.set(`${which}.${name}`, tensor);
  for (const more of [await training?.optimizer.state(), await training?.timeSampling?.read()]) for (const [name, tensor] of more ?? []) moments.set(name, tensor);
  await write(OPTIMIZER, moments);
  await writeAtomic(join(folder, CONFIG), json(configFields(unet.config)));
  await writeAtomic(join(folder, SCHEDULER), json(schedulerConfig(schedule, scheduler)));
  if (isPipeline(unet, scheduler)) await writeAtomic(join(folder, PIPELINE), json({ _class_name: 'DDPMPipeline', scheduler: ['diffusers', 'DDPMScheduler'], unet: ['diffusers', 'UNet2DModel'] }));
  await writeAtomic(join(folder, STATE), json({ format: FORMAT, ...state, parameters: parameters.count }));
}

/** Whether diffusers' DDPMPipeline can draw with the model: it knows no classes, no network that is conditioned on itself, and not all that is learnt here. */
function isPipeline({ config: { in_channels, out_channels }, conditional }: UNet, { prediction = 'eps', variance = 'fixed_small' }: SchedulerFields = {}): boolean {
  return !conditional && prediction !== 'mu' && variance !== 'learned' && out_channels === in_channels * (variance === 'learned_range' ? 2 : 1);
}

/** The state and the tensors of a checkpoint. @throws DdpmError E-FILE if a file is missing or damaged */
export async function readCheckpoint(folder: string): Promise<{ state: TrainingState; model: NamedTensors; ema: NamedTensors; moments: NamedTensors }> {
  const tensors = async (file: string): Promise<NamedTensors> => readModel(await readFileOr(join(folder, file)), join(folder, file));
  return { state: await readState(join(folder, STATE)), model: await tensors(MODEL), ema: await tensors(EMA), moments: await tensors(OPTIMIZER) };
}

/**
 * Reads a checkpoint back into a placed model: weights, averages and moments, and into its training, to go on with, what else steps depend on. Returns what its
 * state.json says.
 *
 * @throws DdpmError E-MODEL if it is of another model, with the first three tensors that differ; E-FILE if a file is missing or damaged
 */
export async function loadCheckpoint(folder: string, { parameters, training }: { readonly parameters: Parameters; readonly training?: Training }): Promise<TrainingState> {
  // All is read before anything is written, so that a damaged file leaves the model as it was.
  const { state, model, ema, moments } = await readCheckpoint(folder);
  const moment = (which: 'm' | 'v'): NamedTensors => new Map([...moments].flatMap(([name, t]) => (name.startsWith(`${which}.`) ? [[name.slice(2), t]] : [])));
  training?.timeSampling?.write(moments, join(folder, OPTIMIZER));
  training?.optimizer.restore(moments, join(folder, OPTIMIZER));
  parameters.write('values', model, join(folder, MODEL));
  parameters.write('ema', ema, join(folder, EMA));
  for (const which of ['m', 'v'] as const) parameters.write(which, moment(which), `${join(folder, OPTIMIZER)} (${which})`);
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

// ---- a folder with a model

/** The fields of a folder's config.json. */
export const readModelConfig = (folder: string): Promise<UNetFields> => readJson(join(folder, CONFIG));

/** A model as it lies in a folder, ready to be placed. */
export interface ModelFolder {
  /** The folder that holds config.json. */
  readonly folder: string;
  /** The file that the weights come from. */
  readonly file: string;
  readonly config: UNetFields;
  readonly tensors: ReadonlyMap<string, ModelTensor>;
  /** The names of its classes, where the file tells them. */
  readonly classes: readonly string[] | null;
  readonly scheduler: Scheduler;
  /** Where the scheduler was described; null where nothing was, and DDPM's own schedule of 1,000 steps is taken. */
  readonly schedulerFile: string | null;
}

/** The checkpoint that the file `latest` of a run names, or the path itself. */
function newestOf(path: string): string {
  const latest = join(path, 'latest');
  return existsSync(latest) && statSync(latest).isFile() ? join(path, readFileSync(latest, 'utf8').trim()) : path;
}

/**
 * Reads a model to sample from: a run, of which it takes the newest checkpoint, a checkpoint, or a folder as diffusers saves it, a whole pipeline's included. Old names of
 * tensors are understood. `new GaussianDiffusion(engine, scheduler.schedule, scheduler)` is its diffusion, `withSampling({ method: 'ddim' }, scheduler)` its sampler's options.
 *
 * @param weights `ema` takes diffusion_pytorch_model.safetensors, or model.safetensors where that is the only one; `model` takes model.safetensors
 * @throws DdpmError E-FILE if something is missing or damaged, E-MODEL for a scheduler that is not implemented
 */
export async function loadModelFolder(named: string, { weights = 'ema' as 'ema' | 'model' } = {}): Promise<ModelFolder> {
  const path = newestOf(named), folder = [path, join(path, 'unet')].find((each) => existsSync(join(each, CONFIG)));
  if (!folder) throw new DdpmError('E-FILE', `${path} ${existsSync(path) ? `has no ${CONFIG}` : 'is not there'}. Name a run, a checkpoint, or a folder with ${CONFIG} and ${EMA}.`);
  const there = (file: string): boolean => existsSync(join(folder, file));
  const file = weights === 'ema' && there(EMA) ? EMA : MODEL;
  if (!there(file)) {
    const pickle = ['diffusion_pytorch_model.bin', 'pytorch_model.bin'].find(there);
    if (pickle)
      throw new DdpmError('E-FILE', `${join(folder, pickle)} is a pickle, which is a program that runs when it is read, so it is not read here. Convert it to ${EMA} first, in Python: ` +
        `from safetensors.torch import save_file; import torch; save_file(torch.load("${pickle}", map_location="cpu"), "${EMA}")`);
    const other = weights === 'model' ? ` It has no ${MODEL}; leave out --weights model.` : ' Convert its weights to safetensors first, with save_pretrained of diffusers for one.';
    throw new DdpmError('E-FILE', `${folder} has a ${CONFIG} and no weights that can be read (${weights === 'ema' ? `${EMA} or ` : ''}${MODEL}).${other}`);
  }
  const schedulerFile = [join(folder, SCHEDULER), join(folder, 'scheduler', SCHEDULER), join(folder, '..', 'scheduler', SCHEDULER)].find((each) => existsSync(each)) ?? null;
  const bytes = await readFileOr(join(folder, file)), tensors = readModel(bytes, join(folder, file));
  return {
    folder,
    file: join(folder, file),
    config: withOldNorm(await readModelConfig(folder), tensors),
    tensors,
    classes: readClassNames(bytes, join(folder, file)),
    scheduler: readScheduler(schedulerFile ? await readJson(schedulerFile) : {}, schedulerFile ?? SCHEDULER),
    schedulerFile,
  };
}
