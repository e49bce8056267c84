// Every setting of every command, in one table each: flags, --help, config files, checks, defaults and types all come from here.

import { SAMPLERS } from '../diffusion/samplers/table.ts';
import { LOSSES } from '../diffusion/losses.ts';
import { PREDICTIONS } from '../diffusion/prediction.ts';
import { SCHEDULES } from '../diffusion/schedule.ts';
import { SAMPLER_SPACINGS, SPACINGS } from '../diffusion/spacing.ts';
import { TIME_SAMPLINGS } from '../diffusion/timestep-sampling.ts';
import { VARIANCES } from '../diffusion/variance.ts';
import { PRECISIONS } from '../ops/precision.ts';
import { LR_SCHEDULES } from '../optim/schedules.ts';
import { FIGURES } from './figures.ts';
import { type Preset, PRESET_NAMES, PRESETS } from './presets.ts';

interface Common {
  readonly group: string;
  /** One line for --help. */
  readonly help: string;
  /** What stands for a `null` default in --help: who decides, or what null means. */
  readonly unset?: string;
  /** What stands for the value in --help. */
  readonly value?: string;
  /** Belongs to one start only: not accepted in a config file, not written to config.json. */
  readonly once?: true;
  /** What a run was trained with whose config.json has no value for it: one of before the preset had a say. */
  readonly before?: string | number;
}

export interface NumberSetting extends Common {
  readonly type: 'int' | 'float';
  readonly default: number | null;
  readonly min?: number;
  readonly max?: number;
  /** Like max, itself excluded. */
  readonly below?: number;
  /** The value of the flag when it stands alone. */
  readonly bare?: string;
}

interface SwitchSetting extends Common {
  readonly type: 'bool';
  readonly default: boolean | null;
}

interface TextSetting extends Common {
  readonly type: 'string' | 'path';
  readonly default: string | null;
  /** The value of the flag when it stands alone. */
  readonly bare?: string;
}

interface ChoiceSetting extends Common {
  readonly type: 'choice';
  readonly default: string | null;
  readonly choices: readonly string[];
}

/** One setting. Its key in the table is the flag, in kebab-case. */
export type Setting = NumberSetting | SwitchSetting | TextSetting | ChoiceSetting;

export type Table = Readonly<Record<string, Setting>>;

/** 'batch-size' → 'batchSize'. */
export type Camel<S extends string> = S extends `${infer A}-${infer B}` ? `${A}${Capitalize<Camel<B>>}` : S;

type Plain<S extends Setting> = S extends { choices: readonly (infer C)[] }
  ? C
  : S['type'] extends 'int' | 'float'
    ? number
    : S['type'] extends 'bool'
      ? boolean
      : string;

/** The values of a table, keys in camelCase; nullable where the default is null. */
export type Settings<T extends Table> = {
  -readonly [K in keyof T & string as Camel<K>]: Plain<T[K]> | (T[K]['default'] extends null ? null : never);
};

const COUNT = { type: 'int', min: 1 } as const;
const PRESET = { default: null, unset: 'by preset' } as const;
const GPU = {
  type: 'string', default: null, value: 'N|NAME', once: true, unset: 'the first hardware adapter',
  group: 'device', help: 'adapter by number or part of its name',
} as const;
const TUNING = {
  type: 'string', default: 'auto', value: 'auto|off|RUN|FILE',
  group: 'device', help: 'which kernels: as tune measured here, as by default, or as in a run',
} as const;
const PRECISION = {
  type: 'choice', choices: PRECISIONS, default: 'f32', group: 'device', help: 'factors of products, and on GPUs activations as stored; f16 after a self-test',
} as const;
const HELP = { type: 'bool', default: false, once: true, group: 'other', help: 'show this text' } as const;

/** How data are read, whatever their format. */
const READ = {
  'image-size': { ...COUNT, default: null, group: 'data', help: 'resize the shorter side, cut out the square middle; size of drawn shapes' },
  channels: { type: 'choice', choices: ['1', '3'], default: null, group: 'data', help: 'grey or colour' },
  labels: { type: 'choice', choices: ['fine', 'coarse'], default: null, group: 'data', help: 'of CIFAR-100: 100 classes, or the 20 groups of them' },
  'skip-bad': { type: 'bool', default: null, group: 'data', help: 'leave out damaged files of a folder of images, and damaged records of CIFAR' },
} as const satisfies Table;

