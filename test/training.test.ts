// The training step as one plan: against PyTorch, against itself run eagerly, resumed, over-fitted, with values that are not finite; and the optimizer by itself.
import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Tape } from '../src/autograd.ts';
import { modelConfig } from '../src/cli/presets.ts';
import { Clock } from '../src/clock.ts';
import { makeShapes } from '../src/data/shapes.ts';
import { GaussianDiffusion } from '../src/diffusion/gaussian.ts';
import { makeSchedule } from '../src/diffusion/schedule.ts';
import { TIME_SAMPLINGS } from '../src/diffusion/timestep-sampling.ts';
import { Training, type TrainingOptions } from '../src/diffusion/training.ts';
import type { Engine } from '../src/gpu/engine.ts';
import { readSafetensors } from '../src/io/safetensors.ts';
import type { UNetFields } from '../src/nn/config.ts';
import { ones, zeros } from '../src/nn/init.ts';
import { Module, Parameter, parametersOf } from '../src/nn/parameter.ts';
import { type BufferName, Parameters } from '../src/nn/parameters.ts';
import { UNet } from '../src/nn/unet.ts';
import { DeviceImages, randomIntegers, shuffleIndices } from '../src/ops/random.ts';
import { AdamW, type AdamWOptions } from '../src/optim/adamw.ts';
import { emaDecay, learningRate, LR_SCHEDULES } from '../src/optim/schedules.ts';
import { STREAM } from '../src/philox.ts';
import { nchwToNhwc, type Tensor } from '../src/tensor.ts';
import { assertClose, relativeL2 } from './helpers/close.ts';
import { assertError, gpuSuite, random, upload } from './helpers/gpu.ts';
import * as twin from './ref/optim.ts';
import { uniformInts } from './ref/random.ts';

const bits = (data: Float32Array): string => Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('base64');

/** Small, and with everything that a step has: attention, dropout, flips, a batch that does not divide the data, clipping, weight decay. */
const CONFIG = {
  sample_size: 8, in_channels: 1, out_channels: 1, block_out_channels: [8, 16], down_block_types: ['DownBlock2D', 'AttnDownBlock2D'], up_block_types: ['AttnUpBlock2D', 'UpBlock2D'],
  layers_per_block: 1, norm_num_groups: 4, norm_eps: 1e-6, freq_shift: 1, flip_sin_to_cos: false, downsample_padding: 0, attention_head_dim: null, dropout: 0.1,
};
const OPTIONS: TrainingOptions = { batchSize: 6, steps: 10, lr: 2e-3, lrSchedule: 'cosine', warmup: 3, ema: 0.9, weightDecay: 0.01, gradClip: 1, seed: 5 };

interface Run {
  readonly unet: UNet;
  readonly parameters: Parameters;
  readonly diffusion: GaussianDiffusion;
  readonly images: DeviceImages;
  readonly training: Training;
}

function start(engine: Engine, options: Partial<TrainingOptions> = {}, { init = 1, config = CONFIG as UNetFields, count = 20, flip = true, chunkBytes = 0 } = {}): Run {
  const unet = new UNet(config), parameters = Parameters.place(engine, unet, { seed: init, ...(chunkBytes ? { chunkBytes } : {}) });
  const images = new DeviceImages(engine, makeShapes({ count, size: 8 }), flip), diffusion = new GaussianDiffusion(engine, makeSchedule({ name: 'linear', T: 1000 }));
  return { unet, parameters, images, diffusion, training: new Training(unet, parameters, diffusion, images, { ...OPTIONS, ...options }) };
}

const STATE: readonly BufferName[] = ['values', 'm', 'v', 'ema'];

/** Everything that a step may change, bit by bit. */
async function state(parameters: Parameters): Promise<string[]> {
  const out: string[] = [];
  for (const buffer of STATE) for (const [name, { data }] of await parameters.read(buffer)) out.push(`${buffer} ${name} ${bits(data)}`);
  return out;
}

/** Runs steps `from` to `to - 1` and returns what they logged and left. */
async function steps({ training, parameters }: Run, from: number, to: number): Promise<{ logs: string[]; left: string[] }> {
  for (let step = from; step < to; step++) training.run(step);
  return { logs: (await training.read(from, to)).map((log) => JSON.stringify(log)), left: await state(parameters) };
}

// -------------------------------------------------------------------------------------------------------------------------- in parts
const parts = gpuSuite('a step in parts');

