// The classifier whose features distances are measured between: it learns, the same way every time, and its file comes back.
import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Dataset, loadDataset } from '../src/data/dataset.ts';
import { DdpmError } from '../src/errors.ts';
import type { Engine } from '../src/gpu/engine.ts';
import { writeSafetensors } from '../src/io/safetensors.ts';
import { parametersOf } from '../src/nn/parameter.ts';
import { Parameters } from '../src/nn/parameters.ts';
import { accuracy, Classifier, classifierExtractor, classifierFile, ClassifierTraining, type Labelled, readClassifier } from '../src/quality/classifier.ts';
import { pixels } from '../src/quality/extractor.ts';
import { assertError, gpuSuite } from './helpers/gpu.ts';
import { normals } from './ref/random.ts';

const SHAPE = { height: 9, width: 7, channels: 1, classes: 3 };

/** Noise with a bright stripe at the left, in the middle or at the right. */
function stripes(count: number, seed: number): Labelled {
  const { height, width, channels, classes } = SHAPE, size = height * width;
  const noise = normals({ seed, stream: 1, step: 0, samples: [0], count: count * size });
  const labels = Uint8Array.from({ length: count }, (_, n) => (n * 5) % classes);
  const bytes = Uint8Array.from(noise, (v, i) => Math.max(0, Math.min(255, 100 + 40 * v + (i % width === 1 + 2 * labels[Math.floor(i / size)] ? 70 : 0))));
  return { count, height, width, channels, pixels: bytes, labels };
}

async function train(engine: Engine, steps: number, seed = 3): Promise<{ classifier: Classifier; parameters: Parameters; losses: number[] }> {
  const classifier = new Classifier(SHAPE), parameters = Parameters.place(engine, classifier, { seed });
  const training = new ClassifierTraining(classifier, parameters, stripes(50, 1), { steps, batchSize: 16, seed });
  for (let step = 0; step < steps; step++) training.run(step);
  return { classifier, parameters, losses: (await training.read(0, steps)).map(({ loss }) => loss) };
}

const tests = gpuSuite('classifier');

tests('learns, starting from log(classes) or so, and knows images that it has not seen', async (engine) => {
  const { classifier, parameters, losses } = await train(engine, 40);
  assert.ok(losses[0] > 0.8 && losses[0] < 2, `first loss ${losses[0]}`);
  assert.ok(losses[39] < 0.3, `last loss ${losses[39]}`);
  const share = await parameters.use('ema', () => accuracy(engine, classifier, stripes(45, 2)));
  assert.ok(share > 0.9, `accuracy ${share}`);
});

tests('the same seed gives the same bits, another seed others', async (engine) => {
  const values = async (seed: number): Promise<number[]> => [...(await (await train(engine, 3, seed)).parameters.read('values')).get('blocks.0.conv.weight')!.data];
  const first = await values(3);
  assert.equal(await values(3), first);
  assert.not.equal(await values(4), first);
});

tests('its file comes back with features that do not depend on the batch', async (engine) => {
  const { classifier, parameters } = await train(engine, 2);
  const file = writeSafetensors(await parameters.read('values'), {}), chunks = classifierFile(classifier, await parameters.read('values'), { data: 'stripes' });
  const bytes = Uint8Array.from(chunks.flatMap((chunk) => [...chunk]));
  const read = readClassifier(bytes, 'stripes.safetensors');
  assert.equal(read.classifier.shape, SHAPE);
  assert.is(read.metadata['data'], 'stripes');
  const extractor = classifierExtractor(engine, read, 'stripes.safetensors', { key: 'k', protocol: 'stripes' });
  const images = stripes(70, 5), all = await extractor.features(images);
  assert.equal([all.count, all.width, all.data.length], [70, 96, 70 * 96]);
  assert.ok(all.data.every(Number.isFinite) && new Set(all.data).size > 1000);
  const size = 63, one = await extractor.features({ ...images, count: 3, pixels: images.pixels.subarray(66 * size, 69 * size) });
  assert.equal([...one.data], [...all.data.subarray(66 * 96, 69 * 96)], 'images 66 to 68, in another batch');
  await assertError(() => extractor.features({ ...images, height: 7, width: 9 }), 'E-SHAPE', /classifier takes images of 9×7×1, and these are 7×9×1/);
  await assertError(() => readClassifier(file, 'model.safetensors'), 'E-FILE', /model\.safetensors is not a classifier .*--train-features/);
});

tests('it halves images of any size down to 8, and names its tensors', () => {
  const strides = (height: number, width: number): number => parametersOf(new Classifier({ ...SHAPE, height, width })).filter((p) => p.name.endsWith('conv.weight')).length;
  assert.equal([strides(8, 8), strides(9, 7), strides(28, 28), strides(32, 32), strides(64, 48)], [3, 3, 4, 4, 5]);
  assert.equal(parametersOf(new Classifier(SHAPE)).slice(0, 4).map((p) => p.name), ['blocks.0.conv.weight', 'blocks.0.conv.bias', 'blocks.0.norm.weight', 'blocks.0.norm.bias']);
});

tests('the one that comes for Fashion-MNIST is small, and is what its file says on images that it has not seen', async (engine) => {
  const path = new URL('../src/quality/features/fashion-mnist.safetensors', import.meta.url), bytes = new Uint8Array(readFileSync(path));
  assert.ok(bytes.length < 2 ** 19, `${bytes.length} bytes`);
  const { classifier, tensors, metadata } = readClassifier(bytes, 'fashion-mnist.safetensors');
  assert.equal(classifier.shape, { height: 28, width: 28, channels: 1, classes: 10 });
  const parameters = Parameters.place(engine, classifier, { training: false });
  parameters.write('values', tensors, 'fashion-mnist.safetensors');
  let test: Dataset;
  try {
    test = await loadDataset('fashion-mnist', { split: 'test', limit: 1000 });
  } catch (error) {
    if (error instanceof DdpmError && error.code === 'E-DATA') return; // a machine without the data set
    throw error;
  }
  // Three standard deviations of a share of 1,000 images.
  const reached = await accuracy(engine, classifier, { ...test, labels: test.labels! }), said = Number(metadata['test_accuracy']);
  assert.ok(Math.abs(reached - said) < 3 * Math.sqrt((said * (1 - said)) / 1000), `${reached}, and its file says ${said} of all 10,000`);
});
tests.run();

const plain = suite('extractors');
plain('pixels are pixels in [-1, 1]', async () => {
  const { data, count, width } = await pixels.features({ count: 2, height: 1, width: 2, channels: 1, pixels: Uint8Array.of(0, 255, 127, 51) });
  assert.equal([count, width], [2, 2]);
  assert.equal([...data], [...Float32Array.of(-1, 1, 127 / 127.5 - 1, -0.6)]);
});
plain.run();
