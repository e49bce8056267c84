// Checkpoints: five steps, saved, loaded and five more are ten steps bit for bit; folders of others; and files that are wrong.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { parseFlags } from '../src/cli/flags.ts';
import { samplerOptions } from '../src/cli/sampling.ts';
import { SAMPLE } from '../src/cli/settings.ts';
import { makeShapes } from '../src/data/shapes.ts';
import { GaussianDiffusion } from '../src/diffusion/gaussian.ts';
import { PREDICTIONS } from '../src/diffusion/prediction.ts';
import { makeBetas, makeSchedule, rescaleZeroSnr, type ScheduleSource } from '../src/diffusion/schedule.ts';
import { visitedTimesteps } from '../src/diffusion/samplers/table.ts';
import { SPACINGS } from '../src/diffusion/spacing.ts';
import { logVarianceTable, VARIANCES } from '../src/diffusion/variance.ts';
import { Training } from '../src/diffusion/training.ts';
import type { Engine } from '../src/gpu/engine.ts';
import { loadCheckpoint, loadModelFolder, saveCheckpoint } from '../src/io/checkpoint.ts';
import { readScheduler, type SamplingFields, schedulerConfig, type SchedulerFields } from '../src/io/scheduler.ts';
import { readSafetensors, type SafeTensor, writeSafetensors } from '../src/io/safetensors.ts';
import { configFields, readConfig, type UNetFields } from '../src/nn/config.ts';
import { parametersOf } from '../src/nn/parameter.ts';
import { type BufferName, Parameters } from '../src/nn/parameters.ts';
import { UNet } from '../src/nn/unet.ts';
import { DeviceImages } from '../src/ops/random.ts';
import { assertError, gpuSuite } from './helpers/gpu.ts';

const CONFIG: UNetFields = {
  sample_size: 8, in_channels: 1, out_channels: 1, block_out_channels: [8, 8], down_block_types: ['DownBlock2D', 'AttnDownBlock2D'], up_block_types: ['AttnUpBlock2D', 'UpBlock2D'],
  layers_per_block: 1, norm_num_groups: 4, attention_head_dim: 4, dropout: 0.1, downsample_padding: 0, flip_sin_to_cos: false, freq_shift: 1,
};
const SCHEDULE: ScheduleSource = { name: 'linear', T: 40 };
/** The arguments of diffusers' constructors, which are the fields of its config files, with their defaults. */
const DIFFUSERS = JSON.parse(readFileSync(new URL('golden/diffusers-configs.json', import.meta.url), 'utf8')) as Record<'UNet2DModel' | SchedulerClass, UNetFields> & { DDPMPipeline: string[] };
type SchedulerClass = 'DDPMScheduler' | 'DDIMScheduler' | 'PNDMScheduler';
const STATE = { step: 5, seed: 3, data: { name: 'shapes', count: 20 }, settings: { lr: 1e-3 } };

function setUp(engine: Engine, config = CONFIG) {
  const unet = new UNet(config);
  const parameters = Parameters.place(engine, unet, { seed: 3 });
  const images = new DeviceImages(engine, makeShapes({ count: 20, size: 8 }), true);
  const diffusion = new GaussianDiffusion(engine, makeSchedule(SCHEDULE));
  const training = new Training(unet, parameters, diffusion, images, { batchSize: 4, steps: 10, lr: 1e-3, warmup: 3, lrSchedule: 'cosine', weightDecay: 0.01, ema: 0.99, seed: 3 });
  return { unet, parameters, training, save: (folder: string, state = STATE) => saveCheckpoint(folder, { unet, parameters, training, schedule: SCHEDULE, state }) };
}

