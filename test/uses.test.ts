// What a trained model is good for besides samples: editing, interpolation, inpainting, inversion, guidance; each held against what must be true of it.
import * as assert from 'uvu/assert';
import { threads } from '../src/autograd.ts';
import { type DiffusionModel, GaussianDiffusion } from '../src/diffusion/gaussian.ts';
import { Sampler, type SampleStep } from '../src/diffusion/sampler.ts';
import { makeSchedule } from '../src/diffusion/schedule.ts';
import { timesteps } from '../src/diffusion/spacing.ts';
import { edit } from '../src/diffusion/uses/edit.ts';
import { type BatchOptions, diffuse, drawNoise, fromStrength } from '../src/diffusion/uses/encode.ts';
import { guided } from '../src/diffusion/uses/guidance.ts';
import { inpaint, type InpaintOptions, repaintPath, repeatMask } from '../src/diffusion/uses/inpaint.ts';
import { interpolate, interpolateLatents, slerp } from '../src/diffusion/uses/interpolate.ts';
import { invert } from '../src/diffusion/uses/invert.ts';
import type { Engine } from '../src/gpu/engine.ts';
import * as k from '../src/gpu/kernels.gen.ts';
import { STREAM } from '../src/philox.ts';
import { Tensor } from '../src/tensor.ts';
import { assertClose, bound, relativeL2 } from './helpers/close.ts';
import { perfect } from './helpers/perfect.ts';
import { assertError, clockAt, gpuSuite, normalErrors, random, upload } from './helpers/gpu.ts';
import { normals } from './ref/random.ts';
import { Gaussian, guide, repaint } from './ref/sampler.ts';

const uses = gpuSuite('uses');
const linear = makeSchedule({ name: 'linear', T: 1000 }), data = new Gaussian(linear, 0.3, 0.5);
const bits = (x: Float32Array): string => Buffer.from(x.buffer, x.byteOffset, x.byteLength).toString('base64');
const SHAPE = [3, 4, 4, 2] as const, SIZE = 32;

// ---- kernels
for (const [C, M] of [[1, 1], [3, 6]] as const)
  uses(`guidance of ${C} of ${M} channels`, async (engine) => {
    const size = 35 * M, cond = random(size, 0), uncond = random(size, 1), w = Math.fround(2.7), y = Tensor.empty(engine, [35, M]);
    engine.run(k.guidance, threads(size), { cond: upload(engine, [35, M], cond).slice, uncond: upload(engine, [35, M], uncond).slice, y: y.slice, size, C, M, w });
    assertClose(await y.read(), guide(cond, uncond, w, C, M), { atol: bound(3, cond.map((c, i) => (i % M < C ? Math.abs(uncond[i]) + w * (Math.abs(c) + Math.abs(uncond[i])) : 0))), what: 'y' });
  });

for (const [size, C] of [[1, 1], [15, 3], [130, 2]] as const)
  uses(`repaint of ${size} values in ${C} channels`, async (engine) => {
    const N = 3, first = 5, seed = 9, step = 31, x = random(N * size, 0), known = random(N * size, 1), mask = Float32Array.from({ length: (N * size) / C }, (_, i) => [0, 1, 0.25][i % 3]);
    const coef = [0.8, 0.6, 0.9, 0.4].map(Math.fround), tx = upload(engine, [N, size], x), draw = { seed, step, samples: [5, 6, 7], count: size };
    engine.run(k.repaint, threads(N * Math.ceil(size / 4)), {
      clock: clockAt(engine, { seed, step, first }).slice, coef: upload(engine, [4], coef).slice, known: upload(engine, [N, size], known).slice, mask: upload(engine, [mask.length], mask).slice, x: tx.slice,
      N, size, C, known_stream: STREAM.known, jump_stream: STREAM.jump,
    });
    const z = normals({ ...draw, stream: STREAM.known }), jump = normals({ ...draw, stream: STREAM.jump });
    const [zError, jumpError] = [normalErrors({ ...draw, stream: STREAM.known }), normalErrors({ ...draw, stream: STREAM.jump })], abs = (v: ArrayLike<number>) => Float64Array.from(v, Math.abs);
    const sum = repaint({ x: abs(x), known: abs(known), mask, z: abs(z), jump: abs(jump), coef, C });
    assertClose(await tx.read(), repaint({ x, known, mask, z, jump, coef, C }), { atol: bound(6, sum).map((e, i) => e + coef[2]! * coef[1]! * zError[i] + coef[3]! * jumpError[i]), what: 'x' });
  });

