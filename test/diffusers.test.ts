// Folders that diffusers itself saved, and, where the Python package is installed, what it makes of ours: the same eps, and the same images after ten steps of DDIM.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';
import { GaussianDiffusion } from '../src/diffusion/gaussian.ts';
import { Sampler } from '../src/diffusion/sampler.ts';
import { makeSchedule, type ScheduleSource } from '../src/diffusion/schedule.ts';
import type { Engine } from '../src/gpu/engine.ts';
import { loadModelFolder, saveCheckpoint } from '../src/io/checkpoint.ts';
import { readSafetensors, type SafeTensor, writeSafetensors } from '../src/io/safetensors.ts';
import { type SamplingFields, type SchedulerFields, withSampling } from '../src/io/scheduler.ts';
import type { UNetFields } from '../src/nn/config.ts';
import { Parameters } from '../src/nn/parameters.ts';
import { UNet } from '../src/nn/unet.ts';
import { nchwToNhwc, nhwcToNchw } from '../src/tensor.ts';
import { relativeL2 } from './helpers/close.ts';
import { gpuSuite, random, upload } from './helpers/gpu.ts';

type Shape4 = readonly [number, number, number, number];
const path = (name: string): string => fileURLToPath(new URL(`golden/${name}`, import.meta.url));
const read = (file: string) => readSafetensors(readFileSync(file), file);
const STEPS = 10;

/** What our engine makes of a folder, with `more` in its scheduler, and of what is given: eps and x_0 as diffusers lays them out, and the timesteps. */
async function compute(engine: Engine, folder: string, given: ReadonlyMap<string, SafeTensor>, more: Partial<SamplingFields> = {}): Promise<{ eps: Float32Array; x_0: Float32Array; timesteps: readonly number[] }> {
  const model = await loadModelFolder(folder), scheduler = { ...model.scheduler, ...more }, unet = new UNet(model.config, { dropout: 0 }), parameters = Parameters.place(engine, unet, { training: false });
  parameters.write('values', model.tensors, model.file);
  const integers = (name: string) => (given.has(name) ? upload(engine, given.get(name)!.shape, Uint32Array.from(given.get(name)!.data as ArrayLike<number>, Number)) : null);
  const image = (name: string) => nchwToNhwc(given.get(name)!.data as Float32Array, given.get(name)!.shape as unknown as Shape4);
  const [N, C, H, W] = given.get('x')!.shape as unknown as Shape4, shape = [N, H, W, C] as const, labels = integers('labels');
  const eps = nhwcToNchw(await unet.forward(upload(engine, shape, image('x')), integers('t')!, { labels }).read(), shape);
  const diffusion = new GaussianDiffusion(engine, scheduler.schedule, scheduler);
  const sampler = new Sampler((x, t) => unet.forward(x, t, { labels }), diffusion, shape, withSampling({ method: 'ddim', steps: STEPS }, scheduler));
  const x_0 = nhwcToNchw(await sampler.sample({ seed: 0, noise: image('x_T') }), shape), { timesteps } = sampler;
  await sampler.destroy();
  return { eps, x_0, timesteps };
}

function assertSame(what: string, ours: Awaited<ReturnType<typeof compute>>, theirs: ReadonlyMap<string, SafeTensor>): void {
  const data = (name: string) => theirs.get(name)!.data as ArrayLike<number>;
  assert.equal(Array.from(data('timesteps'), Number), [...ours.timesteps]);
  const eps = relativeL2(ours.eps, data('eps')), x_0 = relativeL2(ours.x_0, data('x_0'));
  console.log(`  ${what}: eps ${eps.toExponential(1)}, x_0 after ${STEPS} steps ${x_0.toExponential(1)}`);
  assert.ok(eps <= 5e-6, `eps is off by ${eps}`);
  // Ten networks in turn, each of which sees what the ones before it left.
  assert.ok(x_0 <= 1e-5, `x_0 is off by ${x_0}`);
}

const test = gpuSuite('diffusers');

test('a pipeline as diffusers saves it: attention, classes, scale and shift, v, a chain that begins at pure noise, x_0 clipped to 0.7', async (engine) => {
  const folder = path('diffusers-pipeline'), { tensors, metadata } = read(join(folder, 'given.safetensors'));
  assertSame(`a folder of diffusers ${metadata['diffusers']}`, await compute(engine, folder, tensors), tensors);
  const thresholded = new Map([...tensors, ['x_0', tensors.get('x_0 thresholded')!]]);
  assert.ok(relativeL2(thresholded.get('x_0')!.data as Float32Array, tensors.get('x_0')!.data as Float32Array) > 0.05);
  assertSame('the same, dynamically thresholded', await compute(engine, folder, tensors, { clipSample: { ratio: 0.9, max: 2.5 } }), thresholded);
});

