// The samplers on a device and on data whose score and flow are known: orders of error, and the mean and the variance of what they draw.
import * as assert from 'uvu/assert';
import { GaussianDiffusion } from '../src/diffusion/gaussian.ts';
import { respace } from '../src/diffusion/respace.ts';
import { Sampler, type SamplerOptions } from '../src/diffusion/sampler.ts';
import { langevinExcess } from '../src/diffusion/samplers/langevin.ts';
import { makeSchedule, type Schedule } from '../src/diffusion/schedule.ts';
import { assertClose } from './helpers/close.ts';
import { gpuSuite, random } from './helpers/gpu.ts';
import { perfect } from './helpers/perfect.ts';
import { Gaussian, runTable } from './ref/sampler.ts';

const suite = gpuSuite('samplers on a Gaussian');

const linear = makeSchedule({ name: 'linear', T: 1000 }), data = new Gaussian(linear, 0.3, 0.5);

for (const [method, order] of [['ddim', 1], ['dpm++1', 1], ['dpm++2m', 2], ['heun', 2]] as const)
  suite(`${method}: the device makes the error that its order foretells`, async (engine) => {
    const model = perfect(engine, data), diffusion = new GaussianDiffusion(engine, linear), noise = random(8, 3), errors: number[] = [];
    const lambda = (t: number): number => 0.5 * Math.log(linear.alphasCumprod[t]! / (1 - linear.alphasCumprod[t]!));
    for (const steps of [6, 12, 24]) {
      const list = Array.from({ length: steps + 1 }, (_, i) => linear.alphasCumprod.findIndex((_, t) => lambda(t) <= lambda(950) + (i / steps) * (lambda(200) - lambda(950))));
      const sampler = new Sampler(model, diffusion, [1, 8, 1, 1], { method, timesteps: list, clipDenoised: false });
      const arrived = sampler.rows.findLastIndex((row) => row.to === list[steps]);
      let got = new Float32Array(8);
      await sampler.sample({ seed: 0, noise, onStep: async ({ done, x }) => void (done === arrived + 1 && (got = await x.read())) });
      // What rounding does is far below what the steps do.
      assertClose(got, runTable(sampler.rows, noise, data.model)[arrived]!, { atol: 2e-5, what: `${method}, ${steps} steps` });
      errors.push(Math.max(...got.map((v, i) => Math.abs(v - data.flow(noise[i]!, list[0]!, list[steps]!)))));
      await sampler.destroy();
    }
    const slopes = errors.slice(1).map((e, i) => Math.log2(errors[i]! / e));
    console.log(`  ${method}: errors ${errors.map((e) => e.toExponential(1)).join(', ')}; orders ${slopes.map((s) => s.toFixed(2)).join(', ')}`);
    assert.ok(Math.abs(slopes[1]! - order) < 0.2, `order ${slopes[1]}`);
  });

/** Mean and variance of what a chain of x' = a x + b E[x_0 | x] + s z arrives at, from N(0, 1). */
function foretold(gaussian: Gaussian, steps: readonly { readonly t: number; readonly a: number; readonly b: number; readonly s: number }[]): { mean: number; variance: number } {
  let mean = 0, variance = 1;
  for (const { t, a, b, s } of steps) {
    const acp = gaussian.acp(t), { factor, offset } = gaussian.eps(t), root = Math.sqrt(1 - acp) / Math.sqrt(acp);
    const x = a + b * (1 / Math.sqrt(acp) - root * factor);
    mean = x * mean - b * root * offset;
    variance = x * x * variance + s * s;
  }
  return { mean, variance };
}

const ancestral = (schedule: Schedule, list: readonly number[], variance: 'fixed_small' | 'fixed_large') => {
  const short = respace(schedule, list);
  return list.map((t, i) => {
    const j = list.length - 1 - i, log = variance === 'fixed_small' ? short.posteriorLogVarianceClipped[j]! : short.fixedLargeLogVariance[j]!;
    return { t, a: short.posteriorMeanCoef2[j]!, b: short.posteriorMeanCoef1[j]!, s: j === 0 ? 0 : Math.exp(log / 2) };
  });
};

/** Draws n values and holds their mean and variance against what is foretold: 4.5 standard errors, of which one test in 150,000 strays by chance. */
async function holds(sampler: Sampler, want: { mean: number; variance: number }, what: string): Promise<void> {
  const x = await sampler.sample({ seed: 1 }), n = x.length;
  const mean = x.reduce((a, v) => a + v, 0) / n, variance = x.reduce((a, v) => a + (v - mean) ** 2, 0) / (n - 1);
  const meanError = Math.sqrt(want.variance / n), varianceError = want.variance * Math.sqrt(2 / (n - 1));
  console.log(`  ${what}: mean ${mean.toFixed(4)} (${want.mean.toFixed(4)} ± ${meanError.toFixed(4)}), variance ${variance.toFixed(4)} (${want.variance.toFixed(4)} ± ${varianceError.toFixed(4)})`);
  assert.ok(Math.abs(mean - want.mean) < 4.5 * meanError, `${what}: mean ${mean}`);
  assert.ok(Math.abs(variance - want.variance) < 4.5 * varianceError, `${what}: variance ${variance}`);
  await sampler.destroy();
}

const SHAPE = [64, 16, 16, 1] as const;