for (const timeSampling of TIME_SAMPLINGS)
  parts(`is the step of the whole batch, also where the last part is smaller: t drawn ${timeSampling}`, async (engine) => {
    const gradients = async (run: Run) => {
      run.training.run(0);
      const [log] = await run.training.read(0, 1);
      return { log: log!, all: [...(await run.parameters.read('grads'))] };
    };
    const whole = await gradients(start(engine, { timeSampling, snrGamma: 1 }));
    for (const microBatch of [4, 3, 1]) {
      const got = await gradients(start(engine, { timeSampling, snrGamma: 1, microBatch }));
      // The same terms in another order. The longest sum, of a weight's gradient, has 6 x 8 x 8 of them and passes through some thirty others on its way.
      const off = 4 * Math.sqrt(30 * 6 * 64) * 2 ** -24;
      assert.ok(Math.abs(got.log.loss - whole.log.loss) <= off * whole.log.loss, `loss ${got.log.loss}, whole ${whole.log.loss}`);
      assert.ok(whole.log.gradNorm > 0 && got.log.bad === null);
      const flat = (all: [string, { data: Float32Array }][]) => Float32Array.from(all.flatMap(([, { data }]) => [...data]));
      const error = relativeL2(flat(got.all), flat(whole.all));
      assert.ok(error < off, `${microBatch} at a time: gradients differ by ${error}, ${off} allowed`);
    }
  });

parts('goes on bit for bit after a stop, and needs less memory', async (engine) => {
  const options = { microBatch: 4 }, through = start(engine, options), first = start(engine, options), second = start(engine, options);
  const whole = await steps(through, 0, 4);
  await steps(first, 0, 2);
  for (const buffer of STATE) second.parameters.write(buffer, await first.parameters.read(buffer), 'the first half');
  assert.equal((await steps(second, 2, 4)).left, whole.left);
  assert.ok(through.training.plan.pool.peakBytes < start(engine).training.plan.pool.peakBytes);
});

parts('of no image is refused', (engine) => assertError(() => start(engine, { microBatch: 0 }), 'E-USAGE', /0 images at a time/));
parts.run();

// ------------------------------------------------------------------------------------------------------------------- against PyTorch
const golden = gpuSuite('training against PyTorch');