/** The same in what reads the data of a run. */
const READ_AS_THE_RUN = {
  'image-size': { ...READ['image-size'], unset: "the run's" },
  channels: { ...READ.channels, unset: "the run's" },
  labels: { ...READ.labels, unset: "the run's" },
  'skip-bad': { ...READ['skip-bad'], unset: "the run's" },
} as const satisfies Table;

/** Where the view of runs is served. */
const PORT = 8007;

export const TRAIN = {
  data: { type: 'string', default: 'fashion-mnist', value: 'NAME|PATH', group: 'data', help: 'fashion-mnist, shapes, or a file or folder (IDX, CIFAR, npy, images)' },
  limit: { ...COUNT, default: null, unset: 'all', group: 'data', help: 'use only N images: the first, or of a folder of images as many of each class' },
  'image-size': { ...READ['image-size'], unset: 'as they are' },
  channels: { ...READ.channels, unset: 'as they are' },
  labels: { ...READ.labels, unset: 'fine' },
  'skip-bad': { ...READ['skip-bad'], default: false },
  flip: { type: 'bool', default: null, unset: 'by data set', group: 'data', help: 'mirror images at random' },

  preset: {
    type: 'choice', choices: PRESET_NAMES, default: null, unset: 'small on a GPU, tiny without',
    group: 'model', help: 'model and its training settings',
  },
  dropout: { type: 'float', min: 0, below: 1, ...PRESET, group: 'model', help: 'dropout in the residual blocks' },
  init: { type: 'path', default: null, value: 'FOLDER', unset: 'random weights', group: 'model', help: "start from pretrained weights, with their model and its diffusion" },
  'checkpoint-blocks': { type: 'bool', default: false, group: 'model', help: 'save memory: backward runs each block again instead of keeping what it computed' },

  'class-conditional': { type: 'bool', default: false, group: 'model', help: 'learn the classes of the images, from the labels of the data' },
  'label-dropout': { type: 'float', min: 0, max: 1, default: 0.1, group: 'model', help: 'share of images without their label, for classifier-free guidance' },
  'self-condition': { type: 'bool', default: false, group: 'model', help: 'give the network the x_0 that it predicted before, as more channels' },

  timesteps: { type: 'int', min: 2, max: 1_000_000, default: 1000, group: 'diffusion', help: 'number of noise levels T' },
  schedule: { type: 'choice', choices: SCHEDULES, default: 'linear', group: 'diffusion', help: 'how the noise grows with t' },
  'beta-start': { type: 'float', min: 0, below: 1, default: 1e-4, group: 'diffusion', help: 'first beta; cosine has its own' },
  'beta-end': { type: 'float', min: 0, below: 1, default: 0.02, group: 'diffusion', help: 'last beta; cosine has its own' },
  'scale-betas': { type: 'bool', default: true, group: 'diffusion', help: 'linear: betas times 1000 / T, so that x_T is noise for every T' },
  'rescale-betas-zero-snr': { type: 'bool', default: false, group: 'diffusion', help: 'nothing of the image is left at the last t (Lin et al. 2023); needs --predict v or x0' },
  betas: {
    type: 'path', default: null, value: 'FILE.json', unset: 'by schedule',
    group: 'diffusion', help: 'a list of betas in place of --schedule and --timesteps',
  },
  predict: { type: 'choice', choices: PREDICTIONS, ...PRESET, before: 'eps', group: 'diffusion', help: 'what the network predicts; mu is the posterior mean' },
  variance: { type: 'choice', choices: VARIANCES, default: 'fixed_small', group: 'diffusion', help: 'of the reverse step; a learned one doubles the output channels' },
  'clip-sample': { type: 'bool', default: true, group: 'diffusion', help: 'samplers clip the predicted x_0; off for data of another range' },
  'clip-sample-range': { type: 'float', min: 0, default: 1, group: 'diffusion', help: 'to [-X, X]' },
  thresholding: { type: 'bool', default: false, group: 'diffusion', help: 'samplers clip it to a quantile instead, and divide by that (Saharia et al. 2022)' },
  'dynamic-thresholding-ratio': { type: 'float', min: 0, max: 1, default: 0.995, group: 'diffusion', help: 'thresholding: which quantile of the absolute values' },
  'sample-max-value': { type: 'float', min: 1, default: 1, group: 'diffusion', help: 'thresholding: the most that the quantile counts as' },
  'timestep-spacing': {
    type: 'choice', choices: SPACINGS, default: null, unset: 'leading; trailing where rescaled', before: 'leading',
    group: 'diffusion', help: 'timesteps that ddpm and ddim visit by default',
  },
  'steps-offset': { type: 'int', min: 0, default: 0, group: 'diffusion', help: 'added to the timesteps of leading spacing' },
  'set-alpha-to-one': { type: 'bool', default: true, group: 'diffusion', help: "ddim's last step leads to x_0, not to the noise of t = 0" },
  loss: { type: 'choice', choices: LOSSES, default: null, unset: 'mse, or hybrid where the variance is learned', group: 'diffusion', help: 'what training minimises' },
  'snr-gamma': { type: 'float', min: 0, ...PRESET, before: 0, group: 'diffusion', help: 'min-SNR weights of mse and hybrid; 5 is usual, 0 is off' },
  'huber-delta': { type: 'float', min: 0, default: 1, group: 'diffusion', help: 'where the loss huber passes from squares to absolute values' },
  'time-sampling': { type: 'choice', choices: TIME_SAMPLINGS, ...PRESET, before: 'uniform', group: 'diffusion', help: 'how t is drawn; weighted: as its loss counts, importance: by the losses' },

  steps: { ...COUNT, ...PRESET, group: 'optimiser', help: 'training steps in all' },
  'batch-size': { ...COUNT, ...PRESET, group: 'optimiser', help: 'images a step' },
  'micro-batch': {
    ...COUNT, default: null, unset: 'the whole batch',
    group: 'optimiser', help: 'images at a time within a step: less memory, the same gradient',
  },
  lr: { type: 'float', min: 0, ...PRESET, group: 'optimiser', help: 'learning rate' },
  'lr-schedule': {
    type: 'choice', choices: LR_SCHEDULES, ...PRESET,
    group: 'optimiser', help: 'after the warm-up: stay, or fall to 0 at the last step',
  },
  warmup: { type: 'int', min: 0, ...PRESET, group: 'optimiser', help: 'steps over which the learning rate rises from 0' },
  'weight-decay': { type: 'float', min: 0, ...PRESET, group: 'optimiser', help: "AdamW's decoupled weight decay" },
  'grad-clip': { type: 'float', min: 0, ...PRESET, group: 'optimiser', help: 'longest gradient (global norm); 0 clips nothing' },
  ema: { type: 'float', min: 0, below: 1, ...PRESET, group: 'optimiser', help: 'decay of the averaged weights, with warm-up; 0 is no average' },
  seed: { type: 'int', min: 0, max: 0xffffffff, default: 0, group: 'optimiser', help: 'the run is a function of it' },

  out: { type: 'path', default: 'runs', value: 'FOLDER', group: 'run', help: 'where run folders go' },
  name: { type: 'string', default: null, unset: 'date and data set', once: true, group: 'run', help: 'name of the run folder' },
  resume: {
    type: 'path', default: null, bare: 'latest', value: '[latest|PATH]', unset: 'off', once: true,
    group: 'run', help: 'go on with the newest run, a run folder or a checkpoint',
  },
  overwrite: { type: 'bool', default: false, once: true, group: 'run', help: 'delete an existing run of this name first' },
  config: {
    type: 'path', default: null, value: 'FILE.json', unset: 'none', once: true,
    group: 'run', help: 'settings from a file, such as the config.json of a run; flags win',
  },
  'log-every': { ...COUNT, default: 10, group: 'run', help: 'steps between lines of progress; losses are read back as often' },
  'sample-every': { type: 'int', min: 0, ...PRESET, group: 'run', help: 'steps between sample grids; 0 is never' },
  'sample-steps': { ...COUNT, default: 50, group: 'run', help: 'DDIM steps of those grids; the last grid takes twice as many' },
  samples: { ...COUNT, max: 10_000, default: 64, group: 'run', help: 'images in a grid' },
  'save-every': { type: 'int', min: 0, ...PRESET, group: 'run', help: 'steps between checkpoints; 0 is only the last' },
  keep: { type: 'int', min: 0, default: 3, group: 'run', help: 'checkpoints to keep; 0 keeps all' },

  view: { type: 'int', min: 0, max: 65535, default: null, bare: String(PORT), value: '[PORT]', unset: 'off', once: true, group: 'run', help: 'show the run, live, on a page at 127.0.0.1' },

  gpu: GPU,
  tuning: TUNING,
  precision: PRECISION,
  'list-gpus': { type: 'bool', default: false, once: true, group: 'device', help: 'list the adapters and stop' },

  progress: {
    type: 'choice', choices: ['auto', 'bar', 'lines', 'none'], default: 'auto', once: true,
    group: 'other', help: 'auto: a bar on a terminal, lines elsewhere',
  },
  'dry-run': { type: 'bool', default: false, once: true, group: 'other', help: 'show settings, model and memory, train and write nothing' },
  help: HELP,
} as const satisfies Table;

