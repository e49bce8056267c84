// Mistakes of a program that uses the library: each is an error of the call that makes it, in words, nothing leaks, and the engine goes on.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { noGrad, pointwise, Tape } from '../src/autograd.ts';
import type { DiffusionModel } from '../src/diffusion/gaussian.ts';
import { edit, GaussianDiffusion, inpaint, interpolate, interpolateLatents, invert, Likelihood, makeSchedule, Sampler, Training } from '../src/diffusion/index.ts';
import { Engine } from '../src/gpu/engine.ts';
import * as k from '../src/gpu/kernels.gen.ts';
import { Parameters } from '../src/nn/parameters.ts';
import { UNet } from '../src/nn/unet.ts';
import { openEngine } from '../src/node.ts';
import { mse } from '../src/ops/loss.ts';
import { add, silu } from '../src/ops/pointwise.ts';
import { DeviceImages } from '../src/ops/random.ts';
import { Tensor } from '../src/tensor.ts';
import { assertError, gpuSuite, openOptions, upload } from './helpers/gpu.ts';

const mistakes = gpuSuite('mistakes', { watched: false });
const four = (engine: Engine): Tensor => upload(engine, [4], [1, 2, 3, 4]);

mistakes('a tensor that was freed is refused by all that takes one, also when its memory is another tensor\'s', async (engine) => {
  const live = engine.memory().live, x = four(engine), y = four(engine);
  x.free();
  const other = four(engine);
  assert.ok(other.slice.buffer === x.slice.buffer);
  for (const use of [
    () => silu(x), () => engine.copy(x.slice, y.slice), () => engine.copy(y.slice, x.slice), () => engine.clear(x.slice), () => engine.write(x.slice, new Float32Array(4)), () => x.read(), () => x.view([2, 2]).read(), () => x.gpu,
  ]) await assertError(use, 'E-ENGINE', /was freed before/);
  await assertError(() => x.free(), 'E-ENGINE', /freed twice/);
  x[Symbol.dispose]();
  assert.equal([...(await other.read())], [1, 2, 3, 4]);
  for (const each of [y, other]) each.free();
  await engine.finished();
  assert.ok(engine.memory().live <= live + 256, 'silu made its result before it was refused'); // freed with the test's scope
});

mistakes('a plan that was destroyed, and what lay in it', async (engine) => {
  const x = four(engine), plan = engine.capture(() => silu(x)), y = four(engine);
  plan.run();
  await plan.destroy();
  await plan.destroy();
  const encoder = engine.device.createCommandEncoder();
  for (const use of [() => plan.run(), () => plan.encode(encoder), () => plan.compile(), () => engine.profile(plan)]) await assertError(use, 'E-ENGINE', /the plan was destroyed/);
  for (const use of [() => plan.result.read(), () => silu(plan.result), () => engine.copy(y.slice, plan.result.slice), () => plan.result.gpu]) await assertError(use, 'E-ENGINE', /lay in a plan that was destroyed/);
  let lost: Tensor | null = null;
  assert.throws(() => engine.capture(() => {
    lost = silu(x);
    throw new Error('mine');
  }), /mine/);
  await assertError(() => silu(lost!), 'E-ENGINE', /whose capture failed/);
  await engine.finished();
});

mistakes('a plan is not run inside a capture, nor an async function captured', async (engine) => {
  const x = four(engine), plan = engine.capture(() => silu(x)), { plans } = engine.memory();
  await assertError(() => engine.capture(() => plan.run()), 'E-ENGINE', /a plan was run inside capture\(\)/);
  await assertError(() => engine.capture(async () => {
    await Promise.resolve();
    throw new Error('nobody hears of this');
  }), 'E-ENGINE', /returns a promise/);
  assert.is(engine.memory().plans, plans);
  plan.run();
  assert.ok((await plan.result.read()).every(Number.isFinite));
  await plan.destroy();
});

mistakes('sizes that are no whole numbers from 1, and values that are no typed array', async (engine) => {
  const live = engine.memory().live;
  for (const size of [0, -4, 2.5, NaN, Infinity]) await assertError(() => Tensor.empty(engine, [2, size]), 'E-SHAPE', new RegExp(`shape \\(2, ${size}\\): sizes are whole numbers from 1`));
  await assertError(() => Tensor.from(engine, [4], [1, 2, 3, 4] as never), 'E-USAGE', /Tensor\.from\(\) takes its values as a Float32Array or Uint32Array/);
  await assertError(() => engine.write(four(engine).slice, [1, 2, 3, 4] as never), 'E-USAGE', /write\(\) takes a typed array/);
  assert.is(engine.memory().live, live + 256);
});

