// The samplers against diffusers' DDIM and against DDPM in float64, step by step; and what a sample depends on: its id and the seed, not its batch.
import * as assert from 'uvu/assert';
import { threads } from '../src/autograd.ts';
import { type DiffusionModel, GaussianDiffusion } from '../src/diffusion/gaussian.ts';
import { respace } from '../src/diffusion/respace.ts';
import { Sampler, type SamplerOptions, type SampleStep } from '../src/diffusion/sampler.ts';
import { makeSchedule, type ScheduleName } from '../src/diffusion/schedule.ts';
import type { Variance } from '../src/diffusion/variance.ts';
import type { Engine } from '../src/gpu/engine.ts';
import type { Kernel } from '../src/gpu/kernel.ts';
import { parametersOf } from '../src/nn/parameter.ts';
import { Parameters } from '../src/nn/parameters.ts';
import { UNet } from '../src/nn/unet.ts';
import { add } from '../src/ops/pointwise.ts';
import { STREAM } from '../src/philox.ts';
import { nchwToNhwc, Tensor } from '../src/tensor.ts';
import { assertClose, relativeL2 } from './helpers/close.ts';
import { assertError, gpuSuite, random, upload } from './helpers/gpu.ts';
import { closedForm as closedFormEps, tensors, TRAJECTORIES } from './helpers/trajectories.ts';
import * as twin from './ref/diffusion.ts';
import { normals } from './ref/random.ts';

type Shape = readonly [number, number, number, number];

const bits = (data: Float32Array): string => Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('base64');

/** eps = 0.3 x + 0.1 sin(5 x) t / 1000: the model of the golden trajectories. The sine's argument is reduced here, since WGSL promises digits on [-pi, pi] only. */
const closedForm = {
  name: 'test_closed_form', features: [], bindings: { x: 'read', t: 'read', eps: 'read_write' }, overrides: {}, optional: {}, dims: { N: 'u32', size: 'u32' },
  wgsl: `
struct Dims { N: u32, size: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> t: array<u32>;
@group(0) @binding(2) var<storage, read_write> eps: array<f32>;
@group(0) @binding(3) var<uniform> dims: Dims;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let i = id.x;
  if (i >= dims.N * dims.size) { return; }
  let turns = 5.0 * x[i] * ${1 / (2 * Math.PI)};
  eps[i] = 0.3 * x[i] + 0.1 * sin((turns - round(turns)) * ${2 * Math.PI}) * f32(t[i / dims.size]) / 1000.0;
}`,
} as const satisfies Kernel;

const model: DiffusionModel = (x, t) => {
  const { engine } = x, N = x.shape[0]!, eps = Tensor.empty(engine, x.shape);
  engine.run(closedForm, threads(x.size), { x: x.slice, t: t.slice, eps: eps.slice, N, size: x.size / N });
  return eps;
};

const diffusionOf = (engine: Engine, name: ScheduleName, T: number, variance: Variance = 'fixed_small'): GaussianDiffusion => new GaussianDiffusion(engine, makeSchedule({ name, T }), { variance });

/** Draws samples and keeps what every step left. */
async function run(sampler: Sampler, options: { seed?: number; firstId?: number; noise?: Float32Array } = {}): Promise<{ end: Float32Array; x: Float32Array[]; x0: Float32Array[]; log: Omit<SampleStep, 'x' | 'predXstart'>[] }> {
  const x: Float32Array[] = [], x0: Float32Array[] = [], log: Omit<SampleStep, 'x' | 'predXstart'>[] = [];
  const end = await sampler.sample({
    seed: 0,
    ...options,
    onStep: async ({ x: now, predXstart, ...rest }) => {
      assert.equal([now.shape, predXstart.shape], [sampler.shape, sampler.shape]);
      x.push(await now.read());
      x0.push(await predXstart.read());
      log.push(rest);
    },
  });
  return { end, x, x0, log };
}

// -------------------------------------------------------------------------------------------------------------------- against diffusers
const golden = gpuSuite('samplers against diffusers');

