// npm run eval: how good the images of a model are, in figures that say how they were measured.

import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type Dataset, loadDataset } from '../data/dataset.ts';
import { DdpmError } from '../errors.ts';
import { readFileOr, requireWritable, writeAtomic } from '../io/files.ts';
import type { OpenedEngine } from '../node.ts';
import { typedAs } from '../typed.ts';
import { runCommand, say } from './command.ts';
import { readingOptions } from './data-settings.ts';
import { measure, type Real, requireShape, statisticsOf } from './eval-distance.ts';
import { openExtractor, trainFeatures } from './eval-features.ts';
import { reportLikelihood } from './eval-likelihood.ts';
import { drawImages, holdsImages, keepImages, type Measured, readImages, realImages } from './eval-images.ts';
import { camel, type Command, helpText, type Parsed, parseFlags } from './flags.ts';
import { describeEnvironment } from './run-folder.ts';
import { imageShape, type PlacedModel, placeModel } from './sampling.ts';
import { EVAL } from './settings.ts';
import { describeTuning, openTuned } from './tuning.ts';

const COMMAND: Command = {
  name: 'eval',
  help: 'Measures how far images are from real ones: those of a model, or of a folder of PNGs or an .npz file.',
  positional: '[run | latest | checkpoint | folder with config.json | folder of PNGs | FILE.npz]',
};

type Flag = keyof typeof EVAL;
const OF_FEATURES = ['features', 'classifier', 'inception-weights', 'real-statistics', 'statistics', 'keep-images'] as const satisfies Flag[];
/** Which sampler, and over which timesteps; --nll can be that of a chain of fewer of them. */
const OF_SAMPLERS = ['sampler', 'eta', 'inner-steps', 'snr', 'guidance'] as const satisfies Flag[];
const OF_SAMPLING = [...OF_SAMPLERS, 'sample-steps', 'spacing', 'timesteps'] as const satisfies Flag[];

/** The flags that what is asked for would pass over in silence, and why. */
function passedOver({ settings, positional }: Parsed<typeof EVAL>): readonly [flags: readonly Flag[], why: string] {
  const { real, nll, trainFeatures } = settings;
  if (trainFeatures) return [['nll', 'n', 'split', ...OF_FEATURES, ...OF_SAMPLING, 'batch-size', 'weights'], 'is for measuring, and --train-features measures nothing'];
  if (nll) return [[...OF_FEATURES, ...OF_SAMPLERS, 'feature-steps'], 'is for distances, and --nll draws no images and compares no features'];
  if (real || holdsImages(positional!)) return [[...OF_SAMPLING, 'seed', 'batch-size', 'weights', 'feature-steps'], `is for models, and ${real ? '--real' : positional} draws no images`];
  return [['feature-steps'], 'is for --train-features, and this measures a model'];
}

async function evaluate(): Promise<number> {
  const parsed = parseFlags(EVAL, COMMAND, process.argv.slice(2), { env: process.env });
  const { settings, positional, given } = parsed;
  if (settings.help) {
    process.stdout.write(`${helpText(EVAL, COMMAND)}\n`);
    return 0;
  }
  if (Number(positional !== null) + Number(settings.real) + Number(settings.trainFeatures) !== 1)
    throw new DdpmError('E-USAGE', `eval takes one of: a run, a model or images to measure (${typedAs('eval')} runs/NAME); --real, which measures real images; --train-features, which measures nothing.`);
  const [flags, why] = passedOver(parsed), stray = flags.find((flag) => given.has(camel(flag)));
  if (stray) throw new DdpmError('E-USAGE', `--${stray} ${why}. Leave one of them out.`);
  const { opened, tuning } = await openTuned(settings);
  if (settings.trainFeatures) await trainFeatures(opened, settings);
  else await report(opened, parsed);
  const tuned = describeTuning(opened.engine.choices, tuning);
  if (tuned) say('tuned', tuned);
  await opened.close();
  return 0;
}

