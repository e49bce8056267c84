// What sample and eval share: the model that an argument names, the size of its images, and the sampler that the flags ask for.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { GaussianDiffusion } from '../diffusion/gaussian.ts';
import { Sampler, type SamplerOptions } from '../diffusion/sampler.ts';
import { respacedTimesteps } from '../diffusion/respace.ts';
import { langevinExcess } from '../diffusion/samplers/langevin.ts';
import { type SamplerName, visitedTimesteps } from '../diffusion/samplers/table.ts';
import { SAMPLER_SPACINGS } from '../diffusion/spacing.ts';
import { DdpmError } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import { loadModelFolder, type ModelFolder } from '../io/checkpoint.ts';
import { type Scheduler, withSampling } from '../io/scheduler.ts';
import { Parameters } from '../nn/parameters.ts';
import { UNet } from '../nn/unet.ts';
import { say } from './command.ts';
import { orNameAnother } from './damaged.ts';
import { nearest, parseNumber } from './flags.ts';
import { imageChannels, type LabelSettings, Network } from './network.ts';
import { RunFolder, wasRun } from './run-folder.ts';

/** Where `train` puts runs unless told otherwise: a run may be named without it. */
const RUNS = 'runs';
/** Images drawn at a time, unless told otherwise. */
export const BATCH = 64;

export type ImageShape = readonly [height: number, width: number, channels: number];

/** The run that is named, with the checkpoint to take; null where what is named is no run. */
export function namedRun(named: string): ReturnType<typeof RunFolder.resume> | null {
  const inRuns = join(RUNS, named);
  return named === 'latest' || wasRun(named) || (!existsSync(named) && existsSync(inRuns)) ? RunFolder.resume(named, RUNS) : null;
}

/** The folder with the model: the last checkpoint where a run is named, otherwise what is named. */
export const modelPath = (named: string): string => namedRun(named)?.checkpoint.path ?? named;

/** @throws DdpmError E-MODEL where the config does not say the size */
export function imageShape(unet: UNet, { folder, scheduler }: ModelFolder): ImageShape {
  const { sample_size: size } = unet.config, channels = imageChannels(unet, scheduler);
  if (size === null) {
    const path = join(folder, 'config.json');
    throw new DdpmError('E-MODEL', `${path} has no sample_size, so the size of the images is not known. Add it, such as "sample_size": 32, or give starting noise with --noise.`);
  }
  return typeof size === 'number' ? [size, size, channels] : [size[0], size[1], channels];
}

/** @throws DdpmError E-MODEL where the network does not give what the scheduler says that it does */
function checkChannels(unet: UNet, { folder, scheduler, schedulerFile }: ModelFolder): void {
  const { in_channels: into, out_channels: out } = unet.config, channels = imageChannels(unet, scheduler);
  if (Number.isInteger(channels) && (into === channels || into === 2 * channels)) return;
  const says = schedulerFile === null ? 'without a scheduler_config.json the variance is fixed_small' : `${schedulerFile} says variance_type ${scheduler.variance}`;
  throw new DdpmError('E-MODEL', `${join(folder, 'config.json')} has in_channels ${into} and out_channels ${out}, and ${says}: with a learned variance a network gives twice the channels of an image, otherwise as many. One of the two is wrong.`);
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
  const read = (): Promise<ModelFolder> => loadModelFolder(from?.checkpoint.path ?? named, { weights });
  const model = await (from ? orNameAnother(from, 'name it in its place, as', read) : read());
  const unet = new UNet(model.config, { dropout: 0 });
  checkChannels(unet, model);
  const parameters = Parameters.place(engine, unet, { training: false, initial: false });
  parameters.write('values', model.tensors, model.file);
  const diffusion = new GaussianDiffusion(engine, model.scheduler.schedule, model.scheduler);
  return { model, from, unet, parameters, diffusion };
}

export interface SamplingSettings {
  readonly sampler: string;
  readonly sampleSteps: number | null;
  readonly spacing: string | null;
  readonly timesteps: string | null;
  readonly eta: number;
  readonly innerSteps: number;
  readonly snr: number;
}

/** Settings of one sampler; given with another they would be passed over in silence. */
const ONLY = [['eta', '--eta', 'ddim'], ['innerSteps', '--inner-steps', 'langevin'], ['snr', '--snr', 'langevin']] as const;

