// Precision and recall of a set of samples (Kynkäänniemi et al., 2019): how many samples look real, and how much of what is real is among the samples.

import { DdpmError } from '../errors.ts';
import type { Features } from './frechet.ts';

export interface PrecisionRecall {
  /** Share of the samples that lie on the manifold of the real images: within the reach of one of them. */
  readonly precision: number;
  /** Share of the real images that lie on the manifold of the samples. */
  readonly recall: number;
}

/** Rows of a block: two blocks of 2,048 features fit a CPU's cache. */
const BLOCK = 64;

/**
 * The reach of a point is the distance to its k-th nearest neighbour in its own set, itself not counted; a set's manifold is what lies within the reach
 * of any of its points. The figures depend on the number of points: equal numbers of both are usual.
 *
 * @throws DdpmError E-SHAPE where the features are of different widths, E-USAGE where a set has no k-th neighbour
 */
export function precisionRecall(generated: Features, real: Features, k = 3, onProgress?: (done: number) => void): PrecisionRecall {
  checkSets(generated, real, k);
  let done = 0;
  const step = (): void => onProgress?.(++done / 3);
  const reachReal = reach(real, k);
  step();
  const reachGenerated = reach(generated, k);
  step();
  const insideReal = new Uint8Array(generated.count), insideGenerated = new Uint8Array(real.count);
  eachDistance(generated, real, (i, j, squared) => {
    if (squared <= reachReal[j]!) insideReal[i] = 1;
    if (squared <= reachGenerated[i]!) insideGenerated[j] = 1;
  });
  step();
  return { precision: share(insideReal), recall: share(insideGenerated) };
}

/** @throws DdpmError E-SHAPE where the features are of different widths, E-USAGE where a set has no k-th neighbour */
export function checkSets(generated: Features, real: Features, k: number): void {
  if (generated.width !== real.width) throw new DdpmError('E-SHAPE', `features of ${generated.width} and of ${real.width} values cannot be compared: they come from different extractors.`);
  const fewest = Math.min(generated.count, real.count);
  if (fewest <= k) throw new DdpmError('E-USAGE', `precision and recall look at the ${k} nearest neighbours of every image, and there are only ${fewest} images. Take more with --n.`);
}

/** The share of ones. */
export const share = (inside: Uint8Array): number => inside.reduce((a, b) => a + b, 0) / inside.length;

/** Puts a value into a list of the k smallest so far, which stands at `row` in ascending order. */
export function insert(nearest: Float64Array, row: number, k: number, value: number): void {
  if (!(value < nearest[row + k - 1]!)) return;
  let at = k - 1;
  for (; at > 0 && nearest[row + at - 1]! > value; at--) nearest[row + at] = nearest[row + at - 1]!;
  nearest[row + at] = value;
}

/** The squared distance of every point to its k-th nearest neighbour in the set. */
function reach(set: Features, k: number): Float64Array {
  // The k smallest so far of each point, in ascending order.
  const nearest = new Float64Array(set.count * k).fill(Infinity);
  eachDistance(set, null, (i, j, squared) => {
    insert(nearest, i * k, k, squared);
    insert(nearest, j * k, k, squared);
  });
  return Float64Array.from({ length: set.count }, (_, i) => nearest[i * k + k - 1]!);
}

/**
 * |x_p... - y_q...|^2 of `width` values from p and from q on, from the differences: |x|^2 + |y|^2 - 2xy would lose the small ones, which count here. Four
 * sums: a single one would wait for itself.
 */
export function squaredDistance(x: Float32Array, p: number, y: Float32Array, q: number, width: number): number {
  let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  const end = p + width;
  for (const whole = end - (width % 4); p < whole; p += 4, q += 4) {
    const d0 = x[p]! - y[q]!, d1 = x[p + 1]! - y[q + 1]!, d2 = x[p + 2]! - y[q + 2]!, d3 = x[p + 3]! - y[q + 3]!;
    s0 += d0 * d0;
    s1 += d1 * d1;
    s2 += d2 * d2;
    s3 += d3 * d3;
  }
  for (; p < end; p++, q++) s0 += (x[p]! - y[q]!) ** 2;
  return s0 + s1 + (s2 + s3);
}

/** Calls f for every pair with |a_i - b_j|^2; without b for every pair i > j of a. */
function eachDistance(a: Features, b: Features | null, f: (i: number, j: number, squared: number) => void): void {
  const { width } = a, x = a.data, { data: y, count } = b ?? a;
  for (let i0 = 0; i0 < a.count; i0 += BLOCK)
    for (let j0 = 0; j0 < count; j0 += BLOCK)
      for (let i = i0; i < Math.min(i0 + BLOCK, a.count); i++)
        for (let j = j0; j < Math.min(j0 + BLOCK, b ? count : i); j++) f(i, j, squaredDistance(x, i * width, y, j * width, width));
}