golden('ten steps: the losses and norms within 1e-4, and the weights and averages that they end at', async (engine) => {
  const NAME = 'train-ten-steps.safetensors', STEPS = 10;
  const { tensors, metadata } = readSafetensors(readFileSync(new URL(`golden/${NAME}`, import.meta.url)), NAME);
  const hyper = JSON.parse(metadata.hyper) as { lr: number; betas: [number, number]; eps: number; weight_decay: number; grad_clip: number; ema: number; timesteps: number };
  const own = JSON.parse(metadata.float64_deviation) as Record<string, number>;
  const data = (key: string): Float32Array => tensors.get(key)!.data as Float32Array;
  const group = (prefix: string): Map<string, { shape: number[]; data: Float32Array }> =>
    new Map([...tensors].filter(([key]) => key.startsWith(prefix)).map(([key, { shape, data: values }]) => [key.slice(prefix.length), { shape, data: values as Float32Array }]));

  const unet = new UNet(JSON.parse(metadata.config)), parameters = Parameters.place(engine, unet);
  for (const buffer of ['values', 'ema'] as const) parameters.write(buffer, group('weights.'), NAME);
  const optimizer = new AdamW(parameters, { beta1: hyper.betas[0], beta2: hyper.betas[1], eps: hyper.eps, weightDecay: hyper.weight_decay, gradClip: hyper.grad_clip });
  const diffusion = new GaussianDiffusion(engine, makeSchedule({ name: 'linear', T: hyper.timesteps })), clock = new Clock(engine);
  const [, N, C, H, W] = tensors.get('x0')!.shape as [number, number, number, number, number], size = N * C * H * W;
  const batch = (key: string, step: number): Float32Array<ArrayBuffer> => nchwToNhwc(data(key).subarray(step * size, (step + 1) * size), [N, C, H, W]);
  const x0 = upload(engine, [N, H, W, C], batch('x0', 0)), noise = upload(engine, [N, H, W, C], batch('noise', 0)), t = upload(engine, [N], new Uint32Array(N));

  // The inputs are tensors from outside of the plan, written anew before every step.
  const plan = engine.capture(() => {
    const tape = new Tape(engine), loss = tape.record(() => diffusion.trainLosses((x, at) => unet.forward(x, at), x0, t, { noise }));
    tape.backward(loss);
    optimizer.step(loss, clock);
    return loss;
  });
  const times = Array.from(tensors.get('t')!.data as BigInt64Array, Number);
  for (let step = 0; step < STEPS; step++) {
    engine.write(x0.slice, batch('x0', step));
    engine.write(noise.slice, batch('noise', step));
    engine.write(t.slice, Uint32Array.from(times.slice(step * N, (step + 1) * N)));
    clock.set({ seed: 0, step, lr: hyper.lr, emaDecay: hyper.ema });
    plan.run();
  }
  const logs = await optimizer.read(0, STEPS);
  assert.equal(logs.map(({ step, bad }) => [step, bad]), Array.from({ length: STEPS }, (_, i) => [i, null]));
  const off = (got: number[], want: Float32Array): number => Math.max(...got.map((v, i) => Math.abs(v - want[i]) / want[i]));
  const losses = off(logs.map((log) => log.loss), data('losses')), norms = off(logs.map((log) => log.gradNorm), data('grad_norms'));
  assert.ok(logs.some((log) => log.gradNorm > hyper.grad_clip) && logs.some((log) => log.gradNorm < hyper.grad_clip), 'some steps are clipped and some are not');

  const worst: Record<string, [number, string]> = { final: [0, ''], ema: [0, ''] };
  let bias = 0;
  for (const [buffer, prefix] of [['values', 'final'], ['ema', 'ema']] as const)
    for (const [name, { data: got }] of await parameters.read(buffer)) {
      const want = group(`${prefix}.`).get(name)!.data;
      if (name.endsWith('to_k.bias')) {
        // Its gradient is zero but for rounding, which AdamW scales up to steps of lr at most, in either direction on either side.
        for (const [i, v] of got.entries()) bias = Math.max(bias, Math.abs(v - want[i]));
        continue;
      }
      const error = relativeL2(got, want);
      if (error > worst[prefix][0]) worst[prefix] = [error, name];
    }
  console.log(`  losses ${losses.toExponential(1)}, norms ${norms.toExponential(1)}, weights ${worst.final[0].toExponential(1)} (${worst.final[1]}), ` +
    `averages ${worst.ema[0].toExponential(1)}, to_k.bias ${bias.toExponential(1)} of ${2 * STEPS * hyper.lr}`);
  assert.ok(losses <= 1e-4, `a loss is off by ${losses}`);
  assert.ok(norms <= 1e-4, `a norm is off by ${norms}`);
  // PyTorch in float32 ends this far from itself in float64. AdamW divides by the gradient's own size, so a small gradient's rounding counts as much as a
  // large one's; other orders of summation round differently, and thirty times as much is still ten thousand times less than the ten steps move a weight.
  assert.ok(worst.final[0] <= 30 * own.final, `${worst.final[1]} ends ${worst.final[0]} off`);
  assert.ok(worst.ema[0] <= 30 * own.ema, `the average of ${worst.ema[1]} ends ${worst.ema[0]} off`);
  assert.ok(bias <= 2 * STEPS * hyper.lr, `to_k.bias ends ${bias} off`);
  await plan.destroy();
});
golden.run();

// -------------------------------------------------------------------------------------------------------------------------- bit by bit
const exact = gpuSuite('training, bit by bit');

exact('replayed steps are those that run eagerly', async (engine) => {
  const replayed = start(engine), eager = start(engine);
  const want = await steps(replayed, 0, 3);
  const { unet, diffusion, images, parameters, training } = eager, clock = new Clock(engine), optimizer = new AdamW(parameters, OPTIONS);
  for (let step = 0; step < 3; step++) {
    clock.set({ seed: OPTIONS.seed!, step, lr: training.lr(step), emaDecay: emaDecay(step, OPTIONS.ema!) });
    const tape = new Tape(engine);
    const loss = tape.record(() => {
      const x0 = images.gather(shuffleIndices(OPTIONS.batchSize, images.count, clock), clock), t = randomIntegers(OPTIONS.batchSize, diffusion.T, clock, STREAM.time);
      return diffusion.trainLosses((x, at) => unet.forward(x, at, { clock }), x0, t, { clock });
    });
    tape.backward(loss);
    optimizer.step(loss, clock);
    loss.free();
  }
  assert.equal((await optimizer.read(0, 3)).map((log) => JSON.stringify(log)), want.logs);
  assert.equal(await state(parameters), want.left);
  // Not the same because nothing happened.
  const moved = await steps(replayed, 3, 4);
  assert.is(moved.left.filter((line, i) => line !== want.left[i]).length, moved.left.length);
  for (const run of [replayed, eager]) await run.training.plan.destroy();
});

