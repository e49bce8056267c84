// The diffusion kernels against their float64 twins: schedule gather, q_sample, the fused reverse step of DDPM, and a row of the other samplers.
import * as assert from 'uvu/assert';
import { threads } from '../../src/autograd.ts';
import { type Row, ROW_SIZE, rowValues } from '../../src/diffusion/samplers/row.ts';
import type { Engine } from '../../src/gpu/engine.ts';
import * as k from '../../src/gpu/kernels.gen.ts';
import { type Clip, clipped } from '../../src/ops/clip.ts';
import { STREAM } from '../../src/philox.ts';
import { Tensor } from '../../src/tensor.ts';
import { abs, assertClose, bound } from '../helpers/close.ts';
import { assertError, clockAt, DIVIDE, expUlps, gpuSuite, normalErrors, random, ULP, upload } from '../helpers/gpu.ts';
import * as twin from '../ref/diffusion.ts';
import { coins, normals } from '../ref/random.ts';
import { samplerStep } from '../ref/sampler.ts';


const diffusion = gpuSuite('diffusion');
const T = 1000;
const betas = Float64Array.from({ length: T }, (_, t) => 1e-4 + ((0.02 - 1e-4) * t) / (T - 1));
const acp: number[] = [];
betas.forEach((beta, t) => acp.push((acp[t - 1] ?? 1) * (1 - beta)));

/** Timesteps of a batch, the last one and the first two among them; an image each. */
const steps = Uint32Array.of(0, 999, 1, 500, 0);
const N = steps.length, first = 12, seed = 77;

/** What the device would draw for these images: counters hold t, not the step, so that a sample is its own random stream. */
const noise = (size: number, stream: number, step: (n: number) => number) => {
  const z = new Float64Array(N * size), error = new Float64Array(N * size);
  for (let n = 0; n < N; n++) {
    const draw = { seed, stream, step: step(n), samples: [first + n], count: size };
    z.set(normals(draw), n * size);
    error.set(normalErrors(draw), n * size);
  }
  return { z, error };
};

for (const [K, count] of [[1, 3], [5, 70], [13, 9]])
  diffusion(`schedule_gather of ${K} columns for ${count} images`, async (engine) => {
    const table = random(20 * K, 0), t = Uint32Array.from({ length: count }, (_, n) => (n * 7) % 20), coef = Tensor.empty(engine, [count, K]);
    engine.run(k.schedule_gather, threads(coef.size), { table: upload(engine, [20, K], table).slice, t: upload(engine, [count], t).slice, coef: coef.slice, N: count, K, T: 20 });
    assert.equal(Float64Array.from(await coef.read()), twin.scheduleGather(table, t, K));
  });

diffusion('schedule_gather past the end takes the last row', async (engine) => {
  const coef = Tensor.empty(engine, [2, 2]), t = upload(engine, [2], Uint32Array.of(3, 0xffffffff));
  engine.run(k.schedule_gather, threads(4), { table: upload(engine, [3, 2], [1, 2, 3, 4, 5, 6]).slice, t: t.slice, coef: coef.slice, N: 2, K: 2, T: 3 });
  assert.equal([...(await coef.read())], [5, 6, 5, 6]);
});

/** Rows of `table(t)`, rounded to float32 as they lie on the device. */
const rows = (table: (t: number) => ArrayLike<number>): Float32Array => Float32Array.from([...steps].flatMap((t) => [...Float32Array.from(table(t))]));

/** Columns a and b of K, the way the twins take them. */
const columns = (coef: Float32Array, K: number, a: number, b: number) => Float64Array.from({ length: 2 * N }, (_, i) => coef[(i >> 1) * K + (i & 1 ? b : a)]);

const coefAt = (coef: Float32Array, K: number, size: number) => (i: number, column: number): number => coef[Math.floor(i / size) * K + column];