suite('ancestral sampling reaches the mean and the variance of the data, from both sides', async (engine) => {
  const model = perfect(engine, data), T = 300, schedule = makeSchedule({ name: 'linear', T }), here = new Gaussian(schedule, 0.3, 0.5);
  const all = Array.from({ length: T }, (_, i) => T - 1 - i), few = all.filter((t) => t % 3 === 2);
  for (const variance of ['fixed_small', 'fixed_large'] as const) {
    // Too small a variance for data that are no point, too large for data that are not N(0, 1) (Ho et al. 2020, section 3.2); three times the steps, less than half of the bias.
    const [bias, third] = [few, all].map((list) => foretold(here, ancestral(schedule, list, variance)).variance - 0.25) as [number, number];
    assert.ok(variance === 'fixed_small' ? bias < 0 : bias > 0);
    assert.ok(Math.abs(bias) < 0.04 && bias / third > 2, `${variance}: ${bias}, ${third}`);
    assert.ok(Math.abs(foretold(here, ancestral(schedule, all, variance)).mean - 0.3) < 1e-4);
  }
  const perfectHere = perfect(engine, here);
  for (const variance of ['fixed_small', 'fixed_large'] as const) {
    const diffusion = new GaussianDiffusion(engine, schedule, { variance });
    const sampler = new Sampler(perfectHere, diffusion, SHAPE, { method: 'ddpm', timesteps: few, clipDenoised: false });
    await holds(sampler, foretold(here, ancestral(schedule, few, variance)), `ddpm, ${variance}, ${few.length} of ${T} timesteps`);
  }
  const whole = new Sampler(model, new GaussianDiffusion(engine, linear), SHAPE, { method: 'ddpm', steps: 250, clipDenoised: false });
  await holds(whole, foretold(data, ancestral(linear, whole.timesteps, 'fixed_small')), 'ddpm, 250 of 1000 timesteps');
});

suite('ddim with noise and langevin dynamics reach them too', async (engine) => {
  const model = perfect(engine, data), diffusion = new GaussianDiffusion(engine, linear);
  const linearRows = (sampler: Sampler) => sampler.rows.map(({ t, x, start, z }) => ({ t, a: x, b: start, s: z }));
  const langevin = { method: 'langevin', denoise: false } as const;
  const runs: readonly (readonly [SamplerOptions, SamplerOptions])[] = [
    [{ method: 'ddim', steps: 60, eta: 1 }, { method: 'ddim', steps: 240, eta: 1 }], [{ method: 'ddim', steps: 60, eta: 0.5 }, { method: 'ddim', steps: 240, eta: 0.5 }],
    [{ ...langevin, steps: 50, innerSteps: 10 }, { ...langevin, steps: 150, innerSteps: 40, snr: 0.16 }],
  ];
  for (const [options, finer] of runs) {
    const sampler = new Sampler(model, diffusion, SHAPE, { ...options, clipDenoised: false }), want = foretold(data, linearRows(sampler));
    // So few steps have a bias, which goes as they become more.
    assert.ok(Math.abs(want.mean - 0.3) < 1e-3 && Math.abs(want.variance - 0.25) < 0.05, JSON.stringify(want));
    const fine = foretold(data, linearRows(new Sampler(model, diffusion, [1, 1, 1, 1], { ...finer, clipDenoised: false })));
    assert.ok(Math.abs(fine.variance - 0.25) < 0.4 * Math.abs(want.variance - 0.25), JSON.stringify([want, fine]));
    await holds(sampler, want, `${options.method}${options.eta ? `, eta ${options.eta}` : ''}`);
  }
});

suite("langevin's noise exceeds the level's by the factor that its docstring gives", async (engine) => {
  // All data at one point: what varies is noise alone. Many levels, so that the long run has come.
  const point = new Gaussian(linear, 0, 0), innerSteps = 4, snr = 0.3, steps = 60;
  const sampler = new Sampler(perfect(engine, point), new GaussianDiffusion(engine, linear), SHAPE, { method: 'langevin', steps, innerSteps, snr, denoise: false, clipDenoised: false });
  const q = (1 - 2 * snr ** 2) ** (2 * innerSteps), ratio = (t: number): number => 1 / linear.alphasCumprod[t]! - 1, at = 40; // below, timesteps are too coarse for one factor
  const g = (ratio(sampler.timesteps[at]!) / ratio(sampler.timesteps[0]!)) ** (1 / at), factor = (1 - q) / ((1 - q / g) * (1 - snr ** 2));
  const upTo = sampler.rows.slice(0, at * innerSteps).map(({ t, x, start, z }) => ({ t, a: x, b: start, s: z }));
  const { variance } = foretold(point, upTo), level = 1 - linear.alphasCumprod[sampler.timesteps[at - 1]!]!;
  // The last of these rows has scaled x to the next level already.
  const scale = linear.alphasCumprod[sampler.timesteps[at]!]! / linear.alphasCumprod[sampler.timesteps[at - 1]!]!;
  console.log(`  q ${q.toFixed(3)}, g ${g.toFixed(3)}: noise ${(variance / scale / level).toFixed(3)} of the level's, foretold ${factor.toFixed(3)}`);
  assert.ok(Math.abs(variance / scale / level / factor - 1) < 0.05);
  // The same step by step, as the command line warns of it; its worst level is about as bad as this one.
  const excess = langevinExcess({ schedule: linear, timesteps: sampler.timesteps.slice(0, at) }, { innerSteps, snr });
  assert.ok(excess >= variance / scale / level - 1e-4 && excess < 1.01 * (variance / scale / level), `${excess}`);
  await sampler.destroy();
});
suite.run();
