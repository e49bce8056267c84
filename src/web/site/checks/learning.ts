// Checks of losses, of their gradients, and of the optimizer.
import { pointwise, threads } from '../../../autograd.ts';
import { overPixels } from '../../../ops/loss.ts';
import { abs, bound, boundError, boundSlope, boundValue, DIVIDE, logError, SQRT, ULP } from '../../../../test/ref/accuracy.ts';
import { posteriorTable } from '../../../../test/ref/diffusion.ts';
import * as loss from '../../../../test/ref/losses.ts';
import * as optim from '../../../../test/ref/optim.ts';
import { DEFAULTS } from '../../../variants.ts';
import { type Checks, type Floats, values } from './case.ts';

/** 5 images of 13 pixels, 3 of 6 channels; some differences are zero. */
const [N, P, C, M] = [5, 13, 3, 6] as const, DELTA = Math.fround(0.7);
function pair() {
  const pred = values(N * P * M, 1), goal = values(N * P * C, 2);
  for (let i = 0; i < N * P; i += 3) goal[i * C] = pred[i * M];
  return { pred, goal, deach: values(N, 3) };
}
function errorOf(f: (d: number) => number) {
  const { pred, goal } = pair(), want = loss.errorOfEach(pred, goal, N, C, M, f);
  // A difference rounds by half a unit of itself; nothing cancels in the sum.
  return { shape: `(${N}, ${P}, ${C} of ${M})`, grid: [N] as const, inputs: { pred, goal }, numbers: { N, P, C, M, delta: DELTA }, outputs: { each: { want, off: bound(P * C + 3, want) } } };
}
function gradientOf(derivative: (d: number) => number) {
  const { pred, goal, deach } = pair(), want = loss.errorGradient(pred, goal, deach, C, M, derivative);
  return { shape: `(${N}, ${P}, ${C} of ${M})`, grid: overPixels({ N, P }), inputs: { pred, goal, deach }, numbers: { N, P, C, M, delta: DELTA, accumulate: 0 }, outputs: { dpred: { want, off: bound(5, abs(want)) } } };
}

const images = 70, K = 4;
const terms = () => ({ simple: values(images, 1), vlb: values(images, 2), coef: values(K * images, 3), weight: values(images, 4).map(Math.abs), K, a: 1, b: 3 });

/** Levels of 256 diffused to each t, and a network that is off by a tenth, or less at t = 0; a learned variance on both sides of its range. */
function boundCase() {
  const t = [0, 500, 3, 999], size = 35, betas = Float64Array.from({ length: 1000 }, (_, i) => 1e-4 + ((0.02 - 1e-4) * i) / 999), table = posteriorTable(betas, 'learned_range'), small = posteriorTable(betas, 'fixed_small');
  const x0 = values(t.length * size, 1).map((v, i) => (i % 5 === 0 ? -1 : i % 7 === 0 ? 1 : Math.round((Math.tanh(v) + 1) * 127.5) / 127.5 - 1)), eps = values(x0.length, 2), error = values(x0.length, 3), v = values(x0.length, 4);
  const row = (i: number) => table.subarray(6 * t[Math.floor(i / size)], 6 * t[Math.floor(i / size)] + 6), output = new Float32Array(2 * x0.length);
  // a x_t + b output = x_0: with the noise as the output x_t is what eq. 4 says.
  const xt = x0.map((x, i) => (x - row(i)[1] * eps[i]) / row(i)[0]);
  for (let i = 0; i < x0.length; i++) output.set([(x0[i] + (t[Math.floor(i / size)] ? 0.1 : 0.004) * error[i] - row(i)[0] * xt[i]) / row(i)[1], v[i]], 2 * i);
  const a: loss.BoundCase = { betas, prediction: 'eps', variance: 'learned_range', t, output, x0, xt, C: 1 };
  const coef = Float32Array.from(t.flatMap((at) => [...table.subarray(6 * at, 6 * at + 6), small[6 * at + 4]]));
  return { a, size, shape: `${t.length} images of ${size}`, inputs: { t: Uint32Array.from(t), coef, output, x0, xt }, numbers: { size, K: 7, C: 1, M: 2 } };
}

