// What a folder's scheduler_config.json decides for train --init, and where flags have the last word.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { parseFlags } from '../src/cli/flags.ts';
import { clipOf, scheduleOf } from '../src/cli/diffusion-settings.ts';
import { TRAIN } from '../src/cli/settings.ts';
import { checkModel, describeScheduler, withScheduler } from '../src/cli/train-init.ts';
import { makeSchedule } from '../src/diffusion/schedule.ts';
import { readScheduler } from '../src/io/scheduler.ts';
import { UNet } from '../src/nn/unet.ts';
import { assertError } from './helpers/gpu.ts';

const FILE = 'folder/scheduler_config.json';

/** The settings of a command line, for a folder whose scheduler_config.json has these fields; null where it has none. */
function settled(line: string, fields: Record<string, unknown> | null) {
  const { settings, given } = parseFlags(TRAIN, { name: 'train', help: '' }, line.split(' ').filter(Boolean));
  const folder = { folder: 'folder', scheduler: readScheduler(fields ?? {}), schedulerFile: fields && FILE };
  return { settings: withScheduler(settings, given, folder), words: describeScheduler(given, folder) };
}
const betasOf = (s: ReturnType<typeof settled>['settings']) => makeSchedule(scheduleOf(s, null)).betas;

const test = suite('train --init: the folder decides');

test('schedule, prediction and variance are the folder\'s, to the last bit', () => {
  const fields = { num_train_timesteps: 60, beta_start: 0.003, beta_end: 0.21, prediction_type: 'sample', variance_type: 'fixed_large' };
  const { settings, words } = settled('', fields);
  assert.equal([settings.predict, settings.variance, settings.timesteps, settings.schedule], ['x0', 'fixed_large', 60, 'linear']);
  assert.equal(betasOf(settings), readScheduler(fields).schedule.betas);
  assert.is(words, `schedule, prediction and variance are those of ${FILE}`);
  for (const name of ['scaled_linear', 'squaredcos_cap_v2', 'sigmoid'])
    assert.equal(betasOf(settled('', { ...fields, beta_schedule: name }).settings), readScheduler({ ...fields, beta_schedule: name }).schedule.betas, name);
  const rescaled = { ...fields, prediction_type: 'v_prediction', rescale_betas_zero_snr: true };
  assert.equal(betasOf(settled('', rescaled).settings), readScheduler(rescaled).schedule.betas);
  assert.is(betasOf(settled('--no-rescale-betas-zero-snr', rescaled).settings)[59], readScheduler(fields).schedule.betas[59]);
  const own = settled('', { trained_betas: [0.1, 0.2, 0.5] }).settings;
  assert.equal([own.betas, own.timesteps], [FILE, 3]);
});

test('a flag has the last word', () => {
  const google = { num_train_timesteps: 1000, beta_start: 1e-4, beta_end: 0.02, variance_type: 'fixed_large' };
  const short = settled('--timesteps 50 --variance fixed_small', google);
  assert.equal([short.settings.timesteps, short.settings.variance], [50, 'fixed_small']);
  // Still noise at the end: the betas of 1,000 steps, scaled.
  assert.ok(Math.abs(betasOf(short.settings).at(-1)! - 0.4) < 1e-12);
  assert.match(short.words, /, but for --timesteps, --variance$/);
  const plain = settled('--timesteps 50 --no-scale-betas', google).settings;
  assert.ok(Math.abs(betasOf(plain).at(-1)! - 0.02) < 1e-12);
  const end = settled('--beta-end 0.01', google).settings;
  assert.equal([betasOf(end)[0], betasOf(end)[999]].map((b) => Number(b!.toPrecision(9))), [1e-4, 0.01]);
  const other = settled('--schedule cosine', { trained_betas: [0.1, 0.2, 0.5] }).settings;
  assert.equal([other.schedule, other.betas, other.timesteps], ['cosine', null, 3]);
  assert.is(settled('--betas mine.json', { trained_betas: [0.1, 0.2] }).settings.betas, 'mine.json');
  // Such betas are taken as they are: that the folder's were rescaled says nothing of them.
  assert.not(settled('--betas mine.json', { prediction_type: 'v_prediction', rescale_betas_zero_snr: true }).settings.rescaleBetasZeroSnr);
});

