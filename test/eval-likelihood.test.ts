// eval --nll on models with classes and self-conditioning: each image with its own label, and what cannot be measured is refused.
import * as assert from 'uvu/assert';
import { measureLikelihood } from '../src/cli/eval-likelihood.ts';
import type { PlacedModel } from '../src/cli/sampling.ts';
import type { Dataset } from '../src/data/images.ts';
import { GaussianDiffusion } from '../src/diffusion/gaussian.ts';
import { Likelihood } from '../src/diffusion/likelihood.ts';
import { makeSchedule } from '../src/diffusion/schedule.ts';
import type { Engine } from '../src/gpu/engine.ts';
import { Parameters } from '../src/nn/parameters.ts';
import { UNet } from '../src/nn/unet.ts';
import { assertError, gpuSuite, random, upload } from './helpers/gpu.ts';

const S = 4, T = 3, OPTIONS = { n: 3, seed: 5, batchSize: 2, split: 'test' };
const DATA: Dataset = { name: 'noise', path: '', count: 3, height: S, width: S, channels: 1, pixels: Uint8Array.from(random(3 * S * S, 1), (v) => 127.5 + 60 * v), labels: Uint8Array.of(0, 2, 1), classes: null, flip: false };

/** A model of random weights, none of them zero. */
async function placed(engine: Engine, fields: object): Promise<PlacedModel> {
  const unet = new UNet({ sample_size: S, in_channels: 1, out_channels: 1, block_out_channels: [8], down_block_types: ['DownBlock2D'], up_block_types: ['UpBlock2D'], layers_per_block: 1, norm_num_groups: 4, add_attention: false, ...fields });
  const parameters = Parameters.place(engine, unet, { training: false }), values = await parameters.read('values');
  [...values.values()].forEach(({ data }, i) => data.set(random(data.length, i).map((v) => 0.3 * v)));
  parameters.write('values', values, 'a test');
  return { unet, parameters, diffusion: new GaussianDiffusion(engine, makeSchedule({ name: 'cosine', T })), model: { file: 'random', scheduler: { clipSample: true } } as PlacedModel['model'], from: null };
}

const test = gpuSuite('eval --nll');

test('each image has its own label, and no prediction before it', async (engine) => {
  const model = await placed(engine, { in_channels: 2, num_class_embeds: 4 }), { figures, protocol, byT } = await measureLikelihood(model, DATA, OPTIONS);
  assert.is(protocol['labels'], 'those of the images');
  // By hand: the network of two inputs, the second zero, and these labels.
  const bound = async (labels: Uint32Array): Promise<number> => {
    const given = upload(engine, [3], labels), zero = upload(engine, [3, S, S, 1], new Float32Array(3 * S * S));
    const own = new Likelihood((x, t) => model.unet.forward([x, zero], t, { labels: given }), model.diffusion, [3, S, S, 1]);
    const { total } = await own.measure(Float32Array.from(DATA.pixels, (v) => v / 127.5 - 1), { seed: 5 });
    await own.destroy();
    return total.reduce((a, b) => a + b) / 3;
  };
  const close = (a: number, b: number) => assert.ok(Math.abs(a / b - 1) < 1e-5, `${a}, and by hand ${b}`);
  close(figures['bits_per_dim']!, await bound(Uint32Array.of(0, 2, 1)));
  assert.is(byT.length, T);
  assert.is(protocol['x_0'], 'clipped to [-1, 1]');
  // Without labels: the last row, which stands for no class.
  const none = await measureLikelihood(model, { ...DATA, labels: null }, OPTIONS);
  assert.is(none.protocol['labels'], 'none');
  close(none.figures['bits_per_dim']!, await bound(Uint32Array.of(3, 3, 3)));
  assert.ok(Math.abs(none.figures['bits_per_dim']! / figures['bits_per_dim']! - 1) > 1e-4);
});

test('a model that clips nothing is measured without clipping', async (engine) => {
  const model = await placed(engine, {}), free = await measureLikelihood({ ...model, model: { ...model.model, scheduler: { ...model.model.scheduler, clipSample: false } } }, DATA, OPTIONS);
  assert.is(free.protocol['x_0'], 'not clipped');
  const clipped = await measureLikelihood(model, DATA, OPTIONS);
  assert.ok(Math.abs(free.figures['bits_per_dim']! / clipped.figures['bits_per_dim']! - 1) > 1e-3, 'eps at the last t of three says an x_0 far outside of [-1, 1]');
});

test('classes that the model does not know, or that are not rows of a table', async (engine) => {
  const model = await placed(engine, { num_class_embeds: 3 });
  await assertError(() => measureLikelihood(model, { ...DATA, labels: Uint8Array.of(0, 3, 1) }, OPTIONS), 'E-DATA', /image 1 of noise is of class 3, and the model knows the classes 0 to 2/);
  const times = await placed(engine, { class_embed_type: 'timestep' });
  await assertError(() => measureLikelihood(times, DATA, OPTIONS), 'E-MODEL', /embeds classes by "timestep", and only rows of a table/);
});
test.run();
