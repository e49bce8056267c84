// What the pages are made of, without a browser: runs as files, drawing with inpainting and interpolation, charts.
import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { logTicks, nearestIndex, smoothed, ticks } from '../src/web/axes.ts';
import { readClassNames } from '../src/io/model.ts';
import { readSafetensors, writeSafetensors } from '../src/io/safetensors.ts';
import { openWeb } from '../src/cli/web.ts';
import { functionIn } from '../src/web/site/source.ts';
import { trainingPaths } from '../src/data/images.ts';
import { makeShapes } from '../src/data/shapes.ts';
import { between, Model } from '../src/web/site/model.ts';
import { Run } from '../src/web/site/run.ts';
import { classesIn, dataSet, decodeRun, encodeRun } from '../src/web/site/run-file.ts';
import { GaussianDiffusion } from '../src/diffusion/gaussian.ts';
import { Sampler } from '../src/diffusion/sampler.ts';
import { makeSchedule } from '../src/diffusion/schedule.ts';
import { Parameters } from '../src/nn/parameters.ts';
import { UNet } from '../src/nn/unet.ts';
import type { Tensor } from '../src/tensor.ts';
import { assertError, gpuSuite, random } from './helpers/gpu.ts';
import { goldenFiles } from './helpers/golden-draw.ts';
import { normals } from './ref/random.ts';
import { STREAM } from '../src/philox.ts';

const site = suite('pages without a browser');

site('the server gives the pages and nothing else, whatever is asked for, and refuses a port that is taken', async () => {
  const { url, close } = await openWeb(0), { port } = new URL(url);
  const status = (path: string): Promise<number | undefined> => new Promise((done, fail) => request({ host: '127.0.0.1', port, path }, (response) => done(response.resume().statusCode)).on('error', fail).end());
  try {
    for (const [path, wanted] of [['/', 200], ['/worker.js?x', 200], ['//', 404], ['/../package.json', 404], ['/data/../../package.json', 404]] as const) assert.is(await status(path), wanted, path);
    await assertError(() => openWeb(Number(port)), 'E-USAGE', /port \d+ cannot be used .* --port/);
  } finally {
    close();
  }
});

site('a run comes back from its file, its images only where they are few', async () => {
  const tensor = (values: number[]) => new Map([['a.weight', { shape: [values.length], data: Float32Array.from(values) }]]);
  const settings = { model: 'mini', steps: 9, batchSize: 2, lr: 1e-3, timesteps: 100, predict: 'v', timeSampling: 'weighted', seed: 4, flip: true, labelDropout: 0.1, saveEvery: 3, previewEvery: 0, sampleEvery: 0 } as const;
  const content = { step: 2, settings, lr: 5e-4, losses: [0.5, NaN], tensors: { values: tensor([1, 2]), ema: tensor([3, 4]), m: tensor([5, 6]), v: tensor([7, 8]) }, optimizer: new Map([['step', { shape: [1], data: Float32Array.of(1) }]]) };
  const data = { name: 'drawings', count: 1, height: 2, width: 2, channels: 1, classes: ['cat', 'dog'] }, labels = Uint16Array.of(1);
  const saved = decodeRun(encodeRun({ ...content, data, labels, pixels: Uint8Array.of(1, 2, 3, 4) }), 'x');
  assert.equal([saved.step, saved.settings, saved.lr, saved.data, saved.losses], [2, settings, 5e-4, data, [0.5, NaN]]);
  assert.equal(['values', 'ema', 'm', 'v'].map((b) => saved.tensors[b as 'm'].get('a.weight')!.data), [[1, 2], [3, 4], [5, 6], [7, 8]].map((v) => Float32Array.from(v)));
  assert.equal([...saved.optimizer.get('step')!.data as Float32Array], [1]);
  assert.equal([saved.pixels, saved.labels, classesIn(saved.settings, { labels, classes: null })], [Uint8Array.of(1, 2, 3, 4), labels, 2]);
  const { timeSampling: _, ...older } = settings, { predict: _eps, ...oldest } = older;
  const learnt = (of: object): unknown => (({ predict, timeSampling }) => [predict, timeSampling])(decodeRun(encodeRun({ ...content, settings: of as typeof settings, data, labels, pixels: Uint8Array.of(1, 2, 3, 4) }), 'x').settings);
  assert.equal([settings, older, oldest].map(learnt), [['v', 'weighted'], ['v', 'uniform'], ['eps', 'uniform']]);
  assert.is(decodeRun(encodeRun({ ...content, data: { ...data, count: 5 << 20 }, labels: null, pixels: new Uint8Array(20 << 20) }), 'x').pixels, null);
  await assertError(() => decodeRun(writeSafetensors([]), 'weights.safetensors'), 'E-FILE', /weights\.safetensors is a safetensors file and not a run/);
  for (const state of ['{', 'null', '{"format":1}', JSON.stringify({ format: 1, step: 2, lr: 1, settings: { ...settings, model: 'toString' }, data }), JSON.stringify({ format: 1, step: 2, lr: 1, settings, data: { ...data, height: 'big' } })])
    await assertError(() => decodeRun(writeSafetensors([], { 'ddpm.wgsl.run': state }), 'odd'), 'E-FILE', /^odd is damaged/);
  await assertError(() => decodeRun(writeSafetensors([], { 'ddpm.wgsl.run': JSON.stringify({ format: 2, step: 2, lr: 1, settings, data }) }), 'odd'), 'E-FILE', /has the format 2, and this page reads 1/);
});

