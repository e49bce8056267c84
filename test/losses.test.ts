// The losses of training as a whole: against PyTorch's autograd, against the classic class, and what must hold between parametrisations.
import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Clock } from '../src/clock.ts';
import { type DiffusionModel, GaussianDiffusion } from '../src/diffusion/gaussian.ts';
import { boundTable, DiffusionLoss, type LossOptions, LOSSES, minSnrWeights } from '../src/diffusion/losses.ts';
import { type Prediction, PREDICTIONS, startTable, targetTable } from '../src/diffusion/prediction.ts';
import { makeSchedule, SCHEDULES } from '../src/diffusion/schedule.ts';
import { isLearned, type Variance, VARIANCES } from '../src/diffusion/variance.ts';
import { readSafetensors } from '../src/io/safetensors.ts';
import { variationalBound } from '../src/ops/loss.ts';
import { nchwToNhwc, Tensor } from '../src/tensor.ts';
import { Tape } from '../src/autograd.ts';
import { assertClose, relativeL2 } from './helpers/close.ts';
import { assertError, gpuSuite, random, upload } from './helpers/gpu.ts';
import * as twin from './ref/losses.ts';

const golden = (name: string) => {
  const { tensors, metadata } = readSafetensors(readFileSync(new URL(`golden/${name}`, import.meta.url)), name);
  return { metadata, shape: (key: string) => tensors.get(key)!.shape, data: (key: string) => Float64Array.from(tensors.get(key)!.data as ArrayLike<number>, Number) };
};

// --------------------------------------------------------------------------------------------------------------------- against PyTorch
const torch = gpuSuite('losses against PyTorch');
const file = golden('losses.safetensors'), T = Number(file.metadata['T']);
const cases = Object.entries(JSON.parse(file.metadata['cases']!) as Record<string, { prediction: Prediction; variance: Variance; loss: LossOptions['loss']; gamma?: number }>);
for (const [name, { prediction, variance, loss, gamma }] of cases) {
  torch(`${name}: the loss of each image, their mean and the gradient`, async (engine) => {
    const diffusion = new GaussianDiffusion(engine, makeSchedule({ name: 'linear', T }), { prediction, variance });
    const of = new DiffusionLoss(diffusion, { loss, ...(gamma !== undefined && { snrGamma: gamma }) });
    const tensor = (key: string) => upload(engine, file.shape(key), Float32Array.from(file.data(key)));
    const output = tensor(`${name}.output`), tape = new Tape(engine);
    output.requiresGrad = true;
    const { loss: mean, each } = tape.record(() => of.of(() => output, tensor('x0'), upload(engine, [5], Uint32Array.from(file.data('t'))), { noise: tensor('noise') }));
    tape.backward(mean, each);
    const want = file.data(`${name}.each`), got = await each.read();
    // The bound sees x_0 from eps, which at t = 99 is a difference of numbers some 150 times as large: 150 roundings of 2^-24, a few of them, against an error of 0.1.
    const allowed = (n: number): number => (prediction === 'eps' && loss === 'vlb' && n === 3 ? (150 * 6 * 2 ** -24) / 0.1 : 2e-5);
    for (const [n, value] of want.entries()) assert.ok(Math.abs(got[n]! - value) <= allowed(n) * Math.abs(value), `image ${n}: ${got[n]}, not ${value}`);
    assertClose(await mean.read(), file.data(`${name}.loss`), { rtol: 1e-5, what: 'loss' });
    const gradient = await tape.gradient(output).read(), wanted = file.data(`${name}.doutput`), size = wanted.length / 5;
    for (let n = 0; n < 5; n++) {
      const error = relativeL2(gradient.subarray(n * size, (n + 1) * size), wanted.subarray(n * size, (n + 1) * size));
      assert.ok(error <= allowed(n), `the gradient of image ${n} is off by ${error}`);
    }
  });
  if (!loss || !['vlb', 'hybrid'].includes(loss)) continue;
  torch(`${name}: the twin is PyTorch's, too`, () => {
    const s = makeSchedule({ name: 'linear', T }), t = [...file.data('t')], x0 = file.data('x0'), noise = file.data('noise'), size = x0.length / 5;
    const xt = x0.map((x, i) => s.sqrtAlphasCumprod[t[Math.floor(i / size)]!]! * x + s.sqrtOneMinusAlphasCumprod[t[Math.floor(i / size)]!]! * noise[i]!);
    const a = { betas: s.betas, prediction, variance, t, output: file.data(`${name}.output`), x0, xt, C: 2 }, scale = loss === 'vlb' ? T : T / 1000;
    const d = twin.boundGradient(a, new Float64Array(5).fill(scale / 5), loss === 'hybrid'), want = file.data(`${name}.doutput`);
    if (loss === 'vlb') {
      assertClose(twin.bound(a).map((v) => v * scale), file.data(`${name}.each`), { rtol: 1e-9, what: 'each' });
      assertClose(d, want, { rtol: 1e-7, atol: 1e-7, what: 'doutput' });
    } else for (const [i, v] of d.entries()) if (i % 4 >= 2) assert.ok(Math.abs(v - want[i]!) <= 1e-9 + 1e-7 * Math.abs(v), `v ${i}`); // the mean's channels have the simple loss
  });
}
torch.run();

