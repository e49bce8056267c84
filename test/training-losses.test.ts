// Training with everything that is not the usual: other predictions, learned variances, other losses, t by importance, classes, self-conditioning. It learns, and it goes on bit by bit.
import * as assert from 'uvu/assert';
import { makeShapes } from '../src/data/shapes.ts';
import { GaussianDiffusion } from '../src/diffusion/gaussian.ts';
import type { Prediction } from '../src/diffusion/prediction.ts';
import { makeSchedule, type ScheduleName } from '../src/diffusion/schedule.ts';
import { Training, type TrainingOptions } from '../src/diffusion/training.ts';
import { isLearned, type Variance } from '../src/diffusion/variance.ts';
import type { Engine } from '../src/gpu/engine.ts';
import { Parameters } from '../src/nn/parameters.ts';
import { UNet } from '../src/nn/unet.ts';
import { DeviceImages } from '../src/ops/random.ts';
import { assertError, gpuSuite } from './helpers/gpu.ts';

interface Setting {
  readonly schedule?: ScheduleName;
  readonly T?: number;
  readonly prediction?: Prediction;
  readonly variance?: Variance;
  readonly init?: number;
  readonly classes?: number;
  readonly selfCondition?: boolean;
}

/** Two levels of eight channels, for synthetic shapes of 8 x 8. */
function start(engine: Engine, { schedule = 'linear', T = 100, prediction = 'eps', variance = 'fixed_small', init = 1, classes = 0, selfCondition = false }: Setting, options: Partial<TrainingOptions> = {}) {
  const config = {
    sample_size: 8, in_channels: selfCondition ? 2 : 1, ...(classes && { num_class_embeds: classes + 1 }), out_channels: isLearned(variance) ? 2 : 1, block_out_channels: [8, 16], down_block_types: ['DownBlock2D', 'DownBlock2D'],
    up_block_types: ['UpBlock2D', 'UpBlock2D'], layers_per_block: 1, norm_num_groups: 4, norm_eps: 1e-6, freq_shift: 1, flip_sin_to_cos: false, downsample_padding: 0,
    attention_head_dim: null, add_attention: false, dropout: 0,
  };
  const unet = new UNet(config), parameters = Parameters.place(engine, unet, { seed: init });
  const diffusion = new GaussianDiffusion(engine, makeSchedule({ name: schedule, T }), { prediction, variance });
  const images = new DeviceImages(engine, makeShapes({ count: 32, size: 8 }), false);
  return { unet, diffusion, images, parameters, training: new Training(unet, parameters, diffusion, images, { batchSize: 12, steps: 1000, lr: 4e-3, warmup: 10, gradClip: 1, seed: 3, ...options }) };
}

/** Of the synthetic shapes. */
const CLASSES = Math.max(...makeShapes({ count: 100, size: 8 }).labels!) + 1;

const learning = gpuSuite('training learns');

for (const [what, setting, options, least] of [
  ['v, min-SNR', { prediction: 'v' }, { snrGamma: 5 }, 0.5],
  ['v, min-SNR, t drawn by the weights', { prediction: 'v' }, { snrGamma: 1, timeSampling: 'weighted' }, 0.5],
  ['x0, Huber', { prediction: 'x0', schedule: 'cosine' }, { loss: 'huber' }, 0.5],
  ['the posterior mean', { prediction: 'mu' }, {}, 0.5],
  ['a learned variance, hybrid', { variance: 'learned_range' }, { timeSampling: 'importance' }, 0.5],
  ['a learned variance, the bound alone', { variance: 'learned_range', prediction: 'x0', T: 20, schedule: 'cosine' }, { loss: 'vlb', timeSampling: 'importance' }, 0.5],
  ['classes and self-conditioning, with a learned variance', { classes: CLASSES, selfCondition: true, variance: 'learned_range' }, {}, 0.5],
] as const satisfies readonly (readonly [string, Setting, Partial<TrainingOptions>, number])[])
  learning(`${what}: 100 steps lower the loss`, async (engine) => {
    const STEPS = 100, { training } = start(engine, setting, options);
    await training.plan.compile();
    for (let step = 0; step < STEPS; step++) {
      training.run(step);
      if (step % 40 === 39) await engine.finished();
    }
    const logs = await training.read(0, STEPS), mean = (from: number, to: number): number => logs.slice(from, to).reduce((sum, { loss }) => sum + loss, 0) / (to - from);
    const [first, last] = [mean(0, 10), mean(STEPS - 30, STEPS)];
    console.log(`  ${what}: ${first.toPrecision(3)} to ${last.toPrecision(3)}`);
    assert.is(logs.filter(({ bad }) => bad).length, 0);
    assert.ok(last < least * first, `the loss went from ${first} to ${last}`);
    await training.destroy();
  });