export const INFO = {
  'batch-size': { ...COUNT, default: 128, group: 'info', help: 'images at a time, for the estimate of memory' },
  json: { type: 'bool', default: false, group: 'info', help: 'JSON instead of text' },
  help: HELP,
} as const satisfies Table;

export const FETCH = {
  revision: { type: 'string', default: 'main', value: 'NAME', group: 'fetch', help: 'a branch, a tag or a commit of the model' },
  out: { type: 'path', default: null, value: 'FOLDER', unset: 'models/OWNER/NAME', group: 'fetch', help: 'where the files go' },
  help: HELP,
} as const satisfies Table;

export const VIEW = {
  port: { type: 'int', min: 0, max: 65535, default: PORT, group: 'view', help: 'port on 127.0.0.1; the next free one where it is taken, 0 is any' },
  report: { type: 'bool', default: false, group: 'view', help: 'write report.html into the folder instead: one file that opens without a server' },
  help: HELP,
} as const satisfies Table;

export const WEB = {
  port: { type: 'int', min: 0, max: 65535, default: 8008, group: 'web', help: 'port on 127.0.0.1; 0 is any' },
  build: { type: 'path', default: null, value: 'FOLDER', unset: 'serve them', group: 'web', help: 'write the pages as static files instead' },
  help: HELP,
} as const satisfies Table;