const SMALL = {
  sample_size: 8, in_channels: 1, out_channels: 1, block_out_channels: [8, 16], down_block_types: ['DownBlock2D', 'AttnDownBlock2D'], up_block_types: ['AttnUpBlock2D', 'UpBlock2D'],
  layers_per_block: 1, norm_num_groups: 4, norm_eps: 1e-6, freq_shift: 1, flip_sin_to_cos: false, downsample_padding: 0, attention_head_dim: null,
};
/** What is written, and whether DDPMPipeline is said to draw with it. */
const OURS: readonly [what: string, config: UNetFields, schedule: ScheduleSource, scheduler: SchedulerFields, pipeline: boolean][] = [
  ['the layout of the presets', SMALL, { name: 'linear', T: 1000 }, { variance: 'fixed_large' }, true],
  ['without attention, betas of its own, nothing clipped', { ...SMALL, add_attention: false, down_block_types: ['DownBlock2D', 'DownBlock2D'], up_block_types: ['UpBlock2D', 'UpBlock2D'] }, Array.from({ length: 40 }, (_, t) => 0.01 + 0.004 * t), { prediction: 'x0', clipSample: false, spacing: 'trailing' }, true],
  ['a chain that begins at pure noise', SMALL, { name: 'quadratic', T: 50, rescaleBetasZeroSnr: true }, { prediction: 'v', spacing: 'trailing' }, true],
  ['dynamic thresholding', SMALL, { name: 'cosine', T: 100 }, { prediction: 'x0', clipSample: { ratio: 0.8, max: 3 } }, true],
  ['classes, several heads, scale and shift', { ...SMALL, num_class_embeds: 4, attention_head_dim: 4, resnet_time_scale_shift: 'scale_shift', flip_sin_to_cos: true }, { name: 'cosine', T: 100 }, { prediction: 'v', stepsOffset: 1, setAlphaToOne: false, clipSample: 1.5 }, false],
];

const PYTHON = ['python3', '/usr/bin/python3'].find((python) => spawnSync(python, ['-c', 'import diffusers']).status === 0);
if (!PYTHON) console.log('  diffusers is not installed for python3: it loads none of our folders here');
else
  for (const [what, config, schedule, scheduler, pipeline] of OURS)
    test(`diffusers loads a checkpoint of ours: ${what}`, async (engine) => {
      const folder = mkdtempSync(join(tmpdir(), 'ddpm-diffusers-')), [input, output] = [join(folder, 'in.safetensors'), join(folder, 'out.safetensors')];
      try {
        const unet = new UNet(config), parameters = Parameters.place(engine, unet), lively = new Map([...(await parameters.read('values'))].map(([name, { shape, data }], i) => [name, { shape, data: random(data.length, i).map((v) => v * 0.2 + Number(name.endsWith('norm.weight'))) }]));
        for (const buffer of ['values', 'ema'] as const) parameters.write(buffer, lively, 'a test');
        await saveCheckpoint(folder, { unet, parameters, schedule, scheduler, state: { step: 1, seed: 0, data: { name: 'noise', count: 1 }, settings: {} } });
        const tensor = (shape: number[], data: Float32Array | Int32Array) => ({ shape, data: data as Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer> }), image = (id: number) => tensor([2, 1, 8, 8], random(128, id));
        const given = new Map([['x', image(1)], ['x_T', image(2)], ['t', tensor([2], Int32Array.of(0, makeSchedule(schedule).T - 3))], ...(unet.conditional ? [['labels', tensor([2], Int32Array.of(3, 1))] as const] : [])]);
        writeFileSync(input, writeSafetensors(given));
        const ran = spawnSync(PYTHON, [path('diffusers_pipeline.py'), 'load', folder, input, output], { encoding: 'utf8' });
        assert.is(ran.status, 0, ran.stderr);
        const { tensors, metadata } = read(output);
        assert.equal([metadata['loading'], metadata['parameters']], ['{}', String(parameters.count)]);
        assert.is(metadata['pipeline'], pipeline ? '(1, 8, 8, 1)' : undefined);
        assert.not.match(ran.stderr, /not expected and will be ignored/);
        assertSame(`${what}, in diffusers ${metadata['diffusers']}`, await compute(engine, folder, read(input).tensors), tensors);
      } finally {
        rmSync(folder, { recursive: true });
      }
    });
test.run();