// ------------------------------------------------------------------------------------------------------------- against the classic class
const classic = gpuSuite('the bound against the classic class');
const tables = golden('gaussian-diffusion-T1000.safetensors'), N = 4, SIZE = 192;
const turned = nchwToNhwc(Float32Array.from({ length: N * SIZE }, (_, i) => i), [N, 3, 8, 8]);
for (const name of SCHEDULES)
  classic(`${name}: KL and decoder within 1e-5, with the variance of t = 1 at t = 0`, async (engine) => {
    const schedule = makeSchedule({ name, T: 1000 }), times = [0, 1, 500, 999], columns = boundTable(schedule, 'eps', 'fixed_small');
    const coef = upload(engine, [N, 7], Float32Array.from(times.flatMap((t) => columns.map((column) => column[t]!))));
    const images = (key: string) => upload(engine, [N, 8, 8, 3], Float32Array.from(turned, (i) => tables.data(`${name}.in.${key}`)[i]!));
    // The file has the KL at t = 0 and the decoder at every t, too; the row of coefficients is what says t, and the branch is taken by this.
    for (const [what, t, x0] of [['kl', 1, 'x0'], ['decoder_nll', 0, 'x0_quantized']] as const) {
      const inputs = { t: upload(engine, [N], new Uint32Array(N).fill(t)), coef, output: images('eps'), x0: images(x0), xt: images('xt') };
      const got = await variationalBound(inputs, { clip: true }).read(), want = tables.data(`${name}.out.${what}_bits_per_dim`);
      const off = Math.max(...want.map((v, n) => Math.abs(got[n]! - v) / Math.max(1, Math.abs(v))));
      assert.ok(off <= 1e-5, `${what} is off by ${off}: ${[...got].join()} and ${[...want].join()}`);
    }
  });
classic.run();

// ------------------------------------------------------------------------------------------------------------------------ in float64
const exact = suite('what must hold of losses');
/** Simpson's rule. */
function integral(f: (x: number) => number, from: number, to: number, n = 4000): number {
  let sum = f(from) + f(to);
  for (let i = 1; i < n; i++) sum += f(from + ((to - from) * i) / n) * (i % 2 ? 4 : 2);
  return (sum * (to - from)) / (3 * n);
}
const normal = (x: number, mean: number, variance: number): number => Math.exp(-((x - mean) ** 2) / (2 * variance)) / Math.sqrt(2 * Math.PI * variance);