mistakes('grids that are no whole numbers, and a buffer that is read and written at once', async (engine) => {
  const x = four(engine), y = four(engine);
  for (const count of [NaN, 1.5, -1]) await assertError(() => engine.run(k.silu_forward, [count], { x: x.slice, y: y.slice }), 'E-KERNEL', new RegExp(`silu_forward: a grid of ${count} x 1 x 1 workgroups`));
  await assertError(() => engine.run(k.silu_forward, pointwise(4), { x: x.slice, y: x.view([4]).slice }), 'E-KERNEL', /silu_forward: y, which is written, lies in the buffer of x\. .*write into another tensor/);
  await assertError(() => engine.capture(() => {
    const z = silu(x);
    engine.run(k.silu_forward, pointwise(4), { x: z.slice, y: z.slice });
  }), 'E-KERNEL', /silu_forward: y, which is written/);
  await engine.finished();
});

mistakes('an error of the caller comes out of scopes and tapes as it is, and all that they made is freed', async (engine) => {
  const x = four(engine), { live } = engine.memory(), mine = () => {
    throw new Error('mine');
  };
  x.requiresGrad = true;
  const leaveOpen = () => {
    const tape = new Tape(engine);
    tape.record(() => silu(x));
    return mine();
  };
  for (const around of [engine.scope, engine.capture, (fn: () => void) => noGrad(engine, fn)]) assert.throws(() => around.call(engine, leaveOpen), /^mine$/);
  assert.is(engine.memory().live, live);
  await assertError(() => engine.scope(() => new Tape(engine).record(() => silu(x))), 'E-ENGINE', /scopes must be closed in the reverse order.*from record\(\) to backward\(\)/);
  const tape = new Tape(engine);
  assert.throws(() => tape.record(() => mse(silu(x), silu(x)) && mine()), /^mine$/);
  const loss = tape.record(() => mse(silu(x), four(engine)));
  tape.backward(loss);
  assert.ok((await tape.gradient(x).read()).every((v) => v !== 0 && Number.isFinite(v)), 'the tape records anew');
  tape.gradient(x).free();
  loss.free();
});

mistakes('memory from outside a capture that is freed inside it belongs to its scope all the same', async (engine) => {
  const { live } = engine.memory();
  await assertError(() => engine.scope(() => {
    const x = four(engine);
    engine.capture(() => x.free());
  }), 'E-ENGINE', /from outside a capture/);
  assert.is(engine.memory().live, live);
});
mistakes.run();

const CONFIG = {
  in_channels: 1, out_channels: 1, block_out_channels: [8], layers_per_block: 1, norm_num_groups: 4, norm_eps: 1e-6, attention_head_dim: null, down_block_types: ['DownBlock2D'], up_block_types: ['UpBlock2D'],
  freq_shift: 1, flip_sin_to_cos: false, downsample_padding: 0,
};
const SHAPE = [1, 4, 4, 1] as const;
function whole(engine: Engine, more: object = {}, labels: number[] | null = null) {
  const unet = new UNet({ ...CONFIG, ...more }), parameters = Parameters.place(engine, unet), diffusion = new GaussianDiffusion(engine, makeSchedule({ name: 'linear', T: 100 }));
  const images = new DeviceImages(engine, { count: 4, height: 4, width: 4, channels: 1, pixels: Uint8Array.from({ length: 64 }, (_, i) => 4 * i), labels }, false), model: DiffusionModel = (x, t) => unet.forward(x, t);
  return { unet, parameters, diffusion, images, model, train: (options: object = {}) => new Training(unet, parameters, diffusion, images, { batchSize: 2, steps: 3, lr: 1e-3, ...options }) };
}
const used = ({ live, plans }: { live: number; plans: number }) => [live, plans];
const draws = gpuSuite('mistakes with samplers and trainings', { watched: false });