exact('a seed gives one run, bit by bit; another seed or step gives another', async (engine) => {
  const run = async (seed: number): Promise<{ logs: string[]; left: string[] }> => {
    const one = start(engine, { seed }), result = await steps(one, 0, 4);
    await one.training.plan.destroy();
    return result;
  };
  const [a, b, c] = [await run(5), await run(5), await run(6)];
  assert.equal(b, a);
  assert.is(a.logs.length, 4);
  assert.is(new Set([...a.logs, ...c.logs].map((log) => JSON.parse(log).loss)).size, 8, 'eight different losses');
});

exact('5 steps, save, load into a model of other weights, 5 more: the 10 steps of one run', async (engine) => {
  const whole = start(engine), want = await steps(whole, 0, 10);
  const first = start(engine), early = await steps(first, 0, 5), second = start(engine, {}, { init: 99, chunkBytes: 24_000 });
  assert.ok(second.parameters.chunks.length > 1);
  const unlike = await state(second.parameters);
  for (const buffer of STATE) second.parameters.write(buffer, await first.parameters.read(buffer), 'checkpoint');
  assert.is.not(unlike.join(), early.left.join());
  assert.equal(await state(second.parameters), early.left);
  const late = await steps(second, 5, 10);
  // The norm is summed by chunk, and a clipped step depends on its last bit; hence the run in one chunk, too.
  assert.equal(late.logs.map((log) => JSON.parse(log).step), [5, 6, 7, 8, 9]);
  assert.is(JSON.parse(late.logs[0]).loss, JSON.parse(want.logs[5]).loss);
  const third = start(engine, {}, { init: 98 });
  for (const buffer of STATE) third.parameters.write(buffer, await first.parameters.read(buffer), 'checkpoint');
  const same = await steps(third, 5, 10);
  assert.equal([...early.logs, ...same.logs], want.logs);
  assert.equal(same.left, want.left);
  for (const run of [whole, first, second, third]) await run.training.plan.destroy();
});

exact('parameters in chunks train to the same bits, as long as no step is clipped', async (engine) => {
  const one = start(engine, { gradClip: 0 }), many = start(engine, { gradClip: 0 }, { chunkBytes: 24_000 });
  assert.ok(many.parameters.chunks.length > 2);
  const [a, b] = [await steps(one, 0, 3), await steps(many, 0, 3)];
  assert.equal(b.left, a.left);
  // The norm is summed in another order.
  a.logs.forEach((log, i) => assertClose([JSON.parse(b.logs[i]).gradNorm], [JSON.parse(log).gradNorm], { rtol: 1e-6, what: `norm of step ${i}` }));
  for (const run of [one, many]) await run.training.plan.destroy();
});

exact('the device logs the loss of the step, and the host its learning rate', async (engine) => {
  const run = start(engine);
  assert.equal(await run.training.read(0, 5), [], 'nothing is logged before a step has run');
  run.training.run(0);
  const [{ loss, bad, step }, ...rest] = await run.training.read(0, 5);
  assert.equal([loss, bad, step, rest.length], [(await run.training.plan.result.read())[0], null, 0, 0]);
  assert.equal([0, 1, 2, 3, 10].map((i) => run.training.lr(i)), [2e-3 / 3, 4e-3 / 3, 2e-3, 2e-3, 0]);
  await run.training.plan.destroy();
});
exact.run();

// ---------------------------------------------------------------------------------------------------------------- learning and memory
const learning = gpuSuite('training');

learning('over-fits four images: the loss falls below 0.02', async (engine) => {
  // Honest training: t, noise and flips are drawn anew at every step, 16 draws of the same four images. It is not enough to remember sixteen pairs of x_t and eps.
  const STEPS = 600, config = { ...CONFIG, dropout: 0, block_out_channels: [16, 16], down_block_types: ['DownBlock2D', 'DownBlock2D'], up_block_types: ['UpBlock2D', 'UpBlock2D'], add_attention: false };
  const { training } = start(engine, { batchSize: 16, steps: STEPS, lr: 8e-3, warmup: 20, weightDecay: 0 }, { config, count: 4, flip: false });
  await training.plan.compile();
  const since = performance.now();
  for (let step = 0; step < STEPS; step++) {
    training.run(step);
    if (step % 64 === 63) await engine.finished();
  }
  const logs = await training.read(0, STEPS);
  assert.is(logs.length, STEPS);
  const mean = (from: number, to: number): number => logs.slice(from, to).reduce((sum, { loss }) => sum + loss, 0) / (to - from);
  const last = mean(STEPS - 100, STEPS);
  console.log(`  loss ${logs[0].loss.toFixed(3)} at first, ${mean(100, 200).toFixed(3)} over steps 100 to 199, ${last.toFixed(4)} over the last 100; ${((performance.now() - since) / STEPS).toFixed(1)} ms a step`);
  assert.ok(Math.abs(logs[0].loss - 1) < 0.2, 'a fresh model predicts 0, and the noise has a variance of 1');
  assert.ok(last < 0.02, `the loss is ${last}`);
  await training.plan.destroy();
});

