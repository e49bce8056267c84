// npm run eval as people type it: a classifier is trained, then runs, files and real images are measured; what is printed, kept and refused.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { makeShapes } from '../src/data/shapes.ts';
import { npzChunks } from '../src/io/npz.ts';
import { encodePng } from '../src/io/png.ts';
import { readSafetensors } from '../src/io/safetensors.ts';
import { statistics } from '../src/quality/frechet.ts';
import { statisticsFile } from '../src/quality/statistics_file.ts';
import { type Ended, ended, start } from './helpers/commands.ts';

const out = mkdtempSync(join(tmpdir(), 'ddpm-eval-'));
const at = (...parts: string[]): string => join(out, ...parts);

const CLASSIFIER = at('shapes.safetensors');
const measure = (line: string): Promise<Ended> => start('eval', `${line} --classifier ${CLASSIFIER} --statistics ${at('statistics')}`);
const figure = ({ stdout }: Ended, name: string): number => Number(new RegExp(`^${name} +(\\S+)$`, 'm').exec(stdout)?.[1]);

const cli = suite('eval');
cli.after(() => rmSync(out, { recursive: true }));

cli('--train-features learns the classes of a data set and says how well', async () => {
  const done = await start('eval', `--train-features --data shapes --limit 300 --feature-steps 60 --seed 1 --out ${CLASSIFIER}`);
  ended(done, 0, /^data {5}shapes {2}300 images to train on, 300 to test, 5 classes$/m, /^step 60\/60 \| 100% \| loss 0\.\d/m, `weights           ${CLASSIFIER}`);
  const { metadata } = readSafetensors(readFileSync(CLASSIFIER), CLASSIFIER), reached = Number(metadata['test_accuracy']);
  assert.ok(reached > 0.4, `a fifth is chance, and it reached ${reached}`);
  ended(done, 0, `test accuracy     ${(100 * reached).toFixed(2)} % of 300`);
});

let floor = NaN;

cli('--real measures what real images reach; statistics of the data set are kept', async () => {
  const first = await measure(`--real --data shapes --limit 200 --n 150 --out ${at('real.json')}`);
  ended(first, 0, 'source                real images, the test split', 'images                150', 'real images           200', /^features +classifier of shapes, test accuracy .* %, SHA-256 [\da-f]{12}$/m);
  ended(first, 0, /^precision and recall +first 150 images of both, k = 3$/m, 'statistics kept in');
  const [file] = readdirSync(at('statistics'));
  assert.match(file!, /^shapes-train-200-[\da-f]{12}-classifier-[\da-f]{12}\.npz$/);
  floor = figure(first, 'Fréchet distance');
  assert.ok(floor > 0 && figure(first, 'precision') > 0.5 && figure(first, 'recall') > 0.5, first.stdout);
  const second = await measure(`--real --data shapes --limit 200 --n 150 --out ${at('real.json')}`);
  ended(second, 0, `statistics of ${at('statistics', file!)}`);
  assert.is(figure(second, 'Fréchet distance'), floor);
  const list = JSON.parse(readFileSync(at('real.json'), 'utf8')) as { frechet_distance: number; protocol: object; environment: object }[];
  assert.is(list.length, 2);
  assert.equal(list[0].protocol, list[1].protocol);
  assert.is(list[0].frechet_distance, list[1].frechet_distance);
});

cli('a run: its data, its averaged weights, its eval.json; worse than real images', async () => {
  ended(await start('train', `--data shapes --limit 200 --preset tiny --batch-size 4 --timesteps 50 --samples 4 --sample-steps 2 --steps 2 --out ${out} --name a`), 0);
  const done = await measure(`${at('a')} --n 20 --sample-steps 3 --seed 5 --keep-images ${at('kept.npz')}`);
  ended(done, 0, /^sampler +ddim, 3 steps, eta 0$/m, /^weights +ema$/m, /^checkpoint +step 2$/m, /^seed +5$/m, /^quantisation +uint8: clamped to \[-1, 1\], rounded$/m, /^real +shapes, train split$/m, `added to              ${at('a', 'eval.json')}`);
  assert.ok(figure(done, 'Fréchet distance') > 2 * floor, `${done.stdout} real images reach ${floor}`);
  const again = await measure(`${at('kept.npz')} --data shapes`);
  assert.is(figure(again, 'Fréchet distance'), figure(done, 'Fréchet distance'), 'the images that were kept');
  const [entry] = JSON.parse(readFileSync(at('a', 'eval.json'), 'utf8')) as Record<string, unknown>[];
  assert.equal(Object.keys(entry), ['frechet_distance', 'precision', 'recall', 'protocol', 'environment']);
});

cli('--nll of a chain of fewer timesteps', async () => {
  const done = await start('eval', `${at('a')} --nll --n 2 --spacing 3,2`);
  ended(done, 0, /^timesteps +5 of 50, 0, 12, 24, 25, 49; the bound of that chain, its betas recomputed$/m, /^x 0 +clipped to \[-1, 1\]$/m, `by t                  ${at('a', 'nll-5.json')}`);
  const kept = JSON.parse(readFileSync(at('a', 'nll-5.json'), 'utf8')) as { timesteps: number[]; bits_per_dim_by_t: number[] };
  assert.equal(kept.timesteps, [0, 12, 24, 25, 49]);
  assert.is(kept.bits_per_dim_by_t.length, 5);
});