// ---- image to image
uses('an edited image starts with the noise of the first timestep that the network is asked about', async (engine) => {
  // HoTF starts at t, lucidrains one below it: off by one.
  const diffusion = new GaussianDiffusion(engine, linear), images = random(3 * SIZE, 2), seen: SampleStep[] = [];
  const { noised, t } = await edit(perfect(engine, data), diffusion, images, SHAPE, { method: 'ddim', steps: 10, strength: 0.4, seed: 3, firstId: 7, onStep: (s) => void seen.push(s) });
  assert.equal([t, seen.map((s) => s.t)], [300, [300, 200, 100, 0]]);
  const z = normals({ seed: 3, stream: STREAM.encode, step: 0, samples: [7, 8, 9], count: SIZE });
  assertClose(noised, images.map((v, i) => Math.sqrt(linear.alphasCumprod[300]) * v + Math.sqrt(1 - linear.alphasCumprod[300]) * z[i]), { atol: 1e-5, what: 'x_t' });
});

uses('the strength decides how far an edited image is from its source; what comes out is distributed as the data', async (engine) => {
  const diffusion = new GaussianDiffusion(engine, linear), model = perfect(engine, data), shape = [16, 8, 8, 1] as const;
  const images = random(1024, 5).map((v) => 0.3 + 0.5 * v), correlations: number[] = [], foretold: number[] = [];
  for (const strength of [0.1, 0.3, 1]) {
    const { images: out, t } = await edit(model, diffusion, images, shape, { method: 'ddim', steps: 50, eta: 1, strength, seed: 1, clipDenoised: false });
    const mean = out.reduce((a, v) => a + v, 0) / 1024, variance = out.reduce((a, v) => a + (v - mean) ** 2, 0) / 1023;
    assert.ok(Math.abs(mean - 0.3) < 4.5 * 0.5 / 32 + 0.01 && Math.abs(variance - 0.25) < 0.25 * 4.5 * Math.sqrt(2 / 1023) + 0.05, `${strength}: ${mean}, ${variance}`);
    foretold.push((linear.alphasCumprod[t] * 0.25) / data.moments(t).variance);
    correlations.push(images.reduce((a, v, i) => a + (v - 0.3) * (out[i] - mean), 0) / 1023 / (0.5 * Math.sqrt(variance)));
  }
  console.log(`  correlation with the source: ${correlations.map((c) => c.toFixed(2)).join(', ')}; ${foretold.map((c) => c.toFixed(2)).join(', ')} foretold`);
  // Foretold for small steps; 1,024 values show a correlation to within 0.03.
  correlations.forEach((c, i) => assert.ok(Math.abs(c - foretold[i]!) < 0.13, `${c}, wanted about ${foretold[i]}`));
  assert.ok(correlations[0]! > correlations[1]! && correlations[1]! > correlations[2]!);
});

uses('strength counts steps as diffusers does', async () => {
  const list = timesteps(1000, 10);
  assert.equal(fromStrength(list, 1), list);
  assert.equal(fromStrength(list, 0.3), [200, 100, 0]);
  assert.equal(fromStrength(list, 0.39), [200, 100, 0]);
  for (const strength of [0, 1.1, NaN]) await assertError(() => fromStrength(list, strength), 'E-USAGE', /at most 1/);
  await assertError(() => fromStrength(list, 0.05), 'E-USAGE', /less than one of 10 steps/);
});

// ---- inversion and interpolation
uses('inversion finds the latents of the flow and comes back, closer with more steps', async (engine) => {
  const diffusion = new GaussianDiffusion(engine, linear), model = perfect(engine, data), images = random(3 * SIZE, 6).map((v) => 0.3 + 0.5 * v), errors: number[] = [], latentErrors: number[] = [];
  for (const steps of [25, 100, 400]) {
    const { latents, images: back, errors: each } = await invert(model, diffusion, images, SHAPE, { steps });
    const top = timesteps(1000, steps)[0]!;
    latentErrors.push(relativeL2(latents, Array.from(images, (v) => data.flow(v, -1, top))));
    for (const n of [0, 1, 2]) assert.ok(Math.abs(each[n]! - Math.hypot(...back.subarray(n * SIZE, (n + 1) * SIZE).map((v, i) => v - images[n * SIZE + i]!)) / Math.sqrt(SIZE)) < 1e-6);
    errors.push(Math.max(...each));
  }
  console.log(`  25, 100, 400 steps: latents off by ${latentErrors.map((e) => e.toExponential(1)).join(', ')}, reconstructions by ${errors.map((e) => e.toExponential(1)).join(', ')}`);
  for (const e of [errors, latentErrors]) assert.ok(e[1]! < e[0]! / 2.5 && e[2]! < e[1]! / 2.5);
});

