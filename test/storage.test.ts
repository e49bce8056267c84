// A U-Net whose activations are float16: forward, backward and training against float32, what it holds, and what is drawn from it.
import * as assert from 'uvu/assert';
import { Tape } from '../src/autograd.ts';
import { Clock } from '../src/clock.ts';
import { makeShapes } from '../src/data/shapes.ts';
import { GaussianDiffusion } from '../src/diffusion/gaussian.ts';
import { Sampler } from '../src/diffusion/sampler.ts';
import { makeSchedule } from '../src/diffusion/schedule.ts';
import { Training } from '../src/diffusion/training.ts';
import { Engine } from '../src/gpu/engine.ts';
import { paperDevice } from '../src/gpu/paper.ts';
import { SUBGROUP_MATRIX } from '../src/gpu/requirements.ts';
import { Parameters } from '../src/nn/parameters.ts';
import { parametersOf } from '../src/nn/parameter.ts';
import { UNet } from '../src/nn/unet.ts';
import { mse } from '../src/ops/loss.ts';
import { assumePrecision, takePrecision } from '../src/ops/precision.ts';
import { DeviceImages } from '../src/ops/random.ts';
import { overflowed, type StepLog } from '../src/optim/adamw.ts';
import { trainingOf } from '../bench/model.ts';
import { relativeL2 } from './helpers/close.ts';
import { gpuSuite, random, upload } from './helpers/gpu.ts';
import { CORES, onCores } from './helpers/subgroup_matrix.ts';

/** Small, and with everything in it: attention with two heads, a change of width, both resamplings, skips. */
const CONFIG = {
  sample_size: 8, in_channels: 1, out_channels: 1, block_out_channels: [8, 16], down_block_types: ['DownBlock2D', 'AttnDownBlock2D'], up_block_types: ['AttnUpBlock2D', 'UpBlock2D'],
  layers_per_block: 1, norm_num_groups: 4, norm_eps: 1e-6, freq_shift: 1, flip_sin_to_cos: false, downsample_padding: 0, attention_head_dim: 8,
};
const stored = gpuSuite('a U-Net on float16 activations', { precision: 'f16', as: 'gpu', watched: false });

/** Runs fn with float32 throughout, on the same device and its other kernels' choices. */
async function asFloat32<T>(engine: Engine, fn: () => Promise<T>): Promise<T> {
  const names = [...engine.half], { storage } = engine;
  takePrecision(engine, { half: new Set(), storage: 'f32' });
  try {
    return await fn();
  } finally {
    takePrecision(engine, { half: new Set(names), storage });
  }
}

/** With weights that are nowhere zero: those of a fresh model make it predict 0. */
function lively(engine: Engine, config: object, checkpointBlocks = false): { unet: UNet; parameters: Parameters } {
  const unet = new UNet({ ...CONFIG, ...config }, { checkpointBlocks }), parameters = Parameters.place(engine, unet);
  parameters.write('values', new Map(parametersOf(unet).map((p, i) => [p.name, { shape: p.shape, data: random(p.size, i).map((v) => v * 0.2 + Number(p.name.endsWith('norm.weight'))) }])), 'test');
  return { unet, parameters };
}

/** One forward and backward pass: output, all gradients, and how many dispatches wrote or read float16. */
async function pass(engine: Engine, config: object, checkpointBlocks = false) {
  const { unet, parameters } = lively(engine, config, checkpointBlocks), N = 2, clock = new Clock(engine), { in_channels: channels } = unet.config;
  clock.set({ seed: 3, step: 1, first: 0 });
  const x = upload(engine, [N, 8, 8, 1], random(N * 64, 1000)), start = upload(engine, [N, 8, 8, 1], random(N * 64, 1002)), t = upload(engine, [N], Uint32Array.of(7, 396)), goal = upload(engine, [N, 8, 8, 1], random(N * 64, 1001));
  const plan = engine.capture(() => {
    const tape = new Tape(engine);
    const [loss, y] = tape.record(() => {
      const output = unet.forward(channels === 2 ? [x, start] : x, t, { clock });
      return [mse(output, goal), output] as const;
    });
    tape.backward(loss, y, { scale: 1024 });
    return y;
  });
  await plan.compile();
  plan.run();
  const y = await plan.result.read(), gradients = await parameters.read('grads'), halves = plan.commands.filter((c) => c.kind === 'dispatch' && c.pipeline.kernel.f16?.length).length;
  assert.is(plan.result.type, 'f32');
  await plan.destroy();
  return { y, gradients, halves };
}

// DDPM_TEST_TENSOR_CORES=1 npm test -- test/storage: also with products on tensor cores, whose matrices are emulated. llvmpipe takes minutes to compile them.
if (CORES.length < 2) console.log('  SKIPPED  emulated tensor cores: they take minutes to compile (DDPM_TEST_TENSOR_CORES=1)');