learning('200 replayed steps leave no byte behind, nor do 50 eager ones', async (engine) => {
  const config = { ...CONFIG, block_out_channels: [8], down_block_types: ['DownBlock2D'], up_block_types: ['UpBlock2D'] };
  const run = start(engine, { steps: 200 }, { config }), { unet, diffusion, images, parameters } = run;
  run.training.run(0);
  await run.training.read(0, 1);
  const before = engine.memory();
  for (let step = 1; step < 200; step++) {
    run.training.run(step);
    if (step % 50 === 0) await run.training.read(step - 50, step);
  }
  await engine.finished();
  assert.equal(engine.memory(), before);
  const { totalBytes } = run.training.plan.pool;
  await run.training.plan.destroy();
  assert.ok(totalBytes > 0);
  assert.is(engine.memory().plans, before.plans - totalBytes, 'the plan is gone');

  const clock = new Clock(engine), optimizer = new AdamW(parameters);
  let first: object | null = null;
  for (let step = 0; step < 50; step++) {
    clock.set({ seed: 1, step, lr: 1e-3 });
    const tape = new Tape(engine);
    const loss = tape.record(() => diffusion.trainLosses((x, at) => unet.forward(x, at, { clock }), images.gather(shuffleIndices(6, images.count, clock), clock), randomIntegers(6, 1000, clock, STREAM.time), { clock }));
    tape.backward(loss);
    optimizer.step(loss, clock);
    loss.free();
    first ??= engine.memory();
    // Every eager dispatch has a bind group of its own, and lavapipe maps memory for it: 65,530 mappings that are not collected yet end the process.
    if (step % 16 === 15) await engine.finished();
  }
  assert.equal(engine.memory(), first!);
});

learning('the loss by noise level is that of the latest step, at the t that it drew', async (engine) => {
  const { training } = start(engine, { batchSize: 8, seed: 3 });
  for (let step = 0; step < 3; step++) training.run(step);
  const [levels, [log]] = [await training.levels(4), await training.read(2, 3)], t = uniformInts({ seed: 3, stream: STREAM.time, step: 2, samples: [0, 1, 2, 3, 4, 5, 6, 7], count: 1 }, 1000);
  const counts = [0, 0, 0, 0];
  t.forEach((at) => counts[Math.floor(at / 250)]++);
  assert.equal(levels.map((v) => v === null), counts.map((n) => n === 0));
  const mean = levels.reduce<number>((sum, v, i) => sum + (v ?? 0) * counts[i]!, 0) / 8;
  assert.ok(Math.abs(mean - log!.loss) < 1e-6 * Math.abs(log!.loss) * 8, `${mean} by level and ${log!.loss} in all`);
  await training.destroy();
});

learning('what the step of the default model takes: dispatches and bytes', async (engine) => {
  const unet = new UNet({ ...modelConfig('tiny', { channels: 1, height: 28, width: 28 }) }), parameters = Parameters.place(engine, unet);
  const images = new DeviceImages(engine, makeShapes({ count: 64, size: 28 }), true), diffusion = new GaussianDiffusion(engine, makeSchedule({ name: 'linear', T: 1000 }));
  const { live } = engine.memory();
  const { plan } = new Training(unet, parameters, diffusion, images, { batchSize: 16, steps: 10, lr: 1e-3 });
  // The engine of the tests fills every allocation with NaN; but for the gradient of the loss nothing else is filled.
  const dispatches = plan.commands.filter((c) => c.kind === 'dispatch' && c.pipeline.kernel.name !== 'fill').length + 1;
  const { totalBytes, peakBytes } = plan.pool;
  console.log(`  tiny: ${parameters.count.toLocaleString('en')} parameters, ${dispatches} dispatches, ${plan.commands.filter((c) => c.kind !== 'dispatch').length} copies and clears, ` +
    `${(totalBytes / 1e6).toFixed(1)} MB for a batch of 16 (${(peakBytes / 1e6).toFixed(1)} at once)`);
  assert.ok(dispatches > 200 && dispatches < 1500, `${dispatches} dispatches`);
  assert.ok(totalBytes < 100e6, `${totalBytes} bytes`);
  assert.ok(engine.memory().live - live < 100_000, 'outside of the plan there are the clock, the log and the partial sums only');
  await plan.destroy();
});