for (const size of [1, 7, 130]) {
  diffusion(`q_sample of ${size} values, with the noise that it draws`, async (engine) => {
    const x0 = random(N * size, 0), coef = rows((t) => [9, Math.sqrt(acp[t]), -Math.sqrt(1 - acp[t]), Math.sqrt(1 - acp[t])]); // K = 4; the goal is v
    const x = upload(engine, [N, size], x0).slice, tcoef = upload(engine, [N, 4], coef).slice, xt = Tensor.empty(engine, [N, size]), v = Tensor.empty(engine, [N, size]);
    const clock = clockAt(engine, { seed, step: 31, first }).slice, dims = { N, size, K: 4, a: 1, b: 3, start: 2, noise: 1, stream: STREAM.noise };
    engine.run(k.q_sample, threads(N * Math.ceil(size / 4)), { clock, x0: x, coef: tcoef, xt: xt.slice, goal: v.slice, ...dims });
    const { z, error } = noise(size, STREAM.noise, () => 31), pair = columns(coef, 4, 1, 3), at = coefAt(coef, 4, size);
    const xtError = bound(2, twin.qSample(abs(x0), abs(z), pair)).map((e, i) => e + at(i, 3) * error[i]);
    assertClose(await xt.read(), twin.qSample(x0, z, pair), { atol: xtError, what: 'x_t' });
    const goal = columns(coef, 4, 2, 1), goalError = bound(2, twin.qSample(abs(x0), abs(z), abs(goal))).map((e, i) => e + at(i, 1) * error[i]);
    assertClose(await v.read(), twin.qSample(x0, z, goal), { atol: goalError, what: 'v' });
  });

  diffusion(`combine of ${size} values: q_sample with given noise, x_0 from eps`, async (engine) => {
    const u = random(N * size, 0), v = random(N * size, 1);
    for (const [sign, coef] of [[1, rows((t) => [Math.sqrt(acp[t]), 9, Math.sqrt(1 - acp[t])])], [-1, rows((t) => [Math.sqrt(1 / acp[t]), 9, Math.sqrt(1 / acp[t] - 1)])]] as const) {
      const y = Tensor.empty(engine, [N, size]), pair = columns(coef, 3, 0, 2);
      engine.run(k.combine, threads(N * size), { u: upload(engine, [N, size], u).slice, v: upload(engine, [N, size], v).slice, coef: upload(engine, [N, 3], coef).slice, y: y.slice, N, size, K: 3, a: 0, b: 2, sign });
      const want = sign > 0 ? twin.qSample(u, v, pair) : twin.predictStart(u, v, pair);
      assertClose(await y.read(), want, { atol: bound(2, twin.qSample(abs(u), abs(v), pair)), what: `sign ${sign}` });
    }
  });
}

/** `C` channels, of which the output has twice as many where the variance is learned. */
async function step(engine: Engine, size: number, x: Float32Array, output: Float32Array, z: Float32Array | null, coef: Float32Array, K: number, options: { clip: boolean | number; C?: number }) {
  const tx = upload(engine, [N, size], x), x0 = Tensor.empty(engine, [N, size]), out = upload(engine, [output.length], output);
  const args = {
    clock: clockAt(engine, { seed, step: 5, first }).slice, t: upload(engine, [N], steps).slice, coef: upload(engine, [N, K], coef).slice, x: tx.slice, x0: x0.slice,
    N, size, K, clip: Number(options.clip), stream: STREAM.sample,
  };
  const grid = threads(N * Math.ceil(size / 4)), C = options.C ?? 1;
  engine.run(k.posterior_step, grid, { ...args, output: out.slice, C, M: (C * output.length) / x.length, z: (z ? upload(engine, [N, size], z) : out).slice, given: Number(!!z) });
  return { prev: await tx.read(), x0: await x0.read() };
}

