// Checks of group normalisation over two inputs, with SiLU, and of what modulates it.
import { threads } from '../../../autograd.ts';
import type { DeviceClass } from '../../../gpu/device-class.ts';
import { normOverrides, usualNorm } from '../../../ops/group_norm.ts';
import { abs, bound, groupNormErrors } from '../../../../test/ref/accuracy.ts';
import { film, filmBackward } from '../../../../test/ref/film.ts';
import { groupNorm, groupNormBackward } from '../../../../test/ref/group_norm.ts';
import { type Checks, type Floats, type Stored, values, whole } from './case.ts';

const [N, P, eps] = [2, 35, 1e-5] as const;

/** Groups across both inputs. */
function shapeOf(stored: Stored, on: DeviceClass, C0: number, C1: number, G: number) {
  const vec4 = C0 % 4 === 0 && (C0 + C1) / G % 4 === 0, { WG, GROUPS, COLS } = normOverrides({ deviceClass: on, subgroupWidth: 0 }, usualNorm(on, P, vec4), G, (C0 + C1) / G / (vec4 ? 4 : 1));
  const C = C0 + C1, x = stored(values(N * P * C0, 1)), x2 = stored(values(N * P * C1, 2).map((v) => 2 * v + 0.5)), gamma = values(C, 3).map((v) => 1 + 0.3 * v), beta = values(C, 4), dy = stored(values(N * P * C, 5));
  return { twin: { x, x2, gamma, beta, N, P, C0, C1, G, eps, silu: true }, inputs: { x, x2, gamma, beta }, dy, C, numbers: { N, P, C0, C1, G, silu: 1, eps, accumulate: 0, accumulate2: 0, per_image: 0, stream: 0, p: 0, WG, GROUPS, COLS }, shape: `(${N}, ${P}, ${C0} + ${C1}), ${G} groups`, grid: [G / GROUPS, N] as const };
}

function forward(stored: Stored = whole, on: DeviceClass = 'cpu', ...channels: [number, number, number]) {
  const { twin, inputs, numbers, shape, grid, dy } = shapeOf(stored, on, ...channels), { y } = groupNorm(twin);
  return { shape, grid, inputs: { ...inputs, clock: new Float32Array(4), stats: new Float32Array(4 * N * twin.G) }, numbers, outputs: { y: { want: y, off: groupNormErrors(twin, dy).y } } };
}

/** What the backward pass finds, and leaves with two inputs for the second, image by image: the moments of each group, the sums for gamma and beta, and the means of each group. */
function sumsOf(stored: Stored = whole, on: DeviceClass = 'cpu', ...channels: [number, number, number]) {
  const { twin, dy, C } = shapeOf(stored, on, ...channels), { G, C0, C1, gamma } = twin, D = C / G, { stats } = groupNorm(twin);
  const part: number[] = [], off: number[] = [], means: number[] = [], meansOff: number[] = [];
  for (let n = 0; n < N; n++) {
    const image = (v: Float32Array, width: number) => v.subarray(n * P * width, (n + 1) * P * width), one = { ...twin, N: 1, x: image(twin.x, C0), x2: image(twin.x2, C1) };
    const want = groupNormBackward({ ...one, dy: image(dy, C) }), error = groupNormErrors(one, image(dy, C));
    part.push(...want.dgamma, ...want.dbeta);
    off.push(...error.dgamma, ...error.dbeta);
    for (let g = 0; g < G; g++) {
      const mean = (v: Floats, f = (x: number) => x) => Array.from({ length: D }, (_, i) => f(gamma[g * D + i] * v[g * D + i])).reduce((a, b) => a + b, 0) / (P * D);
      means.push(stats[2 * (n * G + g)], stats[2 * (n * G + g) + 1], mean(want.dbeta), mean(want.dgamma));
      // What is passed on is exact; the sums have their errors, and D more roundings.
      meansOff.push(0, 0, mean(error.dbeta, Math.abs) + bound(D + 2, [mean(want.dbeta, Math.abs)])[0], mean(error.dgamma, Math.abs) + bound(D + 2, [mean(want.dgamma, Math.abs)])[0]);
    }
  }
  return { stats: Float32Array.from({ length: 4 * N * G }, (_, i) => (i % 4 < 2 ? stats[2 * Math.floor(i / 4) + (i % 4)]! : 0)), part, off, means: Float32Array.from(means), meansOff };
}