learning('a weight that is not a number: the step is skipped and logged, nothing changes, and training goes on when it is repaired', async (engine) => {
  const run = start(engine), { training, parameters, unet } = run;
  const sound = await steps(run, 0, 2), kept = await parameters.read('values');
  const names = parametersOf(unet).map((p) => p.name);
  for (const name of ['conv_out.bias', 'mid_block.attentions.0.to_v.weight', 'conv_in.weight']) {
    const damaged = new Map([...kept].map(([key, { shape, data }]) => [key, { shape, data: key === name ? data.map((v, i) => (i === 1 % data.length ? NaN : v)) : data }]));
    parameters.write('values', damaged, 'test');
    const before = await state(parameters);
    training.run(2);
    const [log] = await training.read(2, 3);
    assert.ok(Number.isNaN(log.loss), `${name}: loss ${log.loss}`);
    // Through the loss a NaN reaches every gradient, so the name is that of the first parameter, whichever was hit. A gradient that is bad by itself is
    // named exactly (below, AdamW).
    assert.match(log.bad!, /^gradient of /);
    assert.ok(names.includes(log.bad!.slice('gradient of '.length)), log.bad!);
    assert.equal(await state(parameters), before, name);
  }
  parameters.write('values', kept, 'test');
  assert.equal(await state(parameters), sound.left);
  const after = await steps(run, 2, 4), straight = start(engine), want = await steps(straight, 0, 4);
  assert.equal([...sound.logs, ...after.logs], want.logs);
  assert.equal(after.left, want.left);
  for (const each of [run, straight]) await each.training.plan.destroy();
});
learning.run();

// ----------------------------------------------------------------------------------------------------------------------- the optimizer
const optimizers = gpuSuite('AdamW');

/** Three tensors, the last two in a chunk of their own where chunks are of 1 KiB. */
class Three extends Module {
  readonly a = new Parameter([200], 'plain', ones);
  readonly b = new Parameter([7, 5, 3, 1], 'conv', zeros);
  readonly c = new Parameter([10], 'plain', ones);
}
interface Trial {
  readonly parameters: Parameters;
  readonly optimizer: AdamW;
  readonly clock: Clock;
  readonly loss: Tensor;
  /** One step with these gradients, by name. */
  readonly step: (step: number, grads: ReadonlyMap<string, ArrayLike<number>>, lr?: number, decay?: number) => void;
}
function trial(engine: Engine, options: AdamWOptions = {}, chunkBytes = 1024): Trial {
  const parameters = Parameters.place(engine, new Three(), { chunkBytes }), shapes = new Map(parametersOf(new Three()).map((p) => [p.name, p.shape]));
  const optimizer = new AdamW(parameters, options), clock = new Clock(engine), loss = upload(engine, [1], [0.5]);
  return {
    parameters, optimizer, clock, loss,
    step: (step, grads, lr = 0.1, decay = 0.9) => {
      parameters.write('grads', new Map([...shapes].map(([name, shape]) => [name, { shape, data: grads.get(name)! }])), 'test');
      clock.set({ seed: 0, step, lr, emaDecay: decay });
      optimizer.step(loss, clock);
    },
  };
}
const SIZES = [['a', 200], ['b', 105], ['c', 10]] as const;
const gradients = (id: number, scale = 1): Map<string, Float32Array> => new Map(SIZES.map(([name, size], i) => [name, random(size, 10 * id + i).map((v) => v * scale)]));

for (const [what, options] of [
  ['clipped, with weight decay', { gradClip: 1, weightDecay: 0.1 }], ['not clipped', { gradClip: 0, beta1: 0.8, beta2: 0.95, eps: 1e-3 }], ['a limit that is not reached', { gradClip: 1e4 }],
] as const)
  optimizers(`five steps over two chunks are those of the float64 twin: ${what}`, async (engine) => {
    const { parameters, optimizer, step } = trial(engine, options), { beta1, beta2, eps, weightDecay, gradClip } = optimizer.options;
    assert.is(parameters.chunks.length, 2);
    let want = new Map<string, Record<'param' | 'm' | 'v' | 'ema', Float64Array>>(SIZES.map(([name, size]) => [name, { param: new Float64Array(size).fill(Number(name !== 'b')), m: new Float64Array(size), v: new Float64Array(size), ema: new Float64Array(size).fill(Number(name !== 'b')) }]));
    const norms: number[] = [];
    for (let i = 0; i < 5; i++) {
      const grads = gradients(i), lr = 0.1 / (i + 1), decay = emaDecay(i, 0.5), norm = twin.globalNorm(...grads.values());
      norms.push(norm);
      step(i, grads, lr, decay);
      want = new Map([...want].map(([name, at]) => [name, twin.adamw({ ...at, grad: grads.get(name)!, step: i + 1, lr, beta1, beta2, eps, weightDecay, emaDecay: decay, norm, ...(gradClip ? { maxNorm: gradClip } : {}) })]));
    }
    for (const [buffer, field] of [['values', 'param'], ['m', 'm'], ['v', 'v'], ['ema', 'ema']] as const)
      for (const [name, { data }] of await parameters.read(buffer)) assertClose(data, want.get(name)![field], { atol: 2e-6, rtol: 1e-6, what: `${buffer} of ${name}` });
    const logs = await optimizer.read(0, 5);
    assertClose(logs.map((log) => log.gradNorm), norms, { rtol: 1e-6, what: 'norms before clipping' });
    assert.equal(logs.map(({ loss, bad }) => [loss, bad]), Array.from({ length: 5 }, () => [0.5, null]));
  });