async function inFolder(f: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'ddpm-checkpoint-'));
  try {
    await f(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function assertSameBits(a: Parameters, b: Parameters): Promise<void> {
  for (const buffer of ['values', 'm', 'v', 'ema'] as BufferName[]) {
    const x = await a.read(buffer), y = await b.read(buffer);
    for (const [name, { data }] of x) assert.equal(new Uint32Array(data.buffer), new Uint32Array(y.get(name)!.data.buffer), `${buffer} of ${name}`);
  }
}

const test = gpuSuite('checkpoint: tensors');

test('five steps, save, load and five more are ten steps, bit for bit', (engine) =>
  inFolder(async (folder) => {
    const through = setUp(engine), first = setUp(engine);
    for (let step = 0; step < 10; step++) through.training.run(step);
    for (let step = 0; step < 5; step++) first.training.run(step);
    await first.save(folder);

    const second = setUp(engine);
    // Whatever was there before must not matter.
    for (let step = 0; step < 2; step++) second.training.run(step);
    const state = await loadCheckpoint(folder, second);
    assert.equal(state, { format: 1, ...STATE, parameters: second.parameters.count } as unknown as typeof state);
    await assertSameBits(first.parameters, second.parameters);
    for (let step = state.step; step < 10; step++) second.training.run(step);
    await assertSameBits(through.parameters, second.parameters);
    assert.equal(await through.training.read(8, 10), await second.training.read(8, 10));
    for (const { training } of [through, first, second]) await training.plan.destroy();
  }));

test('a damaged count of steps leaves the weights as they were', (engine) =>
  inFolder(async (folder) => {
    const saved = setUp(engine), other = setUp(engine), untouched = setUp(engine), path = join(folder, 'optimizer.safetensors');
    saved.training.run(0);
    await saved.save(folder);
    const { tensors, metadata } = readSafetensors(readFileSync(path), path);
    writeFileSync(path, writeSafetensors(new Map([...tensors].map(([name, t]) => [name, name === 'step' ? { ...t, data: Float32Array.of(-3) } : t])), metadata));
    await assertError(() => loadCheckpoint(folder, other), 'E-FILE', /step is \(-3\)/);
    await assertSameBits(untouched.parameters, other.parameters);
    for (const { training } of [saved, other, untouched]) await training.plan.destroy();
  }));

test('the folder is a model of diffusers: averaged weights under its name, config and scheduler', (engine) =>
  inFolder(async (folder) => {
    const { unet, parameters, training, save } = setUp(engine);
    for (let step = 0; step < 2; step++) training.run(step);
    await save(folder);
    assert.equal(readdirSync(folder).sort(), ['config.json', 'diffusion_pytorch_model.safetensors', 'model.safetensors', 'model_index.json', 'optimizer.safetensors', 'scheduler_config.json', 'state.json']);
    const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as UNetFields;
    assert.equal(readConfig(config), unet.config);
    // Older versions of diffusers warn of these.
    assert.not.ok('time_embedding_dim' in config || 'attn_norm_num_groups' in config);
    assert.equal(configFields({ ...unet.config, time_embedding_dim: 20 }), { ...config, time_embedding_dim: 20 });
    const ema = readSafetensors(readFileSync(join(folder, 'diffusion_pytorch_model.safetensors')), 'ema');
    assert.is(ema.metadata['format'], 'pt');
    assert.equal([...ema.tensors.keys()].sort(), parametersOf(unet).map(({ name }) => name).sort());
    assert.ok([...ema.tensors.values()].every(({ dtype }) => dtype === 'F32'));
    // DiffusionPipeline reads a part from the folder itself where it has no folder of that name.
    const { _class_name: pipeline, ...parts } = JSON.parse(readFileSync(join(folder, 'model_index.json'), 'utf8')) as Record<string, unknown>;
    assert.equal([pipeline, Object.keys(parts).sort(), parts], ['DDPMPipeline', [...DIFFUSERS.DDPMPipeline].sort(), { unet: ['diffusers', 'UNet2DModel'], scheduler: ['diffusers', 'DDPMScheduler'] }]);
    for (const [name, { data, shape }] of await parameters.read('ema')) assert.equal([ema.tensors.get(name)!.shape, ema.tensors.get(name)!.data], [[...shape], data], name);

    const averaged = await loadModelFolder(folder), raw = await loadModelFolder(folder, { weights: 'model' });
    assert.equal(averaged.tensors.get('conv_in.weight')!.data, (await parameters.read('ema')).get('conv_in.weight')!.data);
    assert.equal(raw.tensors.get('conv_in.weight')!.data, (await parameters.read('values')).get('conv_in.weight')!.data);
    assert.equal(averaged.scheduler.schedule.betas, makeBetas('linear', 40));
    // A run, whose config.json is of another kind, stands for the checkpoint that it names.
    mkdirSync(join(folder, 'run/checkpoints'), { recursive: true });
    writeFileSync(join(folder, 'run/config.json'), '{"ddpm.wgsl":1}');
    writeFileSync(join(folder, 'run/latest'), 'checkpoints/step-0000002\n');
    await save(join(folder, 'run/checkpoints/step-0000002'));
    assert.is((await loadModelFolder(join(folder, 'run'))).folder, join(folder, 'run/checkpoints/step-0000002'));
    await training.plan.destroy();
  }));

test('no pipeline is promised that could not draw', (engine) =>
  inFolder(async (folder) => {
    for (const [fields, scheduler, there] of [
      [{}, {}, true], [{ out_channels: 2 }, { variance: 'learned_range' }, true], [{ out_channels: 2 }, { variance: 'learned' }, false], [{}, { prediction: 'mu' }, false],
      [{ num_class_embeds: 3 }, {}, false], [{ in_channels: 2 }, {}, false],
    ] as [UNetFields, SchedulerFields, boolean][]) {
      const unet = new UNet({ ...CONFIG, ...fields, block_out_channels: [4, 4] }), parameters = Parameters.place(engine, unet), at = join(folder, JSON.stringify([fields, scheduler]).replace(/\W/g, ''));
      await saveCheckpoint(at, { unet, parameters, schedule: SCHEDULE, scheduler, state: STATE });
      assert.is(readdirSync(at).includes('model_index.json'), there, at);
    }
  }));

test('names from before diffusers 0.17, in a pipeline with its scheduler beside', (engine) =>
  inFolder(async (folder) => {
    const { unet, parameters, training, save } = setUp(engine);
    await save(folder);
    const { tensors } = readSafetensors(readFileSync(join(folder, 'model.safetensors')), 'model');
    const old = [['to_q', 'query'], ['to_k', 'key'], ['to_v', 'value'], ['to_out.0', 'proj_attn']] as const;
    const renamed = [...tensors].map(([name, t]): [string, SafeTensor] => [old.reduce((n, [now, then]) => n.replace(now, then), name), t]);
    assert.ok(renamed.some(([name]) => name.includes('.query.')));
    const pipeline = join(folder, 'pipeline');
    mkdirSync(join(pipeline, 'unet'), { recursive: true });
    mkdirSync(join(pipeline, 'scheduler'));
    writeFileSync(join(pipeline, 'unet', 'config.json'), JSON.stringify(unet.config));
    writeFileSync(join(pipeline, 'unet', 'model.safetensors'), writeSafetensors(renamed));
    writeFileSync(join(pipeline, 'scheduler', 'scheduler_config.json'), JSON.stringify({ _class_name: 'DDIMScheduler', num_train_timesteps: 30, beta_end: 0.1, timestep_spacing: 'trailing' }));
    for (const path of [pipeline, join(pipeline, 'unet')]) {
      const model = await loadModelFolder(path);
      parameters.write('values', model.tensors, model.file);
      assert.is(model.scheduler.spacing, 'trailing');
      assert.equal(model.scheduler.schedule.betas, makeBetas('linear', 30, { betaEnd: 0.1, scale: false }));
    }
    await training.plan.destroy();
  }));

test('a norm in the middle that no field speaks of, as in folders from before diffusers 0.17', (engine) =>
  inFolder(async (folder) => {
    const fields = { ...CONFIG, block_out_channels: [4, 4], resnet_time_scale_shift: 'scale_shift' }, unet = new UNet({ ...fields, attn_norm_num_groups: 4 }), parameters = Parameters.place(engine, unet);
    await saveCheckpoint(folder, { unet, parameters, schedule: SCHEDULE, state: STATE });
    writeFileSync(join(folder, 'config.json'), JSON.stringify(fields));
    const model = await loadModelFolder(folder), again = Parameters.place(engine, new UNet(model.config), { training: false });
    again.write('values', model.tensors, model.file);
    assert.equal(again.names, parameters.names);
    assert.is(readConfig(model.config).attn_norm_num_groups, 4);
  }));

test('a checkpoint of another model: the first three tensors that differ, with both shapes, and nothing is written', (engine) =>
  inFolder(async (folder) => {
    const a = setUp(engine), b = setUp(engine, { ...CONFIG, block_out_channels: [16, 8] });
    await b.save(folder);
    const before = await a.parameters.read('values');
    await assertError(() => loadCheckpoint(folder, a), 'E-MODEL', /model\.safetensors is of another model: \d+ tensors differ\.\n {2}conv_in\.weight: \(16, 1, 3, 3\) there, \(8, 1, 3, 3\) in the model\n.*\n.*\n {2}and \d+ more/);
    assert.equal(await a.parameters.read('values'), before);
    for (const { training } of [a, b]) await training.plan.destroy();
  }));

test('weights that are not finite are not saved', (engine) =>
  inFolder(async (folder) => {
    const { parameters, training, save } = setUp(engine);
    const values = await parameters.read('values');
    values.get('conv_out.bias')!.data[0] = NaN;
    parameters.write('values', values, 'a test');
    await assertError(() => save(folder), 'E-NONFINITE', /the weights of conv_out\.bias are not finite after step 5/);
    await training.plan.destroy();
  }));

test('files that are missing, cut off or of something else', (engine) =>
  inFolder(async (folder) => {
    const { parameters, training, save } = setUp(engine);
    await assertError(() => loadModelFolder(join(folder, 'none')), 'E-FILE', /none is not there/);
    await assertError(() => loadModelFolder(import.meta.filename), 'E-FILE', /checkpoint\.test\.ts has no config\.json/);
    await assertError(() => loadModelFolder(folder), 'E-FILE', /has no config\.json/);
    await assertError(() => loadCheckpoint(folder, { parameters }), 'E-FILE', /state\.json.*no such file/);
    await save(folder);
    const spoil = async (file: string, change: (bytes: Buffer) => Buffer | string, load: () => Promise<unknown>, message: RegExp): Promise<void> => {
      const path = join(folder, file), good = readFileSync(path);
      writeFileSync(path, change(Buffer.from(good)));
      await assertError(load, 'E-FILE', message);
      writeFileSync(path, good);
    };
    const load = () => loadCheckpoint(folder, { parameters });
    await spoil('model.safetensors', (b) => b.subarray(0, 1000), load, /model\.safetensors is not a good safetensors file.*cut off/);
    await spoil('optimizer.safetensors', (b) => (b.fill(0xff, 0, 8), b), load, /optimizer\.safetensors is not a good safetensors file: its header would be/);
    await spoil('diffusion_pytorch_model.safetensors', (b) => (b.fill(0, 8, 12), b), () => loadModelFolder(folder), /its header is not JSON/);
    await spoil('state.json', () => '{"step": 3', load, /state\.json is not JSON/);
    await spoil('state.json', () => '{"format": 1, "step": -3, "seed": 0}', load, /not the state of a checkpoint/);
    await spoil('state.json', () => '{"format": 2, "step": 3, "seed": 0}', load, /written by a newer/);
    await spoil('config.json', () => '[]', () => loadModelFolder(folder), /config\.json is not a JSON object/);
    rmSync(join(folder, 'model.safetensors'));
    await assertError(() => loadModelFolder(folder, { weights: 'model' }), 'E-FILE', /leave out --weights model/);
    await assertError(load, 'E-FILE', /model\.safetensors.*no such file/);
    rmSync(join(folder, 'diffusion_pytorch_model.safetensors'));
    await assertError(() => loadModelFolder(folder), 'E-FILE', /no weights that can be read.*Convert/);
    writeFileSync(join(folder, 'diffusion_pytorch_model.bin'), 'pickle');
    await assertError(() => loadModelFolder(folder), 'E-FILE', /is a pickle.*Convert it to diffusion_pytorch_model\.safetensors/);
    await training.plan.destroy();
  }));

test.run();

const scheduler = suite('checkpoint: scheduler_config.json');

scheduler('every schedule goes through the file and comes back with the same betas', () => {
  for (const spec of [{ name: 'linear', T: 1000 }, { name: 'linear', T: 250 }, { name: 'linear', T: 100, scale: false }, { name: 'quadratic', T: 50 }, { name: 'cosine', T: 30 }, { name: 'sigmoid', T: 70 }, [0.1, 0.25, 0.7]] as ScheduleSource[]) {
    for (const variance of VARIANCES)
      for (const prediction of PREDICTIONS) {
        const back = readScheduler(JSON.parse(JSON.stringify(schedulerConfig(spec, { prediction, variance }))));
        assert.equal(back.schedule.betas, makeSchedule(spec).betas, JSON.stringify(spec));
        assert.equal([back.prediction, back.variance, back.clipSample, back.spacing, back.stepsOffset], [prediction, variance, true, 'leading', 0]);
      }
  }
  const file = schedulerConfig({ name: 'sigmoid', T: 9 }, { prediction: 'v', variance: 'learned_range' });
  assert.equal([file['beta_schedule'], file['prediction_type'], file['variance_type'], file['trained_betas']], ['sigmoid', 'v_prediction', 'learned_range', null]);
  assert.equal(schedulerConfig([0.1, 0.2])['trained_betas'], [0.1, 0.2]);
});

scheduler('betas rescaled to end at zero go through the file, named or a list, and are rescaled once', () => {
  const fields = { prediction_type: 'v_prediction', rescale_betas_zero_snr: true, num_train_timesteps: 30 };
  for (const [source, more] of [[{ name: 'cosine', T: 30, rescaleBetasZeroSnr: true }, { beta_schedule: 'squaredcos_cap_v2' }], [rescaleZeroSnr(makeBetas('linear', 30)), { trained_betas: [...makeBetas('linear', 30)] }]] as [ScheduleSource, UNetFields][]) {
    const read = readScheduler({ ...fields, ...more }), back = readScheduler(JSON.parse(JSON.stringify(schedulerConfig(read.source, read))));
    assert.equal([read.schedule.betas, back.schedule.betas], [makeSchedule(source).betas, read.schedule.betas]);
    assert.is(read.schedule.alphasCumprod[29], 0);
  }
  assert.is(schedulerConfig({ name: 'cosine', T: 30, rescaleBetasZeroSnr: true }, { prediction: 'v' })['rescale_betas_zero_snr'], true);
});

scheduler('how to sample goes through the file and comes back', () => {
  const fields: SamplingFields[] = SPACINGS.flatMap((spacing, i) => [true, false, 2.5, { ratio: 0.9, max: 2 }].map((clipSample) => ({ clipSample, spacing, stepsOffset: i, setAlphaToOne: !clipSample })));
  for (const each of fields) {
    const { clipSample, spacing, stepsOffset, setAlphaToOne } = readScheduler(schedulerConfig(SCHEDULE, each));
    assert.equal({ clipSample, spacing, stepsOffset, setAlphaToOne }, each);
  }
  const file = schedulerConfig(SCHEDULE, { clipSample: false, spacing: 'trailing', stepsOffset: 2, setAlphaToOne: false });
  assert.equal([schedulerConfig(SCHEDULE, { clipSample: 2 })['clip_sample_range'], file['clip_sample_range']], [2, 1]);
  assert.equal([file['clip_sample'], file['timestep_spacing'], file['steps_offset'], file['set_alpha_to_one']], [false, 'trailing', 2, false]);
});

scheduler('a sampler takes what the file says, and a flag has the last word', () => {
  const options = (line: string, fields: UNetFields) => {
    const { settings, given } = parseFlags(SAMPLE, { name: 'sample', help: '' }, line.split(' ').filter(Boolean));
    return samplerOptions(settings, given, readScheduler({ num_train_timesteps: 100, ...fields }));
  };
  const own = { clip_sample: false, timestep_spacing: 'trailing', steps_offset: 1, set_alpha_to_one: false };
  // No offset in trailing spacing.
  assert.equal(options('--sample-steps 10', own), { method: 'ddim', clipDenoised: false, setAlphaToOne: false, spacing: 'trailing', eta: 0, steps: 10 });
  assert.equal(visitedTimesteps(makeSchedule({ name: 'cosine', T: 100 }), options('--sample-steps 4', own)), [99, 74, 49, 24]);
  assert.equal(options('--sampler dpm++2m', own), { method: 'dpm++2m', clipDenoised: false, setAlphaToOne: false, steps: 20 });
  assert.is(options('--spacing linspace', own).spacing, 'linspace');
  const leading = options('--sample-steps 10', { steps_offset: 1 });
  assert.equal([leading.clipDenoised, leading.stepsOffset, leading.spacing], [true, 1, 'leading']);
  assert.equal(options('', { thresholding: true, clip_sample: false, sample_max_value: 4 }).clipDenoised, { ratio: 0.995, max: 4 });
  assert.equal([options('', { clip_sample_range: 3 }).clipDenoised, options('', { clip_sample_range: 3, clip_sample: false }).clipDenoised], [3, false]);
  assert.equal(visitedTimesteps(makeSchedule({ name: 'cosine', T: 100 }), leading), [91, 81, 71, 61, 51, 41, 31, 21, 11, 1]);
  // The whole chain has no timestep left to be moved to.
  assert.equal([options('--sampler ddpm', { steps_offset: 1 }).stepsOffset, options('--sampler ddpm --sample-steps 30', { steps_offset: 30 }).stepsOffset], [0, 12]);
  assert.is(options('--timesteps 70,30', { steps_offset: 1 }).stepsOffset, undefined);
});

scheduler("variances are those of diffusers' _get_variance, and have its name only where they are", async () => {
  const s = makeSchedule({ name: 'linear', T: 40 });
  for (const file of ['fixed_small', 'fixed_small_log', 'fixed_large', 'learned_range']) {
    const { variance } = readScheduler({ variance_type: file }), { at, slope } = logVarianceTable(s, variance);
    assert.is(schedulerConfig(SCHEDULE, { variance })['variance_type'], file === 'fixed_small_log' ? 'fixed_small' : file);
    for (let t = 1; t < 40; t++)
      for (const v of [-1, -0.3, 0, 0.9]) {
        // Nothing is drawn at t = 0, neither there nor here.
        const acp = s.alphasCumprod[t]!, before = s.alphasCumprod[t - 1]!, beta = 1 - acp / before, small = Math.max(((1 - before) / (1 - acp)) * beta, 1e-20), share = (v + 1) / 2;
        const want = file === 'fixed_large' ? beta : file === 'learned_range' ? Math.exp(share * Math.log(beta) + (1 - share) * Math.log(small)) : small;
        assert.ok(Math.abs(Math.exp(at[t]! + slope[t]! * v) / want - 1) < 1e-9, `${file} at ${t}`);
      }
  }
  // diffusers' `learned` is sigma^2 = v; here it is log sigma^2 = v, as in the classic code, so the names differ.
  const { at, slope } = logVarianceTable(s, 'learned');
  assert.equal([at[7], slope[7]], [0, 1]);
  assert.is(schedulerConfig(SCHEDULE, { variance: 'learned' })['variance_type'], 'learned_log');
  assert.is(readScheduler({ variance_type: 'learned_log' }).variance, 'learned');
});

scheduler("what is absent has diffusers' defaults, and older files are understood", () => {
  const usual = readScheduler({});
  assert.equal([usual.schedule.T, usual.prediction, usual.variance, usual.clipSample, usual.spacing, usual.stepsOffset, usual.setAlphaToOne], [1000, 'eps', 'fixed_small', true, 'leading', 0, true]);
  assert.equal(usual.schedule.betas, makeBetas('linear', 1000));
  const cifar = readScheduler({
    _class_name: 'DDPMScheduler', _diffusers_version: '0.1.1', beta_end: 0.02, beta_schedule: 'linear', beta_start: 0.0001, clip_sample: true, num_train_timesteps: 1000,
    trained_betas: null, variance_type: 'fixed_large', timestep_values: null, class_embed: false, _name_or_path: 'a',
  });
  assert.is(cifar.variance, 'fixed_large');
  // PNDMScheduler clips nothing and ends at the noise of t = 0 unless told otherwise.
  const pndm = readScheduler({ _class_name: 'PNDMScheduler', skip_prk_steps: true }), said = readScheduler({ _class_name: 'PNDMScheduler', set_alpha_to_one: true, clip_sample: true });
  assert.equal([pndm.clipSample, pndm.setAlphaToOne, said.clipSample, said.setAlphaToOne], [false, false, true, true]);
  // Before 0.10 files said predict_epsilon.
  assert.equal([{ predict_epsilon: true }, { predict_epsilon: false }, { predict_epsilon: false, prediction_type: 'v_prediction' }].map((f) => readScheduler(f).prediction), ['eps', 'x0', 'v']);
  assert.is(readScheduler({ clip_sample: false, clip_sample_range: 2 }).clipSample, false);
  assert.is(readScheduler({ variance_type: 'fixed_small_log' }).variance, 'fixed_small');
  const own = readScheduler({ trained_betas: [0.1, 0.2, 0.3], clip_sample: false, set_alpha_to_one: false, steps_offset: 1 });
  assert.equal([[...own.schedule.betas], own.clipSample, own.setAlphaToOne, own.stepsOffset], [[0.1, 0.2, 0.3], false, false, 1]);
});

scheduler("what is written are fields of diffusers' classes, and all of theirs are read, refused by name, or of no effect here", () => {
  const known = (fields: object, ...classes: UNetFields[]): string[] => Object.keys(fields).filter((name) => name !== '_class_name' && !classes.some((each) => name in each));
  for (const fields of [CONFIG, { ...CONFIG, num_class_embeds: 3, out_channels: 2, resnet_time_scale_shift: 'scale_shift' }]) assert.equal(known(new UNet(fields).config, DIFFUSERS.UNet2DModel), []);
  // DDIMScheduler's own field is kept by DDPMScheduler for it.
  assert.equal(known(schedulerConfig(SCHEDULE), DIFFUSERS.DDPMScheduler, DIFFUSERS.DDIMScheduler), []);
  assert.equal(known(schedulerConfig(SCHEDULE), DIFFUSERS.DDPMScheduler), ['set_alpha_to_one']);

  const other = (value: unknown): unknown => (typeof value === 'boolean' ? !value : typeof value === 'number' ? value + 3 : value === null ? 7 : Array.isArray(value) ? [...value, 16] : 'other');
  /** Fields that can be changed without an error or another result. */
  const passedOver = <T>(fields: UNetFields, read: (fields: UNetFields) => T): string[] => {
    const usual = JSON.stringify(read(fields));
    return Object.entries(fields).filter(([name, value]) => {
      try {
        return JSON.stringify(read({ ...fields, [name]: other(value) })) === usual;
      } catch {
        return false;
      }
    }).map(([name]) => name);
  };
  assert.equal(readConfig({ _class_name: 'UNet2DModel', _diffusers_version: '0.40.0', ...DIFFUSERS.UNet2DModel }), readConfig({}));
  assert.equal(passedOver(DIFFUSERS.UNet2DModel, readConfig), []);
  for (const [name, ignored] of [['DDPMScheduler', ['sample_max_value']], ['DDIMScheduler', ['sample_max_value']], ['PNDMScheduler', ['skip_prk_steps']]] as [SchedulerClass, string[]][]) {
    const fields = { _class_name: name, ...DIFFUSERS[name] };
    assert.equal(readScheduler(fields), readScheduler({ _class_name: name }), name);
    assert.equal(passedOver(DIFFUSERS[name], (each) => readScheduler({ ...each, _class_name: name })), ignored, name);
  }
});

scheduler('what is not implemented is refused by name', async () => {
  for (const [fields, message] of [
    [{ beta_schedule: 'laplace' }, /beta_schedule = "laplace" is not implemented; it is "linear" or "scaled_linear"/],
    // diffusers takes log(beta) for a variance here, and the variance itself for its logarithm there.
    [{ variance_type: 'fixed_large_log' }, /variance_type = "fixed_large_log"/],
    [{ variance_type: 'learned' }, /variance_type = "learned" is not implemented: diffusers' is the variance itself, and the one that is learnt here its logarithm, learned_log/],
    [{ predict_epsilon: false, prediction_type: 'epsilon' }, /predict_epsilon is false, and prediction_type "epsilon"/],
    [{ timestep_values: [3, 1] }, /the field "timestep_values" \(\[3,1\]\) is not known/],
    [{ steps_offset: 0.5 }, /steps_offset = 0.5/],
    [{ prediction_type: 'flow' }, /prediction_type = "flow".*"epsilon" or "sample" or "v_prediction"/],
    [{ timestep_spacing: 'karras' }, /timestep_spacing/],
    [{ thresholding: true, sample_max_value: 0.5 }, /sample_max_value = 0\.5 is not implemented; it is a number of at least 1/],
    [{ thresholding: true, dynamic_thresholding_ratio: 2 }, /dynamic_thresholding_ratio = 2/],
    [{ rescale_betas_zero_snr: true }, /x\.json: at t = 999 this schedule leaves nothing of the image.*Predict v or x0/],
    [{ clip_sample_range: 0 }, /clip_sample_range = 0 is not implemented; it is a number above 0/],
    [{ clip_sample: 'yes' }, /clip_sample = "yes"/],
    [{ num_train_timesteps: '1000' }, /num_train_timesteps/],
    [{ _class_name: 'EulerDiscreteScheduler' }, /_class_name = "EulerDiscreteScheduler"/],
    [{ use_karras_sigmas: true }, /the field "use_karras_sigmas" \(true\) is not known/],
    [{ trained_betas: [0.1, 0.2], num_train_timesteps: 3 }, /num_train_timesteps is 3, and there are 2/],
    [{ trained_betas: [0.1, 2] }, /x\.json: betas\[1\]/],
    [{ beta_end: 1.5 }, /x\.json: betas/],
  ] as [UNetFields, RegExp][]) await assertError(() => readScheduler(fields, 'x.json'), 'E-MODEL', message);
});

scheduler.run();