exact('the posterior of q is what Bayes gives, by integrating q(x_t | x_{t-1}) q(x_{t-1} | x_0)', () => {
  const s = makeSchedule({ name: 'linear', T: 50 });
  for (const t of [1, 2, 10, 30, 49])
    for (const [x0, eps] of [[0.4, 0.3], [-1, -2], [0.9, 1]] as const) {
      const beta = s.betas[t]!, prev = s.alphasCumprodPrev[t]!, xt = s.sqrtAlphasCumprod[t]! * x0 + s.sqrtOneMinusAlphasCumprod[t]! * eps;
      const joint = (x: number) => normal(xt, Math.sqrt(1 - beta) * x, beta) * normal(x, Math.sqrt(prev) * x0, 1 - prev);
      // What is known of x_{t-1} from either side: both centres, and the narrower width around them.
      const width = 12 * Math.sqrt(Math.min(1 - prev, beta / (1 - beta))), ends = [Math.sqrt(prev) * x0, xt / Math.sqrt(1 - beta)];
      const moment = (f: (x: number) => number) => integral((x) => f(x) * joint(x), Math.min(...ends) - width, Math.max(...ends) + width);
      const total = moment(() => 1), mean = moment((x) => x) / total, variance = moment((x) => (x - mean) ** 2) / total;
      const want = s.posteriorMeanCoef1[t]! * x0 + s.posteriorMeanCoef2[t]! * xt;
      assert.ok(Math.abs(mean - want) < 1e-9 * Math.max(1, Math.abs(want)), `mean at ${t}: ${mean} and ${want}`);
      assert.ok(Math.abs(variance / s.posteriorVariance[t]! - 1) < 1e-8, `variance at ${t}: ${variance} and ${s.posteriorVariance[t]}`);
    }
});

exact('the KL of two normals is the integral of q log(q / p)', () => {
  for (const [m1, v1, m2, v2] of [[0, 1, 0.3, 1], [0.2, 0.04, 0.25, 0.05], [-1, 2, 1, 0.5]]) {
    const log = (x: number, m: number, v: number) => -((x - m) ** 2) / (2 * v) - Math.log(v) / 2;
    const kl = integral((x) => normal(x, m1, v1) * (log(x, m1, v1) - log(x, m2, v2)), m1 - 12 * Math.sqrt(v1), m1 + 12 * Math.sqrt(v1));
    assert.ok(Math.abs(kl - twin.normalKl(m1, Math.log(v1), m2, Math.log(v2))) < 1e-9, `${kl}`);
  }
});

exact('the decoder gives its 256 levels a probability of 1 in all, and is the normal distribution but for 2e-4', () => {
  for (const [mean, log] of [[0, -9.8], [0.7, -6], [-1, -4], [1.02, -8]]) {
    let sum = 0;
    // Where the last level but one ends and the last one begins, x is 1 / 255 from either.
    for (let level = 0; level < 256; level++) sum += Math.exp(-twin.decoderNll(level / 127.5 - 1, mean, log));
    assert.ok(Math.abs(sum - 1) < 1e-9, `${mean}, ${log}: ${sum}`);
  }
  for (let x = -6; x <= 6; x += 0.37) assert.ok(Math.abs(twin.normalCdf(x) - integral((v) => normal(v, 0, 1), -12, x)) < 2e-4, `at ${x}`);
});

/*
 * For one x_t, let the network's x_0 be off by d. Whatever it predicts, x_0 = x[t] x_t + output[t] · output, so its output is off by d / output[t], and the
 * squared error of the output times min(SNR, gamma) output[t]^2 is min(SNR, gamma) d^2: the same for all four, and zero at the optimum d = 0.
 */
exact('min-SNR losses of eps, x0, v and mu are one loss, and its optimum is at x_0', () => {
  for (const name of SCHEDULES) {
    const s = makeSchedule({ name, T: 1000 });
    for (const t of [0, 1, 17, 500, 999])
      for (const d of [0, 0.1, -0.7]) {
        const x0 = 0.3, eps = -1.2, xt = s.sqrtAlphasCumprod[t]! * x0 + s.sqrtOneMinusAlphasCumprod[t]! * eps;
        const losses = PREDICTIONS.map((prediction) => {
          const start = startTable(s, prediction), target = targetTable(s, prediction), output = (x0 + d - start.x[t]! * xt) / start.output[t]!;
          return minSnrWeights(s, prediction, 5)[t]! * (output - target.start[t]! * x0 - target.noise[t]! * eps) ** 2;
        });
        const snr = s.alphasCumprod[t]! / (1 - s.alphasCumprod[t]!), want = Math.min(snr, 5) * d * d;
        losses.forEach((loss, i) => assert.ok(Math.abs(loss - want) <= 1e-6 * Math.max(want, 1e-9), `${name}, ${PREDICTIONS[i]}, t ${t}, d ${d}: ${loss}, not ${want}`));
      }
  }
});