export const TUNE = {
  preset: { type: 'choice', choices: PRESET_NAMES, default: null, unset: "the run's; small on a GPU, tiny without", group: 'model', help: 'whose shapes' },
  'batch-size': { ...COUNT, default: null, unset: "the run's, or by preset", group: 'model', help: 'images a training step' },
  'micro-batch': { ...COUNT, default: null, unset: "the run's, or the whole batch", group: 'model', help: 'images at a time within a step' },
  'sample-batch': { ...COUNT, default: 64, group: 'model', help: 'images drawn at a time' },
  'image-size': { ...COUNT, max: 1024, default: null, unset: "the model's; 28, or 32 for ddpm-cifar10", group: 'model', help: 'side of the images' },
  channels: { ...READ.channels, unset: '1, or 3 for ddpm-cifar10', group: 'model', help: 'grey or colour, for a preset' },

  only: { type: 'string', default: null, value: 'TEXT', unset: 'all', group: 'measure', help: 'only ops and shapes with this in their line, such as conv2d or 3x3' },
  rounds: { type: 'int', min: 3, max: 1000, default: 9, group: 'measure', help: 'times that the best is held against the default, in turn' },
  'min-gain': { type: 'float', min: 0, below: 1, default: 0.05, group: 'measure', help: 'share of time that another kernel must save to be taken' },
  seconds: { type: 'float', min: 0, default: 10, group: 'measure', help: 'how long whole steps are timed, before and after; 0 leaves them out' },

  json: { type: 'bool', default: false, group: 'other', help: 'JSON instead of a table' },
  'dry-run': { type: 'bool', default: false, group: 'other', help: 'list shapes and candidates, measure and write nothing' },
  reset: { type: 'bool', default: false, group: 'other', help: 'delete what was measured on this device, and stop' },
  gpu: GPU,
  help: HELP,
} as const satisfies Table;

export const DOCTOR = { gpu: GPU, precision: PRECISION, help: HELP } as const satisfies Table;

const GUIDANCE = { type: 'float', default: 1, value: 'W', group: 'sampling', help: 'classifier-free guidance: 1 is the class itself, more exaggerates it' } as const;

