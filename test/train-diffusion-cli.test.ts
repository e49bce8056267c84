// train and eval as people type them, with the settings of the diffusion: betas of a file, a learned variance, t by importance, classes, self-conditioning, likelihood.
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { decodePng } from '../src/io/png.ts';
import { readSafetensors } from '../src/io/safetensors.ts';
import { type Ended, ended, start } from './helpers/commands.ts';

const out = mkdtempSync(join(tmpdir(), 'ddpm-diffusion-'));

const TINY = `--data shapes --limit 64 --preset tiny --batch-size 4 --samples 5 --sample-steps 2 --sample-every 0 --keep 0 --out ${out}`;
const train = (line: string): Promise<Ended> => start('train', `${TINY} ${line}`);
const run = (...parts: string[]): string => join(out, ...parts);
const json = (path: string): Record<string, unknown> => JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;

const cli = suite('train and eval: diffusion');
cli.after(() => rmSync(out, { recursive: true }));
const file = run('betas.json'), last = run('a', 'checkpoints', 'step-0000006');

cli('betas of a file, v, a learned variance, t by importance, classes, self-conditioning: a run, with all of it in its files', async () => {
  writeFileSync(file, JSON.stringify({ trained_betas: [0.02, 0.1, 0.2, 0.4, 0.6, 0.9] }));
  const flags = '--predict v --variance learned_range --time-sampling importance --snr-gamma 5 --class-conditional --self-condition --label-dropout 0.2';
  const done = await train(`--name a --steps 6 --save-every 3 --betas ${file} ${flags}`);
  ended(done, 0, 'T 6, predicts v, variance learned_range, loss hybrid min-SNR 5, t importance', /^model .* 5 classes {2}conditioned on itself/m, 'final.png');
  const scheduler = json(join(last, 'scheduler_config.json')), model = json(join(last, 'config.json'));
  assert.equal([scheduler['trained_betas'], scheduler['prediction_type'], scheduler['variance_type']], [[0.02, 0.1, 0.2, 0.4, 0.6, 0.9], 'v_prediction', 'learned_range']);
  assert.equal([model['in_channels'], model['out_channels'], model['num_class_embeds'], json(run('a', 'config.json'))['timesteps']], [2, 2, 6, 6]);
  ended(await start('train', `--config ${run('a', 'config.json')} --dry-run`), 0, /^schedule .* T 6, predicts v, variance learned_range, loss hybrid min-SNR 5, t importance/m);
});

cli('it goes on to the byte, without the file that its betas came from', async () => {
  cpSync(run('a'), run('b'), { recursive: true });
  rmSync(run('b', 'checkpoints', 'step-0000006'), { recursive: true });
  rmSync(file);
  ended(await start('train', `--resume ${run('b')}`), 0, 'resumed  step 3 of 6');
  for (const name of readdirSync(last)) assert.ok(readFileSync(join(last, name)).equals(readFileSync(run('b', 'checkpoints', 'step-0000006', name))), name);
});

cli('eval --nll: the bound of real images, the same whatever the batch, with its curve', async () => {
  const done = await start('eval', `${run('a')} --nll --n 5 --batch-size 2`);
  ended(done, 0, /^images +the first 5 of shapes, test, not mirrored$/m, /^labels +those of the images$/m, /^bits\/dim, at most +\d/m, `by t                  ${run('a', 'nll.json')}`);
  const got = json(run('a', 'nll.json')) as { bits_per_dim: number; L_T: number; L_0: number; L_1_to_T_minus_1: number; bits_per_dim_by_t: number[] };
  assert.is(got.bits_per_dim_by_t.length, 6);
  assert.ok(Math.abs(got.bits_per_dim - got.L_T - got.L_0 - got.L_1_to_T_minus_1) < 1e-6 * got.bits_per_dim && got.bits_per_dim > 1);
  assert.is(got.L_0, got.bits_per_dim_by_t[0]);
  const picture = decodePng(readFileSync(run('a', 'nll.png')));
  assert.equal([picture.width, picture.height], [720, 440]);
  ended(await start('eval', `${last} --nll --n 5 --data shapes --out ${run('other.json')}`), 0, run('other.png'));
  const other = json(run('other.json')) as { bits_per_dim: number };
  assert.ok(Math.abs(other.bits_per_dim / got.bits_per_dim - 1) < 1e-5, `${other.bits_per_dim} in one batch, ${got.bits_per_dim} in three`);
});

cli('eval draws from a model with classes, each in turn', async () => {
  ended(await start('eval', `${run('a')} --n 7 --features pixels --sample-steps 2 --limit 50 --batch-size 4 --statistics ${run('statistics')}`), 0, /^Fréchet distance +\d/m);
});

cli('the classes are known by their names wherever the weights go', async () => {
  for (const file_ of ['diffusion_pytorch_model.safetensors', 'model.safetensors']) {
    const { metadata } = readSafetensors(readFileSync(join(last, file_)), file_);
    assert.equal([metadata['format'], JSON.parse(metadata['class_names']!)], ['pt', ['disc', 'square', 'triangle', 'cross', 'ring']]);
  }
  const draw = (label: string): Promise<Ended> => start('sample', `${last} --n 2 --sample-steps 2 --label ${label} --out ${run(`${label}.png`)}`);
  const [named, numbered, wrong] = await Promise.all([draw('ring'), draw('4'), draw('rings')]);
  ended(named, 0, 'class 4');
  ended(numbered, 0, 'class 4');
  assert.ok(readFileSync(run('ring.png')).equals(readFileSync(run('4.png'))));
  ended(wrong, 2, 'E-USAGE --label is "rings"', 'classes are disc, square, triangle, cross, ring');
});

cli('what does not go together is refused with what to type', async () => {
  writeFileSync(file, '[0.1, 0.2]');
  const both = await train(`--timesteps 50 --betas ${file}`);
  writeFileSync(file, '[0.1, "0.2"]');
  const [odd, hybrid] = [await train(`--betas ${file}`), await train('--loss hybrid')];
  ended(both, 2, 'E-USAGE', '--timesteps does not go with --betas');
  ended(odd, 1, 'E-FILE', 'has "0.2" at place 1 of its betas', '[0.01, 0.02, 0.05]');
  ended(hybrid, 2, 'E-USAGE', 'fixed_small is fixed: use the variance learned_range');
  ended(await start('eval', `${last} --nll --data shapes`), 2, 'E-USAGE', 'say it with --out FILE.json');
});
cli.run();