for (const [name, schedule, options] of TRAJECTORIES)
  golden(`${name}: every step within 1e-5 of the whole, four digits after the point in every value`, async (engine) => {
    const file = tensors.get(`${name}.trajectory`)!, [steps, N, C, H, W] = file.shape as [number, number, number, number, number], size = N * C * H * W;
    const want = (step: number): Float32Array => nchwToNhwc((file.data as Float32Array).subarray(step * size, (step + 1) * size), [N, C, H, W]);
    const sampler = new Sampler(model, diffusionOf(engine, schedule, 1000), [N, H, W, C], options);
    assert.equal([...sampler.timesteps], Array.from(tensors.get(`${name}.timesteps`)!.data as ArrayLike<bigint>, Number));
    const got = await run(sampler, { noise: nchwToNhwc(tensors.get('x_T')!.data as Float32Array, [N, C, H, W]) });
    assert.is(got.x.length, steps);
    const errors = got.x.map((x, i) => relativeL2(x, want(i)));
    errors.forEach((error, i) => assert.ok(error < 1e-5, `${name} after step ${i + 1}: relative error ${error}`));
    // Without clipping x grows to 140, where 1e-4 is seven units in the last place.
    got.x.forEach((x, i) => assertClose(x, want(i), { atol: 2e-4, what: `${name} after step ${i + 1}` }));
    assert.is(bits(got.end), bits(got.x[steps - 1]));
    console.log(`  ${name}: relative error ${Math.max(...errors).toExponential(1)} at worst, ${errors.at(-1)!.toExponential(1)} at the end`);
    await sampler.destroy();
  });
golden.run();

// ------------------------------------------------------------------------------------------------------------------------ DDPM and DDIM
const chain = gpuSuite('samplers');
const T = 20, SHAPE: Shape = [3, 3, 3, 2], SIZE = 18, SEED = 77;

for (const [variance, clipDenoised] of [['fixed_small', true], ['fixed_large', true], ['fixed_small', false], ['fixed_large', 0.4]] as const)
  chain(`ddpm is the ancestral chain in float64 with the same draws, ${variance}${clipDenoised ? `, clipped to ${Number(clipDenoised)}` : ', not clipped'}`, async (engine) => {
    const diffusion = diffusionOf(engine, 'quadratic', T, variance);
    const sampler = new Sampler(model, diffusion, SHAPE, { method: 'ddpm', clipDenoised });
    const got = await run(sampler, { seed: SEED, firstId: 5 });
    const table = twin.posteriorTable(diffusion.schedule.betas, variance), samples = [5, 6, 7];
    let x: Float64Array = normals({ seed: SEED, stream: STREAM.prior, step: 0, samples, count: SIZE });
    for (let i = 0, t = T - 1; t >= 0; i++, t--) {
      const z = normals({ seed: SEED, stream: STREAM.sample, step: t, samples, count: SIZE });
      const step = twin.posteriorStep({ xt: x, output: closedFormEps(x, t), z, coef: twin.scheduleGather(table, [t, t, t], 6), clip: clipDenoised, last: [t, t, t].map((v) => Number(v === 0)) });
      assertClose(got.x[i], step.prev, { atol: 1e-4, what: `x after t = ${t}` });
      assertClose(got.x0[i], step.x0, { atol: 1e-4, what: `x_0 at t = ${t}` });
      x = step.prev;
    }
    assert.equal(got.log, Array.from({ length: T }, (_, i) => ({ done: i + 1, steps: T, t: T - 1 - i, to: T - 2 - i })));
    assert.is(bits(got.end), bits(got.x[T - 1]), 'what sample() returns is x after the last step');
    await sampler.destroy();
  });