const SAMPLING = {
  seed: { type: 'int', min: 0, max: 0xffffffff, default: 0, group: 'sampling', help: 'image i of a seed is the same whatever the batch size' },
  sampler: { type: 'choice', choices: SAMPLERS, default: 'ddim', group: 'sampling', help: 'how to go from noise to images' },
  'sample-steps': { ...COUNT, default: null, unset: 'ddpm all, ddim and langevin 50, dpm++ 20, heun 18', group: 'sampling', help: 'timesteps to visit' },
  spacing: {
    type: 'string', default: null, value: 'NAME|ddimN|A,B,...', unset: 'by sampler',
    group: 'sampling', help: `${SAMPLER_SPACINGS.join(', ')}, a stride or section counts`,
  },
  timesteps: { type: 'string', default: null, value: 'T,T,...', unset: 'by spacing', group: 'sampling', help: 'the timesteps themselves, noisiest first' },
  eta: { type: 'float', min: 0, max: 1, default: 0, group: 'sampling', help: 'fresh noise in ddim: 0 none, 1 as much as ddpm' },
  'inner-steps': { ...COUNT, max: 1000, default: 7, group: 'sampling', help: 'langevin: steps at each noise level' },
  snr: { type: 'float', min: 0, below: 1, default: 0.25, group: 'sampling', help: 'langevin: signal-to-noise ratio of a step' },
  'batch-size': { ...COUNT, default: null, unset: 'what fits, at most 64', group: 'sampling', help: 'images at a time' },
  weights: { type: 'choice', choices: ['ema', 'model'], default: 'ema', group: 'sampling', help: 'averaged weights, or those of the last step' },
} as const satisfies Table;

export const SAMPLE = {
  n: { ...COUNT, default: 64, group: 'sampling', help: 'number of images' },
  ...SAMPLING,
  label: { type: 'string', default: null, value: 'K|NAME|all|none', unset: 'all; none for given images', group: 'sampling', help: 'class to draw, or each in turn; for models with classes' },
  guidance: GUIDANCE,

  figure: { type: 'choice', choices: FIGURES, default: null, unset: 'none', group: 'figures', help: 'how the model works, on the chain it was trained on' },

  from: { type: 'string', default: null, value: 'IMAGE,...', unset: 'none', group: 'given images', help: 'versions of images: PNG files, or numbers in the data set' },
  strength: { type: 'float', min: 0, max: 1, default: null, unset: '0.6; 0.5 to interpolate', group: 'given images', help: 'how far up the chain they start: 1 keeps nothing' },
  interpolate: { type: 'string', default: null, value: 'A,B', unset: 'none', group: 'given images', help: 'from one image to another' },
  inpaint: { type: 'string', default: null, value: 'IMAGE,...', unset: 'none', group: 'given images', help: 'paint a part of images anew (RePaint)' },
  mask: { type: 'string', default: null, value: 'FILE.png|X,Y,W,H', unset: 'none', group: 'given images', help: 'which part: white, or a box' },
  'jump-length': { ...COUNT, default: 10, group: 'given images', help: 'steps that RePaint goes back at a time' },
  resamples: { ...COUNT, max: 1000, default: 5, group: 'given images', help: 'how often it goes over each; 1 is once' },
  invert: { type: 'string', default: null, value: 'IMAGE,...', unset: 'none', group: 'given images', help: 'the noise that images come from, and how well they come back (DDIM)' },
  data: { type: 'string', default: null, value: 'NAME|PATH', unset: "the run's", group: 'given images', help: 'data set that numbers and real images are of' },

  out: { type: 'path', default: 'grid.png', value: 'FILE.png', group: 'files', help: 'the grid; other pictures are called by what they show' },
  trajectory: { type: 'path', default: null, value: 'FILE.apng', unset: 'none', group: 'files', help: 'animated PNG of the denoising' },
  noise: { type: 'path', default: null, value: 'FILE.safetensors', unset: 'drawn', group: 'files', help: 'starting noise: tensor x_T, NCHW float32' },
  raw: {
    type: 'path', default: null, value: 'FILE.safetensors', unset: 'none',
    group: 'files', help: 'the images as numbers: tensor x_0, NCHW float32, unclipped',
  },

  gpu: GPU,
  tuning: TUNING,
  precision: PRECISION,
  help: HELP,
} as const satisfies Table;

