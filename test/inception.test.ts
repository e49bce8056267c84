// Inception-v3 against PyTorch (test/golden/inception.py): weights come from a hash of their index, so that 22 million of them need not be kept.
import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readSafetensors } from '../src/io/safetensors.ts';
import { parametersOf } from '../src/nn/parameter.ts';
import { Parameters } from '../src/nn/parameters.ts';
import { foldBatchNorm, Inception, inceptionExtractor } from '../src/quality/inception.ts';
import { assertClose, relativeL2 } from './helpers/close.ts';
import { assertError, gpuSuite, upload } from './helpers/gpu.ts';

/** count numbers in [-1, 1), the hash of first, first + 1, ... (the finaliser of MurmurHash3). */
function noise(first: number, count: number): Float32Array {
  const out = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    let h = first + i;
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    out[i] = ((h ^ (h >>> 16)) >>> 0) / 2 ** 31 - 1;
  }
  return out;
}
const bytes = (first: number, count: number): Uint8Array => Uint8Array.from(noise(first, count), (v) => Math.fround(Math.fround(Math.fround(v * 0.5) + 0.5) * 256));

const { tensors: golden, metadata } = readSafetensors(new Uint8Array(readFileSync(new URL('./golden/inception.safetensors', import.meta.url))), 'inception.safetensors');
const want = (name: string): Float32Array => golden.get(name)!.data as Float32Array;

/** The names and shapes of pt_inception-2015-12-05, in the order in which the script fills them. */
function weights(): Map<string, { shape: number[]; data: Float32Array }> {
  const made = new Map<string, { shape: number[]; data: Float32Array }>();
  let next = 0;
  for (const entry of metadata['tensors'].split(' ')) {
    const [name, sizes] = entry.split(':'), shape = sizes.split('x').map(Number), count = shape.reduce((a, b) => a * b), data = noise(next, count);
    const [scale, shift] = name.endsWith('conv.weight') ? [Math.sqrt(6 / (count / shape[0])), 0] : name.endsWith('bn.weight') ? [0.2, 1] : name.endsWith('running_var') ? [0.4, 1] : [0.2, 0];
    const factor = Math.fround(scale);
    for (let i = 0; i < count; i++) data[i] = Math.fround(data[i] * factor) + shift;
    made.set(name, { shape, data });
    next += count;
  }
  made.set('fc.weight', { shape: [1008, 2048], data: new Float32Array(1008 * 2048) });
  made.set('Conv2d_1a_3x3.bn.num_batches_tracked', { shape: [], data: Float32Array.of(0) });
  return made;
}

const names = suite('Inception names');
names('are those of the PyTorch port, with a bias in place of each batch norm', () => {
  const own = parametersOf(new Inception()), theirs = new Map(metadata['tensors'].split(' ').map((entry) => entry.split(':') as [string, string]));
  const convolutions = [...theirs.keys()].filter((name) => name.endsWith('.conv.weight'));
  assert.is(convolutions.length, 94);
  assert.equal(own.map((p) => p.name).sort(), convolutions.flatMap((name) => [name, name.replace('weight', 'bias')]).sort());
  for (const p of own) if (p.name.endsWith('.weight')) assert.is(p.shape.join('x'), theirs.get(p.name));
});

names('a folded convolution is the convolution with its batch norm after it', () => {
  const data = (...values: number[]) => ({ shape: [values.length], data: Float32Array.from(values) });
  const unit = (shape: number[], w: number[]) => new Map([['a.conv.weight', { shape, data: Float32Array.from(w) }], ['a.bn.weight', data(2, 0.5)], ['a.bn.bias', data(1, -1)], ['a.bn.running_mean', data(3, 4)], ['a.bn.running_var', data(0.249, 3.999)], ['fc.bias', data(1)]]);
  const folded = foldBatchNorm(unit([2, 1, 1, 2], [1, 2, 3, 4]), 'x');
  assert.equal([...folded.keys()], ['a.conv.weight', 'a.conv.bias']);
  assertClose(folded.get('a.conv.weight')!.data, [4, 8, 0.75, 1], { rtol: 1e-7, what: 'w gamma / sqrt(var + eps)' });
  assertClose(folded.get('a.conv.bias')!.data, [1 - 12, -1 - 1], { rtol: 1e-7, what: 'beta - mean gamma / sqrt(var + eps)' });
});

names('other weights are refused by name', async () => {
  const conv = { shape: [2, 1, 1, 1], data: Float32Array.of(1, 2) };
  await assertError(() => foldBatchNorm(new Map([['a.conv.weight', conv]]), 'x.safetensors'), 'E-MODEL', /x\.safetensors: a\.bn\.weight is missing; these are not the weights of pt_inception/);
  await assertError(() => foldBatchNorm(new Map([['a.conv.weight', conv], ['a.bn.weight', { shape: [3], data: new Float32Array(3) }]]), 'x'), 'E-MODEL', /a\.bn\.weight has 3 values, not 2/);
});
names.run();

const inception = gpuSuite('Inception');

inception('gives the features of PyTorch: small images, then any images by the extractor', async (engine) => {
  const made = weights();
  const network = new Inception(), parameters = Parameters.place(engine, network, { training: false });
  parameters.write('values', foldBatchNorm(made, 'made up'), 'made up');
  const small = upload(engine, [2, 75, 83, 3], noise(123, 2 * 75 * 83 * 3));
  // PyTorch's float32 is off its own float64 by 7e-7.
  const got = await engine.scope(() => network.forward(small)).read();
  assert.ok(relativeL2(got, want('small')) < 3e-6, `small: ${relativeL2(got, want('small'))}`);

  const extractor = inceptionExtractor(engine, made, 'made up', 'inception-0');
  for (const [name, first, side, channels] of [['colour', 5, 32, 3], ['grey', 9, 28, 1]] as const) {
    const images = { count: 1, height: side, width: side, channels, pixels: bytes(first, side * side * channels) };
    const { data, count, width } = await extractor.features(images);
    assert.equal([count, width], [1, 2048]);
    assert.ok(relativeL2(data, want(name)) < 3e-6, `${name}: ${relativeL2(data, want(name))}`);
  }
});
inception.run();