draws('a sampler draws one batch at a time, also after an error; once it is destroyed it says so', async (engine) => {
  const { diffusion, model } = whole(engine), sampler = new Sampler(model, diffusion, SHAPE, { method: 'ddim', steps: 4 }), first = sampler.sample({ seed: 1 });
  await assertError(() => sampler.sample({ seed: 2 }), 'E-ENGINE', /this sampler is drawing already/);
  const x0 = await first;
  await sampler.sample({ seed: 3, onStep: () => Promise.reject(new Error('mine')) }).then(() => assert.unreachable(), (error: Error) => assert.is(error.message, 'mine'));
  assert.equal(await sampler.sample({ seed: 1 }), x0);
  const cut = assertError(() => sampler.sample({ seed: 1 }), 'E-ENGINE', /the sampler was destroyed/);
  await Promise.all([sampler.destroy(), sampler.destroy(), cut]);
  await assertError(() => sampler.sample({ seed: 1 }), 'E-ENGINE', /the sampler was destroyed/);
});

draws('what cannot be made leaves nothing behind', async (engine) => {
  const { unet, parameters, diffusion, model, train } = whole(engine), before = used(engine.memory()), mine: DiffusionModel = () => {
    throw new Error('mine');
  };
  for (const method of ['ddpm', 'ddim'] as const) assert.throws(() => new Sampler(mine, diffusion, SHAPE, { method, steps: 3 }), /^mine$/);
  assert.throws(() => new Likelihood(mine, diffusion, SHAPE, { timesteps: [1, 2, 3] }), /^mine$/);
  await assertError(() => new Sampler(model, diffusion, SHAPE, { method: 'ddpm', steps: 1 }), 'E-USAGE', /a chain of 1 timesteps/);
  await assertError(() => new Sampler(model, diffusion, [0, 4, 4, 1], { method: 'ddpm', steps: 3 }), 'E-SHAPE', /shape \(0, 4, 4, 1\)/);
  for (const [options, message] of [
    [{ batchSize: 0 }, /a batch of 0 images/], [{ batchSize: 2.5, microBatch: 2 }, /a batch of 2\.5 images/], [{ microBatch: 0 }, /cannot take 0 images at a time/], [{ batchSize: 1e9, microBatch: 1 }, /take at least 976563 at a time/], [{ loss: 'hybrid' }, /the hybrid loss/],
    [{ lr: NaN }, /a learning rate of NaN/], [{ ema: 1 }, /decay of 1/], [{ warmup: -1 }, /warm-up of -1/], [{ timeSampling: 'often' }, /no time sampling "often"/], [{ lrSchedule: 'steep' }, /no learning rate schedule "steep"/],
    [{ beta2: 1 }, /AdamW: beta2 is 1/], [{ gradClip: NaN }, /AdamW: gradClip is NaN/], [{ labelDropout: 2 }, /label dropout of 2/],
  ] as const) await assertError(() => train(options), 'E-USAGE', message);
  const images = { count: 4, height: 4, width: 4, channels: 3, pixels: new Uint8Array(192) }, coloured = new DeviceImages(engine, images, false);
  await assertError(() => new Training(unet, parameters, diffusion, coloured, { batchSize: 2, steps: 3, lr: 1e-3 }), 'E-SHAPE', /channels/);
  coloured.free();
  await assertError(() => new DeviceImages(engine, { ...images, count: 0, pixels: new Uint8Array(0) }, false), 'E-SHAPE', /^0 images of 4 x 4 x 3/);
  for (const pixels of [new Float32Array(192), Array.from({ length: 192 }, () => 0)]) await assertError(() => new DeviceImages(engine, { ...images, pixels } as never, false), 'E-USAGE', /takes its pixels as bytes.* toBytes\(values\)/);
  assert.equal(used(engine.memory()), before);
});

draws('labels that the model has no row for, or the one of no class', async (engine) => {
  const { train, images } = whole(engine, { num_class_embeds: 3 }, [0, 1, 2, 1]);
  assert.is(images.classes, 3);
  await assertError(() => train(), 'E-DATA', /labels up to 2, and the model 3 rows for them, the last of which stands for no class.* num_class_embeds 4/);
  await train({ labelDropout: 0 }).destroy();
  await assertError(() => whole(engine, { num_class_embeds: 2 }, [0, 1, 2, 1]).train({ labelDropout: 0 }), 'E-DATA', /2 rows for them: its config needs num_class_embeds 3/);
});

