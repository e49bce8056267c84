// Plans counted on a device of paper: the same as on a real one, and within the budgets of the paper's CIFAR-10 model.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { place, trainingOf, watch } from '../bench/model.ts';
import { workIn } from '../bench/roofline.ts';
import { Sampler } from '../src/diffusion/sampler.ts';
import { Engine } from '../src/gpu/engine.ts';
import { paperDevice } from '../src/gpu/paper.ts';
import { SUBGROUP_MATRIX } from '../src/gpu/requirements.ts';
import { openEngine } from '../src/node.ts';
import { CORE_BYTES, HALF } from '../src/ops/half.ts';

const paper = suite('plans on paper');

paper('launch and hold what they do on the device', async () => {
  const { engine, info, close } = await openEngine();
  const labels = (on: Engine) => {
    const { plan } = trainingOf(on, 'tiny', 2).training;
    return { launched: plan.commands.map((c) => (c.kind === 'dispatch' ? `${c.pipeline.label} ${[c.x, c.y, c.z].join()}` : c.kind)), bytes: plan.pool.totalBytes, peak: plan.pool.peakBytes };
  };
  const real = labels(engine), counted = labels(new Engine(paperDevice(engine.subgroupWidth, info, undefined, engine.device.limits)));
  assert.ok(real.launched.length > 200);
  assert.equal(counted, real);
  await close();
});

paper('ddpm-cifar10 at batch 128: dispatches, memory and products of a training step, with and without --checkpoint-blocks, and a sampling step', () => {
  const steps = [false, true].map((checkpointBlocks) => {
    const engine = new Engine(paperDevice(32));
    let made!: ReturnType<typeof trainingOf>;
    const works = workIn(engine, () => (made = trainingOf(engine, 'ddpm-cifar10', 128, { initial: false, checkpointBlocks })));
    return { plan: made.training.plan, flops: [...works.values()].reduce((sum, work) => sum + work.flops, 0) };
  });
  const [{ plan, flops }, again] = steps;
  assert.ok(plan.dispatches <= 600, `${plan.dispatches} dispatches a training step`);
  // PyTorch 2.11 in eager mode takes 8.2 GB for this step (bench/results/2026-11-26-h100.md), weights and moments included: 0.7 GB of ours.
  assert.ok(plan.pool.totalBytes < 5.1e9, `${plan.pool.totalBytes} bytes of activations`);
  assert.ok(plan.pool.totalBytes / again.plan.pool.totalBytes >= 2.5, `${again.plan.pool.totalBytes} bytes with --checkpoint-blocks`);
  // A third more would be the whole forward pass: the last convolution of a block is not run again.
  assert.ok(again.flops / flops > 1.1 && again.flops / flops < 1.23, `${again.flops / flops} times the products with --checkpoint-blocks`);
  for (const width of [32, 8]) {
    const { unet, diffusion } = place(new Engine(paperDevice(width)), 'ddpm-cifar10', { initial: false });
    const sampler = new Sampler((x, t) => unet.forward(x, t), diffusion, [64, 32, 32, 3], { method: 'ddim', steps: 50 });
    assert.ok(sampler.dispatches <= (width === 8 ? 187 : 192), `${sampler.dispatches} dispatches a sampling step, subgroups of ${width}`);
  }
});

/** A GPU whose tensor cores are right, with activations as float16. */
function withCores(): Engine {
  const engine = new Engine(paperDevice(32, {}, ['subgroups', 'shader-f16', SUBGROUP_MATRIX], { maxComputeWorkgroupStorageSize: CORE_BYTES }));
  for (const product of Object.values(HALF)) for (const kernel of Object.values(product)) engine.half.add(kernel.name);
  engine.storage = 'f16';
  return engine;
}

paper('ddpm-cifar10 on tensor cores: dispatches of a training step and of a sampling step', () => {
  const { dispatches } = trainingOf(withCores(), 'ddpm-cifar10', 128, { initial: false }).training.plan, { unet, diffusion } = place(withCores(), 'ddpm-cifar10', { initial: false });
  assert.ok(dispatches <= 600, `${dispatches} dispatches a training step`);
  const sampler = new Sampler((x, t) => unet.forward(x, t), diffusion, [64, 32, 32, 3], { method: 'ddim', steps: 50 });
  assert.ok(sampler.dispatches <= 198, `${sampler.dispatches} dispatches a sampling step`);
});

paper('tensor cores read the weights that a pass rounded at its start, in blocks that run again as well', () => {
  for (const checkpointBlocks of [false, true]) {
    const engine = withCores(), casts: { size: number; y: GPUBuffer }[] = [], read = new Map<GPUBuffer, number>();
    watch(engine, () => trainingOf(engine, 'tiny', 4, { initial: false, checkpointBlocks }), (kernel, { size }, slices) => {
      if (kernel === 'cast_f16') casts.push({ size: size!, y: slices[1]!.buffer });
      if (kernel.startsWith('conv2d_subgroup_matrix')) read.set(slices[2]!.buffer, (read.get(slices[2]!.buffer) ?? 0) + 1);
    });
    const whole = casts.reduce((a, b) => (b.size > a.size ? b : a)), all = [...read.values()].reduce((a, b) => a + b, 0);
    assert.ok(whole.size >= trainingOf(withCores(), 'tiny', 4, { initial: false }).parameters.count, `${whole.size} weights in the copy`);
    // The first convolution's weight and, both ways, the last's are widened, and those of the time embedding are joined: they are rounded by themselves.
    assert.is(all - read.get(whole.y)!, 5, `${all} in all`);
    assert.is(casts.length, 1 + 5 + 2, 'and the images, and the gradient of what is predicted for them');
  }
});
paper.run();