optimizers('the first gradient that is not finite is named, in whatever chunk; the loss and an overflowing norm, too; such a step changes nothing', async (engine) => {
  const { parameters, optimizer, step, loss } = trial(engine);
  step(0, gradients(0));
  const before = await state(parameters);
  const spoilt = (...where: readonly [name: string, at: number, value: number][]): Map<string, Float32Array> => {
    const grads = gradients(1);
    for (const [name, at, value] of where) grads.get(name)![at] = value;
    return grads;
  };
  const cases: [Map<string, Float32Array>, number, string][] = [
    [spoilt(['a', 0, NaN]), 0.5, 'gradient of a'], [spoilt(['a', 199, Infinity]), 0.5, 'gradient of a'], [spoilt(['b', 0, -Infinity]), 0.5, 'gradient of b'],
    [spoilt(['b', 104, NaN], ['c', 0, NaN]), 0.5, 'gradient of b'], [spoilt(['c', 9, NaN]), 0.5, 'gradient of c'], [spoilt(['c', 0, NaN]), NaN, 'gradient of c'],
    [gradients(1), NaN, 'loss'], [gradients(1), Infinity, 'loss'], [spoilt(['a', 3, 1e30], ['b', 3, 1e30]), 0.5, 'gradient norm'],
  ];
  for (const [i, [grads, value, bad]] of cases.entries()) {
    engine.write(loss.slice, Float32Array.of(value));
    step(i + 1, grads);
    assert.is((await optimizer.read(i + 1, i + 2))[0].bad, bad);
    assert.equal(await state(parameters), before, `case ${i}`);
  }
  engine.write(loss.slice, Float32Array.of(0.5));
  step(1, gradients(1));
  assert.is((await optimizer.read(1, 2))[0].bad, null);
  assert.is.not((await state(parameters)).join(), before.join());
});

optimizers('steps that are not finite count for no correction of the moments: the good ones are those of a float64 twin that skips them', async (engine) => {
  const { parameters, optimizer, step } = trial(engine, { gradClip: 0 }), { beta1, beta2, eps, weightDecay } = optimizer.options, lr = 0.1, decay = 0.9;
  let want = new Map<string, Record<'param' | 'm' | 'v' | 'ema', Float64Array>>(SIZES.map(([name, size]) => [name, { param: new Float64Array(size).fill(Number(name !== 'b')), m: new Float64Array(size), v: new Float64Array(size), ema: new Float64Array(size).fill(Number(name !== 'b')) }]));
  let good = 0;
  for (let i = 0; i < 7; i++) {
    const grads = gradients(i), bad = [0, 2, 3].includes(i);
    if (bad) grads.get('b')![50] = i === 2 ? NaN : Infinity;
    step(i, grads, lr, decay);
    if (bad) continue;
    good++;
    want = new Map([...want].map(([name, at]) => [name, twin.adamw({ ...at, grad: grads.get(name)!, step: good, lr, beta1, beta2, eps, weightDecay, emaDecay: decay })]));
  }
  for (const [buffer, field] of [['values', 'param'], ['m', 'm'], ['v', 'v'], ['ema', 'ema']] as const)
    for (const [name, { data }] of await parameters.read(buffer)) assertClose(data, want.get(name)![field], { atol: 2e-6, rtol: 1e-6, what: `${buffer} of ${name}` });
  assert.equal((await optimizer.read(0, 7)).map(({ bad }) => bad !== null), [true, false, true, true, false, false, false]);

  // The count goes with a checkpoint. One of an older version does not have it, and then a step's number says how many there were.
  const saved = await optimizer.state();
  assert.equal([...saved].map(([name, { data }]) => [name, ...data]), [['step', 4]]);
  const next = async (tensors: typeof saved): Promise<string> => {
    const other = trial(engine, { gradClip: 0 });
    for (const buffer of ['values', 'm', 'v', 'ema'] as const) other.parameters.write(buffer, await parameters.read(buffer), 'test');
    other.optimizer.restore(tensors, 'optimizer.safetensors');
    other.step(7, gradients(7), lr, decay);
    return (await state(other.parameters)).join();
  };
  const [same, older, all] = [await next(saved), await next(new Map()), await next(new Map([['step', { shape: [1], data: Float32Array.of(7) }]]))];
  step(7, gradients(7), lr, decay);
  assert.is((await state(parameters)).join(), same);
  assert.is.not(older, same);
  assert.is(older, all);
  assert.is((await trial(engine).optimizer.state()).size, 0);
  for (const data of [[-1], [0.5], [NaN], [1, 2], []])
    await assertError(() => optimizer.restore(new Map([['step', { shape: [data.length], data }]]), 'optimizer.safetensors'), 'E-FILE', /optimizer\.safetensors: step is \(.*\), and should be how many steps changed the weights/);
});

