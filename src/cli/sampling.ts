// What sample and eval share: the model that an argument names, the size of its images, and the sampler that the flags ask for.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { GaussianDiffusion } from '../diffusion/gaussian.ts';
import type { Sampler, SamplerOptions } from '../diffusion/sampler.ts';
import type { SamplerName } from '../diffusion/samplers/table.ts';
import { DdpmError } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import { loadModelFolder, type ModelFolder, type Scheduler } from '../io/checkpoint.ts';
import { Parameters } from '../nn/parameters.ts';
import { UNet } from '../nn/unet.ts';
import { isRun, RunFolder } from './run-folder.ts';

/** Where `train` puts runs unless told otherwise: a run may be named without it. */
const RUNS = 'runs';
/** Images drawn at a time, unless told otherwise. */
export const BATCH = 64;

export type ImageShape = readonly [height: number, width: number, channels: number];

/** The run that is named, with the checkpoint to take; null where what is named is no run. */
export function namedRun(named: string): ReturnType<typeof RunFolder.resume> | null {
  const inRuns = join(RUNS, named);
  return named === 'latest' || isRun(named) || (!existsSync(named) && existsSync(inRuns)) ? RunFolder.resume(named, RUNS) : null;
}

/** The folder with the model: the last checkpoint where a run is named, otherwise what is named. */
export const modelPath = (named: string): string => namedRun(named)?.checkpoint.path ?? named;

/** @throws DdpmError E-MODEL where the config does not say the size */
export function imageShape(unet: UNet, folder: string): ImageShape {
  const { sample_size: size, in_channels: channels } = unet.config;
  if (size === null) {
    const path = join(folder, 'config.json');
    throw new DdpmError('E-MODEL', `${path} has no sample_size, so the size of the images is not known. Add it, such as "sample_size": 32, or give starting noise with --noise.`);
  }
  return typeof size === 'number' ? [size, size, channels] : [size[0], size[1], channels];
}

/** A model on the device, ready to be sampled. */
export interface PlacedModel {
  readonly model: ModelFolder;
  /** The run and its checkpoint, where the model is of one. */
  readonly from: ReturnType<typeof namedRun>;
  readonly unet: UNet;
  readonly parameters: Parameters;
  readonly diffusion: GaussianDiffusion;
}

/** Reads the model that an argument names and puts it on the device. */
export async function placeModel(engine: Engine, named: string, weights: 'ema' | 'model'): Promise<PlacedModel> {
  const from = namedRun(named);
  const model = await loadModelFolder(from?.checkpoint.path ?? named, { weights });
  const unet = new UNet(model.config, { dropout: 0 });
  const parameters = Parameters.place(engine, unet, { training: false });
  parameters.write('values', model.tensors, model.file);
  const diffusion = new GaussianDiffusion(engine, model.scheduler.schedule, { variance: model.scheduler.variance });
  return { model, from, unet, parameters, diffusion };
}

export interface SamplingSettings {
  readonly sampler: string;
  readonly sampleSteps: number;
  readonly eta: number;
}

/** The sampler that the flags ask for, with what the model's scheduler says. */
export function samplerOptions(settings: SamplingSettings, given: ReadonlySet<string>, scheduler: Scheduler): SamplerOptions & { readonly steps: number } {
  const method = settings.sampler as SamplerName, { T } = scheduler.schedule;
  if (method === 'ddpm' && given.has('eta')) throw new DdpmError('E-USAGE', '--eta belongs to the ddim sampler; ddpm has its own noise. Leave it out, or take --sampler ddim.');
  const steps = given.has('sampleSteps') ? settings.sampleSteps : method === 'ddpm' ? T : Math.min(settings.sampleSteps, T);
  const { spacing, stepsOffset, clipSample, setAlphaToOne } = scheduler;
  return { method, steps, eta: settings.eta, spacing, stepsOffset, clipDenoised: clipSample, setAlphaToOne };
}

/** A sampler for as many images at a time as the device's limits allow. */
export function largestSampler(make: (batch: number) => Sampler, batch: number): Sampler {
  for (; ; batch = Math.ceil(batch / 2)) {
    try {
      return make(batch);
    } catch (error) {
      if (batch === 1 || !(error instanceof DdpmError && error.code === 'E-LIMIT')) throw error;
    }
  }
}