uses('interpolation goes from one image to the other', async (engine) => {
  const diffusion = new GaussianDiffusion(engine, linear), model = perfect(engine, data), shape = [5, 4, 4, 2] as const;
  const a = random(SIZE, 8).map((v) => 0.3 + 0.5 * v), b = random(SIZE, 9).map((v) => 0.3 + 0.5 * v), row = (x: Float32Array, i: number) => x.subarray(i * SIZE, (i + 1) * SIZE);
  // Without clipping this model is affine: what is mixed evenly at x_t is mixed evenly at x_0.
  const mixed = await interpolate(model, diffusion, [a, b], shape, { method: 'ddim', steps: 20, strength: 0.5, seed: 4, firstId: 2, clipDenoised: false });
  for (const i of [1, 2, 3]) assertClose(row(mixed, i), row(mixed, 0).map((v, j) => (1 - i / 4) * v + (i / 4) * row(mixed, 4)[j]!), { atol: 1e-5, what: `share ${i / 4}` });
  // The ends are a and b as `edit` redraws them with the noise of that sample.
  const alone = await edit(model, diffusion, a, [1, 4, 4, 2], { method: 'ddim', steps: 20, strength: 0.5, seed: 4, firstId: 2, clipDenoised: false });
  assertClose(row(mixed, 0), alone.images, { atol: 1e-6, what: 'the first' });
  const arc = await interpolateLatents(model, diffusion, [a, b], shape, { steps: 100 });
  assert.ok(relativeL2(row(arc, 0), a) < 0.05 && relativeL2(row(arc, 4), b) < 0.05, 'both ends come back');
  assert.ok(relativeL2(row(arc, 2), a) > 0.2 && relativeL2(row(arc, 2), b) > 0.2);
  await assertError(() => interpolate(model, diffusion, [a, b], [1, 4, 4, 2], { method: 'ddim', seed: 0 }), 'E-USAGE', /at least 2/);
  await assertError(() => interpolate(model, diffusion, [a, b.subarray(1)], shape, { method: 'ddim', seed: 0 }), 'E-SHAPE', /one end/);
});

uses('slerp keeps the length that normals have, and reaches its ends', async () => {
  const a = random(4000, 1), b = random(4000, 2), length = (v: Float32Array) => Math.hypot(...v);
  assertClose(slerp(a, b, 0), a, { atol: 1e-6, what: 'a' });
  assertClose(slerp(a, b, 1), b, { atol: 1e-6, what: 'b' });
  assert.ok(Math.abs(length(slerp(a, b, 0.5)) / length(a) - 1) < 0.03, 'a mean of the two would be 0.71 as long');
  assertClose(slerp(a, a, 0.3), a, { atol: 1e-6, what: 'the same twice' });
});