for (const [what, config] of [
  ['with attention, skips and dropout', { dropout: 0.1 }],
  ['with scales and shifts by the embedding, conditioned on itself', { resnet_time_scale_shift: 'scale_shift', in_channels: 2, attn_norm_num_groups: 4 }],
] as const)
  for (const cores of CORES) stored(`output and gradients are those of float32 but for roundings, ${what}${cores ? ', on tensor cores' : ''}`, (engine) => onCores(cores, engine, async () => {
    const got = await pass(engine, config), want = await asFloat32(engine, () => pass(engine, config));
    assert.is(want.halves, 0);
    assert.ok(got.halves > 150, `${got.halves} dispatches on float16`);
    // Every dispatch rounds what it stores by at most 2^-11, relative; roundings are of random sign, so that after S of them a value is off by about sqrt(S) 2^-11 where no layer makes errors larger.
    const most = Math.sqrt(got.halves) * 2 ** -11, off = relativeL2(got.y, want.y);
    assert.ok(off > 2 ** -13 && off < most, `the output is off by ${off}`);
    const all = ({ gradients }: typeof got): Float64Array => Float64Array.from([...gradients.values()].flatMap(({ data }) => [...data])), total = Math.hypot(...all(want));
    assert.ok(relativeL2(all(got), all(want)) < most, `all gradients are off by ${relativeL2(all(got), all(want))}`);
    // One by one twice that: there are fewer values to even it out. A bias of attention's keys changes nothing: its gradient is zero, and what it is off by counts by the others' size.
    for (const [name, { data }] of want.gradients) {
      const difference = Math.hypot(...got.gradients.get(name)!.data.map((v, i) => v - data[i]));
      assert.ok(difference < 2 * most * (Math.hypot(...data) + 1e-3 * total), `${name} is off by ${difference} of ${Math.hypot(...data)}`);
    }
  }));

for (const cores of CORES) stored(`blocks that backward runs again give the same bits${cores ? ', on tensor cores' : ''}`, (engine) => onCores(cores, engine, async () => {
  const [kept, again] = [await pass(engine, { dropout: 0.1 }), await pass(engine, { dropout: 0.1 }, true)];
  assert.equal([...kept.y], [...again.y]);
  for (const [name, { data }] of kept.gradients) assert.equal([...again.gradients.get(name)!.data], [...data], name);
}));

const STEPS = 12;
function start(engine: Engine) {
  const unet = new UNet(CONFIG), parameters = Parameters.place(engine, unet, { seed: 1 }), diffusion = new GaussianDiffusion(engine, makeSchedule({ name: 'linear', T: 1000 })), images = new DeviceImages(engine, makeShapes({ count: 20, size: 8 }), false);
  return { unet, parameters, diffusion, images, training: new Training(unet, parameters, diffusion, images, { batchSize: 6, microBatch: 4, steps: STEPS, lr: 2e-3, ema: 0.9, gradClip: 1, seed: 5 }) };
}

stored('training steps give the losses of float32 within a thousandth, and sampling its images', async (engine) => {
  const losses = async (): Promise<{ losses: number[]; scale: number | null | undefined; images: Float32Array }> => {
    const { unet, diffusion, images, training } = start(engine);
    await training.plan.compile();
    for (let step = 0; step < STEPS; step++) training.run(step);
    const logs = await training.read(0, STEPS), sampler = new Sampler((x, t) => unet.forward(x, t), diffusion, [2, 8, 8, 1], { method: 'ddim', steps: 3 });
    const drawn = await sampler.sample({ seed: 2 });
    for (const each of [training, sampler]) await each.destroy();
    images.free();
    return { losses: logs.map(({ loss }) => loss), scale: logs.at(-1)!.lossScale, images: drawn };
  };
  const got = await losses(), want = await asFloat32(engine, losses);
  assert.ok(got.losses.every(Number.isFinite) && want.losses[0] - want.losses.at(-1)! > 0.05, 'it learns');
  got.losses.forEach((loss, i) => assert.ok(Math.abs(loss - want.losses[i]) < 1e-3 * want.losses[i], `step ${i}: ${loss}, and ${want.losses[i]} in float32`));
  assert.is(got.scale, 65536, 'no step overflowed');
  assert.ok(relativeL2(got.images, want.images) < 0.01, `images are off by ${relativeL2(got.images, want.images)}`);
});

stored('gradients of activations that are too large for float16 make a step that changes nothing, until the loss is scaled by less', async (engine) => {
  const { training, parameters } = start(engine), weights = async (): Promise<string> => [...(await parameters.read('values')).values()].map(({ data }) => data.join()).join(), before = await weights();
  training.optimizer.lossScale!.write(new Map([['loss_scale', { shape: [2], data: [2 ** 26, 0] }]]), 'test');
  let step = 0, log: StepLog;
  do {
    training.run(step);
    [log] = (await training.read(step, step + 1)) as [StepLog];
    if (overflowed(log)) assert.equal([log.lossScale, await weights()], [2 ** (26 - step), before]);
  } while (overflowed(log) && ++step < STEPS);
  assert.ok(step > 2 && step < STEPS && log.bad === null, `${step} overflows, then ${log.bad}`);
  assert.is.not(await weights(), before);
  await training.destroy();
});

stored('it halves what the plans of ddpm-cifar10 hold, with and without --checkpoint-blocks', () => {
  const held = (precision: 'f32' | 'f16', checkpointBlocks: boolean, more: readonly string[] = []): number => {
    const engine = new Engine(paperDevice(32, {}, ['subgroups', 'shader-f16', ...more]));
    assumePrecision(engine, precision);
    return trainingOf(engine, 'ddpm-cifar10', 128, { initial: false, checkpointBlocks }).training.plan.pool.totalBytes;
  };
  for (const checkpointBlocks of [false, true]) {
    const whole = held('f32', checkpointBlocks), withCores = held('f16', checkpointBlocks, [SUBGROUP_MATRIX]), without = held('f16', checkpointBlocks) / whole;
    // Tensor cores read a copy of the 35,746,307 weights.
    const share = (withCores - 2 * 35_746_307) / whole;
    assert.ok(share > 0.49 && share < 0.53, `${share} of float32's`);
    // Terms of weights' gradients are float32. Without tensor cores the largest come in 29 parts (65 MiB, of 1,043 with blocks computed again; in 11 parts it would hold 972), where float32's filtered kernel takes 8.
    assert.ok(without > 0.49 && without < (checkpointBlocks ? 0.545 : 0.53), `${without} of float32's without tensor cores`);
  }
});
stored.run();
