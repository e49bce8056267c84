// Float64 twins of the samplers: one row of a table, a whole table on any model, and the Gaussian whose score and flow are known.
import type { Row } from '../../src/diffusion/samplers/row.ts';
import type { Schedule } from '../../src/diffusion/schedule.ts';
import { clipped } from './diffusion.ts';

type Floats = ArrayLike<number>;

/** x, last and kept become what sampler_step makes of them; output has M >= C channels for the C of x. */
export function samplerStep(
  row: Omit<Row, 't' | 'to' | 'draw'>,
  a: { x: Floats; output: Floats; last: Floats; kept: Floats; z: Floats; clip: boolean | number; C?: number; M?: number },
): { x: Float64Array; start: Float64Array; kept: Float64Array } {
  const { x, output, last, kept, z, clip, C = 1, M = C } = a, n = x.length;
  const out = Float64Array.from({ length: n }, (_, i) => output[Math.floor(i / C) * M + (i % C)]);
  const start = Float64Array.from({ length: n }, (_, i) => clipped(row.startX * x[i] + row.startOutput * out[i], clip));
  return {
    start,
    x: start.map((s, i) => row.x * x[i] + row.start * s + row.last * last[i] + row.kept * kept[i] + row.output * out[i] + row.z * z[i]),
    kept: Float64Array.from(row.keep ? x : kept),
  };
}

/** Runs a table from x; the model gives the output at a timestep, `draw` the noise of a row. Every x, the start not among them. */
export function runTable(rows: readonly Row[], x: Floats, model: (x: Float64Array, t: number) => Float64Array, { clip = false, draw }: { clip?: boolean | number; draw?: (row: Row) => Floats } = {}): Float64Array[] {
  const zero = new Float64Array(x.length);
  let state: { x: Float64Array; start: Float64Array; kept: Float64Array } = { x: Float64Array.from(x), start: zero, kept: zero };
  return rows.map((row) => {
    state = samplerStep(row, { x: state.x, output: model(state.x, row.t), last: state.start, kept: state.kept, z: draw ? draw(row) : zero, clip });
    return state.x;
  });
}

/** Data that are N(mean, std^2) in every pixel, and everything about their diffusion in closed form. */
export class Gaussian {
  readonly schedule: Schedule;
  readonly mean: number;
  readonly std: number;

  constructor(schedule: Schedule, mean: number, std: number) {
    this.schedule = schedule;
    this.mean = mean;
    this.std = std;
  }

  acp(t: number): number {
    return t < 0 ? 1 : this.schedule.alphasCumprod[t];
  }

  /** Mean and variance of q(x_t). */
  moments(t: number): { mean: number; variance: number } {
    const a = this.acp(t);
    return { mean: Math.sqrt(a) * this.mean, variance: a * this.std ** 2 + 1 - a };
  }

  /** E[eps | x_t] = factor x + offset: what a perfect network gives; -sqrt(1 - acp) times the score. */
  eps(t: number): { factor: number; offset: number } {
    const { mean, variance } = this.moments(t), factor = Math.sqrt(1 - this.acp(t)) / variance;
    return { factor, offset: -factor * mean };
  }

  model = (x: Float64Array, t: number): Float64Array => {
    const { factor, offset } = this.eps(t);
    return x.map((v) => factor * v + offset);
  };

  /** Where the probability flow ODE takes x from t to another timestep: quantiles stay. */
  flow(x: number, t: number, to: number): number {
    const from = this.moments(t), next = this.moments(to);
    return next.mean + Math.sqrt(next.variance / from.variance) * (x - from.mean);
  }
}

/** w along the labels in the first C of M channels; the rest is the labelled network's. */
export const guide = (cond: Floats, uncond: Floats, w: number, C: number, M: number): Float64Array =>
  Float64Array.from({ length: cond.length }, (_, i) => (i % M < C ? uncond[i] + w * (cond[i] - uncond[i]) : cond[i]));

/** coef = a, b, c, d: x' = c (mask x + (1 - mask) (a known + b z)) + d jump, a mask value for each C values. */
export const repaint = (a: { x: Floats; known: Floats; mask: Floats; z: Floats; jump: Floats; coef: readonly number[]; C: number }): Float64Array =>
  Float64Array.from({ length: a.x.length }, (_, i) => {
    const m = a.mask[Math.floor(i / a.C)], [ca, cb, cc, cd] = a.coef as [number, number, number, number];
    return cc * (m * a.x[i] + (1 - m) * (ca * a.known[i] + cb * a.z[i])) + cd * a.jump[i];
  });