for (const [size, C] of [[1, 1], [7, 1], [130, 2], [51, 3]])
  for (const [variance, prediction] of [['fixed_small', 'eps'], ['fixed_large', 'v'], ['learned_range', 'eps'], ['learned', 'mu'], ['learned_range', 'x0']] as const)
    for (const clip of [true, false, 0.6])
      diffusion(`posterior_step of ${size} values in ${C} channels, ${prediction}, ${variance}, ${clip ? `clipped to ${Number(clip)}` : 'not clipped'}`, async (engine) => {
        const table = twin.posteriorTable(betas, variance, prediction), K = 7; // a column more than the kernel reads
        const coef = rows((t) => [...table.subarray(6 * t, 6 * t + 6), 9]), six = Float64Array.from({ length: 6 * N }, (_, i) => coef[Math.floor(i / 6) * K + (i % 6)]);
        const learned = variance.startsWith('learned'), M = learned ? 2 * C : C, outputs = random((N * size * M) / C, 1);
        const x = random(N * size, 0), last = Array.from(steps, (t) => Number(t === 0)), at = coefAt(coef, K, size);
        const half = (from: number) => x.map((_, i) => (learned ? outputs[Math.floor(i / C) * M + from + (i % C)] : from ? 0 : outputs[i]));
        const mean = half(0), v = half(C);
        const drawn = noise(size, STREAM.sample, (n) => steps[n]), own = random(N * size, 2);
        for (const [what, z, zError] of [['given', own, new Float64Array(N * size)], ['drawn', drawn.z, drawn.error]] as const) {
          const got = await step(engine, size, x, outputs, what === 'given' ? own : null, coef, K, { clip, C });
          const want = twin.posteriorStep({ xt: x, output: outputs, z, coef: six, clip, last, ...(learned && { channels: C }) });
          const startError = want.x0.map((_, i) => bound(2, [Math.abs(at(i, 0) * x[i]) + Math.abs(at(i, 1) * mean[i])])[0]);
          assertClose(got.x0, want.x0, { atol: startError, what: 'x_0' });
          const atol = want.prev.map((_, i) => {
            const [mean1, mean2, c, d] = [2, 3, 4, 5].map((column) => at(i, column)), log = c + d * v[i], sigma = last[Math.floor(i / size)] ? 0 : Math.exp(log / 2);
            const sum = bound(3, [mean1 * Math.abs(want.x0[i]) + mean2 * Math.abs(x[i]) + sigma * Math.abs(z[i])])[0];
            // An error of the log variance is a relative error of sigma.
            const sigmaError = ULP * expUlps(log / 2) + bound(2, [Math.abs(c) + Math.abs(d * v[i])])[0] / 2;
            return mean1 * startError[i] + sum + sigma * (zError[i] + sigmaError * Math.abs(z[i]));
          });
          assertClose(got.prev, want.prev, { atol, what: `x_(t-1), noise ${what}` });
        }
        // No noise at t = 0, whatever is given.
        const silent = await step(engine, size, x, outputs, own.map(() => 1e9), coef, K, { clip, C });
        for (let i = 0; i < N * size; i++) assert.is(Math.abs(silent.prev[i]) < 1e5, last[Math.floor(i / size)] === 1, `value ${i}`);
      });

for (const [size, C, M, ratio, max] of [[1, 1, 1, 0.5, 3], [7, 1, 2, 0, 2], [130, 2, 2, 0.9, 2.5], [51, 3, 6, 1, 9], [770, 1, 1, 0.995, 1.8], [260, 2, 4, 0.5, 1]] as const)
  diffusion(`dynamic thresholding of ${size} values, ${C} of ${M} channels, quantile ${ratio}, at most ${max}`, async (engine) => {
    // Scales that leave images below 1, between, and above the most; values that come again; a zero.
    const K = 3, x = random(N * size, 0).map((v, i) => (i % 3 === 1 ? Math.round(2 * v) / 2 : i % 11 === 5 ? 0 : v)), output = random((N * size * M) / C, 1).map((v, i) => (i % 3 === 1 ? Math.round(v) : v));
    const coef = rows((t) => [1 + (t % 4), -0.25 - (t % 3), 9]), a = { x, output, coef: columns(coef, K, 0, 1), C, M, ratio, max };
    const given = { coef: upload(engine, [N, K], coef), x: upload(engine, [N, size / C, C], x), output: upload(engine, [N, size / C, M], output) };
    // Read at once, before it is freed.
    const thresholded = (coefficients: Tensor) => clipped({ ratio, max }, { ...given, coef: coefficients }, (y, range) => [y.read(), range] as const);
    const [y, range] = thresholded(given.coef), want = twin.dynamicThreshold(a), off = twin.dynamicThresholdErrors(a, { bound, ulp: ULP, divide: DIVIDE });
    assert.is(range, 0);
    assertClose(await y, want.y, { atol: off, what: 'the output' });
    if (size === 130) assert.ok(want.s.some((v) => v > 1 && v < max) && want.s.some((v) => v === max));
    // One row for all images.
    const one = rows(() => [1.7, -1.4, 9]), [row] = thresholded(upload(engine, [K], one.subarray(0, K))), b = { ...a, coef: columns(one, K, 0, 1) };
    assertClose(await row, twin.dynamicThreshold(b).y, { atol: twin.dynamicThresholdErrors(b, { bound, ulp: ULP, divide: DIVIDE }), what: 'one row for all' });
  });