exact('min-SNR weights are those of the paper, the smaller of the two', () => {
  const s = makeSchedule({ name: 'linear', T: 1000 });
  let bites = 0;
  for (let t = 0; t < 1000; t++) {
    const snr = s.alphasCumprod[t]! / (1 - s.alphasCumprod[t]!), least = Math.min(snr, 5);
    for (const [prediction, want] of [['eps', least / snr], ['x0', least], ['v', least / (snr + 1)], ['mu', least / s.posteriorMeanCoef1[t]! ** 2]] as const)
      assert.ok(Math.abs(minSnrWeights(s, prediction, 5)[t]! / want - 1) < 1e-9, `${prediction} at ${t}`);
    if (snr > 5) bites++;
  }
  assert.is(bites, 130);
  assert.ok(Math.abs(s.alphasCumprod[0]! / (1 - s.alphasCumprod[0]!) - 9999) < 1e-6);
});

exact('min-SNR losses train the last t of a schedule that ends without signal, and all of its others as before', () => {
  const s = makeSchedule({ name: 'linear', T: 1000, rescaleBetasZeroSnr: true }), snr = s.alphasCumprod.map((acp) => acp / (1 - acp));
  assert.is(snr[999], 0);
  for (const gamma of [5, 0.25])
    for (const [prediction, want, before] of [['x0', 1, (t: number) => Math.min(snr[t]!, gamma)], ['v', 1, (t: number) => Math.min(snr[t]!, gamma) / (snr[t]! + 1)], ['mu', 1 / s.posteriorMeanCoef1[999]! ** 2, (t: number) => Math.min(snr[t]!, gamma) / s.posteriorMeanCoef1[t]! ** 2]] as const) {
      const got = minSnrWeights(s, prediction, gamma);
      assert.ok(Math.abs(got[999]! / (Math.min(1, gamma) * want) - 1) < 1e-12, `${prediction} at 999: ${got[999]}`);
      for (let t = 0; t < 999; t++) assert.ok(Math.abs(got[t]! / before(t) - 1) < 1e-9, `${prediction} at ${t}`);
    }
});

exact('the bound weighs the squared error of eps by beta^2 / (2 sigma^2 alpha (1 - acp)), and not by 1 / (2 sigma^4)', () => {
  const s = makeSchedule({ name: 'linear', T: 1000 });
  // DDPM, eq. 12. The numbers are those of the two fixed variances; at t = 0 the variance of t = 1 stands in.
  const WANT = { fixed_large: [0.5, 0.273, 0.194, 0.0682, 0.01, 0.00551, 0.0102], fixed_small: [0.917, 0.6, 0.318, 0.079, 0.0102, 0.00551, 0.0102] };
  for (const [variance, numbers] of Object.entries(WANT) as [Variance, number[]][]) {
    const [, output, c1, , log] = boundTable(s, 'eps', variance);
    [0, 1, 2, 10, 100, 500, 999].forEach((t, i) => {
      // The KL's term in the means is c1^2 (x_0 - predicted)^2 / (2 sigma^2), and x_0 moves by output[t] with eps.
      const sigma2 = variance === 'fixed_large' && t === 0 ? s.betas[0]! : Math.exp(log![t]!), weight = (c1![t]! * output![t]!) ** 2 / (2 * sigma2);
      const formula = s.betas[t]! ** 2 / (2 * sigma2 * s.alphas[t]! * (1 - s.alphasCumprod[t]!));
      assert.ok(Math.abs(weight / formula - 1) < 1e-9, `${variance} at ${t}`);
      assert.ok(Math.abs(weight / numbers[i]! - 1) < 6e-3, `${variance} at ${t}: ${weight}, not ${numbers[i]}`);
    });
  }
});