chain('dynamic thresholding in ddpm, image by image, and not where a row reads the eps that was predicted', async (engine) => {
  const diffusion = diffusionOf(engine, 'quadratic', T), threshold = { ratio: 0.9, max: 3 }, sampler = new Sampler(model, diffusion, SHAPE, { method: 'ddpm', clipDenoised: threshold }), got = await run(sampler, { seed: SEED });
  const table = twin.posteriorTable(diffusion.schedule.betas, 'fixed_small'), samples = [0, 1, 2], one = (row: ArrayLike<number>) => Array.from({ length: 3 * 6 }, (_, i) => row[i % 6]!);
  let x: Float64Array = normals({ seed: SEED, stream: STREAM.prior, step: 0, samples, count: SIZE }), largest = 0;
  for (let i = 0, t = T - 1; t >= 0; i++, t--) {
    const z = normals({ seed: SEED, stream: STREAM.sample, step: t, samples, count: SIZE }), row = table.subarray(6 * t, 6 * t + 6);
    const { start, s } = twin.dynamicThreshold({ x, output: closedFormEps(x, t), coef: [...row.subarray(0, 2), ...row.subarray(0, 2), ...row.subarray(0, 2)], C: 2, M: 2, ...threshold });
    const step = twin.posteriorStep({ xt: x, output: start, z, coef: one([0, 1, ...row.subarray(2)]), clip: false, last: [t, t, t].map((v) => Number(v === 0)) });
    largest = Math.max(largest, ...s);
    assertClose(got.x0[i]!, start, { atol: 1e-4, what: `x_0 at t = ${t}` });
    assertClose(got.x[i]!, step.prev, { atol: 1e-4, what: `x after t = ${t}` });
    x = step.prev;
  }
  assert.ok(largest > 1.2, `the threshold was never above ${largest}`);
  await assertError(() => new Sampler(model, diffusion, SHAPE, { method: 'ddim', steps: 5, rederive: false, clipDenoised: threshold }), 'E-USAGE', /dynamic thresholding goes with an eps that is derived again/);
  await assertError(() => new Sampler(model, diffusion, SHAPE, { method: 'ddim', clipDenoised: -1 }), 'E-USAGE', /to a range of -1/);
  for (const none of [null, 'yes', '1']) await assertError(() => new Sampler(model, diffusion, SHAPE, { method: 'ddim', clipDenoised: none as never }), 'E-USAGE', new RegExp(`clipped by ${none}: it takes true, false, a range`));
  await sampler.destroy();
});

chain('a schedule that ends at zero: the first step of ddpm and ddim sees x_0 alone, and samplers in sigma / alpha refuse it', async (engine) => {
  const schedule = makeSchedule({ name: 'quadratic', T, rescaleBetasZeroSnr: true }), diffusion = new GaussianDiffusion(engine, schedule, { prediction: 'v' }), acp = schedule.alphasCumprod, samples = [5, 6, 7];
  const none = upload(engine, SHAPE, new Float32Array(3 * SIZE)), v: DiffusionModel = (x) => add(x, none), table = twin.posteriorTable(schedule.betas, 'fixed_small', 'v'); // v = x_t, of which x_0 = (sqrt(acp) - sqrt(1 - acp)) x_t
  const sampler = new Sampler(v, diffusion, SHAPE, { method: 'ddpm' }), got = await run(sampler, { seed: SEED, firstId: 5 });
  let x: Float64Array = normals({ seed: SEED, stream: STREAM.prior, step: 0, samples, count: SIZE });
  for (let i = 0, t = T - 1; t >= 0; i++, t--) {
    const z = normals({ seed: SEED, stream: STREAM.sample, step: t, samples, count: SIZE });
    const step = twin.posteriorStep({ xt: x, output: x, z, coef: twin.scheduleGather(table, [t, t, t], 6), clip: true, last: [t, t, t].map((s) => Number(s === 0)) });
    assertClose(got.x[i], step.prev, { atol: 1e-4, what: `x after t = ${t}` });
    x = step.prev;
  }
  for (const method of ['ddim', 'dpm++2m'] as const) {
    const other = new Sampler(v, diffusion, SHAPE, { method, timesteps: [T - 1, 9, 4] }), start = random(3 * SIZE, 3), { x: steps } = await run(other, { seed: 1, noise: start });
    // x_0 = -v clipped, and all of x is noise.
    const [alpha, sigma] = [Math.sqrt(acp[9]!), Math.sqrt(1 - acp[9]!)], want = Float64Array.from(start, (value) => alpha * Math.min(1, Math.max(-1, -value)) + sigma * value);
    assertClose(steps[0]!, want, { atol: 5e-6, what: method });
    await other.destroy();
  }
  for (const method of ['heun', 'langevin'] as const) await assertError(() => new Sampler(v, diffusion, SHAPE, { method, timesteps: [T - 1, 9, 4] }), 'E-USAGE', new RegExp(`${method} cannot visit t = 19, where this schedule leaves nothing`));
  const usual = new Sampler(v, diffusion, SHAPE, { method: 'heun', steps: 5 });
  assert.ok(usual.timesteps[0]! < T - 1);
  for (const each of [sampler, usual]) await each.destroy();
});

