// The presets: a U-Net and the settings to train it with, under one name.

import type { Prediction } from '../diffusion/prediction.ts';
import type { TimeSampling } from '../diffusion/timestep-sampling.ts';
import { DdpmError } from '../errors.ts';
import type { LrSchedule } from '../optim/schedules.ts';

/** Fields of diffusers' `UNet2DModel` config.json that a preset fixes; channels and image size come from the data set. */
interface PresetModel {
  readonly block_out_channels: readonly number[];
  readonly down_block_types: readonly ('DownBlock2D' | 'AttnDownBlock2D')[];
  readonly up_block_types: readonly ('UpBlock2D' | 'AttnUpBlock2D')[];
  readonly layers_per_block: number;
  readonly norm_num_groups: number;
  /** Attention in the middle block; on where it is not said, as in diffusers. */
  readonly add_attention?: boolean;
}

/** A whole config.json, under diffusers' names. */
export interface ModelConfig extends PresetModel {
  readonly _class_name: 'UNet2DModel';
  readonly sample_size: number | readonly [height: number, width: number];
  readonly in_channels: number;
  readonly out_channels: number;
  readonly act_fn: 'silu';
  readonly attention_head_dim: number | null;
  readonly center_input_sample: boolean;
  readonly downsample_padding: number;
  readonly flip_sin_to_cos: boolean;
  readonly freq_shift: number;
  readonly mid_block_scale_factor: number;
  readonly norm_eps: number;
  readonly num_class_embeds?: number;
  readonly time_embedding_type: 'positional';
}

/** The model, and the settings of train whose default is the preset's. */
export interface Preset {
  readonly model: PresetModel;
  readonly predict: Prediction;
  readonly snrGamma: number;
  readonly timeSampling: TimeSampling;
  readonly steps: number;
  readonly batchSize: number;
  readonly lr: number;
  readonly lrSchedule: LrSchedule;
  readonly warmup: number;
  readonly weightDecay: number;
  readonly gradClip: number;
  readonly ema: number;
  readonly dropout: number;
  readonly sampleEvery: number;
  readonly saveEvery: number;
}

export const PRESET_NAMES = ['tiny', 'small', 'ddpm-cifar10'] as const;
export type PresetName = (typeof PRESET_NAMES)[number];

export const PRESETS: Readonly<Record<PresetName, Preset>> = {
  /** For a CPU: minutes on two cores with Fashion-MNIST. */
  tiny: {
    model: {
      block_out_channels: [16, 16, 32],
      down_block_types: ['DownBlock2D', 'DownBlock2D', 'DownBlock2D'],
      up_block_types: ['UpBlock2D', 'UpBlock2D', 'UpBlock2D'],
      layers_per_block: 1,
      norm_num_groups: 4,
      add_attention: false,
    },
    predict: 'v',
    snrGamma: 5,
    timeSampling: 'weighted',
    steps: 12_000,
    batchSize: 4,
    lr: 2e-3,
    lrSchedule: 'cosine',
    warmup: 200,
    weightDecay: 0,
    gradClip: 1,
    ema: 0.999,
    dropout: 0,
    sampleEvery: 2000,
    saveEvery: 2000,
  },
  /** For a GPU: Fashion-MNIST at full size, attention where 28 x 28 has become 14 x 14. */
  small: {
    model: {
      block_out_channels: [64, 128, 128],
      down_block_types: ['DownBlock2D', 'AttnDownBlock2D', 'DownBlock2D'],
      up_block_types: ['UpBlock2D', 'AttnUpBlock2D', 'UpBlock2D'],
      layers_per_block: 2,
      norm_num_groups: 16,
    },
    predict: 'eps',
    snrGamma: 0,
    timeSampling: 'uniform',
    steps: 20_000,
    batchSize: 128,
    lr: 4e-4,
    lrSchedule: 'cosine',
    warmup: 500,
    weightDecay: 0,
    gradClip: 1,
    ema: 0.9995,
    dropout: 0.1,
    sampleEvery: 1000,
    saveEvery: 2000,
  },
  /** The CIFAR-10 model of Ho et al. 2020 (appendix B), as google/ddpm-cifar10-32: 35,746,307 parameters. */
  'ddpm-cifar10': {
    model: {
      block_out_channels: [128, 256, 256, 256],
      down_block_types: ['DownBlock2D', 'AttnDownBlock2D', 'DownBlock2D', 'DownBlock2D'],
      up_block_types: ['UpBlock2D', 'UpBlock2D', 'AttnUpBlock2D', 'UpBlock2D'],
      layers_per_block: 2,
      norm_num_groups: 32,
    },
    predict: 'eps',
    snrGamma: 0,
    timeSampling: 'uniform',
    steps: 800_000,
    batchSize: 128,
    lr: 2e-4,
    lrSchedule: 'constant',
    warmup: 5000,
    weightDecay: 0,
    gradClip: 1,
    ema: 0.9999,
    dropout: 0.1,
    sampleEvery: 5000,
    saveEvery: 10_000,
  },
};

/**
 * The U-Net config of a preset for images of this size. A learned variance takes as many output channels again, and
 * self-conditioning as many input channels. `classes` is how many the images have, 0 for a model that does not know them; one row more stands for none.
 *
 * @throws DdpmError E-MODEL unless height and width are multiples of 2^(levels - 1): each level but the last halves the image going down
 *   and doubles it going up, and an odd size would not come back.
 */
export function modelConfig(preset: PresetName, image: { readonly channels: number; readonly height: number; readonly width: number }, { learnedVariance = false, selfCondition = false, classes = 0 } = {}): ModelConfig {
  const { model } = PRESETS[preset];
  const { channels, height, width } = image;
  const factor = (name: PresetName): number => 2 ** (PRESETS[name].model.block_out_channels.length - 1);
  const fits = (name: PresetName): boolean => height % factor(name) === 0 && width % factor(name) === 0;
  if (!fits(preset)) {
    const others = PRESET_NAMES.filter(fits);
    throw new DdpmError(
      'E-MODEL',
      `Preset ${preset} does not take images of ${height} x ${width}: its ${model.block_out_channels.length} levels halve them ` +
        `${model.block_out_channels.length - 1} times, so both sides must be multiples of ${factor(preset)}. ` +
        `Resize them: --image-size ${Math.ceil(Math.min(height, width) / factor(preset)) * factor(preset)}.` +
        (others.length ? ` These presets take them as they are: ${others.map((p) => `--preset ${p}`).join(', ')}.` : ''),
    );
  }
  // What all presets share is DDPM's own, which is not diffusers' default (padding, epsilon, embedding and heads differ).
  return {
    _class_name: 'UNet2DModel',
    ...(model.add_attention !== undefined && { add_attention: model.add_attention }),
    act_fn: 'silu',
    attention_head_dim: null,
    block_out_channels: model.block_out_channels,
    center_input_sample: false,
    down_block_types: model.down_block_types,
    downsample_padding: 0,
    flip_sin_to_cos: false,
    freq_shift: 1,
    in_channels: selfCondition ? 2 * channels : channels,
    layers_per_block: model.layers_per_block,
    mid_block_scale_factor: 1,
    norm_eps: 1e-6,
    norm_num_groups: model.norm_num_groups,
    ...(classes > 0 && { num_class_embeds: classes + 1 }),
    out_channels: learnedVariance ? 2 * channels : channels,
    sample_size: height === width ? height : [height, width],
    time_embedding_type: 'positional',
    up_block_types: model.up_block_types,
  };
}