draws('a training that was destroyed, a loop of parts of steps, and the losses of no step', async (engine) => {
  upload(engine, [64], Array.from({ length: 64 }, () => 1e9)).free(); // what its memory held before
  const training = whole(engine).train();
  assert.equal(await training.levels(2), [null, null]);
  await assertError(() => training.loop({ every: 1.5 }).next(), 'E-USAGE', /a loop of 1\.5 steps at a time/);
  training.run(0);
  assert.is((await training.read(0, 1)).length, 1);
  assert.ok((await training.levels(2)).some((loss) => loss !== null && loss > 0));
  await Promise.all([training.destroy(), training.destroy()]);
  await assertError(() => training.run(1), 'E-ENGINE', /the training was destroyed/);
});

draws('the weights that are bound when a model is used are those it is used with, whatever it awaits; uses may be nested', async (engine) => {
  const { unet, parameters, diffusion, model } = whole(engine), bound = (): GPUBuffer => unet.conv_in.weight.tensor.slice.buffer, values = bound(), ema = parameters.use('ema', bound), read: GPUBuffer[] = [];
  parameters.use('ema', () => {
    assert.ok(parameters.use('values', bound) === values);
    assert.ok(bound() === ema);
  });
  assert.ok(bound() === values && ema !== values);
  const watched: DiffusionModel = (x, t) => {
    read.push(bound());
    return model(x, t);
  };
  const image = new Float32Array(16), two = new Float32Array(32), pair = [2, 4, 4, 1] as const, sampling = { method: 'ddim', steps: 4, seed: 1 } as const;
  for (const [what, use] of [
    ['edit', () => edit(watched, diffusion, image, SHAPE, sampling)], ['interpolate', () => interpolate(watched, diffusion, [image, image], pair, sampling)], ['invert', () => invert(watched, diffusion, image, SHAPE, { steps: 4 })],
    ['interpolateLatents', () => interpolateLatents(watched, diffusion, [image, image.map(() => 1)], pair, { steps: 4 })], ['inpaint', () => inpaint(watched, diffusion, two, new Float32Array(32), pair, { ...sampling, resamples: 1 })],
    ['sample', () => diffusion.pSampleLoop(watched, SHAPE, { seed: 1 })],
  ] as const) {
    read.length = 0;
    const before = used(engine.memory());
    await parameters.use('ema', use as () => Promise<unknown>);
    assert.ok(read.length > 0 && read.every((buffer) => buffer === ema), what);
    assert.equal(used(engine.memory()), before, what);
  }
});
draws.run();

const others = suite('engines of others');

others('a tensor of another device is refused; one of another engine on this device is computed first', async () => {
  const [first, second] = [await openEngine(openOptions), await openEngine(openOptions)], there = four(second.engine), here = four(first.engine), beside = new Engine(first.device);
  for (const use of [() => add(here, there), () => first.engine.read(there.slice), () => first.engine.copy(there.slice, here.slice), () => first.engine.write(there.slice, new Float32Array(4))]) await assertError(use, 'E-ENGINE', /is on another device than this engine.*Tensor\.from/);
  const sum = add(here, silu(four(beside)));
  assert.equal([...(await sum.read())].map((v, i) => v > 1.7 * (i + 1)), [true, true, true, true], 'the other engine had held back its silu');
  await beside.destroy();
  for (const { close } of [first, second]) await close();
});

others('an engine that was destroyed, while work is pending too, says so; what is left of it can be put away', async () => {
  const { device, close } = await openEngine(openOptions), engine = new Engine(device), x = four(engine), plan = engine.capture(() => silu(x));
  const pending = silu(x).read(), destroyed = engine.destroy();
  assert.is((await pending).length, 4);
  await destroyed;
  for (const use of [() => silu(x), () => four(engine), () => x.read(), () => engine.write(x.slice, new Float32Array(4)), () => engine.finished(), () => engine.capture(() => silu(x)), () => engine.check()]) await assertError(use, 'E-ENGINE', /the engine was destroyed/);
  await assertError(() => plan.run(), 'E-ENGINE', /the plan was destroyed, or its engine/);
  x.free();
  await plan.destroy();
  await engine.destroy();
  assert.is(engine.memory().total, 0);
  await close();
});
others.run();