// ---- inpainting
uses('the path of RePaint', async () => {
  assert.equal(repaintPath(4, 2, 1), [0, 1, 2, 3]);
  assert.equal(repaintPath(4, 0, 1), [0, 1, 2, 3], 'without jumps their length does not matter');
  // Levels 3, 2, 1, 0: at 0, with a step left, one jump of 2 back up.
  assert.equal(repaintPath(4, 2, 2), [0, 1, 2, 1, 2, 3]);
  // As its get_schedule_jump has it for 10 steps, jumps of 3, twice each: 9 8 7 6 | 9 8 7 6 5 4 3 | 6 5 4 3 2 1 0 | 3 2 1 0 -1, a row for every fall.
  const levels = [9, 8, 7, 6, 9, 8, 7, 6, 5, 4, 3, 6, 5, 4, 3, 2, 1, 0, 3, 2, 1, 0, -1];
  assert.equal(repaintPath(10, 3, 2), levels.slice(0, -1).filter((l, i) => levels[i + 1]! < l).map((l) => 9 - l));
  assert.equal(repaintPath(4, undefined, 2), repaintPath(4, 3, 2), 'a short chain by default jumps as far as it is');
  for (const [steps, jump, times] of [[50, 10, 10], [250, 10, 3], [7, 3, 4], [20, 1, 2]] as const) {
    const path = repaintPath(steps, jump, times);
    path.forEach((row, i) => i > 0 && assert.ok(row === path[i - 1]! + 1 || row === path[i - 1]! + 1 - jump, `${row} after ${path[i - 1]}`));
    assert.equal([path[0], path.at(-1)], [0, steps - 1]);
  }
  await assertError(() => repaintPath(5, 5, 2), 'E-USAGE', /a jump of 5 steps does not go with 5 steps: it must be a whole number from 1 to 4/);
  await assertError(() => repaintPath(5, 2, 0), 'E-USAGE', /0 resamplings/);
});

/** Pixels that come in pairs (a, b), each N(0, 1), correlated by rho: knowing a, b is N(rho a, 1 - rho^2). Rows of two, one channel. */
const RHO = 0.9;
const pairs = {
  name: 'test_pairs', features: [], bindings: { x: 'read', t: 'read', acp: 'read', eps: 'read_write' }, overrides: {}, optional: {}, dims: { size: 'u32', N: 'u32' },
  wgsl: `
struct Dims { size: u32, N: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> t: array<u32>;
@group(0) @binding(2) var<storage, read> acp: array<f32>;
@group(0) @binding(3) var<storage, read_write> eps: array<f32>;
@group(0) @binding(4) var<uniform> dims: Dims;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let i = id.x;
  if (i >= dims.size * dims.N) { return; }
  // The covariance of (a, b) at t has 1 on its diagonal and c = acp rho beside it; eps = sqrt(1 - acp) inverse(covariance) x.
  let a = acp[t[i / dims.size]];
  let c = a * ${RHO};
  eps[i] = sqrt(1.0 - a) * (x[i] - c * x[i ^ 1u]) / (1.0 - c * c);
}`,
} as const;

uses('what is painted agrees with what is known, and the more so the more often it is gone over', async (engine) => {
  const schedule = makeSchedule({ name: 'linear', T: 100 }), diffusion = new GaussianDiffusion(engine, schedule), shape = [32, 8, 8, 1] as const, n = 1024;
  const acp = upload(engine, [100], Float32Array.from(schedule.alphasCumprod));
  const model: DiffusionModel = (x, t) => {
    const eps = Tensor.empty(engine, x.shape), N = x.shape[0]!;
    engine.run(pairs, threads(x.size), { x: x.slice, t: t.slice, acp: acp.slice, eps: eps.slice, size: x.size / N, N });
    return eps;
  };
  const images = random(32 * 64, 12), mask = repeatMask(Float32Array.from({ length: 64 }, (_, i) => i % 2), 32);
  const paint = async (more: Partial<InpaintOptions>) => {
    const out = await inpaint(model, diffusion, images, mask, shape, { method: 'ddpm', seed: 2, clipDenoised: false, ...more });
    let ab = 0, bb = 0;
    out.forEach((v, i) => {
      if (i % 2 === 0) assert.is(v, images[i], 'what is known comes out bit for bit');
      else [ab, bb] = [ab + v * images[i - 1]!, bb + v * v];
    });
    return { slope: ab / images.reduce((a, v, i) => a + (i % 2 ? 0 : v * v), 0), variance: bb / n };
  };
  const once = await paint({ steps: 50, resamples: 1 }), often = await paint({ steps: 50, resamples: 6, jumpLength: 5 });
  console.log(`  regression of the painted on the known: ${once.slope.toFixed(3)} at once, ${often.slope.toFixed(3)} after six times, ${RHO} in the data; variance ${often.variance.toFixed(3)}`);
  // The regression's standard error is sqrt((1 - rho^2) / n) = 0.014.
  assert.ok(Math.abs(often.slope - RHO) < 4.5 * Math.sqrt((1 - RHO ** 2) / n) + 0.02 && often.slope - once.slope > 0.02, `${once.slope}, ${often.slope}`);
  assert.ok(Math.abs(often.variance - 1) < 4.5 * Math.sqrt(2 / n) + 0.05);
  await assertError(() => paint({ method: 'heun', steps: 5 }), 'E-USAGE', /those of heun need the steps before/);
  await assertError(() => inpaint(model, diffusion, images, mask.subarray(1), shape, { method: 'ddpm', seed: 0 }), 'E-SHAPE', /one a pixel/);
});