cli('an .npz file and a folder of PNGs of the same images give the same figures, and none against statistics of themselves', async () => {
  const { count, height, width, channels, pixels } = makeShapes({ count: 30, seed: 9 }), size = height * width;
  writeFileSync(at('images.npz'), Buffer.concat(npzChunks([['arr_0', { shape: [count, height, width, channels], data: pixels as Uint8Array<ArrayBuffer> }]])));
  mkdirSync(at('pngs'));
  for (let i = 0; i < count; i++) writeFileSync(at('pngs', `${String(i).padStart(3, '0')}.png`), encodePng({ width, height, channels: 1, data: pixels.slice(i * size, (i + 1) * size) }));
  const data = ' --data shapes --limit 200', npz = await measure(at('images.npz') + data), pngs = await measure(at('pngs') + data);
  ended(npz, 0, /^source +.*images\.npz, array arr_0$/m);
  ended(pngs, 0, /^source +.*pngs, 30 PNG files$/m);
  for (const name of ['Fréchet distance', 'precision', 'recall']) assert.is(figure(npz, name), figure(pngs, name));
  const own = statistics({ count, width: size, data: Float32Array.from(pixels, (byte) => byte / 127.5 - 1) });
  writeFileSync(at('own.npz'), Buffer.concat(statisticsFile(own)));
  const zero = await start('eval', `${at('images.npz')} --features pixels --real-statistics ${at('own.npz')}`);
  ended(zero, 0, /^features +pixels in \[-1, 1\]$/m, `real                  ${at('own.npz')}`);
  assert.ok(figure(zero, 'Fréchet distance') < 1e-9, zero.stdout);
});

cli('statistics that are damaged, or cannot be kept, are computed again and no reason to end', async () => {
  const line = (folder: string): string => `${at('images.npz')} --data shapes --features pixels --limit 20 --n 2 --statistics ${folder} --out ${at('pixels.json')}`;
  ended(await start('eval', line(at('again'))), 0, 'statistics kept in');
  const [file] = readdirSync(at('again'));
  writeFileSync(at('again', file!), 'x');
  writeFileSync(at('plain'), '');
  const [damaged, kept] = await Promise.all([start('eval', line(at('again'))), start('eval', line(at('plain', 'x')).replace('pixels.json', 'pixels2.json'))]);
  ended(damaged, 0, 'warning  the statistics are computed again: ', file!, 'statistics kept in');
  ended(kept, 0, 'warning  the statistics are not kept: cannot write', 'Fréchet distance');
});

cli('what it refuses', async () => {
  writeFileSync(at('broken.json'), '[{');
  const refused = [
    ['', 2, 'E-USAGE eval takes one of'],
    [`${at('a')} --real`, 2, 'E-USAGE eval takes one of'],
    ['--real --data shapes', 2, 'E-USAGE no classifier comes with the program for shapes', '--train-features --data shapes'],
    ['--real --features inception', 2, 'E-USAGE --features inception needs --inception-weights', 'pt_inception-2015-12-05', 'save_file'],
    [`--real --data shapes --classifier ${at('images.npz')}`, 1, 'E-FILE', 'zip archive'],
    [`${at('images.npz')} --features pixels`, 2, 'E-USAGE which images are the real ones', '--data'],
    [at('nothing'), 1, 'E-FILE', 'is not there'],
    [`${at('a')} --nll --eta 1`, 2, 'E-USAGE --eta is for distances', '--nll draws no images'],
    [`${at('a')} --nll --guidance 2`, 2, 'E-USAGE --guidance is for distances', '--nll draws no images'],
    [`${at('a')} --features pixels --limit 9 --guidance 2`, 2, 'E-USAGE --guidance is for models with classes'],
    ['--real --data shapes --eta 1', 2, 'E-USAGE --eta is for models, and --real draws no images'],
    [`${at('images.npz')} --data shapes --seed 1`, 2, `E-USAGE --seed is for models, and ${at('images.npz')} draws no images`],
    ['--train-features --data shapes --nll', 2, 'E-USAGE --nll is for measuring, and --train-features measures nothing'],
    [`${at('a')} --feature-steps 5`, 2, 'E-USAGE --feature-steps is for --train-features'],
    [`${at('a')} --nll --timesteps 3,7`, 2, 'E-USAGE the timesteps must fall'],
    [`${at('a')} --features pixels --data shapes --image-size 12 --limit 9`, 1, 'E-SHAPE the images are 28×28×1 and those of shapes are 12×12×1'],
    [`${at('a')} --features pixels --real-statistics ${at('pngs', '000.png')}`, 1, 'E-FILE', 'cannot be read as .npz'],
    [`${at('a')} --features pixels --limit 9 --keep-images ${at('kept.zip')}`, 2, 'E-USAGE', 'give it that ending'],
    [`${at('a')} --features pixels --limit 9 --out ${at('a', 'config.json', 'x.json')}`, 1, 'E-FILE cannot write', 'a part of the path is a file'],
    [`${at('a')} --features pixels --limit 1`, 2, 'E-USAGE a covariance needs two images at least'],
    [`${at('a')} --features pixels --limit 9 --n 2 --sample-steps 1 --out ${at('broken.json')}`, 1, 'broken.json is not JSON, so the figures cannot be added'],
  ] as const;
  await Promise.all(refused.map(async ([line, code, ...words]) => {
    const done = await start('eval', line);
    ended(done, code, ...words);
    assert.not.match(done.stderr, /^sampler/m, `${line}: before anything is drawn`);
  }));
});
cli.run();