diffusion('a clip that is none is refused, and one that is not dynamic leaves the output alone', async (engine) => {
  const tensor = upload(engine, [1, 1], [0.5]), given = { coef: upload(engine, [1, 2], [1, 1]), x: tensor, output: tensor };
  const by = (clip: Clip) => clipped(clip, given, (output, range) => ({ output, range }));
  assert.equal([true, false, 2.5].map((clip) => by(clip).range), [1, 0, 2.5]);
  assert.is(by(0.5).output, tensor);
  for (const clip of [0, -1, NaN, Infinity]) await assertError(() => by(clip), 'E-USAGE', /x_0 cannot be clipped to a range of/);
  await assertError(() => by({ ratio: 1.1, max: 2 }), 'E-USAGE', /to the quantile 1\.1 of its values/);
  await assertError(() => by({ ratio: 0.9, max: 0.5 }), 'E-USAGE', /at most 0\.5 by dynamic thresholding/);
});

for (const [size, C, M, clip] of [[1, 1, 1, 1], [21, 3, 6, 0], [130, 2, 2, 0.7]])
  diffusion(`self_condition of ${size} values, ${C} of ${M} channels${clip ? '' : ', not clipped'}`, async (engine) => {
    const K = 3, outputs = random((N * size * M) / C, 1), x = random(N * size, 0), coef = rows((t) => [Math.sqrt(1 / acp[t]), -Math.sqrt(1 / acp[t] - 1), 9]), at = coefAt(coef, K, size);
    const start = Tensor.empty(engine, [N, size]), heads = coins({ seed, stream: STREAM.self, step: 31, samples: Array.from(steps, (_, n) => first + n), count: 1 });
    engine.run(k.self_condition, threads(N * size), {
      clock: clockAt(engine, { seed, step: 31, first }).slice, coef: upload(engine, [N, K], coef).slice, output: upload(engine, [outputs.length], outputs).slice,
      xt: upload(engine, [N, size], x).slice, start: start.slice, N, size, K, C, M, clip, stream: STREAM.self,
    });
    const out = (i: number) => outputs[Math.floor(i / C) * M + (i % C)];
    const want = Float64Array.from(x, (v, i) => heads[Math.floor(i / size)] * twin.clipped(at(i, 0) * v + at(i, 1) * out(i), clip || false));
    if (!clip) assert.ok(want.some((v) => Math.abs(v) > 1), 'some would be clipped');
    assertClose(await start.read(), want, { atol: want.map((_, i) => bound(2, [Math.abs(at(i, 0) * x[i]) + Math.abs(at(i, 1) * out(i))])[0]), what: 'start' });
    assert.ok(heads.includes(0) && heads.includes(1), 'some images are given their start, some are not');
  });

diffusion('log_variance takes the second half of the channels', async (engine) => {
  const [C, size] = [3, 51], K = 3, outputs = random(2 * N * size, 1), table = twin.posteriorTable(betas, 'learned_range');
  const coef = rows((t) => [9, table[6 * t + 4], table[6 * t + 5]]), at = coefAt(coef, K, size), log = Tensor.empty(engine, [N, size]), variance = Tensor.empty(engine, [N, size]);
  engine.run(k.log_variance, threads(N * size), { output: upload(engine, [2 * N * size], outputs).slice, coef: upload(engine, [N, K], coef).slice, variance: variance.slice, log_variance: log.slice, N, size, K, C, c: 1, d: 2 });
  const want = Float64Array.from({ length: N * size }, (_, i) => at(i, 1) + at(i, 2) * outputs[Math.floor(i / C) * 2 * C + C + (i % C)]);
  const error = bound(2, want.map((v) => 2 * Math.abs(v)));
  assertClose(await log.read(), want, { atol: error, what: 'log variance' });
  assertClose(await variance.read(), want.map(Math.exp), { atol: want.map((v, i) => Math.exp(v) * (error[i] + ULP * expUlps(v))), what: 'variance' });
});

