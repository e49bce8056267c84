// The models that the page offers: the networks of two presets of the command line, and one that trains within a minute wherever WebGPU runs.
import { modelConfig } from '../../cli/presets.ts';
import { DdpmError } from '../../errors.ts';
import type { UNetFields } from '../../nn/config.ts';

export const MODELS = {
  mini: 'mini · 8 to 16',
  tiny: 'tiny · 16 to 32',
  small: 'small · 64 to 128',
} as const;
export type ModelName = keyof typeof MODELS;

export interface ImageSize {
  readonly height: number;
  readonly width: number;
  readonly channels: number;
}

/**
 * The config.json of a model for images of this size; of so many classes and none, where it is to know any.
 *
 * @throws DdpmError E-MODEL where the sides of the images do not halve as often as the model does it
 */
export function configOf(name: ModelName, image: ImageSize, classes = 0): UNetFields {
  const { height, width } = image;
  if (height % 4 || width % 4) throw new DdpmError('E-MODEL', `the model halves the sides of images twice, so they must be multiples of 4, and these are ${height} × ${width}. Choose others.`);
  if (name !== 'mini') return modelConfig(name, image, { classes }) as unknown as UNetFields;
  // The levels of tiny without its last one; an image that suits tiny suits it.
  const tiny = modelConfig('tiny', image, { classes });
  return { ...tiny, block_out_channels: [8, 16], down_block_types: tiny.down_block_types.slice(0, 2), up_block_types: tiny.up_block_types.slice(0, 2) };
}