chain('ddim with eta = 1 and every timestep is ddpm with the same draws', async (engine) => {
  const diffusion = diffusionOf(engine, 'quadratic', T);
  const ddpm = new Sampler(model, diffusion, SHAPE, { method: 'ddpm' }), ddim = new Sampler(model, diffusion, SHAPE, { method: 'ddim', steps: T, eta: 1 });
  const not = new Sampler(model, diffusion, SHAPE, { method: 'ddim', steps: T, eta: 1, rederive: false });
  const [a, b, c] = [await run(ddpm, { seed: SEED }), await run(ddim, { seed: SEED }), await run(not, { seed: SEED })];
  assert.ok(a.x0.some((x) => x.some((v) => Math.abs(v) === 1)), 'something was clipped');
  // Two float32 formulas for one number, each of some five roundings of numbers up to 4, over 20 steps.
  a.x.forEach((x, i) => assertClose(b.x[i], x, { atol: 2e-5, what: `step ${i + 1}` }));
  const apart = c.end.reduce((w, v, i) => Math.max(w, Math.abs(v - a.end[i])), 0);
  assert.ok(apart > 1e-3, `without deriving eps again the two differ where x_0 was clipped, here by ${apart}`);
  for (const sampler of [ddpm, ddim, not]) await sampler.destroy();
});

chain('eta between 0 and 1 adds that share of the noise; eta = 0 draws none', async (engine) => {
  const diffusion = diffusionOf(engine, 'linear', 1000), ends: string[][] = [];
  for (const eta of [0, 0.5]) {
    const sampler = new Sampler(model, diffusion, SHAPE, { method: 'ddim', steps: 10, eta });
    const noise = random(3 * SIZE, 9);
    ends.push([bits(await sampler.sample({ seed: 1, noise })), bits(await sampler.sample({ seed: 2, noise }))]);
    const got = await run(sampler, { seed: 1, noise }), samples = [0, 1, 2];
    let x: Float64Array = Float64Array.from(noise);
    sampler.timesteps.forEach((t, i) => {
      const acp = diffusion.schedule.alphasCumprod, coef = twin.ddimCoef(acp[t], t >= 100 ? acp[t - 100] : 1, eta);
      const step = twin.ddimStep({ xt: x, eps: closedFormEps(x, t), z: normals({ seed: 1, stream: STREAM.sample, step: t, samples, count: SIZE }), coef: Float64Array.of(...coef, ...coef, ...coef), clip: true });
      assertClose(got.x[i], step.prev, { atol: 1e-4, what: `eta ${eta}, after t = ${t}` });
      x = step.prev;
    });
    await sampler.destroy();
  }
  assert.is(ends[0][0], ends[0][1], 'the seed does not matter');
  assert.is.not(ends[1][0], ends[1][1]);
});

chain('the other spacings visit what they say, the last step may stop at the first alpha', async (engine) => {
  const diffusion = diffusionOf(engine, 'linear', 1000), noise = random(3 * SIZE, 9);
  const ends = new Set<string>();
  for (const options of [{}, { spacing: 'trailing' }, { spacing: 'linspace' }, { stepsOffset: 1 }, { setAlphaToOne: false }] as const) {
    const sampler = new Sampler(model, diffusion, SHAPE, { method: 'ddim', steps: 5, ...options });
    const { end, log } = await run(sampler, { noise });
    assert.equal(log.map(({ t }) => t), [...sampler.timesteps]);
    assert.ok(end.every(Number.isFinite));
    ends.add(bits(end));
    await sampler.destroy();
  }
  assert.is(ends.size, 5);
});

