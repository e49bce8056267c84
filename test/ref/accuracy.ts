// How far float32 and WGSL may be off, for comparing kernels with the float64 twins: sums, functions, and the twins whose errors need an analysis of their own.
import { unit } from '../../src/philox.ts';
import { type GroupNorm, groupNorm } from './group_norm.ts';
import { type BoundElement, decoderNll, decoderNllGradient, normalKl, normalKlGradient } from './losses.ts';
import { concatChannels, splitChannels } from './pointwise.ts';
import { type Draw, words } from './random.ts';

type Floats = ArrayLike<number>;

// ---- sums

/** |x|. A twin that is a sum of products gives the sum of absolute products when it is called with the absolute values of its inputs. */
export const abs = (x: Floats): Float64Array => Float64Array.from({ length: x.length }, (_, i) => Math.abs(x[i]));

/**
 * How far a sum of k float32 products may be off, for each element, given the sum of its absolute products.
 *
 * Each product and each partial sum is rounded by at most 2^-24 of itself, so in any order the error is at most about k 2^-24 absSum;
 * roundings have random signs, so it grows as sqrt(k) 2^-24 absSum (Higham & Mary, 2019), and c = 4 leaves room for the tail.
 * Losing a single product of k costs about absSum / k: it shows while k < 20,000. The last term is for results flushed to zero.
 */
export const bound = (k: number, absSum: Floats, c = 4): Float64Array =>
  Float64Array.from({ length: absSum.length }, (_, i) => c * Math.sqrt(k) * 2 ** -24 * absSum[i] + k * 2 ** -126);

// ---- how exact WGSL's functions are, on every device (W3C, "Accuracy of concrete floating point expressions")

/** One unit in the last place, relative to the value, at most. Correctly rounded operations are off by half of it. */
export const ULP = 2 ** -23;
/** exp(x) is off by at most so many units. */
export const expUlps = (x: number): number => 3 + 2 * Math.abs(x);
/** A quotient; a square root or its reciprocal. */
export const DIVIDE = 2.5 * ULP;
export const SQRT = 4.5 * ULP;
/** log(x), absolutely: 2^-21 between 0.5 and 2, else three units. */
export const logError = (x: number): number => (x >= 0.5 && x <= 2 ? 2 ** -21 : 3 * ULP * Math.abs(Math.log(x)));
/** 1 / (1 + exp(-x)), relative: the error of exp counts by its share of the sum. */
export const sigmoidError = (x: number): number => ULP * (expUlps(x) / (1 + Math.exp(x)) + 0.5) + DIVIDE;

/** A standard normal whose radius r = sqrt(-2 log u) comes from this word: an error e of r^2 is e / 2r, but at most sqrt(e); turn() rounds numbers up to 1. */
export function normalError(word: number): number {
  const r = Math.sqrt(-2 * Math.log(unit(word))), e = 2 * logError(unit(word));
  return Math.min(e / (2 * r), Math.sqrt(e)) + r * (SQRT + 2 * ULP);
}

/** normalError of all that normals(draw) gives: the first word of each pair makes the radius. */
export function normalErrors(draw: Draw): Float64Array {
  const bits = words({ ...draw, count: draw.count + 1 }); // an odd count ends in half a pair
  return Float64Array.from({ length: draw.samples.length * draw.count }, (_, i) => {
    const j = i % draw.count;
    return normalError(bits[Math.floor(i / draw.count) * (draw.count + 1) + j - (j & 1)]);
  });
}

// ---- group norm

/**
 * How far each result may be off. The roundings of a computation are those of the largest numbers that it goes through, so a size is propagated
 * along with every value: that of x - mean is |x| + |mean|; the variance comes from squares about the group's first value, whose mean may be larger than
 * the variance, and an error of the variance scales xhat. SiLU's first and second derivative stay below 1.1 and 0.5, and its exp is off by 3 + 2 |h| units.
 * Errors of sums over a group of m values grow as sqrt(m), as in bound().
 */