/** Rows that use every term; one without noise, one that keeps x. */
const ROWS = [
  { startX: 1.7, startOutput: -1.4, x: 0.9, start: 0.6, last: -0.3, kept: 0.4, output: 0.2, z: 0.5, keep: false },
  { startX: 0, startOutput: 1, x: -0.1, start: 1.2, last: 0, kept: 0, output: 0, z: 0, keep: true },
].map((row) => Object.fromEntries(Object.entries(row).map(([name, v]) => [name, typeof v === 'number' ? Math.fround(v) : v]))) as unknown as Row[];

for (const [size, C, M] of [[1, 1, 1], [7, 1, 2], [130, 2, 2], [51, 3, 6]] as const)
  for (const clip of [true, false, 0.6])
    for (const [r, row] of ROWS.entries())
      diffusion(`sampler_step of ${size} values in ${C} of ${M} channels, row ${r}${clip ? `, clipped to ${Number(clip)}` : ''}`, async (engine) => {
        const x = random(N * size, 0), output = random((N * size * M) / C, 1), last = random(N * size, 2), kept = random(N * size, 3);
        const [tx, start, tkept] = [x, last, kept].map((data) => upload(engine, [N, size], data));
        engine.run(k.sampler_step, threads(N * Math.ceil(size / 4)), {
          clock: clockAt(engine, { seed, step: 31, first }).slice, coef: upload(engine, [ROW_SIZE], rowValues(row)).slice, output: upload(engine, [output.length], output).slice,
          x: tx.slice, start: start.slice, kept: tkept.slice, N, size, C, M, clip: Number(clip), stream: STREAM.sample,
        });
        const { z, error } = noise(size, STREAM.sample, () => 31), want = samplerStep(row, { x, output, last, kept, z, clip, C, M });
        const out = Float64Array.from(x, (_, i) => output[Math.floor(i / C) * M + (i % C)]);
        const startError = want.start.map((_, i) => bound(2, [Math.abs(row.startX * x[i]) + Math.abs(row.startOutput * out[i])])[0]);
        assertClose(await start.read(), want.start, { atol: startError, what: 'x_0' });
        const terms = (i: number): number[] => [row.x * x[i], row.start * want.start[i], row.last * last[i], row.kept * kept[i], row.output * out[i], row.z * z[i]];
        const atol = want.x.map((_, i) => Math.abs(row.start) * startError[i] + row.z * error[i] + bound(6, [terms(i).reduce((a, b) => a + Math.abs(b), 0)])[0]);
        assertClose(await tx.read(), want.x, { atol, what: 'x' });
        assert.equal(await tkept.read(), Float32Array.from(want.kept));
        if (clip && size === 130) assert.ok(want.start.some((v) => v === Number(clip)) && want.start.some((v) => Math.abs(v) < Number(clip)), 'some are clipped, some are not');
      });

diffusion('a sample is the same whatever the batch', async (engine) => {
  const size = 10, x = random(N * size, 0), eps = random(N * size, 1), table = twin.posteriorTable(betas, 'fixed_small'), coef = rows((t) => table.subarray(6 * t, 6 * t + 6));
  const whole = await step(engine, size, x, eps, null, coef, 6, { clip: true });
  const tx = upload(engine, [2, size], x.subarray(2 * size, 4 * size)), x0 = Tensor.empty(engine, [2, size]), teps = upload(engine, [2, size], eps.subarray(2 * size, 4 * size));
  engine.run(k.posterior_step, threads(6), {
    clock: clockAt(engine, { seed, step: 0, first: first + 2 }).slice, t: upload(engine, [2], steps.slice(2, 4)).slice, coef: upload(engine, [2, 6], coef.subarray(12, 24)).slice,
    output: teps.slice, z: teps.slice, x: tx.slice, x0: x0.slice, N: 2, size, K: 6, C: 1, M: 1, clip: 1, given: 0, stream: STREAM.sample,
  });
  assert.equal(await tx.read(), whole.prev.slice(2 * size, 4 * size));
});
diffusion.run();