chain('with every timestep in its list ddpm is the same chain, bit for bit; a respaced one tells the network the original timesteps', async (engine) => {
  for (const options of [{}, { variance: 'fixed_large' }, { prediction: 'v' }, { prediction: 'mu' }] as const) {
    const diffusion = new GaussianDiffusion(engine, makeSchedule({ name: 'quadratic', T }), options), all = Array.from({ length: T }, (_, i) => T - 1 - i);
    const plain = new Sampler(model, diffusion, SHAPE, { method: 'ddpm' }), listed = new Sampler(model, diffusion, SHAPE, { method: 'ddpm', timesteps: all });
    const chained = diffusion.respaced(all), same = new Sampler(model, chained, SHAPE, { method: 'ddpm' });
    const ends = [await plain.sample({ seed: SEED }), await listed.sample({ seed: SEED }), await same.sample({ seed: SEED })].map(bits);
    assert.equal([ends[1], ends[2]], [ends[0], ends[0]], JSON.stringify(options));
    for (const sampler of [plain, listed, same]) await sampler.destroy();
    chained.destroy();
  }
  const list = [19, 13, 12, 5, 1], diffusion = diffusionOf(engine, 'quadratic', T), short = respace(diffusion.schedule, list);
  const sampler = new Sampler(model, diffusion, SHAPE, { method: 'ddpm', timesteps: list }), got = await run(sampler, { seed: SEED });
  const table = twin.posteriorTable(short.betas, 'fixed_small'), samples = [0, 1, 2];
  let x: Float64Array = normals({ seed: SEED, stream: STREAM.prior, step: 0, samples, count: SIZE });
  list.forEach((t, i) => {
    const at = list.length - 1 - i, z = normals({ seed: SEED, stream: STREAM.sample, step: at, samples, count: SIZE });
    const step = twin.posteriorStep({ xt: x, output: closedFormEps(x, t), z, coef: twin.scheduleGather(table, [at, at, at], 6), clip: true, last: [0, 0, 0].fill(Number(at === 0)) });
    assertClose(got.x[i], step.prev, { atol: 1e-4, what: `x after t = ${t}` });
    x = step.prev;
  });
  assert.equal(got.log.map(({ t, to }) => [t, to]), [[19, 13], [13, 12], [12, 5], [5, 1], [1, -1]]);
  await sampler.destroy();
});

chain('ddim with eta = 1 has the moments of ddpm on a respaced chain: the same x with the same noise', async (engine) => {
  const diffusion = diffusionOf(engine, 'linear', 1000), list = [901, 640, 300, 44, 3];
  const ddpm = new Sampler(model, diffusion, SHAPE, { method: 'ddpm', timesteps: list }), ddim = new Sampler(model, diffusion, SHAPE, { method: 'ddim', timesteps: list, eta: 1 });
  // Their counters hold the place on the chain and the timestep: other noise, so it is left out here. The table test holds the factors of z together.
  const [a, b] = [new Sampler(model, diffusion, SHAPE, { method: 'ddpm', timesteps: list, meanOnly: true }), new Sampler(model, diffusion, SHAPE, { method: 'ddim', timesteps: list, eta: 1, meanOnly: true })];
  const [x, y] = [await run(a, { seed: SEED }), await run(b, { seed: SEED })];
  x.x.forEach((v, i) => assertClose(y.x[i], v, { atol: 2e-5, what: `mean of step ${i + 1}` }));
  assert.is.not(bits(await ddpm.sample({ seed: SEED })), bits(x.end), 'noise makes another image');
  assert.is.not(bits(await ddim.sample({ seed: SEED })), bits(y.end));
  for (const sampler of [ddpm, ddim, a, b]) await sampler.destroy();
});

chain('the network gets the x_0 that it predicted before, and zeros at first', async (engine) => {
  const seen = Tensor.empty(engine, SHAPE);
  const watching: DiffusionModel = (x, t, start) => {
    engine.copy(start!.slice, seen.slice);
    return model(x, t);
  };
  for (const method of ['ddpm', 'ddim'] as const) {
    const sampler = new Sampler(watching, diffusionOf(engine, 'quadratic', T), SHAPE, { method, steps: 4 }), log: [Float32Array, Float32Array][] = [];
    for (let again = 0; again < 2; again++) await sampler.sample({ seed: SEED, onStep: async ({ predXstart }) => void log.push([await seen.read(), await predXstart.read()]) });
    for (const i of [0, 4]) assert.ok(log[i]![0].every((v) => v === 0), `${method}: draw ${i / 4}, first step`);
    for (const i of [1, 2, 3, 5, 6, 7]) assert.is(bits(log[i]![0]), bits(log[i - 1]![1]), `${method}: step ${i}`);
    await sampler.destroy();
  }
});

chain('a row that comes again draws other noise, and what is written into x is what the next step sees', async (engine) => {
  const diffusion = diffusionOf(engine, 'quadratic', T);
  for (const method of ['ddpm', 'ddim'] as const) {
    const sampler = new Sampler(model, diffusion, SHAPE, { method, timesteps: [19, 10, 2], ...(method === 'ddim' && { eta: 1 }) }), noise = random(3 * SIZE, 4), ends: string[] = [];
    // Every visit starts from the same x.
    const onStep = async ({ x }: SampleStep): Promise<void> => {
      ends.push(bits(await x.read()));
      engine.write(x.slice, noise);
    };
    const end = await sampler.sample({ seed: SEED, noise, path: [0, 0, 0, 1], onStep });
    assert.is(new Set(ends.slice(0, 3)).size, 3, method);
    assert.is(bits(end), bits(noise), 'x is what the hook left');
    await assertError(() => sampler.sample({ seed: 0, path: [3] }), 'E-USAGE', /row 3 of a sampler that has 3/);
    await sampler.destroy();
  }
});

