// The diffusion that the settings of train ask for: its schedule, from a name or from a file of betas, and the words for it.

import { classCount, type Dataset } from '../data/images.ts';
import { DdpmError } from '../errors.ts';
import { makeSchedule, rescaleZeroSnr, type ScheduleSource } from '../diffusion/schedule.ts';
import { checkClip, type Clip } from '../ops/clip.ts';
import { readFileOr } from '../io/files.ts';
import type { ResolvedSettings, TrainSettings } from './settings.ts';

/**
 * The betas of a file: a JSON list of numbers, or an object with `trained_betas`, such as a scheduler_config.json.
 *
 * @throws DdpmError E-FILE if it is missing or holds something else, E-USAGE if its numbers are no schedule
 */
export async function readBetas(path: string): Promise<number[]> {
  const refuse = (why: string): never => {
    throw new DdpmError('E-FILE', `${path} ${why}. Betas are a JSON list of numbers between 0 and 1, such as [0.01, 0.02, 0.05].`);
  };
  let json: unknown;
  const text = new TextDecoder().decode(await readFileOr(path));
  try {
    json = JSON.parse(text);
  } catch (error) {
    refuse(`is not JSON: ${(error as Error).message}`);
  }
  const fields = json !== null && typeof json === 'object' ? (json as Readonly<Record<string, unknown>>) : {}, list = 'trained_betas' in fields ? fields['trained_betas'] : json;
  if (!Array.isArray(list)) return refuse('has no list of betas');
  const odd = list.findIndex((beta) => typeof beta !== 'number');
  if (odd >= 0) refuse(`has ${JSON.stringify(list[odd])} at place ${odd} of its betas`);
  makeSchedule(list as number[]);
  return fields['rescale_betas_zero_snr'] === true ? Array.from(rescaleZeroSnr(list as number[])) : (list as number[]);
}

/** The schedule by name, or the betas where they were read. */
export function scheduleOf(s: Pick<TrainSettings, 'schedule' | 'timesteps' | 'betaStart' | 'betaEnd' | 'scaleBetas' | 'rescaleBetasZeroSnr'>, betas: readonly number[] | null): ScheduleSource {
  const { rescaleBetasZeroSnr } = s;
  if (betas) return rescaleBetasZeroSnr ? rescaleZeroSnr(betas) : betas;
  return { name: s.schedule, T: s.timesteps, betaStart: s.betaStart, betaEnd: s.betaEnd, scale: s.scaleBetas, rescaleBetasZeroSnr };
}

type ClipSettings = Pick<TrainSettings, 'clipSample' | 'clipSampleRange' | 'thresholding' | 'dynamicThresholdingRatio' | 'sampleMaxValue'>;

/** How samplers clip the predicted x_0. @throws DdpmError E-USAGE for a range of 0 */
export function clipOf({ clipSample, clipSampleRange: range, thresholding, dynamicThresholdingRatio: ratio, sampleMaxValue: max }: ClipSettings): Clip {
  checkClip(range);
  return thresholding ? { ratio, max } : clipSample && range !== 1 ? range : clipSample;
}

/** The settings that say so. */
export const clipSettings = (clip: Clip): Partial<ClipSettings> => ({
  clipSample: clip !== false, clipSampleRange: typeof clip === 'number' ? clip : 1, thresholding: typeof clip === 'object', ...(typeof clip === 'object' && { dynamicThresholdingRatio: clip.ratio, sampleMaxValue: clip.max }),
});

/** How many classes the labels of the data tell apart. */
export function classesOf({ name, labels, classes }: Pick<Dataset, 'name' | 'labels' | 'classes'>): number {
  if (!labels) throw new DdpmError('E-DATA', `--class-conditional needs labels, and ${name} has none. Use data that have them, or leave the flag out.`);
  return classCount({ labels, classes });
}

/** For the header of train: what is diffused how, and what is learnt of it. */
export function diffusionLine(s: ResolvedSettings, loss: string): string {
  const gamma = s.snrGamma === 0 ? '' : ` min-SNR ${s.snrGamma}`;
  return `${s.betas ?? s.schedule}${s.rescaleBetasZeroSnr ? ' rescaled to end at zero' : ''} T ${s.timesteps}, predicts ${s.predict}, variance ${s.variance}, loss ${loss}${gamma}, t ${s.timeSampling}`;
}