export const LEARNING = {
  mse_forward: { twin: ['losses', 'errorOfEach'], make: () => errorOf((d) => d * d) },
  mse_backward: { twin: ['losses', 'errorGradient'], make: () => gradientOf((d) => 2 * d) },
  smooth_l1_forward: { twin: ['losses', 'smoothL1'], make: () => errorOf((d) => loss.smoothL1(d, DELTA)) },
  smooth_l1_backward: { twin: ['losses', 'smoothL1Derivative'], make: () => gradientOf((d) => loss.smoothL1Derivative(d, DELTA)) },
  objective_forward: { twin: ['losses', 'objective'], make: () => {
    const { simple, vlb, coef, weight } = terms(), want = loss.objective(terms()), sizes = loss.objective({ ...terms(), simple: abs(simple), vlb: abs(vlb), coef: abs(coef) });
    return { shape: `${images} images`, grid: [1], inputs: { simple, vlb, coef, weight }, numbers: { N: images, K, a: 1, b: 3, scaled: 1, two: 1, weighted: 1 }, outputs: { each: { want: want.each, off: bound(3, sizes.each) }, loss: { want: [want.loss], off: bound(images + 4, [sizes.loss]) } } };
  } },
  objective_backward: { twin: ['losses', 'objectiveGradient'], make: () => {
    const { coef, weight } = terms(), want = loss.objectiveGradient(3, coef, weight, K, 1);
    return { shape: `${images} images`, grid: threads(images), inputs: { dloss: Float32Array.of(3), coef, weight }, numbers: { N: images, K, column: 1, scaled: 1, weighted: 1, accumulate: 0 }, outputs: { dx: { want, off: want.map((v) => (2 * ULP + DIVIDE) * Math.abs(v)) } } };
  } },
  vlb_forward: { twin: ['losses', 'bound'], make: () => {
    const { a, size, shape, inputs, numbers } = boundCase(), want = loss.bound(a), off = bound(size, want);
    for (const e of loss.boundElements(a)) off[e.n] += (boundError(e, boundValue(e), 1 + Math.abs(e.nats)) + (e.t ? 0 : logError(Math.exp(-e.nats)))) / size / Math.LN2;
    return { shape, grid: [a.t.length], inputs, numbers: { ...numbers, clip: 0 }, outputs: { vlb: { want, off } } };
  } },
  vlb_backward: { twin: ['losses', 'boundGradient'], make: () => {
    const { a, size, shape, inputs, numbers } = boundCase(), dvlb = values(a.t.length, 5), want = loss.boundGradient(a, dvlb), off = new Float64Array(want.length);
    for (const e of loss.boundElements(a)) {
      // The terms of a derivative cancel; where they are large is where exp(-log variance) is.
      const scale = Math.abs(dvlb[e.n]) / size / Math.LN2, sizes = e.t ? 1 + Math.exp(e.trueLog - e.log) + (e.mean - e.trueMean) ** 2 * Math.exp(-e.log) : 10 + e.nats ** 2;
      off[e.at] = scale * Math.abs(e.c1 * e.b) * boundError(e, boundSlope(e, 0), sizes * Math.exp(-e.log / 2)) + 4 * ULP * Math.abs(want[e.at]);
      off[e.at + 1] = scale * Math.abs(e.d) * boundError(e, boundSlope(e, 1), sizes) + 4 * ULP * Math.abs(want[e.at + 1]);
    }
    return { shape, grid: threads(a.x0.length), inputs: { ...inputs, dvlb }, numbers: { ...numbers, N: a.t.length, fixed: 0, accumulate: 0 }, outputs: { doutput: { want, off } } };
  } },
  sum_squares: { twin: ['optim', 'partialSquares'], make: (_, on = 'cpu') => {
    const g = values(1003, 1), share = 100, want = optim.partialSquares(g, share);
    // Pairs of a sum and the index of what is not finite, of which there is none.
    return { shape: `(${g.length}) by ${share}`, grid: [want.length], inputs: { g }, numbers: { count: g.length, share, first: 0, offset: 0, WG: DEFAULTS[on].squares }, outputs: { part: { want, off: bound(share, want), pick: (got) => Array.from(want, (_, i) => got[2 * i]) } } };
  } },
  gradient_norm: { twin: ['optim', 'clipScale'], make: () => {
    const S = 4, sums = values(70, 1).map((v) => v * v), norm = Math.sqrt(sums.reduce((a, b) => a + b, 0)) / S, off = bound(70, [1])[0] / 2 + SQRT, scale = optim.clipScale(norm, 1) / S, after = optim.gradScaler({ scale: S, steps: 1999 }, true, 2000), corrections = [0.9, 0.999].map((beta) => optim.correction(beta, 7));
    const part = new Uint32Array(140).fill(0xffffffff), bits = new Uint32Array(sums.buffer);
    bits.forEach((word, i) => (part[2 * i] = word));
    return { shape: '70 partial sums', grid: [1], inputs: { part, loss: Float32Array.of(0.5), scaling: Float32Array.of(S, 1999), state: Float32Array.of(NaN, NaN, NaN, NaN, 6), history: new Uint32Array(20) }, numbers: { count: 70, ring: 4, growth: 2000, max_norm: 1, log_beta1: Math.log(0.9), log_beta2: Math.log(0.999) },
      outputs: { state: { want: [scale, norm, ...corrections, 7], off: [scale * (off + DIVIDE + ULP), norm * off, ...corrections.map((c) => 8 * ULP * c), 0] }, scaling: { want: [after.scale, after.steps], off: 0 } } };
  } },
  loss_gradient: { twin: ['optim', 'lossGradient'], make: () => ({ shape: '(1)', grid: [1], inputs: { scaling: Float32Array.of(1024, 3) }, numbers: { a: 0.375 }, outputs: { y: { want: [optim.lossGradient(0.375, 1024)], off: 0 } } }) },
  adamw: { twin: ['optim', 'adamw'], make: () => {
    const n = 103, [w, g, e] = [1, 2, 3].map((id) => values(n, id)), m = values(n, 4).map((v) => 0.1 * v), v = values(n, 5).map((z) => 0.01 * z * z), step = 7;
    const f = Math.fround, [beta1, beta2, eps, weightDecay, lr, emaDecay] = [f(0.9), f(0.999), f(1e-8), f(0.01), f(0.01), f(0.9)], c1 = optim.correction(beta1, step), c2 = optim.correction(beta2, step);
    const want = optim.adamw({ param: w, grad: g, m, v, ema: e, step, lr, beta1, beta2, eps, weightDecay, emaDecay }), sizes = (f_: (i: number) => number): Floats => Float64Array.from(w, (_, i) => f_(i));
    const mOff = bound(3, sizes((i) => beta1 * Math.abs(m[i]) + (1 - beta1) * Math.abs(g[i]))), vOff = bound(4, want.v);
    const wOff = w.map((value, i) => {
      // A division and a root each have their error, and one of v counts by half.
      const root = Math.sqrt(want.v[i] / c2) + eps, update = (lr * Math.abs(want.m[i])) / c1 / root, relative = 2 * DIVIDE + SQRT + 4 * ULP + vOff[i] / (2 * want.v[i]);
      return ((lr / c1) * mOff[i]) / root + update * relative + bound(2, [Math.abs(value) * (1 + lr * weightDecay) + update])[0];
    });
    const eOff = bound(2, sizes((i) => emaDecay * Math.abs(e[i]) + (1 - emaDecay) * Math.abs(want.param[i]))).map((o, i) => o + (1 - emaDecay) * wOff[i]);
    return {
      shape: `(${n})`, grid: pointwise(n), clock: { seed: 0, step: step - 1, lr, emaDecay }, inputs: { state: Float32Array.of(1, 1, c1, c2, step), g, w, m, v, e }, numbers: { beta1, beta2, eps, weight_decay: weightDecay },
      outputs: { w: { want: want.param, off: wOff }, m: { want: want.m, off: mOff }, v: { want: want.v, off: vOff }, e: { want: want.ema, off: eOff } },
    };
  } },
} as const satisfies Checks;