/** Both gradients at once, of one input. */
function backward(stored: Stored = whole, on: DeviceClass = 'cpu', C: number, G: number) {
  const { twin, inputs, numbers, shape, grid, dy } = shapeOf(stored, on, C, 0, G), { stats, part, off } = sumsOf(stored, on, C, 0, G), { x, gamma, beta } = inputs;
  return { shape, grid, inputs: { x, gamma, beta, dy, stats }, numbers: { ...numbers, TWO: 0 }, outputs: { part: { want: part, off }, dx: { want: groupNormBackward({ ...twin, dy }).dx, off: groupNormErrors(twin, dy).dx } } };
}

/** The first pass of two inputs. */
function backwardSums(stored: Stored = whole, on: DeviceClass = 'cpu', ...channels: [number, number, number]) {
  const { inputs, numbers, shape, grid, dy } = shapeOf(stored, on, ...channels), { stats, part, off, means, meansOff } = sumsOf(stored, on, ...channels);
  return { shape, grid, inputs: { ...inputs, dy, stats }, numbers, outputs: { part: { want: part, off }, stats: { want: means, off: meansOff.map((v, i) => v + 2 ** -24 * Math.abs(means[i]) * Number(i % 4 > 1)) } } };
}

function backwardInput(stored: Stored = whole, on: DeviceClass = 'cpu', ...channels: [number, number, number]) {
  const { twin, inputs, numbers, shape, grid, dy } = shapeOf(stored, on, ...channels), want = groupNormBackward({ ...twin, dy }), off = groupNormErrors(twin, dy);
  return { shape, grid, inputs: { ...inputs, dy, stats: sumsOf(stored, on, ...channels).means }, numbers, outputs: { dx: { want: want.dx, off: off.dx }, dx2: { want: want.dx2, off: off.dx2 } } };
}

/** Group norm's gamma and beta under a scale and a shift of each image's own. */
function modulation() {
  const images = 5, C = 13, gamma = values(C, 1), beta = values(C, 2), s = values(2 * images * C, 3), dy = values(2 * images * C, 4), a = { gamma, beta, s, N: images, C };
  const sizes = { gamma: abs(gamma), beta: abs(beta), s: abs(s), N: images, C };
  return { a, dy, shape: `(${images}, 2, ${C})`, grid: threads(images * C), numbers: { N: images, C }, y: { want: film(a), off: bound(3, film(sizes)) }, back: filmBackward({ ...a, dy }), backSizes: filmBackward({ ...sizes, dy: abs(dy) }) };
}

export const NORMS = {
  group_norm_forward: { twin: ['group_norm', 'groupNorm'], make: (stored, on) => forward(stored, on, 5, 4, 3) },
  group_norm_forward_vec4: { twin: ['group_norm', 'groupNorm'], make: (stored, on) => forward(stored, on, 12, 12, 3) },
  group_norm_backward: { twin: ['group_norm', 'groupNormBackward'], make: (stored, on) => backwardSums(stored, on, 5, 4, 3) },
  group_norm_backward_vec4: { twin: ['group_norm', 'groupNormBackward'], make: (stored, on) => backward(stored, on, 24, 3) },
  group_norm_backward_input: { twin: ['group_norm', 'groupNormBackward'], make: (stored, on) => backwardInput(stored, on, 5, 4, 3) },
  group_norm_backward_input_vec4: { twin: ['group_norm', 'groupNormBackward'], make: (stored, on) => backwardInput(stored, on, 12, 12, 3) },
  film_forward: { twin: ['film', 'film'], make: () => {
    const { a, y, shape, grid, numbers } = modulation();
    return { shape, grid, inputs: { gamma: a.gamma, beta: a.beta, s: a.s }, numbers, outputs: { y } };
  } },
  film_backward: { twin: ['film', 'filmBackward'], make: () => {
    const { a, dy, shape, grid, numbers, back, backSizes } = modulation();
    return { shape, grid, inputs: { gamma: a.gamma, beta: a.beta, dy }, numbers: { ...numbers, accumulate: 0 }, outputs: { ds: { want: back.ds, off: bound(2, backSizes.ds) } } };
  } },
  film_fold: { twin: ['film', 'filmBackward'], make: () => {
    const { a, dy, shape, numbers, back, backSizes } = modulation();
    return { shape, grid: [1], inputs: { s: a.s, dy }, numbers: { ...numbers, accumulate: 0 }, outputs: { dgamma: { want: back.dgamma, off: bound(a.N + 2, backSizes.dgamma) }, dbeta: { want: back.dbeta, off: bound(a.N + 2, backSizes.dbeta) } } };
  } },
} as const satisfies Checks;