test('how to sample is the folder\'s too, unless a flag says otherwise', () => {
  const fields = { clip_sample: false, timestep_spacing: 'linspace', steps_offset: 1, set_alpha_to_one: false };
  const of = ({ settings: { clipSample, timestepSpacing, stepsOffset, setAlphaToOne } }: ReturnType<typeof settled>) => [clipSample, timestepSpacing, stepsOffset, setAlphaToOne], clip = ({ settings }: ReturnType<typeof settled>) => clipOf(settings);
  assert.equal([{}, { clip_sample_range: 3 }, { clip_sample_range: 3, clip_sample: false }].map((fields) => clip(settled('', fields))), [true, 3, false]);
  assert.equal([clip(settled('', { thresholding: true, sample_max_value: 4 })), clip(settled('--no-thresholding', { thresholding: true })), clip(settled('--sample-max-value 2', { thresholding: true }))], [{ ratio: 0.995, max: 4 }, true, { ratio: 0.995, max: 2 }]);
  assert.is(clip(settled('--clip-sample-range 2', { clip_sample_range: 3 })), 2);
  assert.equal(of(settled('', fields)), [false, 'linspace', 1, false]);
  assert.equal(of(settled('', {})), [true, 'leading', 0, true]);
  const flags = settled('--clip-sample --timestep-spacing trailing --steps-offset 0', fields);
  assert.equal(of(flags), [true, 'trailing', 0, false]);
  assert.match(flags.words, /, but for --clip-sample, --timestep-spacing, --steps-offset$/);
});

test('what the weights mean is not for a flag to change', async () => {
  const v = { prediction_type: 'v_prediction' };
  await assertError(() => settled('--predict eps', v), 'E-MODEL', /--predict is eps, and the weights were trained with v \(folder\/scheduler_config\.json\)/);
  await assertError(() => settled('--variance learned', { variance_type: 'learned_range' }), 'E-MODEL', /--variance is learned, and the weights were trained with learned_range/);
  await assertError(() => settled('--variance learned_range', {}), 'E-MODEL', /trained with fixed_small/);
  assert.is(settled('--predict v', v).settings.predict, 'v');
  // A folder that says nothing leaves it to the flags.
  const silent = settled('--predict v --variance fixed_large --timesteps 7', null);
  assert.equal([silent.settings.predict, silent.settings.variance, silent.settings.timesteps], ['v', 'fixed_large', 7]);
  assert.match(silent.words, /^folder has no scheduler_config\.json: .* those of the flags$/);
  // What a preset would teach a network from nothing is not what weights without a file were taught.
  assert.is(settled('', null).settings.predict, 'eps');
});

test('channels and classes of the model that do not fit', async () => {
  const model = (fields: object) => new UNet({ in_channels: 1, out_channels: 2, block_out_channels: [8], down_block_types: ['DownBlock2D'], up_block_types: ['UpBlock2D'], layers_per_block: 1, norm_num_groups: 4, ...fields });
  const wanted = { source: 'folder', channels: 1, selfCondition: false, learnedVariance: true, classes: 0 };
  checkModel(model({}), wanted);
  await assertError(() => checkModel(model({}), { ...wanted, learnedVariance: false }), 'E-MODEL', /reads 1 channels and gives 2; these data and settings need 1 and 1\./);
  await assertError(() => checkModel(model({}), { ...wanted, selfCondition: true }), 'E-MODEL', /need 2 and 2/);
  await assertError(() => checkModel(model({ num_class_embeds: 4 }), wanted), 'E-MODEL', /with classes \(num_class_embeds 4\), and these settings train without/);
  await assertError(() => checkModel(model({ num_class_embeds: 4 }), { ...wanted, classes: 5 }), 'E-MODEL', /train with 5/);
});
test.run();
