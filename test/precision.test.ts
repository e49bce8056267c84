// Training with float16 factors: the loss scale, what it does at an overflow, what a checkpoint keeps of it, and a run that is lost in spite of it.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { type LoopOptions, metricsLine, trainLoop } from '../src/cli/train-loop.ts';
import { makeShapes } from '../src/data/shapes.ts';
import { GaussianDiffusion } from '../src/diffusion/gaussian.ts';
import { makeSchedule } from '../src/diffusion/schedule.ts';
import { Training, type TrainingOptions } from '../src/diffusion/training.ts';
import type { Engine } from '../src/gpu/engine.ts';
import { loadCheckpoint, saveCheckpoint } from '../src/io/checkpoint.ts';
import { Parameters } from '../src/nn/parameters.ts';
import { UNet } from '../src/nn/unet.ts';
import { DeviceImages } from '../src/ops/random.ts';
import { overflowed, type StepLog } from '../src/optim/adamw.ts';
import { assertError, gpuSuite } from './helpers/gpu.ts';

const CONFIG = {
  sample_size: 8, in_channels: 1, out_channels: 1, block_out_channels: [8, 16], down_block_types: ['DownBlock2D', 'AttnDownBlock2D'], up_block_types: ['AttnUpBlock2D', 'UpBlock2D'],
  layers_per_block: 1, norm_num_groups: 4, norm_eps: 1e-6, freq_shift: 1, flip_sin_to_cos: false, downsample_padding: 0, attention_head_dim: null,
};
const schedule = makeSchedule({ name: 'linear', T: 1000 });

function start(engine: Engine, options: Partial<TrainingOptions> = {}) {
  const unet = new UNet(CONFIG), parameters = Parameters.place(engine, unet, { seed: 1 }), images = new DeviceImages(engine, makeShapes({ count: 20, size: 8 }), false);
  return { unet, parameters, training: new Training(unet, parameters, new GaussianDiffusion(engine, schedule), images, { batchSize: 6, steps: 10, lr: 2e-3, ema: 0.9, seed: 5, ...options }) };
}
type Run = ReturnType<typeof start>;

async function steps({ training }: Run, from: number, to: number): Promise<StepLog[]> {
  for (let step = from; step < to; step++) training.run(step);
  return training.read(from, to);
}
/** Every bit that a step may change. */
async function state({ parameters }: Run): Promise<string> {
  const all = await Promise.all((['values', 'm', 'v', 'ema'] as const).map((buffer) => parameters.read(buffer)));
  return all.flatMap((tensors) => [...tensors].map(([name, { data }]) => `${name} ${Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('base64')}`)).join('\n');
}
const setScale = ({ training }: Run, scale: number, good = 0) => training.optimizer.lossScale!.write(new Map([['loss_scale', { shape: [2], data: [scale, good] }]]), 'test');

const scaled = gpuSuite('loss scaling in float32');
for (const microBatch of [null, 4])
  scaled(`changes no bit, ${microBatch ?? 'all'} at a time`, async (engine) => {
    const plain = start(engine, { microBatch }), run = start(engine, { microBatch, lossScaling: true });
    const want = await steps(plain, 0, 4), got = await steps(run, 0, 4);
    assert.equal(got, want.map((log) => ({ ...log, lossScale: 65536 })));
    assert.is(await state(run), await state(plain));
    assert.is(plain.training.optimizer.lossScale, null);
  });
scaled.run();

const half = gpuSuite('training with float16 factors', { precision: 'f16' });

half('has the losses of float32 but for the rounding, and scales its loss', async (engine) => {
  const run = start(engine), logs = await steps(run, 0, 6), kept = [...engine.half];
  engine.half.clear();
  const single = await steps(start(engine), 0, 6);
  for (const kernel of kept) engine.half.add(kernel);
  for (const [i, { loss, gradNorm, bad, lossScale }] of logs.entries()) {
    assert.equal([bad, lossScale, single[i].lossScale], [null, 65536, null]);
    // At step 0 the last convolution's weights are zero. A factor is off by 2^-11 of itself at most, and some twenty products follow one another; over six steps a learning rate of 2e-3 lets that grow little.
    for (const [got, want] of [[loss, single[i].loss], [gradNorm, single[i].gradNorm]]) assert.ok((got !== want || i === 0) && Math.abs(got - want) < 20 * 2 ** -11 * want, `step ${i}: ${got}, ${want} in float32`);
  }
});

