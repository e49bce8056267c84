// Float64 twins of the losses, written as the papers and DDPM's code have them, and of their gradients.
import type { Prediction, Variance } from './diffusion.ts';
import { clipped, posteriorTable } from './diffusion.ts';

type Floats = ArrayLike<number>;

/** smooth_l1 of one difference; the absolute value for delta = 0. */
export const smoothL1 = (d: number, delta: number): number => (Math.abs(d) < delta ? (d * d) / (2 * delta) : Math.abs(d) - delta / 2);
export const smoothL1Derivative = (d: number, delta: number): number => (Math.abs(d) < delta ? d / delta : Math.sign(d));

/** KL(N(m1, exp(l1)) || N(m2, exp(l2))) in nats. */
export const normalKl = (m1: number, l1: number, m2: number, l2: number): number => 0.5 * (-1 + l2 - l1 + Math.exp(l1 - l2) + (m1 - m2) ** 2 * Math.exp(-l2));
/** Its derivatives by m2 and l2. */
export const normalKlGradient = (m1: number, l1: number, m2: number, l2: number): [number, number] => [
  (m2 - m1) * Math.exp(-l2),
  0.5 * (1 - Math.exp(l1 - l2) - (m1 - m2) ** 2 * Math.exp(-l2)),
];

const ROOT = Math.sqrt(2 / Math.PI);
/** The normal distribution's function as DDPM's code approximates it. */
export const normalCdf = (x: number): number => 0.5 * (1 + Math.tanh(ROOT * (x + 0.044715 * x ** 3)));
const normalPdf = (x: number): number => 0.5 * ROOT * (1 + 3 * 0.044715 * x * x) / Math.cosh(ROOT * (x + 0.044715 * x ** 3)) ** 2;

const levelProbability = (x: number, upper: number, lower: number): number => (x < -0.999 ? normalCdf(upper) : x > 0.999 ? 1 - normalCdf(lower) : normalCdf(upper) - normalCdf(lower));

/** -log of the probability that N(mean, exp(logVariance)) gives the level x of 256, with open ends, in nats. */
export function decoderNll(x: number, mean: number, logVariance: number): number {
  const rate = Math.exp(-logVariance / 2);
  return -Math.log(Math.max(1e-12, levelProbability(x, (x - mean + 1 / 255) * rate, (x - mean - 1 / 255) * rate)));
}
/** Its derivatives by mean and log variance; zero where the probability is cut off. */
export function decoderNllGradient(x: number, mean: number, logVariance: number): [number, number] {
  const rate = Math.exp(-logVariance / 2), u = (x - mean + 1 / 255) * rate, l = (x - mean - 1 / 255) * rate;
  const p = levelProbability(x, u, l), du = x > 0.999 ? 0 : normalPdf(u), dl = x < -0.999 ? 0 : normalPdf(l);
  return p < 1e-12 ? [0, 0] : [(rate * (du - dl)) / p, (u * du - l * dl) / (2 * p)];
}

export interface BoundCase {
  betas: Floats;
  prediction: Prediction;
  variance: Variance;
  t: readonly number[];
  /** (N, size / C, C or 2 C) */
  output: Floats;
  x0: Floats;
  xt: Floats;
  C: number;
  clip?: boolean | number;
}

/** Every element of every image: the term in nats, its derivatives by the output's mean channel and by v, and what they were made of. */
export function boundElements({ betas, prediction, variance, t, output, x0, xt, C, clip = false }: BoundCase) {
  const table = posteriorTable(betas, variance, prediction), small = posteriorTable(betas, 'fixed_small');
  const size = x0.length / t.length, learned = variance.startsWith('learned'), M = learned ? 2 * C : C;
  return Array.from(x0, (x, i) => {
    const n = Math.floor(i / size), row = 6 * t[n], [a, b, c1, c2, c, d] = table.subarray(row, row + 6);
    const at = Math.floor(i / C) * M + (i % C), v = learned ? output[at + C] : 0;
    const start = clipped(a * xt[i] + b * output[at], clip);
    const mean = c1 * start + c2 * xt[i], log = c + d * v, trueMean = c1 * x + c2 * xt[i], trueLog = small[row + 4];
    const nats = t[n] > 0 ? normalKl(trueMean, trueLog, mean, log) : decoderNll(x, mean, log);
    const [byMean, byLog] = t[n] > 0 ? normalKlGradient(trueMean, trueLog, mean, log) : decoderNllGradient(x, mean, log);
    return { n, t: t[n], at, x, mean, trueMean, log, trueLog, v, nats, byOutput: byMean * c1 * b, byV: byLog * d, a, b, c1, c, d, xt: xt[i], out: output[at] };
  });
}

export type BoundElement = ReturnType<typeof boundElements>[number];

/** Bits a dimension of each image. */
export function bound(a: BoundCase): Float64Array {
  const each = new Float64Array(a.t.length), size = a.x0.length / a.t.length;
  for (const { n, nats } of boundElements(a)) each[n] += nats / size / Math.LN2;
  return each;
}

/** ∂(sum_n dvlb[n] bound[n]) / ∂output. */
export function boundGradient(a: BoundCase, dvlb: Floats, fixedMean = false): Float64Array {
  const d = new Float64Array(a.output.length), size = a.x0.length / a.t.length;
  for (const e of boundElements(a)) {
    const scale = dvlb[e.n] / size / Math.LN2;
    d[e.at] = fixedMean ? 0 : scale * e.byOutput;
    if (a.variance.startsWith('learned')) d[e.at + a.C] = scale * e.byV;
  }
  return d;
}

/** pred (N,P,M), goal (N,P,C) → the mean of f(pred - goal) over the first C channels of every image, (N). */
export function errorOfEach(pred: Floats, goal: Floats, N: number, C: number, M: number, f: (d: number) => number): Float64Array {
  const each = new Float64Array(N), size = goal.length / N;
  for (let i = 0; i < goal.length; i++) each[Math.floor(i / size)] += f(pred[Math.floor(i / C) * M + (i % C)] - goal[i]) / size;
  return each;
}

/** ∂(sum_n deach[n] each[n]) / ∂pred, with f's derivative. */
export function errorGradient(pred: Floats, goal: Floats, deach: Floats, C: number, M: number, derivative: (d: number) => number): Float64Array {
  const size = goal.length / deach.length;
  return Float64Array.from(pred as ArrayLike<number>, (v, i) => {
    const at = Math.floor(i / M) * C + (i % M);
    return i % M < C ? (deach[Math.floor(at / size)] * derivative(v - goal[at])) / size : 0;
  });
}

/** each[n] = coef[n,a] simple[n] + coef[n,b] vlb[n], and the mean of weight[n] each[n]. */
export function objective({ simple, vlb, coef, weight, K, a, b }: { simple: Floats; vlb: Floats; coef: Floats; weight: Floats; K: number; a: number; b: number }): { each: Float64Array; loss: number } {
  const each = Float64Array.from(simple as ArrayLike<number>, (v, n) => coef[K * n + a] * v + coef[K * n + b] * vlb[n]);
  return { each, loss: each.reduce((sum, v, n) => sum + weight[n] * v, 0) / each.length };
}

/** The gradient of that loss by the term whose factors are `column`. */
export const objectiveGradient = (dloss: number, coef: Floats, weight: Floats, K: number, column: number): Float64Array =>
  Float64Array.from(weight as ArrayLike<number>, (w, n) => (dloss * w * coef[K * n + column]) / weight.length);