chain('what cannot be is refused, and nothing is left behind', async (engine) => {
  const diffusion = diffusionOf(engine, 'linear', 100), make = (options: object) => () => new Sampler(model, diffusion, SHAPE, options as SamplerOptions);
  const { live, plans } = engine.memory();
  await assertError(make({ method: 'euler' }), 'E-USAGE', /no sampler "euler"; the samplers are ddpm, ddim/);
  await assertError(make({ method: 'ddpm', steps: 1 }), 'E-USAGE', /keep at least 2/);
  await assertError(make({ method: 'ddim', steps: 101 }), 'E-USAGE', /cannot take 101 steps/);
  await assertError(make({ method: 'ddim', steps: 10, eta: 1.5 }), 'E-USAGE', /eta is 1.5; it must lie between 0/);
  assert.equal([engine.memory().live, engine.memory().plans], [live, plans]);
  const sampler = make({ method: 'ddim', steps: 2 })();
  for (const size of [3 * SIZE - 1, 3 * SIZE + 1]) await assertError(() => sampler.sample({ seed: 0, noise: new Float32Array(size) }), 'E-SHAPE', /values of noise for samples of shape \(3, 3, 3, 2\)/);
  await sampler.destroy();
});

// ------------------------------------------------------------------------------------------------------------- what a sample depends on
/** A real network: its reductions must not depend on the batch either. Its weights are nowhere zero, so that every part of it counts. */
function network(engine: Engine): { unet: UNet; parameters: Parameters } {
  const unet = new UNet({
    in_channels: 1, out_channels: 1, block_out_channels: [8, 16], down_block_types: ['DownBlock2D', 'AttnDownBlock2D'], up_block_types: ['AttnUpBlock2D', 'UpBlock2D'],
    layers_per_block: 1, norm_num_groups: 4, attention_head_dim: null, downsample_padding: 0,
  });
  const parameters = Parameters.place(engine, unet, { training: false });
  parameters.write('values', new Map(parametersOf(unet).map((p, i) => [p.name, { shape: p.shape, data: random(p.size, i).map((v) => 0.2 * v + Number(p.name.endsWith('norm.weight'))) }])), 'test');
  return { unet, parameters };
}

for (const [what, options] of [
  ['ddpm', { method: 'ddpm' }], ['ddpm on a respaced chain', { method: 'ddpm', steps: 4 }], ['ddim, eta = 0.3', { method: 'ddim', steps: 4, eta: 0.3 }],
  ['dpm++2m', { method: 'dpm++2m', steps: 3 }], ['heun', { method: 'heun', steps: 3 }], ['langevin', { method: 'langevin', steps: 2, innerSteps: 2 }],
] as const)
  chain(`a sample id and a seed give one image, whatever the batch size, bit for bit: ${what}`, async (engine) => {
    const { unet } = network(engine), diffusion = diffusionOf(engine, 'quadratic', 8), images = new Map<number, Set<string>>();
    const eps: DiffusionModel = (x, t) => unet.forward(x, t);
    const draw = async (N: number, ids: readonly number[], seed = SEED): Promise<string[]> => {
      const sampler = new Sampler(eps, diffusion, [N, 8, 8, 1], options), out: string[] = [];
      for (const firstId of ids) {
        const got = await sampler.sample({ seed, firstId });
        for (let n = 0; n < N; n++) out.push(bits(got.subarray(64 * n, 64 * (n + 1))));
      }
      await sampler.destroy();
      return out;
    };
    for (const [N, firsts] of [[1, [0, 3, 6]], [2, [0, 5]], [3, [0, 3]], [7, [0]]] as const)
      (await draw(N, firsts)).forEach((image, i) => {
        const id = firsts[Math.floor(i / N)] + (i % N);
        images.set(id, (images.get(id) ?? new Set()).add(image));
      });
    assert.equal([...images.keys()].sort(), [0, 1, 2, 3, 4, 5, 6]);
    for (const [id, drawn] of images) assert.is(drawn.size, 1, `sample ${id} has ${drawn.size} images`);
    assert.is(new Set([...images.values()].map(([image]) => image)).size, 7, 'and no two are the same');
    assert.is.not((await draw(1, [0], SEED + 1))[0], [...images.get(0)!][0]);
  });