site('folders are classes as in a command: below what was chosen, of the training images where there are any', () => {
  assert.equal(trainingPaths(['set/cat/1.png', 'set/dog/1.png']), ['cat/1.png', 'dog/1.png']);
  assert.equal(trainingPaths(['set/train/cat/1.png', 'set/test/cat/2.png', 'set/readme.png']), ['cat/1.png', null, null]);
  assert.equal(trainingPaths(['set/cat/1.png', 'set/test/cat/2.png']), ['cat/1.png', null]);
  assert.equal(trainingPaths(['cat/1.png', 'dog/1.png', 'dog/deep/2.png']), ['cat/1.png', 'dog/1.png', 'dog/deep/2.png']);
  assert.equal(trainingPaths(['cat/1.png', 'cat/2.png', '3.png'].slice(0, 2)), ['1.png', '2.png']);
  const size = { height: 1, width: 1, channels: 1 }, images = [Uint8Array.of(1), Uint8Array.of(2)];
  assert.equal([dataSet('a', size, images, ['dog', 'cat']).labels, dataSet('a', size, images, ['dog', 'cat']).classes], [Uint16Array.of(1, 0), ['cat', 'dog']]);
  assert.equal([['dog', 'dog'], ['dog', ''], []].map((of) => dataSet('a', size, images, of).labels), [null, null, null]);
});

site('axes have round numbers, smoothing starts at the first value and bridges gaps', () => {
  assert.equal(ticks(0, 100, 5), [0, 20, 40, 60, 80, 100]);
  assert.equal(logTicks(0.008, 1.2), [0.01, 0.1, 1]);
  assert.ok(logTicks(0.03, 0.06).length >= 3);
  assert.equal(smoothed([2, 2, NaN, 2], 0.9).map((v) => Math.round(v * 1e9) / 1e9), [2, 2, NaN, 2]);
  assert.equal([0, 4, 5, 99].map((x) => nearestIndex([1, 3, 6, 10], x)), [0, 1, 2, 3]);
});

