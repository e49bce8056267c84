// GaussianDiffusion on the device: every function against the float64 classic class, with an independent t for every image, and what its noise depends on.
import { readFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { Clock } from '../src/clock.ts';
import { type DiffusionModel, GaussianDiffusion, type MeanVariance, type TableName } from '../src/diffusion/gaussian.ts';
import { PREDICTIONS } from '../src/diffusion/prediction.ts';
import { makeSchedule, SCHEDULES, TABLE_NAMES } from '../src/diffusion/schedule.ts';
import { isLearned, type Variance, VARIANCES } from '../src/diffusion/variance.ts';
import type { Engine } from '../src/gpu/engine.ts';
import { readSafetensors } from '../src/io/safetensors.ts';
import { STREAM } from '../src/philox.ts';
import { nchwToNhwc, Tensor } from '../src/tensor.ts';
import { assertClose } from './helpers/close.ts';
import { assertError, clockAt, gpuSuite, random, upload } from './helpers/gpu.ts';
import * as twin from './ref/diffusion.ts';
import { normals } from './ref/random.ts';

type Floats = ArrayLike<number>;

const NAME = 'gaussian-diffusion-T1000.safetensors';
const { tensors } = readSafetensors(readFileSync(new URL(`golden/${NAME}`, import.meta.url)), NAME);
const golden = (name: string): Float64Array => Float64Array.from(tensors.get(name)!.data as ArrayLike<number>, Number);

/** The images of the file: (4, 3, 8, 8) there, (4, 8, 8, 3) here. Indices are turned, since nchwToNhwc would round the float64 values. */
const N = 4, SIZE = 192, SHAPE = [N, 8, 8, 3];
const turned = nchwToNhwc(Float32Array.from({ length: N * SIZE }, (_, i) => i), [N, 3, 8, 8]);
const images = (name: string): Float64Array => {
  const data = golden(name);
  return Float64Array.from(turned, (i) => data[i]);
};

const bits = (data: Float32Array): string => Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('base64');

/** The largest deviation of an image, relative to the largest value of that image; images differ in scale by orders of magnitude. */
function deviation(got: Floats, want: Floats, count = N): number {
  let worst = 0;
  assert.is(got.length, want.length);
  for (let n = 0; n < count; n++) {
    let scale = 0, off = 0;
    for (let i = (n * want.length) / count; i < ((n + 1) * want.length) / count; i++) {
      scale = Math.max(scale, Math.abs(want[i]));
      off = Math.max(off, Math.abs(got[i] - want[i]));
    }
    if (!(off / (scale || 1) <= worst)) worst = off / (scale || 1); // NaN is the worst
  }
  return worst;
}

const at = async (t: Tensor): Promise<number[]> => [...new Uint32Array(await t.engine.readBytes(t.slice))];

const test = gpuSuite('gaussian diffusion', { watched: false });

// ---------------------------------------------------------------------------------------------------------- against the classic class
for (const name of SCHEDULES) {
  const schedule = makeSchedule({ name, T: 1000 });

  test(`${name}: all thirteen tables on the device are those of the file, rounded to float32 once`, async (engine) => {
    const diffusion = new GaussianDiffusion(engine, schedule), t = upload(engine, [1000], Uint32Array.from({ length: 1000 }, (_, i) => i));
    for (const [key, snake] of Object.entries(TABLE_NAMES) as [TableName, string][]) {
      const got = await diffusion.extract(key, t).read(), want = golden(`${name}.${snake}`);
      // The file's float64 and ours differ by 1e-11 at most (test/schedule.test.ts), which can tip a rounding.
      assertClose(got, want, { rtol: 2 ** -24 + 1e-11, what: `${name} ${snake}` });
    }
    assert.is(Object.keys(TABLE_NAMES).length, 13);
  });

  test(`${name}: every function within 1e-5, at t = 0, 1, 500 and 999 in one batch`, async (engine) => {
    const input = (key: string): Tensor => upload(engine, SHAPE, Float32Array.from(images(`${name}.in.${key}`)));
    const [x0, xt, eps, z] = ['x0', 'xt', 'eps', 'z'].map(input), t = upload(engine, [N], Uint32Array.from(golden(`${name}.in.t`)));
    assert.equal(await at(t), [0, 1, 500, 999]);
    const table = (snake: string): number[] => [0, 1, 500, 999].map((i) => golden(`${name}.${snake}`)[i]);
    let worst = 0;
    const compare = async (what: string, got: Tensor, want: Floats): Promise<void> => {
      const off = deviation(await got.read(), want);
      assert.ok(off <= 1e-5, `${what} is off by ${off}`);
      worst = Math.max(worst, off);
    };
    const moments = async (what: string, { variance, logVariance }: MeanVariance, [wantVariance, wantLog]: readonly [Floats, Floats]): Promise<void> => {
      assertClose(await variance.read(), wantVariance, { rtol: 4 * 2 ** -24, what: `${what}: variance` });
      assertClose(await logVariance.read(), wantLog, { rtol: 4 * 2 ** -24, what: `${what}: log variance` });
    };

    const small = new GaussianDiffusion(engine, schedule), large = new GaussianDiffusion(engine, schedule, { variance: 'fixed_large' });
    const posterior = [table('posterior_variance'), table('posterior_log_variance_clipped')] as const;
    // fixed_large is beta, at t = 0 the posterior variance of t = 1: that of t = 0 is zero.
    const betas = [golden(`${name}.posterior_variance`)[1], ...table('betas').slice(1)];

    await compare('qSample', small.qSample(x0, t, eps), images(`${name}.out.q_sample`));
    await compare('predictStartFromNoise', small.predictStartFromNoise(xt, t, eps), images(`${name}.out.pred_x0`));
    const clipped = images(`${name}.out.pred_x0`).map((v) => Math.min(1, Math.max(-1, v)));
    const q = small.qPosteriorMeanVariance(upload(engine, SHAPE, clipped), xt, t);
    await compare('qPosteriorMeanVariance', q.mean, images(`${name}.out.posterior_mean_clipped`));
    await moments('qPosteriorMeanVariance', q, posterior);
    const forward = small.qMeanVariance(x0, t), root = table('sqrt_alphas_cumprod');
    await compare('qMeanVariance', forward.mean, images(`${name}.in.x0`).map((v, i) => root[Math.floor(i / SIZE)] * v));
    await moments('qMeanVariance', forward, [table('sqrt_one_minus_alphas_cumprod').map((v) => v * v), table('log_one_minus_alphas_cumprod')]);

    for (const [diffusion, file, wanted] of [[small, 'p_sample_small', posterior], [large, 'p_sample_large', [betas, betas.map(Math.log)]]] as const) {
      const model: DiffusionModel = (x, s) => {
        assert.ok(x.slice === xt.slice && s === t, 'the model sees x_t and t');
        return eps;
      };
      const p = diffusion.pMeanVariance(model, xt, t);
      await compare('pMeanVariance', p.mean, images(`${name}.out.posterior_mean_clipped`));
      await compare('pMeanVariance: x_0', p.predXstart, clipped);
      await moments(`pMeanVariance ${diffusion.variance}`, p, wanted);
      const raw = diffusion.pMeanVariance(model, xt, t, { clipDenoised: false });
      await compare('pMeanVariance without clip', raw.mean, images(`${name}.out.posterior_mean_from_eps`));
      await compare('pMeanVariance without clip: x_0', raw.predXstart, images(`${name}.out.pred_x0`));
      const { sample, predXstart } = diffusion.pSample(model, xt, t, { noise: z });
      await compare(file, sample, images(`${name}.out.${file}`));
      await compare(`${file}: x_0`, predXstart, clipped);
    }
    assert.is(bits(await xt.read()), bits(Float32Array.from(images(`${name}.in.xt`))), 'x_t itself is left alone');
    console.log(`  ${name}: within ${worst.toExponential(1)}`);
  });
}

test('a name that does not exist is refused with the names that do', async (engine) => {
  await assertError(() => makeSchedule({ name: 'exp' as 'linear', T: 1000 }), 'E-USAGE', /no schedule "exp".*linear, quadratic, cosine, sigmoid/);
  const schedule = makeSchedule({ name: 'linear', T: 100 });
  await assertError(() => new GaussianDiffusion(engine, schedule, { variance: 'small' as 'fixed_small' }), 'E-USAGE', /no variance "small"; the variances are fixed_small, fixed_large, learned_range, learned\./);
  await assertError(() => new GaussianDiffusion(engine, schedule, { prediction: 'noise' as 'eps' }), 'E-USAGE', /no prediction "noise"; a network predicts eps, x0, v, mu\./);
  const diffusion = new GaussianDiffusion(engine, schedule), t = upload(engine, [1], Uint32Array.of(3));
  await assertError(() => diffusion.extract('gammas' as 'betas', t), 'E-USAGE', /no table "gammas"; the tables are betas, alphas, .*posteriorMeanCoef2/);
  const x = upload(engine, [2, 1, 1, 4], random(8, 0));
  await assertError(() => diffusion.qSample(x, t, x), 'E-SHAPE', /\(2, 1, 1, 4\) and \(2, 1, 1, 4\) with 1 timesteps do not go together/);
  assert.is(diffusion.T, 100);
});

// -------------------------------------------------------------------------------------------------------------------- noise that is drawn
/** Images whose size is no multiple of four: their last block of draws is cut. */
const ODD = [5, 3, 1] as const, ODD_SIZE = 15, TIMES = [0, 7, 99, 7, 40], SEED = 21;
const drawing = (engine: Engine, variance: Variance = 'fixed_large', prediction: (typeof PREDICTIONS)[number] = 'eps') => {
  const schedule = makeSchedule({ name: 'linear', T: 100 });
  const x = random(5 * ODD_SIZE, 1), eps = random(5 * ODD_SIZE, 2);
  const upTo = (data: Float32Array, from: number, to: number): Tensor => upload(engine, [to - from, ...ODD], data.slice(ODD_SIZE * from, ODD_SIZE * to));
  return { schedule, diffusion: new GaussianDiffusion(engine, schedule, { variance, prediction }), x, eps, upTo, clock: new Clock(engine) };
};

for (const variance of VARIANCES)
  for (const prediction of PREDICTIONS)
    test(`pSample and pMeanVariance are the float64 step with Philox's normals, ${prediction}, ${variance}`, async (engine) => {
      const { schedule, diffusion, x, upTo, clock } = drawing(engine, variance, prediction), channels = isLearned(variance) ? 2 : 1;
      clock.set({ seed: SEED, first: 3, step: 999 });
      // One channel: a pair of (mean, v) for every pixel where the variance is learned.
      const output = random(5 * ODD_SIZE * channels, 4).map((v) => v / 4), t = upload(engine, [5], Uint32Array.from(TIMES));
      const model: DiffusionModel = () => upload(engine, [5, 5, 3, channels], output);
      const { sample } = diffusion.pSample(model, upTo(x, 0, 5), t, { clock });
      const table = twin.posteriorTable(schedule.betas, variance, prediction);
      const z = TIMES.flatMap((t, n) => [...normals({ seed: SEED, stream: STREAM.sample, step: t, samples: [3 + n], count: ODD_SIZE })]);
      const coef = twin.scheduleGather(table, TIMES, 6), last = TIMES.map((t) => Number(t === 0));
      const want = twin.posteriorStep({ xt: x, output, z, coef, clip: true, last, ...(channels === 2 && { channels: 1 }) });
      // Box-Muller's log, root, sine and cosine, each of a few units in the last place, on normals of at most 6; up to exp(1/2) for a learned variance.
      assertClose(await sample.read(), want.prev, { atol: 4e-5, what: 'pSample' });

      const p = diffusion.pMeanVariance(model, upTo(x, 0, 5), t);
      const mean = twin.posteriorStep({ xt: x, output, z: new Float64Array(z.length), coef, clip: true, ...(channels === 2 && { channels: 1 }) });
      assertClose(await p.mean.read(), mean.prev, { atol: 1e-5, what: 'mean' });
      assertClose(await p.predXstart.read(), mean.x0, { atol: 2e-5, what: 'x_0' });
      if (channels === 1) return;
      const log = Float64Array.from({ length: 5 * ODD_SIZE }, (_, i) => coef[6 * Math.floor(i / ODD_SIZE) + 4] + coef[6 * Math.floor(i / ODD_SIZE) + 5] * output[2 * i + 1]);
      assertClose(await p.logVariance.read(), log, { rtol: 1e-6, atol: 1e-6, what: 'log variance' });
      // exp turns an absolute error of its argument into a relative one.
      assertClose(await p.variance.read(), log.map(Math.exp), { rtol: 2e-5, what: 'variance' });
    });

test('an output whose channels do not go with the variance is refused', async (engine) => {
  const { diffusion, x, upTo, clock } = drawing(engine, 'learned_range'), xt = upTo(x, 0, 5), t = upload(engine, [5], Uint32Array.from(TIMES));
  await assertError(() => diffusion.pSample(() => xt, xt, t, { clock }), 'E-SHAPE', /gave \(5, 5, 3, 1\) for images of \(5, 5, 3, 1\); with the variance learned_range it has 2 channels for their 1/);
  const fixed = drawing(engine).diffusion, wide = upload(engine, [5, 5, 3, 2], random(150, 0));
  await assertError(() => fixed.pSample(() => wide, xt, t, { clock }), 'E-SHAPE', /fixed_large it has 1 channels/);
});

test('drawn noise depends on seed, sample id and t, not on the batch it is drawn in', async (engine) => {
  const { diffusion, x, eps, upTo, clock } = drawing(engine);
  const step = async (from: number, to: number, { seed = SEED, first = 40 + from, times = TIMES, step = 0 } = {}): Promise<string[]> => {
    clock.set({ seed, first, step });
    const got = await diffusion.pSample(() => upTo(eps, from, to), upTo(x, from, to), upload(engine, [to - from], Uint32Array.from(times.slice(from, to))), { clock }).sample.read();
    return Array.from({ length: to - from }, (_, n) => bits(got.subarray(n * ODD_SIZE, (n + 1) * ODD_SIZE)));
  };
  const all = await step(0, 5);
  assert.equal(await step(0, 5), all, 'again');
  assert.equal(await step(0, 5, { step: 17 }), all, 'the clock\'s step is training\'s');
  assert.equal([...(await step(0, 2)), ...(await step(2, 3)), ...(await step(3, 5))], all, 'in three batches');
  const differ = (other: string[], same: readonly number[]): void => other.forEach((image, n) => assert.is(image === all[n], same.includes(n), `image ${n}`));
  // Image 0 is at t = 0 and draws nothing.
  differ(await step(0, 5, { seed: SEED + 1 }), [0]);
  differ(await step(0, 5, { first: 41 }), [0]);
  const times = [0, 8, 99, 7, 41];
  differ(await step(0, 5, { times }), [0, 2, 3]);
});

test('at t = 0 there is no noise, drawn or given; it is the mean', async (engine) => {
  const { diffusion, x, eps, upTo, clock } = drawing(engine);
  clock.set({ seed: SEED });
  const t = upload(engine, [5], new Uint32Array(5)), loud = upload(engine, [5, ...ODD], random(5 * ODD_SIZE, 3).map((v) => 1e6 * v));
  const model: DiffusionModel = () => upTo(eps, 0, 5);
  const mean = bits(await diffusion.pMeanVariance(model, upTo(x, 0, 5), t).mean.read());
  assert.is(bits(await diffusion.pSample(model, upTo(x, 0, 5), t, { clock }).sample.read()), mean);
  assert.is(bits(await diffusion.pSample(model, upTo(x, 0, 5), t, { noise: loud }).sample.read()), mean);
});

test('posteriorStep in place is pSample, and both leave nothing behind but their results', async (engine) => {
  const { diffusion, x, eps, upTo, clock } = drawing(engine);
  clock.set({ seed: SEED, first: 8 });
  const t = upload(engine, [5], Uint32Array.from(TIMES)), xt = upTo(x, 0, 5), e = upTo(eps, 0, 5), x0 = Tensor.empty(engine, xt.shape);
  const { live } = engine.memory();
  const { sample, predXstart } = diffusion.pSample(() => e, xt, t, { clock });
  assert.is(engine.memory().live - live, 2 * 512, 'two tensors of 300 bytes, in buffers of 512');
  diffusion.posteriorStep(xt, e, t, x0, { clock });
  assert.is(engine.memory().live - live, 2 * 512);
  assert.is(bits(await xt.read()), bits(await sample.read()));
  assert.is(bits(await x0.read()), bits(await predXstart.read()));
});

for (const prediction of PREDICTIONS)
  test(`qSampleTarget draws the noise of a training step, diffuses with it, and says what is to be predicted: ${prediction}`, async (engine) => {
    const { schedule, diffusion, x, upTo, clock } = drawing(engine, 'fixed_small', prediction);
    clock.set({ seed: SEED, step: 12, first: 2 });
    const t = upload(engine, [5], Uint32Array.from(TIMES)), x0 = upTo(x, 0, 5);
    const { xt, target } = diffusion.qSampleTarget(x0, t, clock);
    const eps = normals({ seed: SEED, stream: STREAM.noise, step: 12, samples: [2, 3, 4, 5, 6], count: ODD_SIZE });
    const coef = Float64Array.from(TIMES.flatMap((i) => [schedule.sqrtAlphasCumprod[i], schedule.sqrtOneMinusAlphasCumprod[i]]));
    const want = twin.qSample(x, eps, coef);
    assertClose(await xt.read(), want, { atol: 2e-5, what: 'x_t' });
    const q = twin.posteriorTable(schedule.betas, 'fixed_small');
    const goal = eps.map((e, i) => {
      const n = Math.floor(i / ODD_SIZE), [root, noise] = [coef[2 * n], coef[2 * n + 1]], row = 6 * TIMES[n];
      return { eps: e, x0: x[i], v: root * e - noise * x[i], mu: q[row + 2] * x[i] + q[row + 3] * want[i] }[prediction];
    });
    assertClose(await target.read(), goal, { atol: 2e-5, what: 'target' });
    const given = upload(engine, x0.shape, Float32Array.from(eps));
    assertClose(await diffusion.target(x0, t, given).read(), goal, { atol: 2e-5, what: 'target of given noise' });
  });

test('trainLosses is the mean squared error against the noise, given or drawn', async (engine) => {
  const { schedule, diffusion, x, eps, upTo, clock } = drawing(engine);
  const t = upload(engine, [5], Uint32Array.from(TIMES)), x0 = upTo(x, 0, 5), seen: Tensor[] = [];
  // A model that predicts x_t itself: its loss sees both x_t and the noise.
  const model: DiffusionModel = (xt, s) => {
    assert.is(s, t);
    seen.push(xt);
    return xt;
  };
  const coef = Float64Array.from(TIMES.flatMap((i) => [schedule.sqrtAlphasCumprod[i], schedule.sqrtOneMinusAlphasCumprod[i]]));
  const loss = (await diffusion.trainLosses(model, x0, t, { noise: upTo(eps, 0, 5) }).read())[0];
  assertClose([loss], [twin.mse(twin.qSample(x, eps, coef), eps)], { rtol: 1e-6, what: 'given noise' });
  clock.set({ seed: SEED, step: 4 });
  const drawn = (await diffusion.trainLosses(model, x0, t, { clock }).read())[0];
  const z = normals({ seed: SEED, stream: STREAM.noise, step: 4, samples: [0, 1, 2, 3, 4], count: ODD_SIZE });
  assertClose([drawn], [twin.mse(twin.qSample(x, z, coef), z)], { rtol: 1e-5, what: 'drawn noise' });
  assert.is(seen.length, 2);
});
test('outside of scopes nothing is left but what is returned, with dynamic thresholding too', async (engine) => {
  const thresholding = { ratio: 0.9, max: 2 }, clock = clockAt(engine, { seed: 1 });
  for (const variance of ['fixed_small', 'learned_range'] as const) {
    const diffusion = new GaussianDiffusion(engine, makeSchedule({ name: 'linear', T: 1000 }), { variance }), C = isLearned(variance) ? 6 : 3;
    const [x, z] = [0, 1].map((id) => upload(engine, SHAPE, random(N * SIZE, id))) as [Tensor, Tensor], output = upload(engine, [N, 8, 8, C], random((N * SIZE * C) / 3, 2));
    const t = upload(engine, [N], Uint32Array.of(0, 1, 500, 999)), model: DiffusionModel = () => output;
    const calls: Readonly<Record<string, () => object>> = {
      selfCondition: () => ({ start: diffusion.selfCondition(output, x, t, clock, { clipDenoised: thresholding }) }),
      pSample: () => diffusion.pSample(model, x, t, { clock, clipDenoised: thresholding }),
      pMeanVariance: () => diffusion.pMeanVariance(model, x, t, { clipDenoised: thresholding }),
      qSampleTarget: () => diffusion.qSampleTarget(x, t, clock),
      qSample: () => ({ xt: diffusion.qSample(x, t, z) }),
      qMeanVariance: () => diffusion.qMeanVariance(x, t),
      qPosteriorMeanVariance: () => diffusion.qPosteriorMeanVariance(x, z, t),
    };
    for (const [name, call] of Object.entries(calls)) {
      const { live } = engine.memory();
      for (const tensor of Object.values(call()) as Tensor[]) tensor.free();
      assert.is(engine.memory().live - live, 0, `${name}, ${variance}`);
    }
  }
});

test.run();
