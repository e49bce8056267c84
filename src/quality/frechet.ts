// The Fréchet distance between Gaussians fitted to two sets of features (Heusel et al., 2017), in float64.

import { DdpmError } from '../errors.ts';
import { type Matrix, traceOfRoot } from './nuclear_norm.ts';

/** Features of images, one row each. */
export interface Features {
  readonly count: number;
  readonly width: number;
  /** (count, width) */
  readonly data: Float32Array;
}

/** What the distance is made of: numpy's mean(axis=0) and cov(rowvar=False). */
export interface Statistics {
  readonly width: number;
  /** (width) */
  readonly mu: Float64Array;
  /** (width, width), divided by count - 1. */
  readonly sigma: Float64Array;
}

/** @throws DdpmError E-USAGE for fewer than two images, E-NONFINITE where a feature is not finite */
export function statistics({ count, width, data }: Features): Statistics {
  if (count < 2) throw new DdpmError('E-USAGE', `a covariance needs two images at least, and there ${count === 1 ? 'is one' : 'are none'}.`);
  const mu = new Float64Array(width), sigma = new Float64Array(width * width);
  for (let n = 0; n < count; n++) for (let i = 0; i < width; i++) mu[i]! += data[n * width + i]!;
  for (let i = 0; i < width; i++) mu[i]! /= count;
  if (!mu.every(Number.isFinite)) throw new DdpmError('E-NONFINITE', 'features of the images are not finite: the weights of the extractor or the images are damaged.');
  // Four images at a time: sigma is read and written a quarter as often.
  const rows = [0, 1, 2, 3].map(() => new Float64Array(width)) as [Float64Array, Float64Array, Float64Array, Float64Array];
  const [a, b, c, d] = rows;
  for (let n = 0; n < count; n += 4) {
    rows.forEach((row, k) => {
      for (let i = 0; i < width; i++) row[i] = n + k < count ? data[(n + k) * width + i]! - mu[i]! : 0;
    });
    for (let i = 0; i < width; i++) {
      const wa = a[i]!, wb = b[i]!, wc = c[i]!, wd = d[i]!;
      if (wa === 0 && wb === 0 && wc === 0 && wd === 0) continue;
      const out = sigma.subarray(i * width, (i + 1) * width);
      for (let j = i; j < width; j++) out[j]! += wa * a[j]! + wb * b[j]! + wc * c[j]! + wd * d[j]!;
    }
  }
  for (let i = 0; i < width; i++) for (let j = i; j < width; j++) sigma[j * width + i] = sigma[i * width + j] = sigma[i * width + j]! / (count - 1);
  return { width, mu, sigma };
}

const trace = ({ rows, data }: Matrix): number => {
  let sum = 0;
  for (let i = 0; i < rows; i++) sum += data[i * rows + i]!;
  return sum;
};

/**
 * |mu1 - mu2|^2 + Tr S1 + Tr S2 - 2 Tr (S1 S2)^(1/2): the squared 2-Wasserstein distance of the two Gaussians (Dowson & Landau, 1982).
 *
 * @throws DdpmError E-SHAPE where the two are of different widths
 */
export function frechetDistance(a: Statistics, b: Statistics): number {
  const { width } = a;
  if (b.width !== width) throw new DdpmError('E-SHAPE', `statistics of ${width} and of ${b.width} features cannot be compared: they come from different extractors.`);
  let distance = 0;
  for (let i = 0; i < width; i++) distance += (a.mu[i]! - b.mu[i]!) ** 2;
  const [s1, s2] = [a, b].map(({ sigma }): Matrix => ({ rows: width, columns: width, data: sigma })) as [Matrix, Matrix];
  // What rounding leaves below zero is zero.
  return Math.max(0, distance + trace(s1) + trace(s2) - 2 * traceOfRoot(s1, s2));
}
