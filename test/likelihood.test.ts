// The variational bound of images, term by term: against the classic class and float64, whatever the batch; and the picture of its curve.
import { readFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { type DiffusionModel, GaussianDiffusion } from '../src/diffusion/gaussian.ts';
import { Likelihood, priorBits } from '../src/diffusion/likelihood.ts';
import { makeSchedule, SCHEDULES } from '../src/diffusion/schedule.ts';
import { plotLogarithmic } from '../src/io/plot.ts';
import { readSafetensors } from '../src/io/safetensors.ts';
import { gatherRows } from '../src/ops/gather.ts';
import { STREAM } from '../src/philox.ts';
import { assertClose } from './helpers/close.ts';
import { assertError, gpuSuite, random, upload } from './helpers/gpu.ts';
import { dynamicThreshold, posteriorTable } from './ref/diffusion.ts';
import * as twin from './ref/losses.ts';
import { normals } from './ref/random.ts';

const test = gpuSuite('likelihood');

test('L_T is that of the classic class, for every schedule', () => {
  const NAME = 'gaussian-diffusion-T1000.safetensors', { tensors } = readSafetensors(readFileSync(new URL(`golden/${NAME}`, import.meta.url)), NAME);
  const data = (key: string): Float64Array => Float64Array.from(tensors.get(key)!.data as ArrayLike<number>, Number);
  for (const name of SCHEDULES) assertClose(priorBits(makeSchedule({ name, T: 1000 }), data(`${name}.in.x0`), 4), data(`${name}.out.prior_bits_per_dim`), { rtol: 1e-5, what: name });
});

const [H, W, C] = [3, 5, 2], SIZE = H * W * C, T = 8;
const levels = (n: number, id: number): Float32Array => random(n * SIZE, id).map((v) => Math.round((Math.tanh(v) + 1) * 127.5) / 127.5 - 1);

for (const [prediction, variance, clip] of [['eps', 'fixed_small', true], ['v', 'fixed_large', true], ['x0', 'learned_range', true], ['eps', 'learned_range', false], ['v', 'fixed_small', 0.5]] as const)
  test(`every term is that of the float64 twin: ${prediction}, ${variance}${clip ? `, clipped to ${Number(clip)}` : ', not clipped'}`, async (engine) => {
    const N = 3, schedule = makeSchedule({ name: 'cosine', T }), diffusion = new GaussianDiffusion(engine, schedule, { prediction, variance });
    const M = variance === 'learned_range' ? 2 * C : C, output = random(N * H * W * M, 5).map((v) => 0.6 * v), x0 = levels(N, 0);
    // A model whose output lies outside of the plan.
    const given = upload(engine, [N, H, W, M], output), own = new Likelihood(() => given, diffusion, [N, H, W, C], { clipDenoised: clip }), done: number[] = [];
    const { prior, terms, total } = await own.measure(x0, { seed: 6, firstId: 4, onTerm: (count) => void done.push(count) });
    await assertError(() => own.measure(x0.subarray(1), { seed: 1 }), 'E-SHAPE', /89 values for images of \(3, 3, 5, 2\)/);
    assert.equal(done, [1, 2, 3, 4, 5, 6, 7, 8]);
    assertClose(prior, priorBits(schedule, x0, N), { what: 'L_T' });
    for (let t = 0; t < T; t++) {
      const eps = normals({ seed: 6, stream: STREAM.noise, step: t, samples: [4, 5, 6], count: SIZE });
      const xt = eps.map((e, i) => schedule.sqrtAlphasCumprod[t]! * x0[i]! + schedule.sqrtOneMinusAlphasCumprod[t]! * e);
      const want = twin.bound({ betas: schedule.betas, prediction, variance, t: [t, t, t], output, x0, xt, C, clip });
      // x_0 from eps is worth 1 / sqrt(acp), 100 at the last t and more where nothing is clipped; the roundings of Box-Muller with it.
      assertClose(terms.subarray(N * t, N * t + N), want, { rtol: prediction === 'eps' ? 5e-4 : 5e-5, atol: 1e-6, what: `t = ${t}` });
    }
    for (let n = 0; n < N; n++) assert.ok(Math.abs(total[n]! - terms.filter((_, i) => i % N === n).reduce((a, b) => a + b, prior[n]!)) < 1e-6 * total[n]!);
    await own.destroy();
  });

for (const [prediction, variance] of [['eps', 'fixed_large'], ['v', 'learned_range'], ['mu', 'fixed_small']] as const)
  test(`a chain of few timesteps has the bound of its own betas, and the network hears the original t: ${prediction}, ${variance}`, async (engine) => {
    const N = 2, T = 30, visited = [29, 25, 24, 11, 3, 0], schedule = makeSchedule({ name: 'cosine', T, rescaleBetasZeroSnr: prediction === 'v' }), diffusion = new GaussianDiffusion(engine, schedule, { prediction, variance });
    const M = variance === 'learned_range' ? 2 * C : C, x0 = levels(N, 0), { alphasCumprod: acp } = schedule;
    // A network whose output is another one at every t that it is told.
    const outputs = random(T * H * W * M, 3).map((v) => 0.5 * v), table = upload(engine, [T, H * W * M], outputs), model: DiffusionModel = (_, t) => gatherRows(table, t).view([N, H, W, M]);
    const own = new Likelihood(model, diffusion, [N, H, W, C], { timesteps: visited }), { prior, terms } = await own.measure(x0, { seed: 6, firstId: 4 });
    const rising = visited.toReversed(), betas = rising.map((t, i) => 1 - acp[t]! / (i ? acp[rising[i - 1]!]! : 1)), full = posteriorTable(schedule.betas, 'fixed_small', prediction);
    assert.equal(own.timesteps, rising);
    rising.forEach((t, i) => {
      const eps = normals({ seed: 6, stream: STREAM.noise, step: t, samples: [4, 5], count: SIZE }), said = outputs.subarray(t * H * W * M, (t + 1) * H * W * M), output = Float64Array.from({ length: N * said.length }, (_, j) => said[j % said.length]!);
      const xt = eps.map((e, j) => Math.sqrt(acp[t]!) * x0[j]! + Math.sqrt(1 - acp[t]!) * e);
      // What a posterior mean says of x_0 it says of the step that it was trained on; the others do not depend on the chain.
      const start = Float64Array.from(output, (v, j) => full[6 * t]! * xt[j]! + full[6 * t + 1]! * v), said0 = prediction === 'mu' ? { prediction: 'x0' as const, output: start } : { prediction, output };
      const want = twin.bound({ betas, variance, t: [i, i], x0, xt, C, clip: true, ...said0 });
      assertClose(terms.subarray(N * i, N * i + N), want, { rtol: prediction === 'eps' ? 5e-4 : 5e-5, atol: 1e-6, what: `t = ${t}` });
    });
    const last = acp[29]!, want = Float64Array.from({ length: N }, (_, n) => x0.subarray(n * SIZE, (n + 1) * SIZE).reduce((sum, v) => sum + twin.normalKl(Math.sqrt(last) * v, Math.log(1 - last), 0, 0), 0) / SIZE / Math.LN2);
    assertClose(prior, want, { rtol: 1e-9, what: 'L_T of the chain' });
    await own.destroy();
  });

test('a chain of all timesteps has the bound of the whole one, bit for bit', async (engine) => {
  const diffusion = new GaussianDiffusion(engine, makeSchedule({ name: 'linear', T: 25 }), { prediction: 'v', variance: 'fixed_large' }), x0 = levels(2, 0), model: DiffusionModel = (x) => x;
  const whole = new Likelihood(model, diffusion, [2, H, W, C]), all = new Likelihood(model, diffusion, [2, H, W, C], { timesteps: Array.from({ length: 25 }, (_, t) => 24 - t) });
  assert.equal(await all.measure(x0, { seed: 3 }), await whole.measure(x0, { seed: 3 }));
  for (const each of [whole, all]) await each.destroy();
});

test('a dynamically thresholded x_0 is what the bound is of', async (engine) => {
  const N = 2, schedule = makeSchedule({ name: 'cosine', T }), diffusion = new GaussianDiffusion(engine, schedule, { prediction: 'v' }), threshold = { ratio: 0.8, max: 2 };
  const output = random(N * SIZE, 5).map((v) => 1.5 * v), x0 = levels(N, 0), given = upload(engine, [N, H, W, C], output), own = new Likelihood(() => given, diffusion, [N, H, W, C], { clipDenoised: threshold });
  const { terms } = await own.measure(x0, { seed: 6 });
  for (let t = 0; t < T; t++) {
    const eps = normals({ seed: 6, stream: STREAM.noise, step: t, samples: [0, 1], count: SIZE }), [alpha, sigma] = [schedule.sqrtAlphasCumprod[t]!, schedule.sqrtOneMinusAlphasCumprod[t]!];
    const xt = eps.map((e, i) => alpha * x0[i]! + sigma * e), { start, s } = dynamicThreshold({ x: xt, output, coef: [alpha, -sigma, alpha, -sigma], C, M: C, ...threshold });
    if (t === T - 1) assert.ok(s.some((v) => v > 1.1), `${s}`);
    assertClose(terms.subarray(N * t, N * t + N), twin.bound({ betas: schedule.betas, prediction: 'x0', variance: 'fixed_small', t: [t, t], output: start, x0, xt, C }), { rtol: 5e-4, atol: 1e-6, what: `t = ${t}` });
  }
  await own.destroy();
});

test('an image has the same bound whatever the batch, and weights that are damaged are said to be', async (engine) => {
  const diffusion = new GaussianDiffusion(engine, makeSchedule({ name: 'cosine', T }), { prediction: 'x0' }), x0 = levels(3, 0), model: DiffusionModel = (x) => x;
  const all = new Likelihood(model, diffusion, [3, H, W, C]), one = new Likelihood(model, diffusion, [1, H, W, C]);
  const whole = await all.measure(x0, { seed: 2, firstId: 7 });
  for (let n = 0; n < 3; n++) assert.is((await one.measure(x0.slice(n * SIZE, (n + 1) * SIZE), { seed: 2, firstId: 7 + n })).total[0], whole.total[n]);
  const nan = upload(engine, [1, H, W, C], new Float32Array(SIZE).fill(NaN)), damaged = new Likelihood(() => nan, diffusion, [1, H, W, C], { clipDenoised: false });
  await assertError(() => damaged.measure(x0.slice(0, SIZE), { seed: 2, firstId: 5 }), 'E-NONFINITE', /image 5 at t = \d is NaN/);
  for (const each of [all, one, damaged]) await each.destroy();
});

test('a network that knows x_0 leaves the decoder\'s bits and no others', async (engine) => {
  const x0 = levels(2, 0), known = upload(engine, [2, H, W, C], x0), diffusion = new GaussianDiffusion(engine, makeSchedule({ name: 'linear', T: 100 }), { prediction: 'x0' });
  const likelihood = new Likelihood(() => known, diffusion, [2, H, W, C]), { terms, total } = await likelihood.measure(x0, { seed: 0 });
  assert.ok(terms.subarray(2).every((bits) => bits === 0) && terms[0]! > 0.1 && total[0]! < 4, `${total}`);
  await likelihood.destroy();
});

test('a plot has its curve where the values are, in decades', async () => {
  const values = Array.from({ length: 100 }, (_, t) => 10 ** (-3 * (t / 99))), { width, height, data, channels } = plotLogarithmic(values, { xLabel: 't', yLabel: 'bits/dim', width: 400, height: 300 });
  assert.equal([width, height, channels, data.length], [400, 300, 1, 120_000]);
  // A straight line down from the upper left to the lower right: in the middle column of the axes, in the middle row. The axes leave 84 and 24 pixels at the sides, 42 and 56 above and below.
  const column = 84 + Math.round((400 - 108) / 2), dark = Array.from({ length: height }, (_, y) => y).filter((y) => data[y * width + column] === 0 && y > 60 && y < 236);
  assert.ok(dark.length >= 2 && dark.every((y) => Math.abs(y - (42 + 101)) < 4), `dark at ${dark}`);
  const grey = Array.from({ length: height }, (_, y) => y).filter((y) => data[y * width + 390 - 20] === 225);
  assert.is(grey.length, 3, 'a line for 1, 0.1 and 0.01; the foot is the axis');
  assert.equal(plotLogarithmic([0, NaN, 5], { xLabel: 't', yLabel: 'y' }).width, 720);
  await assertError(() => plotLogarithmic([0, -1], { xLabel: 't', yLabel: 'y' }), 'E-SHAPE', /values above 0/);
});
test.run();