exact('the gradients of the twins are their finite differences', () => {
  const h = 1e-5, off = (f: (v: number) => number, x: number) => (f(x + h) - f(x - h)) / (2 * h);
  for (const [m1, l1, m2, l2] of [[0, -3, 0.1, -2.5], [1, 0, -1, 1]]) {
    const [dm, dl] = twin.normalKlGradient(m1, l1, m2, l2);
    assert.ok(Math.abs(dm - off((v) => twin.normalKl(m1, l1, v, l2), m2)) < 1e-6 && Math.abs(dl - off((v) => twin.normalKl(m1, l1, m2, v), l2)) < 1e-6);
  }
  let cut = 0;
  for (const x of [-1, 0.2, 127 / 127.5 - 1, 1])
    for (const mean of [x, x + 0.003, x - 0.02, x + 0.5])
      for (const log of [-9.8, -6, -3]) {
        const [dm, dl] = twin.decoderNllGradient(x, mean, log), close = (a: number, b: number) => Math.abs(a - b) <= 1e-5 * (1 + Math.abs(a));
        assert.ok(close(dm, off((v) => twin.decoderNll(x, v, log), mean)) && close(dl, off((v) => twin.decoderNll(x, mean, v), log)), `${x}, ${mean}, ${log}`);
        if (twin.decoderNll(x, mean, log) > 27.6) cut++;
      }
  assert.ok(cut > 0 && cut < 30);
  for (const d of [-2, -0.3, 0.4, 3]) assert.ok(Math.abs(twin.smoothL1Derivative(d, 0.7) - off((v) => twin.smoothL1(v, 0.7), d)) < 1e-9);
});
exact.run();

// ------------------------------------------------------------------------------------------------------------------------- on the device
const device = gpuSuite('losses');

device('the same x_0 gives the same min-SNR loss for eps, x0, v and mu, with noise from one clock', async (engine) => {
  const s = makeSchedule({ name: 'linear', T: 1000 }), times = [0, 3, 77, 500, 800], x0 = upload(engine, [5, 4, 3, 1], random(60, 0).map(Math.tanh)), t = upload(engine, [5], Uint32Array.from(times));
  const clock = new Clock(engine), wrong = random(60, 1).map((v) => Math.tanh(v) / 2), seen: number[][] = [];
  clock.set({ seed: 4, step: 2 });
  for (const prediction of PREDICTIONS) {
    const diffusion = new GaussianDiffusion(engine, s, { prediction }), start = startTable(s, prediction);
    // A network that makes of every x_t its own wrong x_0, said in the terms of what it predicts.
    const { xt } = diffusion.qSampleTarget(x0, t, clock), noisy = await xt.read();
    const output = upload(engine, [5, 4, 3, 1], noisy.map((x, i) => (wrong[i]! - start.x[times[Math.floor(i / 12)]!]! * x) / start.output[times[Math.floor(i / 12)]!]!));
    seen.push([...(await new DiffusionLoss(diffusion, { snrGamma: 5 }).of(() => output, x0, t, { clock }).each.read())]);
  }
  const original = await x0.read();
  times.forEach((time, n) => {
    const snr = s.alphasCumprod[time]! / (1 - s.alphasCumprod[time]!), error = wrong.subarray(12 * n, 12 * n + 12).reduce((sum, w, i) => sum + (w - original[12 * n + i]!) ** 2, 0) / 12;
    // At t = 0 eps is a difference of x_t and x_0 over 0.01; its roundings grow a hundredfold, beside errors of about 1.
    seen.forEach((each, i) => assert.ok(Math.abs(each[n]! / (Math.min(snr, 5) * error) - 1) < 1e-4, `${PREDICTIONS[i]} at ${time}: ${each[n]} and ${Math.min(snr, 5) * error}`));
  });
});

device('a perfect network has no simple loss, and of the bound only what the variance costs', async (engine) => {
  const s = makeSchedule({ name: 'cosine', T: 100 }), times = [0, 1, 50, 99], t = upload(engine, [4], Uint32Array.from(times)), noise = upload(engine, [4, 2, 2, 1], random(16, 1));
  const x0 = upload(engine, [4, 2, 2, 1], random(16, 0).map((v) => Math.round((Math.tanh(v) + 1) * 127.5) / 127.5 - 1));
  for (const prediction of PREDICTIONS)
    for (const variance of ['fixed_small', 'fixed_large'] as const) {
      const diffusion = new GaussianDiffusion(engine, s, { prediction, variance }), model: DiffusionModel = () => diffusion.target(x0, t, noise);
      for (const loss of ['mse', 'l1', 'huber'] as const) assert.ok((await new DiffusionLoss(diffusion, { loss }).of(model, x0, t, { noise }).loss.read())[0]! < 1e-12, `${prediction} ${loss}`);
      const bits = await new DiffusionLoss(diffusion, { loss: 'vlb' }).of(model, x0, t, { noise }).each.read();
      times.slice(1).forEach((time, i) => {
        const ratio = variance === 'fixed_small' ? 1 : s.posteriorVariance[time]! / s.betas[time]!;
        const want = (100 * 0.5 * (ratio - 1 - Math.log(ratio))) / Math.LN2;
        // In eps x_0 is the difference of numbers 1e4 times as large at t = 99; the squares of its roundings count.
        assert.ok(Math.abs(bits[i + 1]! - want) < 1e-4 * (1 + want), `${prediction} ${variance} at ${time}: ${bits[i + 1]} and ${want}`);
      });
      assert.ok(bits[0]! / 100 > 0 && bits[0]! / 100 < 3, `the decoder of a perfect mean needs some bits: ${bits[0]! / 100}`);
    }
});

