// Plans counted on a device of paper: the same as on a real one, and within the budgets of the paper's CIFAR-10 model.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { place, trainingOf } from '../bench/model.ts';
import { Sampler } from '../src/diffusion/sampler.ts';
import { Engine } from '../src/gpu/engine.ts';
import { paperDevice } from '../src/gpu/paper.ts';
import { openEngine } from '../src/node.ts';

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

paper('ddpm-cifar10 at batch 128: dispatches and memory of a training step, with and without --checkpoint-blocks, and a sampling step', () => {
  const engine = new Engine(paperDevice(32)), { plan } = trainingOf(engine, 'ddpm-cifar10', 128, false).training;
  assert.ok(plan.dispatches <= 600, `${plan.dispatches} dispatches a training step`);
  // PyTorch 2.11 in eager mode takes 8.2 GB for this step (bench/results/2026-11-26-h100.md), weights and moments included: 0.7 GB of ours.
  assert.ok(plan.pool.totalBytes < 5.1e9, `${plan.pool.totalBytes} bytes of activations`);
  const again = trainingOf(new Engine(paperDevice(32)), 'ddpm-cifar10', 128, false, true).training.plan.pool.totalBytes;
  assert.ok(plan.pool.totalBytes / again >= 2.5, `${again} bytes with --checkpoint-blocks`);
  for (const width of [32, 8]) {
    const { unet, diffusion } = place(new Engine(paperDevice(width)), 'ddpm-cifar10', false);
    const sampler = new Sampler((x, t) => unet.forward(x, t), diffusion, [64, 32, 32, 3], { method: 'ddim', steps: 50 });
    assert.ok(sampler.dispatches <= (width === 8 ? 187 : 192), `${sampler.dispatches} dispatches a sampling step, subgroups of ${width}`);
  }
});
paper.run();