export function groupNormErrors(a: GroupNorm, dy: Floats) {
  const { N, P, C0, C1 = 0, G } = a, C = C0 + C1, D = C / G, m = P * D;
  const x = a.x2 ? concatChannels(a.x, a.x2, N * P, C0, C1) : a.x, { stats } = groupNorm(a);
  const at = (i: number) => {
    const n = Math.floor(i / (P * C)), g = Math.floor((i % C) / D);
    return { n, g, mean: stats[2 * (n * G + g)], rstd: stats[2 * (n * G + g) + 1] };
  };
  const fill = (f: (i: number, c: number) => number) => Float64Array.from({ length: N * P * C }, (_, i) => f(i, i % C));
  const groupMean = (v: Floats) => {
    const means = new Float64Array(N * G);
    for (let i = 0; i < N * P * C; i++) means[at(i).n * G + at(i).g] += v[i] / m;
    return fill((i) => means[at(i).n * G + at(i).g]);
  };
  const spread = groupMean(fill((i) => ((x[i] - x[at(i).n * P * C + at(i).g * D]) * at(i).rstd) ** 2));
  const xhat = fill((i) => (x[i] - at(i).mean) * at(i).rstd);
  const xSize = fill((i) => at(i).rstd * (Math.abs(x[i]) + Math.abs(at(i).mean)) + Math.abs(xhat[i]) * spread[i]);
  const hSize = fill((i, c) => Math.abs(a.gamma[c]) * xSize[i] + Math.abs(a.beta[c]));
  const dSize = fill((i, c) => Math.abs(dy[i]) * (a.silu ? 2 + hSize[i] + Math.abs(a.gamma[c] * xhat[i] + a.beta[c]) : 1));
  const eSize = fill((i, c) => Math.abs(a.gamma[c]) * dSize[i]), meanE = groupMean(eSize), meanEX = groupMean(fill((i) => eSize[i] * xSize[i]));
  const channelSum = (v: Floats) => {
    const sums = new Float64Array(C);
    for (let i = 0; i < N * P * C; i++) sums[i % C] += v[i];
    return sums;
  };
  const [dx, dx2] = splitChannels(fill((i) => at(i).rstd * (eSize[i] + meanE[i] + xSize[i] * meanEX[i])), N * P, C0, C1);
  return {
    y: bound(m, hSize),
    dx: bound(m, dx),
    dx2: bound(m, dx2),
    dgamma: bound(N * m, channelSum(fill((i) => dSize[i] * xSize[i]))),
    dbeta: bound(N * m, channelSum(fill((i) => dSize[i] * (a.silu ? 1 : 0)))).map((v, c) => v + bound(N * P, channelSum(abs(dy)))[c]),
  };
}

// ---- the variational bound

/**
 * What float32 allows a function of (mean, log variance): its own spread where they are off by their roundings, and the roundings of its value.
 * The spread is measured on the twin, so that it is large where the function is steep.
 */
export function boundError(e: BoundElement, f: (mean: number, log: number) => number, scale: number): number {
  const meanError = e.c1 * bound(3, [Math.abs(e.a * e.xt) + Math.abs(e.b * e.out) + Math.abs(e.x)])[0] + bound(2, [Math.abs(e.mean)])[0];
  // Everything is a function of mean / sigma and sigma: an error of exp() is one of the log variance.
  const logError_ = bound(3, [Math.abs(e.c) + Math.abs(e.d * e.v)])[0] + 2 * ULP * (expUlps(e.log) + 4);
  const middle = f(e.mean, e.log);
  const spread = (dm: number, dl: number) => Math.abs(f(e.mean + dm, e.log + dl) - middle);
  return spread(meanError, 0) + spread(-meanError, 0) + spread(0, logError_) + spread(0, -logError_) + 16 * ULP * scale;
}

export const boundValue = (e: BoundElement) => (mean: number, log: number) => (e.t ? normalKl(e.trueMean, e.trueLog, mean, log) : decoderNll(e.x, mean, log));
export const boundSlope = (e: BoundElement, which: 0 | 1) => (mean: number, log: number) =>
  (e.t ? normalKlGradient(e.trueMean, e.trueLog, mean, log) : decoderNllGradient(e.x, mean, log))[which];