device('the bound of training does not clip; that of an evaluation does', async (engine) => {
  const diffusion = new GaussianDiffusion(engine, makeSchedule({ name: 'linear', T: 100 }), { prediction: 'x0' }), t = upload(engine, [1], Uint32Array.of(40));
  const x0 = upload(engine, [1, 1, 1, 1], [1]), output = upload(engine, [1, 1, 1, 1], [1.5]), noise = upload(engine, [1, 1, 1, 1], [0.2]);
  assert.ok((await new DiffusionLoss(diffusion, { loss: 'vlb' }).of(() => output, x0, t, { noise }).loss.read())[0]! > 0.1);
  const coef = upload(engine, [1, 7], boundTable(diffusion.schedule, 'x0', 'fixed_small').map((column) => column[40]!));
  assert.is((await variationalBound({ t, coef, output, x0, xt: diffusion.qSample(x0, t, noise) }, { clip: true }).read())[0], 0);
});

device('weights count in the loss and not in what each image adds', async (engine) => {
  const diffusion = new GaussianDiffusion(engine, makeSchedule({ name: 'linear', T: 100 })), t = upload(engine, [3], Uint32Array.of(1, 50, 99)), noise = upload(engine, [3, 2, 1, 1], random(6, 1));
  const x0 = upload(engine, [3, 2, 1, 1], random(6, 0)), output = upload(engine, [3, 2, 1, 1], random(6, 2)), loss = new DiffusionLoss(diffusion);
  const plain = loss.of(() => output, x0, t, { noise }), weighted = loss.of(() => output, x0, t, { noise, weight: upload(engine, [3], [2, 0.5, 0]) });
  const each = await plain.each.read();
  assert.equal(await weighted.each.read(), each);
  assertClose(await weighted.loss.read(), [(2 * each[0]! + 0.5 * each[1]!) / 3], { rtol: 1e-6, what: 'loss' });
});

device('losses that do not go with the rest are refused, and a learned variance has the hybrid loss without a word', async (engine) => {
  const diffusion = (variance: Variance) => new GaussianDiffusion(engine, makeSchedule({ name: 'linear', T: 100 }), { variance });
  for (const variance of VARIANCES) assert.is(new DiffusionLoss(diffusion(variance)).name, isLearned(variance) ? 'hybrid' : 'mse');
  const refuses = (variance: Variance, options: LossOptions, message: RegExp) => assertError(() => new DiffusionLoss(diffusion(variance), options), 'E-USAGE', message);
  await refuses('fixed_small', { loss: 'kl' as 'vlb' }, /no loss "kl"; the losses are mse, l1, huber, vlb, hybrid/);
  await refuses('learned_range', { loss: 'mse' }, /loss mse teaches the network no variance.*hybrid or vlb, or a fixed variance/);
  await refuses('fixed_large', { loss: 'hybrid' }, /fixed_large is fixed: use the variance learned_range/);
  await refuses('fixed_small', { loss: 'l1', snrGamma: 5 }, /loss l1 has its own/);
  await refuses('fixed_small', { snrGamma: 0 }, /gamma.*is 0.*positive/);
  await refuses('fixed_small', { loss: 'huber', huberDelta: 0 }, /positive delta, not 0/);
  const x = upload(engine, [1, 1, 1, 1], [0]), t = upload(engine, [1], Uint32Array.of(0));
  await assertError(() => new DiffusionLoss(diffusion('learned_range')).of(() => x, x, t, { noise: x }), 'E-SHAPE', /2 channels for their 1/);
  assert.is(LOSSES.length, 5);
  assert.instance(x, Tensor);
});
device.run();
