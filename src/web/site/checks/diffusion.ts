// Checks of draws, batches, the forward process and the steps of the reverse one.
import { threads } from '../../../autograd.ts';
import { type Row, rowValues } from '../../../diffusion/samplers/row.ts';
import { STREAM } from '../../../philox.ts';
import { abs, bound, DIVIDE, expUlps, normalErrors, SQRT, ULP } from '../../../../test/ref/accuracy.ts';
import * as twin from '../../../../test/ref/diffusion.ts';
import { importanceDraw, importanceUpdate, importanceWeights } from '../../../../test/ref/importance.ts';
import { coins, normals, permute, uniformInts, words } from '../../../../test/ref/random.ts';
import { guide, repaint, samplerStep } from '../../../../test/ref/sampler.ts';
import { type Checks, draw, type Floats, integers, TICK, values } from './case.ts';

/** Images of 17 pixels and 3 channels; of the network's M channels the second half is for the variance. Every image has a t of its own. */
const [N, size, C, M] = [5, 51, 3, 6] as const, t = Uint32Array.of(0, 999, 1, 500, 0), shape = `(${N}, ${size / C}, ${C})`;
const T = 1000, betas = Float64Array.from({ length: T }, (_, i) => 1e-4 + ((0.02 - 1e-4) * i) / (T - 1));
const image = (i: number) => Math.floor(i / size), fours = threads(N * Math.ceil(size / 4));
/** A row of factors for each image, as float32. */
const rows = (K: number, f: (n: number) => Floats) => Float32Array.from({ length: N * K }, (_, i) => f(Math.floor(i / K))[i % K]);
const acp = (n: number) => betas.subarray(0, t[n] + 1).reduce((product, beta) => product * (1 - beta), 1);
/** What a pair of factors makes of |a| and |b|. */
const pairSizes = (coef: Floats, a: Floats, b: Floats) => twin.qSample(abs(a), abs(b), abs(coef));
const inMean = (v: Floats) => (i: number) => v[Math.floor(i / C) * M + (i % C)];

function combined() {
  const u = values(N * size, 1), v = values(N * size, 2), coef = rows(2, (n) => [Math.sqrt(acp(n)), Math.sqrt(1 - acp(n))]);
  return { u, v, coef };
}

/** Histories whose losses fall with t, some a hundredfold. */
function history() {
  const losses = Float32Array.from({ length: 100 * 11 }, (_, i) => (i % 11 === 10 ? 10 + (i % 7) : ((1 + (i % 3)) * (Math.floor(i / 11) % 7 ? 0.01 : 1) * 100) / (100 + i)));
  return { losses, ...importanceWeights(losses, 100) };
}

