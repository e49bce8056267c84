// Draws of t by weights or by losses: the sums, draws and weights against float64, the parts of a batch, the ring of losses, and what a checkpoint keeps.
import * as assert from 'uvu/assert';
import { Clock } from '../src/clock.ts';
import { ImportanceSampling, WeightedSampling } from '../src/diffusion/timestep-sampling.ts';
import { threads } from '../src/autograd.ts';
import type { Engine } from '../src/gpu/engine.ts';
import * as k from '../src/gpu/kernels.gen.ts';
import { philox4x32, STREAM, unit } from '../src/philox.ts';
import { Tensor } from '../src/tensor.ts';
import { assertClose, bound } from './helpers/close.ts';
import { assertError, clockAt, DIVIDE, gpuSuite, random, readWords, SQRT, ULP, upload } from './helpers/gpu.ts';
import { uniformInt } from './ref/random.ts';

const test = gpuSuite('sampling of t');
const SHARE = 0.001;

/** A history of ten losses at every t, larger at small t, some a thousandfold; `count` of them are there. */
const historyOf = (T: number, count = (_t: number): number => 10): Float32Array =>
  Float32Array.from({ length: T * 11 }, (_, i) => {
    const t = Math.floor(i / 11);
    return i % 11 === 10 ? count(t) : (1 + (i % 3)) * (t % 7 === 0 ? 3 : 0.01) * Math.exp((-4 * t) / T);
  });
const weightsOf = (T: number, history: Float32Array): Float64Array =>
  Float64Array.from({ length: T }, (_, t) => Math.sqrt(history.subarray(11 * t, 11 * t + 10).reduce((sum, v) => sum + v * v, 0) / 10));

async function weights(engine: Engine, T: number, history: Float32Array): Promise<{ w: Float32Array; sums: Float32Array }> {
  const w = Tensor.empty(engine, [T]), sums = Tensor.empty(engine, [T]);
  engine.run(k.importance_weights, [1], { history: upload(engine, [T, 11], history).slice, w: w.slice, sums: sums.slice, T });
  return { w: await w.read(), sums: await sums.read() };
}

for (const T of [2, 63, 64, 100, 1000])
  test(`weights and their running sums, T = ${T}`, async (engine) => {
    const history = historyOf(T), want = weightsOf(T, history), { w, sums } = await weights(engine, T, history);
    assertClose(w, want, { rtol: SQRT + DIVIDE + 11 * ULP, what: 'w' });
    let sum = 0;
    const total = want.map((v) => (sum += v));
    assertClose(sums, total, { atol: total.map((v) => v * (SQRT + DIVIDE + 11 * ULP) + bound(T, [v])[0]!), what: 'sums' });
    assert.ok(sums.every((v, t) => t === 0 || v >= sums[t - 1]!), 'they never fall');
    for (const missing of [0, T - 1]) {
      const cold = await weights(engine, T, historyOf(T, (t) => (t === missing ? 9 : 13)));
      assert.ok(cold.w.every((v) => v === 0) && cold.sums.every((v) => v === 0), `without the tenth loss at ${missing} there are none`);
    }
  });

/** Draws on the device, and by the same sums on the host. */
async function draws(engine: Engine, T: number, N: number, table: { w: Float32Array; sums: Float32Array }, { seed = 3, step = 7, first = 0, stratum = 0 } = {}): Promise<{ t: number[]; weight: Float32Array }> {
  const t = Tensor.empty(engine, [N]), weight = Tensor.empty(engine, [N]);
  engine.run(k.importance_draw, threads(N), {
    clock: clockAt(engine, { seed, step, first }).slice, w: upload(engine, [T], table.w).slice, sums: upload(engine, [T], table.sums).slice, t: t.slice, weight: weight.slice,
    N, T, stream: STREAM.time, share: SHARE, stratum,
  });
  const got = [...(await readWords(t))], total = table.sums[T - 1]!;
  const want = got.map((_, n) => {
    const words = philox4x32([0, first + n, step, 0], [seed, STREAM.time]);
    if (!(total > 0 && unit(words[1]) >= Math.fround(SHARE))) return uniformInt(words[0], T);
    const u = unit(words[2]), place = stratum ? Math.fround(Math.fround(n + u) * Math.fround(stratum)) : u;
    return Math.min(T - 1, table.sums.filter((sum) => sum <= Math.fround(place * total)).length);
  });
  assert.equal(got, want);
  const p = (at: number): number => (total > 0 ? SHARE / T + ((1 - SHARE) * table.w[at]!) / total : 1 / T);
  assertClose(await weight.read(), got.map((at) => 1 / (T * p(at))), { rtol: 2 * DIVIDE + 8 * ULP, what: 'weights' });
  return { t: got, weight: await weight.read() };
}

test('t is drawn by the sums, from each image\'s own counter', async (engine) => {
  const T = 100, table = await weights(engine, T, historyOf(T));
  const { t } = await draws(engine, T, 130, table);
  assert.equal((await draws(engine, T, 30, table, { first: 100 })).t, t.slice(100), 'whatever the batch');
  assert.is.not((await draws(engine, T, 130, table, { step: 8 })).t.join(), t.join());
  assert.is.not((await draws(engine, T, 130, table, { seed: 4 })).t.join(), t.join());
  const cold = await draws(engine, T, 130, { w: new Float32Array(T), sums: new Float32Array(T) });
  assert.ok(cold.weight.every((v) => v === 1), 'uniform draws count 1');
});