optimizers('the log keeps the last 1,024 steps: read() leaves out what was not done or was written over', async (engine) => {
  const { optimizer, step } = trial(engine), found = async (from: number, to: number): Promise<number[]> => (await optimizer.read(from, to)).map((log) => log.step);
  assert.equal(await found(0, 2000), []);
  for (const i of [0, 1, 2, 1025, 1030]) step(i, gradients(i));
  assert.equal(await found(0, 3), [0, 2], 'step 1025 took the place of step 1');
  assert.equal(await found(1020, 1031), [1025, 1030]);
  assert.equal(await found(0, 1031), [1025, 1030], 'no more than 1,024');
  assert.equal(await found(0, 1024), [0, 2]);
  assert.equal(await found(3, 3), []);
  // A second optimizer gets the buffer of a first one from the pool.
  const scope = engine.openScope(false);
  const old = trial(engine);
  old.step(0, gradients(0));
  engine.closeScope(scope);
  assert.equal(await trial(engine).optimizer.read(0, 3), []);
});
optimizers.run();

const schedules = suite('learning rate and average');

schedules('learning rates: a linear warm-up, then constant, a cosine or a line down to 0', () => {
  assert.equal([...LR_SCHEDULES], ['constant', 'cosine', 'linear']);
  const at = (schedule: (typeof LR_SCHEDULES)[number], ...when: number[]): number[] => when.map((step) => Number(learningRate(step, { lr: 1, warmup: 4, steps: 104, schedule }).toFixed(12)));
  for (const schedule of LR_SCHEDULES) assert.equal(at(schedule, 0, 1, 2, 3, 4), [0.25, 0.5, 0.75, 1, 1]);
  assert.equal(at('constant', 54, 104, 1000), [1, 1, 1]);
  assert.equal(at('linear', 29, 54, 79, 104, 1000), [0.75, 0.5, 0.25, 0, 0]);
  assert.equal(at('cosine', 29, 54, 79, 104, 1000), [0.5 + Math.SQRT1_2 / 2, 0.5, 0.5 - Math.SQRT1_2 / 2, 0, 0].map((v) => Number(v.toFixed(12))));
  // Without a warm-up the first step has the full rate, and a run that is all warm-up never divides by zero.
  assert.is(learningRate(0, { lr: 3, warmup: 0, steps: 10, schedule: 'cosine' }), 3);
  assert.is(learningRate(10, { lr: 3, warmup: 10, steps: 10, schedule: 'linear' }), 3);
  // Resuming with more steps changes a decay, never a warm-up.
  assert.is(learningRate(2, { lr: 1, warmup: 4, steps: 9, schedule: 'cosine' }), 0.75);
});

schedules('the average\'s decay warms up: (1 + n) / (10 + n), at most what is asked for', () => {
  assert.equal([0, 1, 8, 90].map((n) => emaDecay(n, 0.9999)), [1 / 10, 2 / 11, 1 / 2, 91 / 100]);
  assert.is(emaDecay(1e6, 0.9999), 0.9999);
  assert.is(emaDecay(50, 0), 0);
  for (let n = 0; n < 100_000; n += 997) assert.is(emaDecay(n, 0.999), twin.emaDecay(n, 0.999));
});

schedules('a dropout that is none is refused', async () => {
  await assertError(() => new UNet({ ...CONFIG, dropout: -0.1 }), 'E-MODEL', /dropout/);
});
schedules.run();