site('text of the style sheet is read in light and in dark: 4.5 to 1 at least, edges of fields 3 to 1', () => {
  const [light = '', dark = ''] = readFileSync(new URL('../src/web/style.css', import.meta.url), 'utf8').split('@media (prefers-color-scheme: dark)'), least: string[] = [];
  const coloursIn = (text: string) => new Map([...text.matchAll(/--([\w-]+): #([0-9a-f]{6})/g)].map(([, name, hex]) => [name!, Number.parseInt(hex!, 16)]));
  // Relative luminance and contrast as WCAG 2.2 defines them.
  const luminance = (rgb: number): number => [16, 8, 0].reduce((sum, shift, i) => {
    const c = ((rgb >> shift) & 255) / 255;
    return sum + [0.2126, 0.7152, 0.0722][i]! * (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  }, 0);
  for (const colours of [coloursIn(light), coloursIn(dark)]) {
    const contrast = (a: string, b: string): number => {
      const [high, low] = [a, b].map((name) => luminance(colours.get(name)!)).sort((x, y) => y - x);
      return (high! + 0.05) / (low! + 0.05);
    };
    const pairs = [...['ink', 'soft', 'faint', 'accent', 'good', 'bad'].flatMap((text) => ['paper', 'card', 'wash'].map((on) => [text, on, 4.5] as const)), ['accent-ink', 'accent', 4.5] as const, ['edge', 'card', 3] as const];
    for (const [a, b, wanted] of pairs) if (!(contrast(a, b) >= wanted)) least.push(`${a} on ${b}: ${contrast(a, b).toFixed(2)}`);
    for (let i = 0; i < 6; i++) if (!(contrast(`series-${i}`, 'card') >= 3)) least.push(`series-${i}`);
  }
  assert.equal(least, []);
});

site('a function is cut out of a file with its comment', () => {
  assert.is(functionIn('// File.\n\n/** Doc. */\nexport function f() {\n  g();\n}\n\nexport const g = (x) =>\n  x;\n', 'f'), '/** Doc. */\nexport function f() {\n  g();\n}');
  assert.is(functionIn('/** G. */\nexport const g = (x) =>\n  x;\nexport const h = 1;', 'g'), '/** G. */\nexport const g = (x) =>\n  x;');
});

site('noise between two samples is theirs at the ends, and as long in the middle', () => {
  const size = 100, rows = between(3, 3, size), want = normals({ seed: 3, stream: STREAM.prior, step: 0, samples: [0, 1], count: size });
  for (const [row, id] of [[0, 0], [2, 1]]) for (let i = 0; i < size; i++) assert.ok(Math.abs(rows[row * size + i]! - want[id * size + i]!) < 1e-6);
  const length = (row: number): number => Math.hypot(...rows.subarray(row * size, (row + 1) * size));
  assert.ok(length(1) > 0.9 * Math.min(length(0), length(2)));
});

site.run();

const drawing = gpuSuite('drawing as the page does');

drawing('inpainting keeps what is known and paints the rest; interpolation ends at the samples of the seed', async (engine) => {
  const { tensors, metadata } = readSafetensors(readFileSync(new URL('golden/unet-dev-gray28.safetensors', import.meta.url)), 'golden');
  const weights = writeSafetensors([...tensors].flatMap(([name, tensor]) => (name.startsWith('weights.') ? [[name.slice(8), tensor] as const] : [])));
  const model = new Model(engine, { name: 'golden', weights, config: JSON.stringify({ sample_size: 28, ...(JSON.parse(metadata['config']!) as object) }), scheduler: null });
  const request = { method: 'ddim', steps: 2, eta: 0, seed: 5, n: 2, interpolate: false, label: null, guidance: 1, inpaint: null } as const;
  const seen: number[] = [], plain = await model.draw(request, ({ done, x, x0 }) => seen.push(done, x.length, x0.length)), size = 28 * 28;
  assert.equal(seen, [1, 2 * size, 2 * size, 2, 2 * size, 2 * size]);
  const known = Float32Array.from({ length: size }, (_, i) => Math.sin(i)), mask = Float32Array.from({ length: size }, (_, i) => Number(i < size / 2));
  const painted = await model.draw({ ...request, inpaint: { known, mask, resamples: 1 } }, () => {});
  for (let i = 0; i < 2 * size; i++) if (!mask[i % size]) assert.is(painted[i], known[i % size], `pixel ${i} is kept`);
  assert.ok(painted.subarray(0, size / 2).some((v, i) => Math.abs(v - known[i]!) > 0.1));
  const between_ = await model.draw({ ...request, n: 3, interpolate: true }, () => {});
  // The same noise but for the host's rounding, through two steps of the same network.
  for (let i = 0; i < size; i++) assert.ok(Math.abs(between_[i]! - plain[i]!) < 2e-3 && Math.abs(between_[2 * size + i]! - plain[size + i]!) < 2e-3);
  await model.destroy();
});

drawing('a model that reads its last prediction is known by its channels, and draws as a sampler that hands it on', async (engine) => {
  const fields = {
    sample_size: 8, in_channels: 2, out_channels: 1, block_out_channels: [8], down_block_types: ['DownBlock2D'], up_block_types: ['UpBlock2D'], layers_per_block: 1, norm_num_groups: 4,
    attention_head_dim: null, add_attention: false,
  };
  const unet = new UNet(fields), parameters = Parameters.place(engine, unet), values = await parameters.read('values');
  // A fresh network predicts 0 whatever it reads.
  const weights = new Map([...values].map(([name, { shape, data }]) => [name, { shape, data: name === 'conv_out.weight' ? random(data.length, 3).map((v) => v / 9) : data }]));
  parameters.write('values', weights, 'test');
  const model = new Model(engine, { name: 'test', weights: writeSafetensors(weights), config: JSON.stringify(fields), scheduler: null });
  assert.equal([model.facts.shape, model.facts.classes], [[8, 8, 1], 0]);
  const got = await model.draw({ method: 'ddim', steps: 4, eta: 0, seed: 5, n: 2, interpolate: false, label: null, guidance: 1, inpaint: null }, () => {});
  const diffusion = new GaussianDiffusion(engine, makeSchedule({ name: 'linear', T: 1000 }));
  const sample = async (start: (given: Tensor | null | undefined) => Tensor | null) => {
    const sampler = new Sampler((x, t, given) => unet.forward([x, start(given)], t), diffusion, [2, 8, 8, 1], { method: 'ddim', steps: 4 });
    const x0 = await sampler.sample({ seed: 5 });
    await sampler.destroy();
    return x0;
  };
  assert.equal(got, await sample((given) => given ?? null));
  assert.not.equal(got, await sample(() => null), 'what it predicted last counts');
  await model.destroy();
});

drawing('files that do not belong together, or are of no images, are refused, and leave nothing behind', async (engine) => {
  const { weights, config } = goldenFiles(readFileSync(new URL('golden/unet-dev-gray28.safetensors', import.meta.url))), fields = JSON.parse(config) as object, { live } = engine.memory();
  const open = (more: object) => () => new Model(engine, { name: 'weights', weights, config: JSON.stringify({ ...fields, ...more }), scheduler: null });
  for (const sample_size of ['big', 0, -4, 2.5, {}, [28, null]]) await assertError(open({ sample_size }), 'E-MODEL', /has the sample_size .*; it must be a whole number such as 32/);
  for (const more of [{ in_channels: 4, out_channels: 4 }, { in_channels: 3 }, { out_channels: 2 }]) await assertError(open(more), 'E-MODEL', /this page draws images of 1 or 3/);
  await assertError(open({ layers_per_block: 3 }), 'E-MODEL', /weights is of another model/);
  const { pixels, ...shapes } = makeShapes({ count: 20, size: 8 }), data = { ...shapes, pixels: new Uint8Array(pixels) };
  const settings = { model: 'mini', steps: 4, batchSize: 2, lr: 1e-3, timesteps: 50, predict: 'v', timeSampling: 'weighted', seed: 4, flip: false, labelDropout: null, saveEvery: 2, previewEvery: 0, sampleEvery: 0 } as const;
  const run = await Run.open(engine, data, settings), saved = decodeRun(await run.encode(), 'the save');
  await run.destroy();
  const { live: before } = engine.memory();
  await assertError(() => Run.open(engine, data, { ...settings, model: 'tiny' }, { saved }), 'E-MODEL', /the saved run is of another model/);
  // The frequencies of t of each network stay, and what tests have around them.
  assert.ok(before - live <= 1024, `${before - live} bytes are left`);
  assert.ok(engine.memory().live - before <= 1024, `${engine.memory().live - before} bytes are left`);
});

drawing('a run is saved, goes on with the same losses, draws the class that is asked for, and leaves nothing behind', async (engine) => {
  const { count, height, width, channels, pixels, labels, classes } = makeShapes({ count: 20, size: 8 }), data = { name: 'shapes', count, height, width, channels, pixels: new Uint8Array(pixels), labels, classes };
  const settings = { model: 'mini', steps: 4, batchSize: 2, lr: 1e-3, timesteps: 50, predict: 'v', timeSampling: 'weighted', seed: 4, flip: false, labelDropout: 0.5, saveEvery: 2, previewEvery: 0, sampleEvery: 0 } as const;
  const { live } = engine.memory(), saves: Uint8Array[] = [];
  const train = (run: Run) => run.train({ stop: { requested: false }, onMetrics: () => {}, onPreview: () => {}, onSamples: () => {}, onSave: async (bytes) => void saves.push(bytes), onEvent: () => {} });
  const run = await Run.open(engine, data, settings);
  assert.is(await train(run), 4);
  const again = await Run.open(engine, data, settings, { saved: decodeRun(saves[0]!, 'the save at step 2') });
  assert.is(again.step, 2);
  await train(again);
  assert.equal(again.losses, run.losses);
  run.sampling = { label: '2', guidance: 2 };
  const cross = await run.samples();
  run.sampling = { label: 'all', guidance: 2 };
  const [all, size] = [await run.samples(), 8 * 8];
  assert.equal(all.subarray(2 * size, 3 * size), cross.subarray(2 * size, 3 * size), 'of each in turn the third is of class 2');
  assert.not.equal(all.subarray(0, size), cross.subarray(0, size));
  await assertError(() => Run.open(engine, { ...data, labels: null, classes: null }, settings), 'E-DATA', /shapes has no labels/);
  await assertError(() => Run.open(engine, data, { ...settings, labelDropout: 1 }), 'E-USAGE', /label dropout is 1/);
  await run.destroy();
  await again.destroy();
  // The frequencies of t, 16 bytes of each network, stay; allocations of tests have half a kilobyte around them.
  assert.ok(engine.memory().live - live <= 2 * 1024, `${engine.memory().live - live} bytes are left`);
});

drawing('a model with classes draws the one that is asked for, and guidance counts', async (engine) => {
  const { tensors, metadata } = readSafetensors(readFileSync(new URL('golden/unet-dev-classes.safetensors', import.meta.url)), 'golden');
  const weights = writeSafetensors([...tensors].flatMap(([name, tensor]) => (name.startsWith('weights.') ? [[name.slice(8), tensor] as const] : [])));
  const model = new Model(engine, { name: 'golden', weights, config: JSON.stringify({ ...(JSON.parse(metadata['config']!) as object), sample_size: 16 }), scheduler: '{"variance_type":"learned_range"}' }), { classes } = model.facts;
  assert.ok(classes > 2);
  assert.is(model.facts.classNames, null);
  // As weights of `train` carry them; of another program's metadata nothing is known.
  const { tensors: read } = readSafetensors(weights, 'weights');
  for (const [class_names, names] of [['["cat","dog"]', ['cat', 'dog']], ['cat, dog', null], ['{"0":"cat"}', null]] as const) assert.equal(readClassNames(writeSafetensors(read, { class_names }), 'x'), names);
  const draw = (label: string, guidance = 1) => model.draw({ method: 'ddim', steps: 2, eta: 0, seed: 5, n: 2, interpolate: false, label, guidance, inpaint: null }, () => {});
  const [all, second, none] = [await draw('all'), await draw('1'), await draw(String(classes - 1))], half = all.length / 2;
  // In turn: 0, then 1.
  assert.equal(all.subarray(half), second.subarray(half));
  assert.not.equal(all.subarray(0, half), second.subarray(0, half));
  const largest = (a: Float32Array, b: Float32Array): number => a.reduce((m, v, i) => Math.max(m, Math.abs(v - b[i]!)), 0);
  assert.ok(largest(await draw('1', 0), none) < 1e-4, 'a scale of 0 is no class');
  assert.ok(largest(await draw('1', 3), second) > 1e-3);
  await assertError(() => draw(String(classes)), 'E-USAGE', /it must be a class from 0/);
  await model.destroy();
});

drawing.run();