test('20,000 draws have the probabilities, and the weights take the bias out', async (engine) => {
  const T = 20, N = 20_000, history = historyOf(T), w = weightsOf(T, history), total = w.reduce((a, b) => a + b, 0);
  const { t, weight } = await draws(engine, T, N, await weights(engine, T, history)), counts = Array.from({ length: T }, () => 0);
  for (const at of t) counts[at]!++;
  counts.forEach((count, at) => {
    const p = SHARE / T + ((1 - SHARE) * w[at]!) / total, deviation = Math.sqrt(N * p * (1 - p));
    assert.ok(Math.abs(count - N * p) < 4.5 * deviation + 1, `t = ${at}: ${count} of ${N * p} expected`);
  });
  // The mean of f(t) under uniform t, from draws that are not: within 4.5 standard deviations of the estimate.
  const f = (at: number): number => w[at]! / (1 + (at % 4)), want = w.reduce((sum, _, at) => sum + f(at), 0) / T;
  const terms = t.map((at, n) => f(at) * weight[n]!), mean = terms.reduce((a, b) => a + b, 0) / N;
  const deviation = Math.sqrt(terms.reduce((sum, v) => sum + (v - mean) ** 2, 0)) / N;
  assert.ok(Math.abs(mean - want) < 4.5 * deviation, `${mean}, not ${want} (${deviation})`);
});

test('weighted: image n draws from the n-th of N equally likely parts', async (engine) => {
  const T = 100, N = 4000, weights = Float64Array.from({ length: T }, (_, t) => (t === 3 ? 0 : 1 / (1 + (t - 30) ** 2 / 50))), total = weights.reduce((a, b) => a + b, 0);
  let sum = 0;
  const sums = weights.map((v) => (sum += v)), quantile = (q: number): number => Math.min(T - 1, sums.filter((v) => v <= q * total).length);
  const { t, weight } = await draws(engine, T, N, { w: Float32Array.from(weights), sums: Float32Array.from(sums) }, { stratum: 1 / N });
  // But for the uniform share: four of 4,000 are expected.
  const outside = t.filter((at, n) => at < quantile((n - 1e-3) / N) || at > quantile((n + 1 + 1e-3) / N)).length;
  assert.ok(outside < 16, `${outside} draws lie outside of their parts`);
  weights.forEach((w, at) => {
    const count = t.filter((other) => other === at).length, expected = (N * w) / total;
    assert.ok(Math.abs(count - expected) <= 2 + outside, `t = ${at}: ${count} of ${expected} expected`);
  });
  // Uniform draws of so many would be off by a hundredth of this or more: a mean over strata is nearly exact.
  const want = weights.reduce((a, w) => a + w * w, 0) / T, mean = t.reduce((a, at, n) => a + weights[at]! ** 2 * weight[n]!, 0) / N;
  assert.ok(Math.abs(mean / want - 1) < 0.01, `${mean}, not ${want}`);

  const sampling = new WeightedSampling(engine, weights), clock = new Clock(engine);
  clock.set({ seed: 3, step: 7 });
  const again = sampling.draw(N, clock);
  assert.equal([[...(await readWords(again.t))], await again.weight.read()], [t, weight]);
  sampling.destroy();
});

test('a ring of ten losses at every t, in the order of the batch; what is not finite is passed over', async (engine) => {
  const T = 6, sampling = new ImportanceSampling(engine, T), want = Array.from({ length: T }, () => [] as number[]);
  const losses = random(400, 0).map(Math.abs);
  for (let step = 0; step < 12; step++) {
    const t = Array.from({ length: 9 }, (_, n) => (n < 4 ? 2 : (step * 5 + n) % (T - 1))), each = losses.slice(9 * step, 9 * step + 9);
    if (step === 3) each.set([NaN, Infinity, -Infinity], 4);
    t.forEach((at, n) => Number.isFinite(each[n]) && want[at]!.push(each[n]!));
    sampling.update(upload(engine, [9], Uint32Array.from(t)), upload(engine, [9], each));
  }
  const [tensor] = [...(await sampling.read()).values()];
  assert.equal(tensor!.shape, [T, 11]);
  want.forEach((all, t) => {
    const row = [...tensor!.data.subarray(11 * t, 11 * t + 11)], n = all.length;
    assert.is(row[10], n < 20 ? n : 10 + (n % 10), `${n} losses at ${t}`);
    const ring = Array.from({ length: 10 }, (_, i) => (n <= i ? 0 : all[i + 10 * Math.floor((n - 1 - i) / 10)]!));
    assert.equal(row.slice(0, 10), ring, `losses at ${t}`);
  });
  assert.ok(want[T - 1]!.length === 0 && want[2]!.length > 30);
  sampling.destroy();
});

test('a state goes into a checkpoint and back, and another one is refused', async (engine) => {
  const T = 40, a = new ImportanceSampling(engine, T), b = new ImportanceSampling(engine, T), clock = new Clock(engine);
  clock.set({ seed: 1, step: 5 });
  const data = historyOf(T, (t) => 10 + (t % 10));
  assert.is(a.write(new Map([['time_sampling.losses', { shape: [T, 11], data }]]), 'a test'), true);
  assert.is(b.write(await a.read(), 'a test'), true);
  const draw = async (from: ImportanceSampling): Promise<number[]> => [...(await readWords(from.draw(64, clock).t))];
  assert.equal(await draw(b), await draw(a));
  assert.ok(new Set(await draw(a)).size > 5);
  assert.is(b.write(new Map(), 'a test'), false);
  await assertError(() => b.write(new Map([['time_sampling.losses', { shape: [50, 11], data }]]), 'x.safetensors'), 'E-FILE', /x\.safetensors: time_sampling\.losses has the shape \(50, 11\), and this run draws from 40/);
  await assertError(() => b.write(new Map([['time_sampling.losses', { shape: [T, 11], data: data.map((v) => v + 0.5) }]]), 'x'), 'E-FILE', /counts 10\.5 losses at t = 0/);
});
test.run();
