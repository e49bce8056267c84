// Twins of the random kernels: every number is a function of (seed, stream, step, sample, element), never of the batch it is drawn in.
import { normal4, philox4x32, STREAM } from '../../src/philox.ts';

export interface Draw {
  seed: number;
  stream: number;
  step: number;
  /** Ids of the samples drawn, one a row. */
  samples: ArrayLike<number>;
  /** Elements of each sample. */
  count: number;
}

/** The block of four words that elements 4b … 4b+3 of a sample come from. */
const block = ({ seed, stream, step }: Draw, sample: number, b: number) => philox4x32([b, sample, step, 0], [seed, stream]);

/** → words (samples,count) */
export function words(d: Draw): Uint32Array {
  const out = new Uint32Array(d.samples.length * d.count);
  for (let n = 0; n < d.samples.length; n++)
    for (let b = 0; 4 * b < d.count; b++) {
      const four = block(d, d.samples[n], b);
      for (let e = 4 * b; e < Math.min(4 * b + 4, d.count); e++) out[n * d.count + e] = four[e & 3];
    }
  return out;
}

/** → standard normals (samples,count) */
export function normals(d: Draw): Float64Array {
  const out = new Float64Array(d.samples.length * d.count);
  for (let n = 0; n < d.samples.length; n++)
    for (let b = 0; 4 * b < d.count; b++) {
      const four = normal4(block(d, d.samples[n], b));
      for (let e = 4 * b; e < Math.min(4 * b + 4, d.count); e++) out[n * d.count + e] = four[e & 3];
    }
  return out;
}

/** → 0 or 1 with equal probability, the lowest bit of each word (samples,count) */
export const coins = (d: Draw): Uint32Array => words(d).map((word) => word & 1);

/** A word as an integer in [0, n): the high word of word · n. */
export const uniformInt = (word: number, n: number): number => Number((BigInt(word) * BigInt(n)) >> 32n);

/** → integers in [0, n), (samples,count) */
export const uniformInts = (d: Draw, n: number): Uint32Array => words(d).map((word) => uniformInt(word, n));

/** The i-th element of a shuffle of [0, n) that is never stored: a Feistel network on 2h bits, walked until it lands below n. */
export function permute(i: number, n: number, { seed, epoch }: { seed: number; epoch: number }): number {
  let h = 1;
  while (2 ** (2 * h) < n) h++; // h = ceil(log2(n) / 2), at least 1
  const mask = 2 ** h - 1;
  let x = i;
  do {
    let left = (x >>> h) & mask, right = x & mask;
    for (let round = 0; round < 4; round++) {
      const f = philox4x32([right, round, epoch, 0], [seed, STREAM.order])[0] & mask;
      [left, right] = [right, (left ^ f) >>> 0];
    }
    x = ((left << h) | right) >>> 0;
  } while (x >= n);
  return x;
}
