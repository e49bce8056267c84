// npm run eval -- --train-features: trains the classifier whose features distances are measured between; and finds the one that is shipped.

import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Dataset, loadDataset } from '../data/dataset.ts';
import { DdpmError } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import { readFileOr, requireWritable, writeAtomic } from '../io/files.ts';
import { readSafetensors } from '../io/safetensors.ts';
import { type NamedTensors, Parameters } from '../nn/parameters.ts';
import type { OpenedEngine } from '../node.ts';
import { accuracy, Classifier, classifierExtractor, classifierFile, ClassifierTraining, type Labelled, readClassifier } from '../quality/classifier.ts';
import { type Extractor, pixels } from '../quality/extractor.ts';
import { inceptionExtractor } from '../quality/inception.ts';
import { typedAs } from '../typed.ts';
import { say } from './command.ts';
import { readingOptions } from './data-settings.ts';
import { Progress, showCompiling } from './progress.ts';
import type { EvalSettings } from './settings.ts';

const BATCH = 32;
const EVERY = 50;

/** The classifiers that come with the program, by the name of their data set. */
const shipped = (data: string): string => fileURLToPath(new URL(`../quality/features/${data}.safetensors`, import.meta.url));

/** Trains on the training images and says what it reaches on the test images, of which it saw none. */
export async function trainFeatures(opened: OpenedEngine, settings: EvalSettings): Promise<void> {
  const { engine } = opened, { seed, featureSteps: steps } = settings;
  const name = settings.data ?? 'fashion-mnist', out = settings.out ?? `${basename(name)}.safetensors`;
  const load = async (split: 'train' | 'test'): Promise<Labelled> => labelled(await loadDataset(name, { split, ...(settings.limit !== null && { limit: settings.limit }), ...readingOptions(settings), say: (text) => say('data', text) }), name);
  const train = await load('train'), test = await load('test');
  const { height, width, channels } = train;
  const classifier = new Classifier({ height, width, channels, classes: [...train.labels].reduce((a, b) => Math.max(a, b), 0) + 1 });
  const parameters = Parameters.place(engine, classifier, { seed });
  const training = new ClassifierTraining(classifier, parameters, train, { steps, batchSize: BATCH, seed });
  say('data', `${name}  ${train.count} images to train on, ${test.count} to test, ${classifier.shape.classes} classes`);
  say('model', `${parameters.count} parameters`);
  await showCompiling((progress) => training.compile(progress));

  await requireWritable(out);
  const progress = new Progress(process.stderr, { total: steps, every: EVERY });
  let start = performance.now();
  for (let step = 0; step < steps; step++) {
    training.run(step);
    if ((step + 1) % EVERY && step + 1 < steps) continue;
    const from = Math.floor(step / EVERY) * EVERY, log = await training.read(from, step + 1);
    const bad = log.find((line) => line.bad !== null);
    if (bad) throw new DdpmError('E-NONFINITE', `step ${bad.step + 1}: ${bad.bad} is not finite. Try another --seed.`);
    const ms = (performance.now() - start) / log.length, loss = log.reduce((sum, line) => sum + line.loss, 0) / log.length;
    progress.update({ step: step + 1, loss, gradNorm: log.at(-1)!.gradNorm, lr: training.lr(step), ms, imagesPerSecond: (1000 * BATCH) / ms });
    start = performance.now();
  }
  progress.finish();
  const reached = await parameters.use('ema', () => accuracy(engine, classifier, test));
  const told = { data: name, images: String(train.count), steps: String(steps), batch_size: String(BATCH), seed: String(seed), test_accuracy: reached.toFixed(4) };
  await writeAtomic(out, classifierFile(classifier, await parameters.read('ema'), told));
  process.stdout.write(`test accuracy     ${(100 * reached).toFixed(2)} % of ${test.count}\nweights           ${out}\n`);
}

function labelled(data: Dataset, name: string): Labelled {
  if (!data.labels) throw new DdpmError('E-DATA', `${name} has no class labels, and a classifier learns from them. Choose a data set with labels, or measure with --features pixels or inception.`);
  return { ...data, labels: data.labels };
}

/** What --features asks for. `data` is the name of the real images, for which a classifier may come with the program. */
export async function openExtractor(engine: Engine, settings: EvalSettings, data: string): Promise<Extractor> {
  if (settings.features === 'pixels') return pixels;
  return settings.features === 'inception' ? openInception(engine, settings.inceptionWeights) : openClassifier(engine, settings.classifier, data);
}

const WEIGHTS = 'pt_inception-2015-12-05-6726825d.pth';

async function openInception(engine: Engine, path: string | null): Promise<Extractor> {
  if (path === null)
    throw new DdpmError('E-USAGE', [
      '--features inception needs --inception-weights FILE.safetensors: the 92 MB are not part of this program. They are those of pytorch-fid:',
      `  https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/${WEIGHTS}`,
      'Convert them once, where PyTorch and the Python package safetensors are installed:',
      `  python3 -c "import torch, safetensors.torch as s; s.save_file({k: v.contiguous() for k, v in torch.load('${WEIGHTS}', map_location='cpu').items()}, 'inception.safetensors')"`,
    ].join('\n'));
  const bytes = await readFileOr(path);
  const hash = createHash('sha256').update(bytes).digest('hex').slice(0, 12);
  return inceptionExtractor(engine, readSafetensors(bytes, path).tensors as unknown as NamedTensors, basename(path), `inception-${hash}`);
}

/** The classifier's features: of the file that is given, or of the shipped one for a data set. */
async function openClassifier(engine: Engine, file: string | null, data: string): Promise<Extractor> {
  const path = file ?? shipped(data);
  if (file === null && !existsSync(path))
    throw new DdpmError('E-USAGE', [
      `no classifier comes with the program for ${data}. Train one and name it, or measure otherwise:`,
      `  ${typedAs('eval')} --train-features --data ${data} --out classifier.safetensors`,
      `  ${typedAs('eval')} RUN --classifier classifier.safetensors`,
      `  ${typedAs('eval')} RUN --features pixels, or --features inception --inception-weights FILE`,
    ].join('\n'));
  const bytes = await readFileOr(path);
  const { metadata, ...read } = readClassifier(bytes, path);
  const hash = createHash('sha256').update(bytes).digest('hex').slice(0, 12);
  const reached = metadata['test_accuracy'] ? `, test accuracy ${(100 * Number(metadata['test_accuracy'])).toFixed(2)} %` : '';
  return classifierExtractor(engine, read, path, { key: `classifier-${hash}`, protocol: `classifier of ${metadata['data'] ?? 'unknown data'}${reached}, SHA-256 ${hash}` });
}