export const EVAL = {
  data: { type: 'string', default: null, value: 'NAME|PATH', unset: "the run's", group: 'measure', help: 'the real images' },
  split: { type: 'choice', choices: ['train', 'test'], default: 'train', group: 'measure', help: 'which of the real images; the literature takes train' },
  limit: { ...COUNT, default: null, unset: 'all', group: 'measure', help: 'use only N real images: the first, or of a folder of images as many of each class' },
  n: { ...COUNT, min: 2, default: 2048, group: 'measure', help: 'images to compare with them; distances of different N cannot be compared' },
  features: { type: 'choice', choices: ['classifier', 'inception', 'pixels'], default: 'classifier', group: 'measure', help: 'what distances are measured between' },
  classifier: { type: 'path', default: null, value: 'FILE.safetensors', unset: 'the one that comes with the data set', group: 'measure', help: 'weights of --features classifier' },
  'inception-weights': { type: 'path', default: null, value: 'FILE.safetensors', unset: 'none', group: 'measure', help: 'weights of --features inception: pt_inception-2015-12-05' },
  real: { type: 'bool', default: false, group: 'measure', help: 'real images of the other split in place of samples: what a perfect model would reach' },
  'real-statistics': { type: 'path', default: null, value: 'FILE.npz', unset: 'computed', group: 'measure', help: 'mu and sigma of the real images, as pytorch-fid saves them' },
  statistics: { type: 'path', default: 'data/statistics', value: 'FOLDER', group: 'measure', help: 'where computed statistics of real images are kept' },
  'keep-images': { type: 'path', default: null, value: 'FILE.npz', unset: 'not kept', group: 'measure', help: 'the images that were measured: arr_0, uint8 NHWC, as other programs take them' },
  out: { type: 'path', default: null, value: 'FILE.json', unset: 'eval.json in the run folder', group: 'measure', help: 'where the figures go, after those that are there' },

  nll: { type: 'bool', default: false, group: 'measure', help: 'the bound on the likelihood of --n real images (64; of the test split) in bits/dim, and its curve by t; no distances. With --sample-steps, --spacing or --timesteps that of a chain of fewer timesteps' },

  ...READ_AS_THE_RUN,

  'train-features': { type: 'bool', default: false, group: 'classifier', help: 'train a classifier on --data and write it to --out; nothing is measured' },
  'feature-steps': { ...COUNT, default: 7000, group: 'classifier', help: 'its training steps, of 32 images each' },

  ...SAMPLING,
  guidance: GUIDANCE,

  gpu: GPU,
  tuning: TUNING,
  precision: PRECISION,
  help: HELP,
} as const satisfies Table;

export type TrainSettings = Settings<typeof TRAIN>;
export type SampleSettings = Settings<typeof SAMPLE>;
export type EvalSettings = Settings<typeof EVAL>;

/** Train settings with nothing left to the preset. */
export type ResolvedSettings = { [K in keyof TrainSettings]: K extends keyof Preset | 'preset' | 'flip' | 'timestepSpacing' ? NonNullable<TrainSettings[K]> : TrainSettings[K] };

/**
 * Fills what the user left open: the preset from the kind of adapter, its settings from the preset, flips from the data set.
 *
 * @param from.software whether the adapter is a CPU
 * @param from.flip whether a mirrored image of the data set is as good as the original
 */
export function resolveSettings(settings: TrainSettings, from: { readonly software: boolean; readonly flip: boolean }): ResolvedSettings {
  const preset = settings.preset ?? (from.software ? 'tiny' : 'small');
  const { model: _, ...defaults } = PRESETS[preset];
  const given = Object.fromEntries(Object.entries(settings).filter(([, v]) => v !== null)) as Partial<TrainSettings>;
  const resolved = { ...settings, ...defaults, flip: from.flip, ...given, preset } as ResolvedSettings;
  // A short trial with --steps should still leave the warm-up of its preset behind.
  if (settings.warmup === null) resolved.warmup = Math.min(resolved.warmup, Math.floor(resolved.steps / 10));
  // A preset's weights are for what it predicts: those of a posterior mean go up to tens of thousands. Another loss has weights of its own.
  if (settings.snrGamma === null && (resolved.predict !== defaults.predict || ![null, 'mse', 'hybrid'].includes(settings.loss))) resolved.snrGamma = 0;
  // A last t without signal is of use where sampling starts from it, which leading spacing leaves out (Lin et al. 2023, section 3.3).
  resolved.timestepSpacing ??= settings.rescaleBetasZeroSnr ? 'trailing' : 'leading';
  resolved.sampleSteps = Math.min(resolved.sampleSteps, resolved.timesteps);
  return resolved;
}
