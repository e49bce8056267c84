// How far from 0 a predicted x_0 may lie.
import { DdpmError } from '../errors.ts';

/** Whether a predicted x_0 is clipped: to [-1, 1], to [-range, range] for a number (diffusers' `clip_sample_range`), or not at all. */
export type Clip = boolean | number;

/**
 * The range as kernels take it; 0 clips nothing.
 *
 * @throws DdpmError E-USAGE for a range that is not a positive number
 */
export function clipRange(clip: Clip): number {
  if (typeof clip === 'boolean') return Number(clip);
  if (clip > 0 && Number.isFinite(clip)) return clip;
  throw new DdpmError('E-USAGE', `x_0 cannot be clipped to a range of ${clip}: the range is a number above 0, such as 1 for [-1, 1]; false clips nothing.`);
}