export const DIFFUSION = {
  random_normal: { twin: ['random', 'normals'], make: () => {
    const d = draw(STREAM.noise, N, size);
    return { shape: `(${N}, ${size})`, grid: fours, inputs: {}, numbers: { N, size, stream: STREAM.noise }, outputs: { z: { want: normals(d), off: normalErrors(d) } } };
  } },
  random_integers: { twin: ['random', 'uniformInts'], make: () => ({ shape: '(70) below 1000', grid: threads(70), inputs: {}, numbers: { N: 70, high: 1000, stream: STREAM.time }, outputs: { k: { want: uniformInts(draw(STREAM.time, 70, 1), 1000), off: 0 } } }) },
  shuffle_indices: { twin: ['random', 'permute'], make: () => {
    const count = 60, batch = 64, want = Uint32Array.from({ length: batch }, (_, n) => {
      const p = TICK.step * batch + n;
      return permute(p % count, count, { seed: TICK.seed, epoch: Math.floor(p / count) });
    });
    return { shape: `${batch} of ${count}`, grid: threads(batch), inputs: {}, numbers: { N: batch, count, half: 3, stream: STREAM.order }, outputs: { index: { want, off: 0 } } };
  } },
  gather_batch: { twin: ['diffusion', 'batchGather'], make: () => {
    const [batch, H, W, count, split] = [11, 4, 3, 20, 12] as const, each = H * W * C, bytes = Uint8Array.from(integers(count * each, 251)), index = integers(batch, count);
    const part = (from: number, to: number) => new Uint32Array(bytes.slice(each * from, each * to).buffer), want = twin.batchGather(bytes, index, coins(draw(STREAM.flip, batch, 1)), H, W, C);
    // u / 127.5 - 1 is rounded twice, and a quotient may be off by 2.5 units of a number below 2.
    return { shape: `${batch} of (${count}, ${H}, ${W}, ${C})`, grid: threads(want.length), inputs: { index, data: part(0, split), data_rest: part(split, count) }, numbers: { N: batch, H, W, C, split, flip: 1, stream: STREAM.flip }, outputs: { x: { want, off: want.map(() => 6 * ULP) } } };
  } },
  schedule_gather: { twin: ['diffusion', 'scheduleGather'], make: () => {
    const K = 13, table = values(20 * K, 1), at = integers(9, 20);
    return { shape: `9 of (20, ${K})`, grid: threads(9 * K), inputs: { table, t: at }, numbers: { N: 9, K, T: 20 }, outputs: { coef: { want: twin.scheduleGather(table, at, K), off: 0 } } };
  } },
  q_sample: { twin: ['diffusion', 'qSample'], make: () => {
    const x0 = values(N * size, 1), d = draw(STREAM.noise, N, size), z = normals(d), error = normalErrors(d);
    const coef = rows(3, (n) => [Math.sqrt(acp(n)), -Math.sqrt(1 - acp(n)), Math.sqrt(1 - acp(n))]), pair = (a: number, b: number) => Float64Array.from({ length: 2 * N }, (_, i) => coef[3 * (i >> 1) + (i & 1 ? b : a)]);
    const made = (a: number, b: number) => ({ want: twin.qSample(x0, z, pair(a, b)), off: bound(2, pairSizes(pair(a, b), x0, z)).map((e, i) => e + Math.abs(coef[3 * image(i) + b]) * error[i]) });
    return { shape, grid: fours, inputs: { x0, coef }, numbers: { N, size, K: 3, a: 0, b: 2, start: 1, noise: 0, stream: STREAM.noise }, outputs: { xt: made(0, 2), goal: made(1, 0) } };
  } },
  combine: { twin: ['diffusion', 'qSample'], make: () => {
    const { u, v, coef } = combined();
    return { shape, grid: threads(N * size), inputs: { u, v, coef }, numbers: { N, size, K: 2, a: 0, b: 1, sign: 1 }, outputs: { y: { want: twin.qSample(u, v, coef), off: bound(2, pairSizes(coef, u, v)) } } };
  } },
  log_variance: { twin: ['diffusion', 'logVariance'], make: () => {
    const table = twin.posteriorTable(betas, 'learned_range'), coef = rows(2, (n) => table.subarray(6 * t[n] + 4, 6 * t[n] + 6)), output = values(2 * N * size, 1), want = twin.logVariance(output, coef, C);
    const off = bound(2, want.map((v, i) => 2 * Math.abs(v) + Math.abs(coef[2 * image(i)])));
    return { shape, grid: threads(N * size), inputs: { output, coef }, numbers: { N, size, K: 2, C, c: 0, d: 1 }, outputs: { log_variance: { want, off }, variance: { want: want.map(Math.exp), off: want.map((v, i) => Math.exp(v) * (off[i] + ULP * expUlps(v))) } } };
  } },
  dynamic_threshold: { twin: ['diffusion', 'dynamicThreshold'], make: () => {
    const x = values(N * size, 1), output = values(2 * N * size, 2), coef = rows(2, (n) => [1.5 - 0.2 * n, -1.2]), a = { x, output, coef, C, M, ratio: 0.83, max: 1.9 }, place = a.ratio * (size - 1), rank = Math.floor(place);
    return { shape, grid: [N], inputs: { coef, output, x }, numbers: { size, K: 2, C, M, rank, fraction: place - rank, most: a.max }, outputs: { y: { want: twin.dynamicThreshold(a).y, off: twin.dynamicThresholdErrors(a, { bound, ulp: ULP, divide: DIVIDE }) } } };
  } },
  self_condition: { twin: ['diffusion', 'selfCondition'], make: () => {
    const xt = values(N * size, 1), output = values(2 * N * size, 2), coef = rows(2, (n) => [Math.sqrt(1 / acp(n)), -Math.sqrt(1 / acp(n) - 1)]), mean = xt.map((_, i) => inMean(output)(i));
    const want = twin.selfCondition(xt, mean, coef, coins(draw(STREAM.self, N, 1)));
    return { shape, grid: threads(N * size), inputs: { coef, output, xt }, numbers: { N, size, K: 2, C, M, clip: 1, stream: STREAM.self }, outputs: { start: { want, off: bound(2, pairSizes(coef, xt, mean)) } } };
  } },
  posterior_step: { twin: ['diffusion', 'posteriorStep'], make: () => {
    const table = twin.posteriorTable(betas, 'learned_range'), coef = rows(6, (n) => table.subarray(6 * t[n], 6 * t[n] + 6)), x = values(N * size, 1), output = values(2 * N * size, 2);
    // The noise of a step at t comes from a counter of its own.
    const z = new Float64Array(N * size), zError = new Float64Array(N * size);
    for (let n = 0; n < N; n++) {
      const d = { ...draw(STREAM.sample, N, size, t[n]), samples: [TICK.first + n] };
      z.set(normals(d), n * size);
      zError.set(normalErrors(d), n * size);
    }
    const want = twin.posteriorStep({ xt: x, output, z, coef, clip: true, last: Array.from(t, (v) => Number(v === 0)), channels: C });
    const start = Float64Array.from(x, (v, i) => bound(2, [Math.abs(coef[6 * image(i)] * v) + Math.abs(coef[6 * image(i) + 1] * inMean(output)(i))])[0]);
    const off = want.prev.map((_, i) => {
      const [mean1, mean2, c, d] = coef.subarray(6 * image(i) + 2, 6 * image(i) + 6), v = output[Math.floor(i / C) * M + C + (i % C)], log = c + d * v, sigma = t[image(i)] ? Math.exp(log / 2) : 0;
      // An error of the log variance is a relative error of sigma.
      const sigmaError = ULP * expUlps(log / 2) + bound(2, [Math.abs(c) + Math.abs(d * v)])[0] / 2;
      return mean1 * start[i] + bound(3, [mean1 * Math.abs(want.x0[i]) + mean2 * Math.abs(x[i]) + sigma * Math.abs(z[i])])[0] + sigma * (zError[i] + sigmaError * Math.abs(z[i]));
    });
    return { shape, grid: fours, inputs: { t, coef, output, x }, numbers: { N, size, K: 6, C, M, clip: 1, given: 0, stream: STREAM.sample }, outputs: { x: { want: want.prev, off }, x0: { want: want.x0, off: start } } };
  } },
  sampler_step: { twin: ['sampler', 'samplerStep'], make: () => {
    const factors = Object.fromEntries(Object.entries({ startX: 1.7, startOutput: -1.4, x: 0.9, start: 0.6, last: -0.3, kept: 0.4, output: 0.2, z: 0.5 }).map(([name, v]) => [name, Math.fround(v)])), row = { ...factors, keep: true } as unknown as Row;
    const [x, last, kept] = [1, 2, 3].map((id) => values(N * size, id)), output = values(2 * N * size, 4), d = draw(STREAM.sample, N, size), z = normals(d), error = normalErrors(d);
    const want = samplerStep(row, { x, output, last, kept, z, clip: true, C, M }), out = Float64Array.from(x, (_, i) => inMean(output)(i));
    const start = want.start.map((_, i) => bound(2, [Math.abs(row.startX * x[i]) + Math.abs(row.startOutput * out[i])])[0]);
    const sum = (i: number) => [row.x * x[i], row.start * want.start[i], row.last * last[i], row.kept * kept[i], row.output * out[i], row.z * z[i]].reduce((a, b) => a + Math.abs(b), 0);
    return {
      shape, grid: fours, inputs: { coef: Float32Array.from(rowValues(row)), output, x, start: last, kept }, numbers: { N, size, C, M, clip: 1, stream: STREAM.sample },
      outputs: { x: { want: want.x, off: want.x.map((_, i) => Math.abs(row.start) * start[i] + row.z * error[i] + bound(6, [sum(i)])[0]) }, start: { want: want.start, off: start }, kept: { want: x, off: 0 } },
    };
  } },
  guidance: { twin: ['sampler', 'guide'], make: () => {
    const cond = values(2 * N * size, 1), uncond = values(2 * N * size, 2), w = Math.fround(2.7), off = bound(3, cond.map((v, i) => (i % M < C ? Math.abs(uncond[i]) + w * (Math.abs(v) + Math.abs(uncond[i])) : 0)));
    return { shape: `${C} of ${M} channels, w = 2.7`, grid: threads(cond.length), inputs: { cond, uncond }, numbers: { size: cond.length, C, M, w }, outputs: { y: { want: guide(cond, uncond, w, C, M), off } } };
  } },
  repaint: { twin: ['sampler', 'repaint'], make: () => {
    const x = values(N * size, 1), known = values(N * size, 2), mask = Float32Array.from({ length: (N * size) / C }, (_, i) => [0, 1, 0.25][i % 3]), coef = [0.8, 0.6, 0.9, 0.4].map(Math.fround) as unknown as readonly [number, number, number, number];
    const [dz, dj] = [draw(STREAM.known, N, size), draw(STREAM.jump, N, size)], z = normals(dz), jump = normals(dj), [zError, jumpError] = [normalErrors(dz), normalErrors(dj)];
    const off = bound(6, repaint({ x: abs(x), known: abs(known), mask, z: abs(z), jump: abs(jump), coef, C })).map((e, i) => e + coef[2] * coef[1] * zError[i] + coef[3] * jumpError[i]);
    return { shape, grid: fours, inputs: { coef: Float32Array.from(coef), known, mask, x }, numbers: { N, size, C, known_stream: STREAM.known, jump_stream: STREAM.jump }, outputs: { x: { want: repaint({ x, known, mask, z, jump, coef, C }), off } } };
  } },
  importance_weights: { twin: ['importance', 'importanceWeights'], make: () => {
    const { losses, w, sums } = history(), own = SQRT + DIVIDE + 11 * ULP;
    return { shape: '100 timesteps', grid: [1], inputs: { history: losses }, numbers: { T: 100 }, outputs: { w: { want: w, off: w.map((v) => own * v) }, sums: { want: sums, off: sums.map((v) => own * v + bound(100, [v])[0]) } } };
  } },
  importance_draw: { twin: ['importance', 'importanceDraw'], make: () => {
    const found = history(), w = Float32Array.from(found.w), sums = Float32Array.from(found.sums), share = Math.fround(0.1), first = words(draw(STREAM.time, 70, 3)), want = importanceDraw(first, w, sums, share, true);
    return { shape: '70 of 100 timesteps', grid: threads(70), inputs: { w, sums }, numbers: { N: 70, T: 100, stream: STREAM.time, share, stratum: 1 / 70 }, outputs: { t: { want: want.t, off: 0 }, weight: { want: want.weight, off: want.weight.map((v) => v * (2 * DIVIDE + 8 * ULP)) } } };
  } },
  importance_update: { twin: ['importance', 'importanceUpdate'], make: () => {
    const { losses } = history(), at = integers(130, 100), each = values(130, 1).map((v, i) => (i === 7 ? Infinity : Math.abs(v)));
    return { shape: '130 losses at 100 timesteps', grid: threads(100), inputs: { t: at, each, history: losses }, numbers: { N: 130, T: 100 }, outputs: { history: { want: importanceUpdate(losses, at, each), off: 0 } } };
  } },
} as const satisfies Checks;
