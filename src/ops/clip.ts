// How far from 0 a predicted x_0 may lie.
import { DdpmError } from '../errors.ts';
import * as k from '../gpu/kernels.gen.ts';
import { withTensor, Tensor } from '../tensor.ts';

/** Dynamic thresholding (Saharia et al. 2022, section 2.3): x_0 is clipped to a quantile of its absolute values, image by image, and divided by it where it is above 1. */
export interface DynamicThreshold {
  /** Which quantile, 0.995 as a rule (diffusers' `dynamic_thresholding_ratio`). */
  readonly ratio: number;
  /** Upper limit of that quantile (`sample_max_value`); 1 is the same as clipping to [-1, 1]. */
  readonly max: number;
}

/** Whether a predicted x_0 is clipped: to [-1, 1], to [-range, range] for a number (diffusers' `clip_sample_range`), dynamically, or not at all. */
export type Clip = boolean | number | DynamicThreshold;

/** @throws DdpmError E-USAGE for what is none of these, a range that is not a positive number, a quantile that is none, or a threshold below 1 */
export function checkClip(clip: Clip): void {
  const refuse = (why: string): never => {
    throw new DdpmError('E-USAGE', `x_0 cannot be clipped ${why}`);
  };
  if (clip === null || !['boolean', 'number', 'object'].includes(typeof clip)) refuse(`by ${String(clip)}: it takes true, false, a range, or { ratio, max }.`);
  if (typeof clip === 'number' && !(clip > 0 && Number.isFinite(clip))) refuse(`to a range of ${clip}: it is a number above 0, such as 1 for [-1, 1]; false clips nothing.`);
  if (typeof clip !== 'object') return;
  if (!(clip.ratio >= 0 && clip.ratio <= 1)) refuse(`to the quantile ${clip.ratio} of its values: that lies between 0 and 1, such as 0.995.`);
  if (!(clip.max >= 1 && Number.isFinite(clip.max))) refuse(`to at most ${clip.max} by dynamic thresholding: that is at least 1.`);
}

/**
 * Runs `use` with an output whose x_0, coef[0] x + coef[1] output, is to be clipped to [-range, range] by the kernel that reads it; a range of 0 clips nothing. It is
 * the output that was given, but for dynamic thresholding, whose own is freed afterwards. coef (N, K), or one row for all images; x (N, ..., C); output
 * (N, ..., M), of which the first C count.
 */
export function clipped<T>(clip: Clip, { coef, x, output }: { readonly coef: Tensor; readonly x: Tensor; readonly output: Tensor }, use: (output: Tensor, range: number) => T): T {
  checkClip(clip);
  if (typeof clip !== 'object') return use(output, Number(clip));
  const { engine } = x, N = x.shape[0]!, size = x.size / N, C = x.shape.at(-1)!, at = clip.ratio * (size - 1), rank = Math.floor(at);
  return withTensor(Tensor.empty(engine, output.shape), (y) => {
    engine.run(k.dynamic_threshold, [N], {
      coef: coef.slice, output: output.slice, x: x.slice, y: y.slice,
      size, K: coef.shape.length === 1 ? 0 : coef.shape[1]!, C, M: (C * output.size) / x.size, rank, fraction: at - rank, most: clip.max,
    });
    return use(y, 0);
  });
}