learning.run();

const exact = gpuSuite('training by importance, bit by bit');

exact('40 steps, of which the last are drawn by importance, are 25 steps, saved, loaded and gone on with', async (engine) => {
  const setting = { T: 12, schedule: 'cosine', variance: 'learned_range' } as const, options = { timeSampling: 'importance', lr: 1e-3 } as const;
  const run = async (one: ReturnType<typeof start>, from: number, to: number): Promise<string[]> => {
    for (let step = from; step < to; step++) one.training.run(step);
    return (await one.training.read(from, to)).map((log) => JSON.stringify(log));
  };
  const bits = async ({ parameters, training }: ReturnType<typeof start>): Promise<string> =>
    JSON.stringify([[...(await parameters.read('values'))], [...(await training.timeSampling!.read())]].map((all) => all.map(([name, { data }]) => [name, ...new Uint32Array(data.buffer, data.byteOffset, data.length)])));
  const whole = start(engine, setting, options), want = await run(whole, 0, 40);
  const first = start(engine, setting, options), early = await run(first, 0, 25);
  const [state] = [...(await first.training.timeSampling!.read()).values()];
  assert.ok(Array.from({ length: 12 }, (_, t) => state!.data[11 * t + 10]!).every((count) => count >= 10), 'every t has its ten losses by then');

  const second = start(engine, { ...setting, init: 9 }, options);
  for (const buffer of ['values', 'm', 'v', 'ema'] as const) second.parameters.write(buffer, await first.parameters.read(buffer), 'checkpoint');
  assert.ok(second.training.timeSampling!.write(await first.training.timeSampling!.read(), 'checkpoint'));
  assert.equal([...early, ...(await run(second, 25, 40))], want);
  assert.equal(await bits(second), await bits(whole));

  // Without the losses it would have been another run.
  const forgetful = start(engine, { ...setting, init: 9 }, options);
  for (const buffer of ['values', 'm', 'v', 'ema'] as const) forgetful.parameters.write(buffer, await first.parameters.read(buffer), 'checkpoint');
  assert.is.not((await run(forgetful, 25, 40)).join(), want.slice(25).join());
  for (const { training } of [whole, first, second, forgetful]) await training.destroy();
});
exact('a class and a start are those of the step, and a resumed run draws the same', async (engine) => {
  const setting = { classes: CLASSES, selfCondition: true } as const, first = start(engine, setting, { labelDropout: 0.3 }), second = start(engine, setting, { labelDropout: 0.3 });
  for (let step = 0; step < 3; step++) first.training.run(step);
  for (let step = 0; step < 3; step++) second.training.run(step);
  const [a, b] = [await first.parameters.read('values'), await second.parameters.read('values')];
  for (const [name, { data }] of a) assert.equal([...b.get(name)!.data], [...data], name);
  // Every class is learnt, and that of no class with them.
  const { data, shape } = (await first.parameters.read('m')).get('class_embedding.weight')!;
  assert.equal(shape, [CLASSES + 1, 32]);
  for (let row = 0; row <= CLASSES; row++) assert.ok(data.subarray(32 * row, 32 * row + 32).some((v) => v !== 0), `class ${row}`);
  // The input convolution sees the start: its second channel has a gradient.
  const input = (await first.parameters.read('m')).get('conv_in.weight')!;
  assert.equal(input.shape, [8, 2, 3, 3]);
  assert.ok(input.data.filter((_, i) => Math.floor(i / 9) % 2 === 1).some((v) => v !== 0));
  for (const { training } of [first, second]) await training.destroy();

  // A model with classes and images without labels.
  const bare = new DeviceImages(engine, { ...makeShapes({ count: 8, size: 8 }), labels: null }, false);
  await assertError(() => new Training(first.unet, first.parameters, first.diffusion, bare, { batchSize: 4, steps: 1, lr: 1e-3 }), 'E-DATA', /no labels to train it with/);
});
exact.run();