// ---- batches
uses('batches change nothing, and the model is asked about just so many at a time', async (engine) => {
  const schedule = makeSchedule({ name: 'linear', T: 100 }), diffusion = new GaussianDiffusion(engine, schedule), shape = [7, 4, 4, 2] as const, images = random(7 * SIZE, 3), seen = new Set<number>();
  const inner = perfect(engine, new Gaussian(schedule, 0.3, 0.5)), mask = random(7 * 16, 4).map((v) => Number(v > 0)), ends = [images.slice(0, SIZE), images.slice(SIZE, 2 * SIZE)] as const;
  let fresh: string | null = null;
  const model: DiffusionModel = (x, t) => {
    seen.add(x.shape[0]!);
    if (fresh) engine.run({ name: fresh, wgsl: `@group(0) @binding(0) var<storage, read_write> y: array<f32>;\n@compute @workgroup_size(1)\nfn main() { y[0] = 1.0; } // ${fresh}`, features: [], bindings: { y: 'read_write' }, overrides: {}, optional: {}, dims: {} } as const, [1], { y: Tensor.empty(engine, [1]).slice });
    return inner(x, t);
  };
  const all: ((batches: BatchOptions) => Promise<Float32Array>)[] = [
    async (batches) => (await edit(model, diffusion, images, shape, { method: 'ddpm', steps: 8, strength: 0.5, seed: 3, firstId: 5, ...batches })).images,
    (batches) => inpaint(model, diffusion, images, mask, shape, { method: 'ddpm', steps: 6, seed: 3, firstId: 5, jumpLength: 2, resamples: 2, ...batches }),
    (batches) => interpolate(model, diffusion, ends, shape, { method: 'ddim', eta: 1, steps: 8, seed: 3, firstId: 5, ...batches }),
    (batches) => interpolateLatents(model, diffusion, ends, shape, { steps: 3, ...batches }),
    async (batches) => (await invert(model, diffusion, images, shape, { steps: 3, ...batches })).images,
  ];
  for (const [i, use] of all.entries()) {
    const whole = await use({}), firsts: number[] = [];
    seen.clear();
    assert.is(bits(await use({ batchSize: 3, onBatch: (first) => void firsts.push(first) })), bits(whole), `use ${i}`);
    // Up with two ends, or with seven images, and down again.
    assert.equal([[...seen], firsts], [[3], [[0, 3, 6], [0, 3, 6], [0, 3, 6], [0, 0, 3, 6], [0, 3, 6, 0, 3, 6]][i]], `use ${i}`);
    assert.is(bits(await use({ batchSize: 9 })), bits(whole), `use ${i}, more than there are`);
  }
  await assertError(() => all[0]!({ batchSize: 0 }), 'E-USAGE', /batches of 0 images/);
  // With a kernel that nobody has compiled before.
  for (const [i, use] of all.entries()) {
    fresh = `test_use_${i}`;
    const told: (number | string)[] = [];
    await use({ onCompile: (done, total) => void told.push(done, total), onBatch: () => void told.push('batch') });
    assert.equal(told.slice(0, told.indexOf('batch')).slice(-2), [1, 1], `use ${i}: ${told.join()}`);
  }
});

// ---- guidance
/** Classes are Gaussians around their label; label 0 is none of them: mean 0. */
const classes = (engine: Engine, schedule = linear) => {
  const each = [0, 0.5, -0.5].map((mean) => perfect(engine, new Gaussian(schedule, mean, 0.3)));
  return (x: Tensor, t: Tensor, _: unknown, labels: Tensor): Tensor => {
    const all = each.map((model) => model(x, t)), y = Tensor.empty(engine, x.shape), N = x.shape[0]!;
    engine.run(pick, threads(x.size), { a: all[0]!.slice, b: all[1]!.slice, c: all[2]!.slice, labels: labels.slice, y: y.slice, size: x.size / N, N });
    return y;
  };
};
const pick = {
  name: 'test_pick', features: [], bindings: { a: 'read', b: 'read', c: 'read', labels: 'read', y: 'read_write' }, overrides: {}, optional: {}, dims: { size: 'u32', N: 'u32' },
  wgsl: `
struct Dims { size: u32, N: u32 }
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> c: array<f32>;
@group(0) @binding(3) var<storage, read> labels: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform> dims: Dims;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let i = id.x;
  if (i >= dims.size * dims.N) { return; }
  let label = labels[i / dims.size];
  y[i] = select(select(c[i], b[i], label == 1u), a[i], label == 0u);
}`,
} as const;