/** The sampler that the flags ask for, with what the model's scheduler says. `steps` is the number of timesteps that it visits. */
export function samplerOptions(settings: SamplingSettings, given: ReadonlySet<string>, scheduler: Scheduler): SamplerOptions & { readonly steps: number } {
  const method = settings.sampler as SamplerName;
  for (const [name, flag, owner] of ONLY)
    if (given.has(name) && method !== owner) throw new DdpmError('E-USAGE', `${flag} belongs to the ${owner} sampler; ${method} has no such setting. Leave it out, or take --sampler ${owner}.`);
  const own = method === 'ddim' ? { eta: settings.eta } : method === 'langevin' ? { innerSteps: settings.innerSteps, snr: settings.snr } : {};
  const options = withSampling<SamplerOptions>({ method, ...own, ...visited(settings, given, scheduler) }, scheduler);
  const timesteps = visitedTimesteps(scheduler.schedule, options), excess = method === 'langevin' ? langevinExcess({ schedule: scheduler.schedule, timesteps }, options) : 1;
  if (excess > 2) say('warning', `these langevin steps leave ${excess.toPrecision(2)} times the noise of a level, and the network knows about once: take more --inner-steps or --sample-steps`);
  return { ...options, steps: timesteps.length };
}

/** The timesteps of the ancestral chain that the flags ask for, noisiest first. */
export const chainTimesteps = (settings: SamplingSettings, given: ReadonlySet<string>, scheduler: Scheduler): readonly number[] =>
  visitedTimesteps(scheduler.schedule, samplerOptions({ ...settings, sampler: 'ddpm' }, given, scheduler));

/** What --sample-steps, --spacing and --timesteps say about which timesteps to visit; each in its own way, so two of them must not disagree. */
function visited(settings: SamplingSettings, given: ReadonlySet<string>, { schedule: { T } }: Scheduler): Pick<SamplerOptions, 'steps' | 'spacing' | 'timesteps'> {
  const { spacing, timesteps, sampleSteps } = settings;
  const steps = sampleSteps === null ? {} : { steps: sampleSteps };
  if (timesteps !== null) {
    if (spacing !== null || given.has('sampleSteps')) throw new DdpmError('E-USAGE', '--timesteps names the timesteps; leave out --spacing and --sample-steps.');
    const list = timesteps.split(',').map(parseNumber);
    if (!list.every(Number.isInteger)) throw new DdpmError('E-USAGE', `--timesteps is "${timesteps}"; it must be whole numbers with commas between them, such as 999,700,300,0.`);
    return { timesteps: list };
  }
  if (spacing === null) return steps;
  const named = SAMPLER_SPACINGS.find((each) => each === spacing);
  if (named) return { ...steps, spacing: named };
  if (!/^[\d,]+$|^ddim\d/.test(spacing)) {
    const near = nearest(spacing, SAMPLER_SPACINGS);
    throw new DdpmError('E-USAGE', `--spacing is one of ${SAMPLER_SPACINGS.join(', ')}, or like ddim50 or 10,20,30, not "${spacing}".${near ? ` Did you mean ${near}?` : ''}`);
  }
  if (given.has('sampleSteps')) throw new DdpmError('E-USAGE', `--spacing ${spacing} says how many timesteps there are; leave out --sample-steps.`);
  return { timesteps: respacedTimesteps(T, spacing) };
}

/** For the header: the sampler and what distinguishes it. */
export function describeSampler(options: SamplerOptions & { readonly steps: number }, evaluations: number): string {
  const { method, steps, eta, innerSteps, snr } = options;
  const more = [eta !== undefined && `eta ${eta}`, innerSteps !== undefined && `${innerSteps} at each level, snr ${snr}`, evaluations !== steps && `${evaluations} evaluations of the network`];
  return [`${method}, ${steps} ${steps === 1 ? 'step' : 'steps'}`, ...more.filter(Boolean)].join(', ');
}

/** The network with a sampler for batches of n images: as many at a time as were asked for, or as the device's limits allow. */
export function openSampler(placed: PlacedModel, image: ImageShape, options: SamplerOptions, { n, batchSize, ...labels }: { n: number; batchSize: number | null } & LabelSettings): { network: Network; sampler: Sampler } {
  for (let batch = Math.min(batchSize ?? BATCH, n); ; batch = Math.ceil(batch / 2)) {
    const shape = [batch, ...image] as const, network = new Network(placed.diffusion.engine, placed.unet, shape, labels);
    try {
      return { network, sampler: new Sampler(network.model, placed.diffusion, shape, options) };
    } catch (error) {
      network.free();
      if (batchSize !== null || batch === 1 || !(error instanceof DdpmError && error.code === 'E-LIMIT')) throw error;
    }
  }
}