half('a loss scale that is too large is halved by steps that change nothing, until it fits', async (engine) => {
  const run = start(engine), before = await state(run);
  setScale(run, 2 ** 32);
  const logs: StepLog[] = [];
  for (let step = 0; step < 20 && (step === 0 || logs.at(-1)!.bad); step++) {
    assert.is(await state(run), before, `after ${step} steps`);
    logs.push(...(await steps(run, step, step + 1)));
  }
  const last = logs.pop()!;
  assert.ok(logs.length >= 3 && logs.length < 19, `${logs.length} steps back`);
  assert.equal(logs.map(({ lossScale }) => lossScale), logs.map((_, i) => 2 ** (32 - i)));
  assert.ok(logs.every((log) => overflowed(log) && log.bad!.startsWith('gradient')));
  assert.equal([last.bad, last.lossScale], [null, 2 ** (32 - logs.length)]);
  assert.is.not(await state(run), before);
});

half('goes on bit for bit from a checkpoint: the scale and its good steps are kept', async (engine) => {
  const folder = mkdtempSync(join(tmpdir(), 'ddpm-half-')), through = start(engine), first = start(engine), second = start(engine);
  // Doubled after step 1: a run that lost its count would not be.
  for (const run of [through, first]) setScale(run, 512, 1998);
  const want = await steps(through, 0, 4);
  assert.equal(want.map(({ lossScale }) => lossScale), [512, 512, 1024, 1024]);
  await steps(first, 0, 1);
  const { unet, parameters, training } = first, { lossScale } = training.optimizer;
  await saveCheckpoint(folder, { unet, parameters, schedule: { name: 'linear', T: 1000 }, training, state: { step: 1, seed: 5, data: { name: 'shapes', count: 20 }, settings: {} } });
  await loadCheckpoint(folder, second);
  assert.equal(await steps(second, 1, 4), want.slice(1));
  assert.is(await state(second), await state(through));
  rmSync(folder, { recursive: true });

  assert.is(lossScale!.write(new Map(), 'a run in float32'), false);
  for (const bad of [[3, 0], [NaN, 0], [0.5, 0], [512, 2000], [512, -1], [512]])
    await assertError(() => lossScale!.write(new Map([['loss_scale', { shape: [bad.length], data: bad }]]), 'optimizer.safetensors'), 'E-FILE', /optimizer\.safetensors: loss_scale is .* damaged/);
});

half('an overflow is said and passed over; a loss that is not finite ends the run and names the first bad gradient', async (engine) => {
  const run = start(engine, { steps: 30 }), events: string[] = [], lines: ReturnType<typeof metricsLine>[] = [], nothing = async (): Promise<void> => {};
  const options: LoopOptions = {
    training: run.training, images: 20, from: 0, logEvery: 1, sampleEvery: 0, saveEvery: 0, stop: { requested: false }, sample: nothing, save: nothing,
    onMetrics: (line) => {
      lines.push(line);
      // From step 8 on the weights are lost.
      if (line['step'] === 8) run.parameters.write('values', new Map([...values].map(([name, { shape, data }]) => [name, { shape, data: data.map(() => NaN) }])), 'test');
    },
    onEvent: (text) => events.push(text), onProgress: () => {},
  };
  const values = await run.parameters.read('values');
  setScale(run, 2 ** 27);
  await assertError(() => trainLoop(options), 'E-NONFINITE', /^the last 10 steps were not finite and changed nothing; at step \d+ it was gradient of \S+\. The training has diverged\.$/);
  assert.match(events[0], /^step 1: gradient of \S+ is not finite, the step was skipped: too large for float16 with the loss scaled by 134217728, from here on by 67108864$/);
  assert.match(events.at(-1)!, /is not finite, the step was skipped$/);
  const scales = lines.map((line) => line['loss_scale'] as number), backed = lines.filter((line) => 'nonfinite' in line && Number.isFinite(line['loss'])).length;
  assert.ok(backed > 0 && backed < 8, `${backed} overflows`);
  assert.ok(scales.every((scale, i) => i === 0 || scale === scales[i - 1] || scale === scales[i - 1] / 2), scales.join());
});
half.run();