chain('given noise takes the place of x_T, and a sampler can be used again', async (engine) => {
  const diffusion = diffusionOf(engine, 'quadratic', T), sampler = new Sampler(model, diffusion, SHAPE, { method: 'ddim', steps: 4 });
  await sampler.compile();
  const drawn = await sampler.sample({ seed: SEED, firstId: 2 });
  const noise = normals({ seed: SEED, stream: STREAM.prior, step: 0, samples: [2, 3, 4], count: SIZE });
  assertClose(await sampler.sample({ seed: 0, noise: Float32Array.from(noise) }), drawn, { atol: 1e-4, what: 'the noise that it would have drawn' });
  const other = await sampler.sample({ seed: SEED, noise: random(3 * SIZE, 1) });
  assert.is.not(bits(other), bits(drawn));
  assert.is(bits(await sampler.sample({ seed: SEED, firstId: 2 })), bits(drawn));
  await sampler.destroy();
});

chain('reads the weights that were bound when it was made', async (engine) => {
  const unet = new UNet({
    in_channels: 1, out_channels: 1, block_out_channels: [8], down_block_types: ['DownBlock2D'], up_block_types: ['UpBlock2D'], layers_per_block: 1, norm_num_groups: 4, attention_head_dim: null,
  });
  const parameters = Parameters.place(engine, unet), diffusion = diffusionOf(engine, 'quadratic', T);
  const write = (buffer: 'values' | 'ema', id: number): void =>
    parameters.write(buffer, new Map(parametersOf(unet).map((p, i) => [p.name, { shape: p.shape, data: random(p.size, id + i).map((v) => 0.2 * v) }])), 'test');
  write('values', 0);
  write('ema', 500);
  const make = (): Sampler => new Sampler((x, t) => unet.forward(x, t), diffusion, [1, 8, 8, 1], { method: 'ddim', steps: 3 });
  const plain = make(), averaged = parameters.use('ema', make);
  const [a, b] = [bits(await plain.sample({ seed: 0 })), bits(await averaged.sample({ seed: 0 }))];
  assert.is.not(a, b);
  write('values', 500);
  assert.is(bits(await plain.sample({ seed: 0 })), b, 'and sees them change');
  await plain.destroy();
  await averaged.destroy();
});

for (const [method, steps] of [['ddpm', T], ['ddpm', 4], ['ddim', T], ['heun', 3]] as const)
  chain(`destroy() frees everything that a sampler holds: ${method}, ${steps} steps`, async (engine) => {
    const diffusion = diffusionOf(engine, 'quadratic', T), before = engine.memory();
    const sampler = new Sampler(model, diffusion, SHAPE, { method, steps });
    assert.ok(sampler.bytes > 0 && engine.memory().plans === before.plans + sampler.bytes && engine.memory().live > before.live);
    await sampler.sample({ seed: 0 });
    await sampler.destroy();
    assert.equal([engine.memory().live, engine.memory().plans], [before.live, before.plans]);
  });
chain('pSampleLoop and sample are algorithm 2, and leave nothing behind', async (engine) => {
  const diffusion = diffusionOf(engine, 'quadratic', 12, 'fixed_large'), shape = [3, 4, 4, 2] as const;
  const live = engine.memory().live, seen: number[] = [];
  const loop = await diffusion.pSampleLoop(model, shape, { seed: 5, firstId: 7, onStep: ({ t }) => void seen.push(t) });
  assert.equal(seen, [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
  const square = await diffusion.sample(model, 4, { batchSize: 3, channels: 2, seed: 5, firstId: 7 });
  assert.is(bits(square), bits(loop));
  assert.is(engine.memory().live, live);
  const sampler = new Sampler(model, diffusion, shape, { method: 'ddpm' });
  assert.is(bits(await sampler.sample({ seed: 5, firstId: 7 })), bits(loop));
  await sampler.destroy();
  const unclipped = await diffusion.pSampleLoop(model, shape, { seed: 5, firstId: 7, clipDenoised: false });
  assert.is.not(bits(unclipped), bits(loop));
});
chain.run();
