// The model that `npm run tune` measures for: that of a preset, a run or a model's folder, with its training and its sampling step on images of noise.

import { GaussianDiffusion } from '../diffusion/gaussian.ts';
import { Sampler } from '../diffusion/sampler.ts';
import { makeSchedule } from '../diffusion/schedule.ts';
import { Training } from '../diffusion/training.ts';
import { isLearned } from '../diffusion/variance.ts';
import type { Made } from '../gpu/choices.ts';
import { Engine } from '../gpu/engine.ts';
import { paperDevice } from '../gpu/paper.ts';
import { readModelConfig } from '../io/checkpoint.ts';
import type { OpenedEngine } from '../node.ts';
import type { UNetFields } from '../nn/config.ts';
import { Parameters } from '../nn/parameters.ts';
import { UNet } from '../nn/unet.ts';
import { DeviceImages } from '../ops/random.ts';
import { camel, settingsFromJson } from './flags.ts';
import { Network } from './network.ts';
import { modelConfig, type PresetName } from './presets.ts';
import { modelPath, namedRun } from './sampling.ts';
import { type ResolvedSettings, resolveSettings, type Settings, TRAIN, type TrainSettings, type TUNE } from './settings.ts';
import { noise } from './tune-cases.ts';

export interface TunedModel {
  /** For the header. */
  readonly name: string;
  readonly fields: UNetFields;
  readonly settings: ResolvedSettings;
  readonly image: readonly [height: number, width: number, channels: number];
  /** Images that are drawn at a time. */
  readonly samples: number;
}

const defaults = (): TrainSettings => Object.fromEntries(Object.entries(TRAIN).map(([name, { default: value }]) => [camel(name), value])) as unknown as TrainSettings;

/** The model that is named, or the preset; flags have the last word. */
export async function tunedModel(named: string | null, asked: Settings<typeof TUNE>, software: boolean): Promise<TunedModel> {
  const run = named === null ? null : namedRun(named), folder = named === null ? null : modelPath(named);
  const own = run ? (settingsFromJson(TRAIN, run.run.config(), run.run.file('config.json')) as Partial<TrainSettings>) : {};
  const given = Object.fromEntries((['preset', 'batchSize', 'microBatch'] as const).filter((name) => asked[name] !== null).map((name) => [name, asked[name]]));
  const settings = resolveSettings({ ...defaults(), ...own, ...given }, { software, flip: false });
  const { preset, selfCondition } = settings, samples = asked.sampleBatch;
  if (folder === null) {
    const [height, channels] = preset === 'ddpm-cifar10' ? [32, 3] : [28, 1], size = asked.imageSize ?? height;
    const image = [size, size, asked.channels === null ? channels : Number(asked.channels)] as const;
    return { name: `preset ${preset}`, fields: modelConfig(preset as PresetName, { height: size, width: size, channels: image[2] }) as unknown as UNetFields, settings, image, samples };
  }
  const fields = await readModelConfig(folder), { config } = new UNet(fields), { sample_size: size, in_channels, out_channels } = config;
  // Where no run says so, a network that gives as many channels again as it reads learns the variance, and one that reads as many again as it gives is conditioned on itself.
  const known = run ? { selfCondition, variance: settings.variance } : { selfCondition: in_channels === 2 * out_channels, variance: out_channels === 2 * in_channels ? ('learned_range' as const) : ('fixed_small' as const) };
  const square = asked.imageSize ?? (typeof size === 'number' ? size : null), [height, width] = square === null ? ((size as readonly [number, number] | null) ?? [32, 32]) : [square, square];
  return { name: folder, fields, settings: { ...settings, ...known }, image: [height, width, out_channels / (isLearned(known.variance) ? 2 : 1)], samples };
}

/** The steps of a model on an engine, captured with what its choices are now. Weights are random. */
export interface Steps {
  readonly training: Training;
  readonly sampler: Sampler;
}

export class Placed {
  readonly #model: TunedModel;
  readonly #unet: UNet;
  readonly #parameters: Parameters;
  readonly #diffusion: GaussianDiffusion;
  readonly #images: DeviceImages;

  constructor(engine: Engine, model: TunedModel, initial: boolean) {
    const { fields, settings: { dropout, checkpointBlocks, variance, predict: prediction }, image: [height, width, channels] } = (this.#model = model);
    this.#unet = new UNet({ ...fields, dropout }, { checkpointBlocks });
    this.#parameters = Parameters.place(engine, this.#unet, { initial });
    this.#diffusion = new GaussianDiffusion(engine, makeSchedule({ name: 'linear', T: 1000 }), { variance, prediction });
    const count = 64, pixels = Uint8Array.from(noise(count * height * width * channels), (v) => 127.5 * (v + 1));
    this.#images = new DeviceImages(engine, { count, height, width, channels, pixels, labels: this.#unet.conditional ? new Uint8Array(count) : null }, false);
  }

  steps(): Steps {
    const { settings, image, samples } = this.#model;
    const training = new Training(this.#unet, this.#parameters, this.#diffusion, this.#images, { ...settings, snrGamma: settings.snrGamma || null });
    const shape = [samples, ...image] as const, network = new Network(this.#diffusion.engine, this.#unet, shape, { label: null, guidance: 1 });
    return { training, sampler: new Sampler(network.model, this.#diffusion, shape, { method: 'ddim', steps: 2 }) };
  }
}

/** Every choice that training and sampling ask for on such a device; nothing is allocated or computed. Those that others lead to come first. */
export function choicesOf({ engine: { subgroupWidth, device }, info }: OpenedEngine, model: TunedModel): Made[] {
  const engine = new Engine(paperDevice(subgroupWidth, info, undefined, device.limits));
  new Placed(engine, model, false).steps();
  const leads = ({ shape: { C, O } }: Made): boolean => C !== undefined && O !== undefined && (C % 4 > 0 || O % 4 > 0);
  return [...engine.choices.made.values()].sort((a, b) => Number(leads(a)) - Number(leads(b)));
}