/** Measures, prints the protocol with the figures, and adds both to eval.json. */
async function report(opened: OpenedEngine, parsed: Parsed<typeof EVAL>): Promise<void> {
  const { settings, positional, given } = parsed, { split, realStatistics: file } = settings;
  const placed = positional === null || holdsImages(positional) ? null : await placeModel(opened.engine, positional, settings.weights);
  if (placed) say('model', `${placed.model.file}  ${placed.parameters.count} parameters`);
  const load = (which: 'train' | 'test'): Promise<Dataset> => loadDataset(dataOf(parsed, placed), { split: which, ...(settings.limit !== null && { limit: settings.limit }), ...readingOptions(settings, placed?.from?.run), say: (text) => say('data', text) });
  if (settings.nll) {
    if (!placed) throw new DdpmError('E-USAGE', `--nll measures a model: name a run, a checkpoint or a folder with a model. Images alone have no likelihood.`);
    // The literature takes the test images here, and the training images for distances.
    const own = given.has('split') ? split : 'test';
    await reportLikelihood(placed, await load(own), { ...parsed, settings: { ...settings, split: own } }, describeEnvironment({ description: opened.info.description }));
    return;
  }
  const real: Real = file === null ? { data: await load(split), split, folder: settings.statistics } : { file };
  const extractor = await openExtractor(opened.engine, settings, 'data' in real ? real.data.name : (settings.data ?? ''));

  const out = settings.out ?? (placed?.from && join(placed.from.run.path, 'eval.json'));
  // Drawing may take hours: before it, whatever could refuse its images.
  if (placed && 'data' in real) {
    const [height, width, channels] = imageShape(placed.unet, placed.model);
    requireShape({ height, width, channels }, real.data);
  }
  if (settings.keepImages !== null && !settings.keepImages.endsWith('.npz')) throw new DdpmError('E-USAGE', `--keep-images ${settings.keepImages} would be an .npz file: give it that ending.`);
  for (const path of [out, settings.keepImages]) if (path) await requireWritable(path);
  if (out) await figuresIn(out);
  const known = await statisticsOf(real, extractor);

  let measured: Measured;
  if (settings.real) {
    const other = split === 'train' ? 'test' : 'train';
    measured = realImages(await load(other), settings.n, other);
  } else measured = placed ? await drawImages(placed, parsed) : await readImages(positional!, settings.n);
  if (settings.keepImages !== null) await keepImages(settings.keepImages, measured.images);
  const { figures, protocol } = await measure(opened.engine, measured.images, real, known, extractor);

  const all = { ...measured.protocol, ...protocol };
  const print = (name: string, value: string | number): void => void process.stdout.write(`${name.replaceAll('_', ' ').padEnd(22)}${value}\n`);
  for (const [name, value] of Object.entries(all)) print(name, value);
  for (const [name, value] of Object.entries(figures)) print(name === 'frechet_distance' ? 'Fréchet distance' : name, Number(value.toPrecision(5)));
  if (!out) return;
  const added = { ...figures, protocol: all, environment: describeEnvironment({ description: opened.info.description }) };
  // Read again: another measurement may have ended meanwhile.
  await writeAtomic(out, `${JSON.stringify([...(await figuresIn(out)), added], null, 2)}\n`);
  print('added to', out);
}

/** The name of the real images: what a run was trained on, unless the flags say otherwise. */
function dataOf({ settings }: Parsed<typeof EVAL>, placed: PlacedModel | null): string {
  const name = settings.data ?? placed?.from?.run.config()['data'] ?? (settings.real ? 'fashion-mnist' : null);
  if (typeof name !== 'string') throw new DdpmError('E-USAGE', 'which images are the real ones? Say it with --data, such as --data fashion-mnist.');
  return name;
}

/** The figures that a file holds, none where there is no such file. @throws DdpmError E-FILE where it holds something else, to which none can be added */
async function figuresIn(path: string): Promise<unknown[]> {
  if (!existsSync(path) || !statSync(path).isFile()) return [];
  const text = new TextDecoder().decode(await readFileOr(path));
  let list: unknown;
  try {
    list = JSON.parse(text);
  } catch (cause) {
    throw new DdpmError('E-FILE', `${path} is not JSON, so the figures cannot be added to it. Move it away, or choose another file with --out.`, { cause });
  }
  if (!Array.isArray(list)) throw new DdpmError('E-FILE', `${path} does not hold a list of figures. Choose another file with --out.`);
  return list;
}

await runCommand(evaluate);
