// Where training starts from pretrained weights or a checkpoint: what of the settings a folder decides, and whether the rest fits its model.

import { isLearned } from '../diffusion/variance.ts';
import { DdpmError } from '../errors.ts';
import type { ModelFolder } from '../io/checkpoint.ts';
import type { UNet } from '../nn/unet.ts';
import { clipSettings } from './diffusion-settings.ts';
import type { TrainSettings } from './settings.ts';

/**
 * The settings with what a folder's scheduler_config.json says, of the diffusion and of sampling, wherever no flag (`given`) says otherwise.
 * Another schedule or other betas are a flag's to choose, since training goes on; what the outputs of the network mean is not.
 *
 * @throws DdpmError E-MODEL for a flag that the weights contradict
 */
export function withScheduler(settings: TrainSettings, given: ReadonlySet<string>, { scheduler, schedulerFile: file }: Pick<ModelFolder, 'scheduler' | 'schedulerFile'>): TrainSettings {
  // A preset speaks of a network that it trains from nothing; weights without a file are DDPM's unless a flag says otherwise.
  if (file === null) return { ...settings, predict: settings.predict ?? 'eps' };
  const { source, schedule, prediction, variance, clipSample, spacing, stepsOffset, setAlphaToOne } = scheduler;
  const fixed = (flag: string, asked: string, has: string): never => {
    throw new DdpmError('E-MODEL', `--${flag} is ${asked}, and the weights were trained with ${has} (${file}): what they give means nothing else. Leave the flag out, or --init.`);
  };
  if (given.has('predict') && settings.predict !== prediction) fixed('predict', settings.predict!, prediction);
  // Between two fixed variances the network has no say, so a flag may choose.
  if (given.has('variance') && settings.variance !== variance && (isLearned(settings.variance) || isLearned(variance))) fixed('variance', settings.variance, variance);

  const taken: Partial<TrainSettings> = { predict: prediction, variance, timesteps: schedule.T, ...clipSettings(clipSample), timestepSpacing: spacing, stepsOffset, setAlphaToOne };
  if (!('name' in source)) {
    if (!given.has('schedule')) taken.betas = file;
  } else if (!given.has('schedule') && settings.betas === null) {
    const { name, T, betaStart = 1e-4, betaEnd = 0.02, rescaleBetasZeroSnr = false } = source;
    // The file has the betas as they are; a flag that changes them or T speaks of 1,000 steps, unless it says that it does not.
    const scale = given.has('scaleBetas') ? settings.scaleBetas : ['timesteps', 'betaStart', 'betaEnd'].some((flag) => given.has(flag));
    const k = name === 'linear' && scale ? T / 1000 : 1;
    Object.assign(taken, { schedule: name, betaStart: k * betaStart, betaEnd: k * betaEnd, scaleBetas: scale, rescaleBetasZeroSnr });
  }
  for (const flag of given) delete taken[flag as keyof TrainSettings];
  return { ...settings, ...taken };
}

/** For the header: where the diffusion comes from, and which flags had the last word. */
export function describeScheduler(given: ReadonlySet<string>, { folder, schedulerFile }: Pick<ModelFolder, 'folder' | 'schedulerFile'>): string {
  if (schedulerFile === null) return `${folder} has no scheduler_config.json: schedule, prediction and variance are those of the flags`;
  const flags = ['timesteps', 'schedule', 'betaStart', 'betaEnd', 'scaleBetas', 'rescaleBetasZeroSnr', 'betas', 'variance', 'clipSample', 'clipSampleRange', 'thresholding', 'dynamicThresholdingRatio', 'sampleMaxValue', 'timestepSpacing', 'stepsOffset', 'setAlphaToOne'].filter((flag) => given.has(flag));
  const changed = flags.map((flag) => `--${flag.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}`).join(', ');
  return `schedule, prediction and variance are those of ${schedulerFile}${changed && `, but for ${changed}`}`;
}

/** Says what does not fit before anything is captured. */
export function checkModel(unet: UNet, { source, channels, selfCondition, learnedVariance, classes }: { source: string; channels: number; selfCondition: boolean; learnedVariance: boolean; classes: number }): void {
  const { in_channels: into, out_channels: out, num_class_embeds: known } = unet.config, wanted = [selfCondition ? 2 * channels : channels, learnedVariance ? 2 * channels : channels];
  if (into !== wanted[0] || out !== wanted[1])
    throw new DdpmError('E-MODEL', `${source} reads ${into} channels and gives ${out}; these data and settings need ${wanted.join(' and ')}. The data's channels, --self-condition and a learned --variance decide.`);
  if (unet.conditional !== classes > 0 || (classes > 0 && (known ?? 0) < classes))
    throw new DdpmError('E-MODEL', `${source} is a model ${unet.conditional ? `with classes (num_class_embeds ${known})` : 'without classes'}, and these settings train ${classes > 0 ? `with ${classes}` : 'without'}. --class-conditional decides.`);
}
