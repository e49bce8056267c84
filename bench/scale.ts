// npm run bench -- scale: what a preset's training step costs against batch size, resolution and width, one of them at a time.
import { PRESETS, type PresetName } from '../src/cli/presets.ts';
import { type Changes, imageOf } from './model.ts';

/** One training step, and how many times the images, pixels or channels of the first in its series it has. */
export interface Scaled {
  readonly label: string;
  readonly batch: number;
  readonly changes: Changes;
  readonly times: number;
}
export interface Series {
  readonly against: string;
  readonly steps: readonly Scaled[];
}

/** Batches up to the one asked for; then half, one and two times the sides and the channels, at a quarter of it, since two times the sides are four times the memory. */
export function series(preset: PresetName, batch: number): Series[] {
  const { block_out_channels: widths } = PRESETS[preset].model, unit = 2 ** (widths.length - 1), few = Math.max(1, Math.floor(batch / 4));
  // A preset's levels halve an image.
  const sizes = [0.5, 1, 2].map((factor) => Math.max(unit, Math.round((factor * imageOf(preset).size) / unit) * unit));
  const batches: number[] = [];
  for (let n = 1; n <= batch; n *= 4) batches.push(n);
  return [
    { against: 'batch', steps: batches.map((n) => ({ label: '', batch: n, changes: {}, times: n })) },
    { against: 'pixels', steps: sizes.map((size) => ({ label: `${size} x ${size}`, batch: few, changes: { size }, times: (size / sizes[0]!) ** 2 })) },
    { against: 'channels', steps: [0.5, 1, 2].map((width) => ({ label: `channels x ${width}`, batch: few, changes: { width }, times: 2 * width })) },
  ];
}