uses('guidance: no scale is the unlabelled network, one the labelled, more goes further; every row follows its own label', async (engine) => {
  const diffusion = new GaussianDiffusion(engine, linear), model = classes(engine), labels = upload(engine, [3], Uint32Array.of(1, 2, 1)), none = upload(engine, [3], Uint32Array.of(0, 0, 0));
  const means = async (scale: number, own: Tensor = labels): Promise<{ out: Float32Array; means: number[] }> => {
    const sampler = new Sampler(guided(model, { labels: own, none, scale }), diffusion, SHAPE, { method: 'ddim', steps: 25, clipDenoised: false }), out = await sampler.sample({ seed: 5 });
    await sampler.destroy();
    return { out, means: [0, 1, 2].map((n) => out.subarray(n * SIZE, (n + 1) * SIZE).reduce((a, v) => a + v, 0) / SIZE) };
  };
  const [zero, one, three] = [await means(0), await means(1), await means(3)], plain = await means(1, none);
  assertClose(zero.out, plain.out, { atol: 1e-5, what: 'w = 0' });
  assert.is(bits((await means(1)).out), bits(one.out));
  // 32 values of standard deviation 0.3 have a mean within 0.24 of their class, all but always; the same draws for each w.
  for (const [n, sign] of [[0, 1], [1, -1], [2, 1]] as const) {
    assert.ok(Math.abs(one.means[n]! - 0.5 * sign) < 0.24, `row ${n}: ${one.means[n]}`);
    assert.ok(sign * (one.means[n]! - zero.means[n]!) > 0.4 && sign * (three.means[n]! - one.means[n]!) > 0.4, `row ${n}: ${zero.means[n]}, ${one.means[n]}, ${three.means[n]}`);
  }
  await assertError(() => guided(model, { labels, scale: 2 }), 'E-USAGE', /stands for no class/);
  await assertError(() => guided(model, { labels, scale: NaN }), 'E-USAGE', /must be a number/);
});

uses('labels may change between draws of one sampler', async (engine) => {
  const diffusion = new GaussianDiffusion(engine, linear), labels = upload(engine, [3], Uint32Array.of(1, 1, 1));
  const sampler = new Sampler(guided(classes(engine), { labels }), diffusion, SHAPE, { method: 'ddim', steps: 5 }), a = await sampler.sample({ seed: 5 });
  engine.write(labels.slice, Uint32Array.of(1, 2, 1));
  const b = await sampler.sample({ seed: 5 });
  assert.equal([0, 1, 2].map((n) => bits(a.slice(n * SIZE, (n + 1) * SIZE)) === bits(b.slice(n * SIZE, (n + 1) * SIZE))), [true, false, true]);
  await sampler.destroy();
});

uses('nothing is left on the device', async (engine) => {
  const diffusion = new GaussianDiffusion(engine, linear), model = perfect(engine, data), images = random(3 * SIZE, 1), before = engine.memory();
  await edit(model, diffusion, images, SHAPE, { method: 'ddpm', steps: 4, seed: 0 });
  await invert(model, diffusion, images, SHAPE, { steps: 2 });
  await interpolate(model, diffusion, [images.slice(0, SIZE), images.slice(SIZE, 2 * SIZE)], SHAPE, { method: 'ddim', steps: 2, seed: 0 });
  await inpaint(model, diffusion, images, new Float32Array(48), SHAPE, { method: 'ddpm', steps: 3, seed: 0, jumpLength: 1, resamples: 2 });
  await drawNoise(engine, SHAPE, { seed: 1 });
  assert.is(diffuse(diffusion, images, 0, images).length, images.length);
  assert.equal([engine.memory().live, engine.memory().plans], [before.live, before.plans]);
});
uses.run();
