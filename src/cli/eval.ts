// npm run eval: how good the images of a model are, in figures that say how they were measured.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type Dataset, loadDataset } from '../data/dataset.ts';
import { Sampler } from '../diffusion/sampler.ts';
import { DdpmError } from '../errors.ts';
import { readFileOr, writeAtomic } from '../io/files.ts';
import { toBytes } from '../io/png.ts';
import { type OpenedEngine, openEngine } from '../node.ts';
import { type Extractor, type Images, pixels } from '../quality/extractor.ts';
import { type Features, frechetDistance, statistics } from '../quality/frechet.ts';
import { describeDevice, drawSamples, runCommand, say } from './command.ts';
import { openClassifier, trainFeatures } from './eval-features.ts';
import { type Command, helpText, type Parsed, parseFlags } from './flags.ts';
import { Bar } from './progress.ts';
import { describeEnvironment } from './run-folder.ts';
import { BATCH, imageShape, largestSampler, type PlacedModel, placeModel, samplerOptions } from './sampling.ts';
import { EVAL } from './settings.ts';

const COMMAND: Command = {
  name: 'eval',
  help: 'Measures how far the images of a model are from real ones.',
  positional: '[run | checkpoint | folder with config.json]',
};

/** Images to measure, and how they came about. */
interface Measured {
  readonly images: Images;
  readonly protocol: Readonly<Record<string, string | number>>;
}

async function evaluate(): Promise<number> {
  const parsed = parseFlags(EVAL, COMMAND, process.argv.slice(2), { env: process.env });
  const { settings, positional } = parsed;
  if (settings.help) {
    process.stdout.write(`${helpText(EVAL, COMMAND)}\n`);
    return 0;
  }
  if (positional === null && !settings.real && !settings.trainFeatures) throw new DdpmError('E-USAGE', 'eval needs a run, a checkpoint or a folder with a model: npm run eval -- runs/NAME. What real images reach: npm run eval -- --real --data fashion-mnist');
  const opened = await openEngine(settings.gpu === null ? {} : { gpu: settings.gpu });
  say('device', describeDevice(opened));
  if (settings.trainFeatures) {
    await trainFeatures(opened, settings);
    await opened.close();
    return 0;
  }
  const placed = positional === null ? null : await placeModel(opened.engine, positional, settings.weights);
  if (placed) say('model', `${placed.model.file}  ${placed.parameters.count} parameters`);

  const name = settings.data ?? dataOf(placed);
  const load = (split: 'train' | 'test'): Promise<Dataset> => loadDataset(name, { split, ...(settings.limit !== null && { limit: settings.limit }) });
  const real = await load(settings.split);
  const measured = settings.real ? otherSplit(await load(settings.split === 'train' ? 'test' : 'train'), settings.n) : await generated(opened, placed!, parsed);
  sameShape(measured.images, real, name);

  const extractor: Extractor = settings.features === 'pixels' ? pixels : await openClassifier(opened.engine, settings.classifier, real.name);
  const extract = async (images: Images): Promise<Features> => {
    const bar = new Bar(images.count), features = await extractor.features(images, (done) => bar.draw(done));
    say('features', `${images.count} images in ${bar.clear()}`);
    return features;
  };
  const [a, b] = [statistics(await extract(measured.images)), statistics(await extract(real))];
  const figures = { frechet_distance: frechetDistance(a, b) };
  const protocol = {
    images: measured.images.count, ...measured.protocol, real: `${name}, ${settings.split} split`, real_images: real.count,
    quantisation: 'uint8, clamped and rounded', features: extractor.protocol,
  };
  for (const [key, value] of Object.entries(protocol)) process.stdout.write(`${key.replaceAll('_', ' ').padEnd(18)}${value}\n`);
  process.stdout.write(`${'Fréchet distance'.padEnd(18)}${figures.frechet_distance.toPrecision(5)}\n`);
  const out = settings.out ?? (placed?.from && join(placed.from.run.path, 'eval.json'));
  if (out) await append(out, { ...figures, protocol, environment: describeEnvironment({ description: opened.info.description }) });
  await opened.close();
  return 0;
}

/** The data set that a run was trained on. */
function dataOf(placed: PlacedModel | null): string {
  const name = placed?.from?.run.config()['data'];
  if (typeof name !== 'string') throw new DdpmError('E-USAGE', 'which images are the real ones? Say it with --data, such as --data fashion-mnist.');
  return name;
}

/** Samples of the model, as bytes. */
async function generated(opened: OpenedEngine, { model, unet, diffusion, from }: PlacedModel, { settings, given }: Parsed<typeof EVAL>): Promise<Measured> {
  const { n, seed, weights } = settings;
  const image = imageShape(unet, model.folder), options = samplerOptions(settings, given, model.scheduler), { method, steps } = options;
  const make = (batch: number): Sampler => new Sampler((x, t) => unet.forward(x, t), diffusion, [batch, ...image], options);
  const sampler = settings.batchSize === null ? largestSampler(make, Math.min(n, BATCH)) : make(Math.min(settings.batchSize, n));
  await sampler.compile();
  const evaluations = sampler.rows.length, bar = new Bar(n * evaluations);
  const samples = await drawSamples(sampler, { n, seed, onStep: ({ first, rows, done }) => bar.draw(first * evaluations + rows * done) });
  say('sampled', bar.clear());
  await sampler.destroy();
  const [height, width, channels] = image;
  const pixels = toBytes(samples, (count) => {
    throw new DdpmError('E-NONFINITE', `${count} values of the samples are not numbers: the weights may be damaged or the training diverged.`);
  });
  const protocol = { sampler: method, steps, ...(method === 'ddim' && { eta: settings.eta }), weights, ...(from && { step: from.checkpoint.step }), seed };
  return { images: { count: n, height, width, channels, pixels }, protocol };
}

/** The first n images of a split. */
function otherSplit(data: Dataset, n: number): Measured {
  const count = Math.min(n, data.count), size = data.height * data.width * data.channels;
  return { images: { ...data, count, pixels: data.pixels.subarray(0, count * size) }, protocol: { source: `real images, ${data.path}` } };
}

function sameShape(images: Images, real: Dataset, name: string): void {
  const shape = ({ height, width, channels }: Images): string => `${height}×${width}×${channels}`;
  if (shape(images) !== shape(real)) throw new DdpmError('E-SHAPE', `the images are ${shape(images)} and those of ${name} are ${shape(real)}. Choose the data that the model was trained on with --data.`);
}

/** Adds figures to a file that holds a list of them. */
async function append(path: string, figures: object): Promise<void> {
  let list: unknown = [];
  if (existsSync(path)) {
    try {
      list = JSON.parse(new TextDecoder().decode(await readFileOr(path)));
    } catch (cause) {
      if (cause instanceof DdpmError) throw cause;
      throw new DdpmError('E-FILE', `${path} is not JSON, so the figures cannot be added to it. Move it away, or choose another file with --out.`, { cause });
    }
    if (!Array.isArray(list)) throw new DdpmError('E-FILE', `${path} does not hold a list of figures. Choose another file with --out.`);
  }
  await writeAtomic(path, `${JSON.stringify([...(list as unknown[]), figures], null, 2)}\n`);
  process.stdout.write(`${'figures'.padEnd(18)}${path}\n`);
}

await runCommand(evaluate);
