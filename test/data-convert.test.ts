// --image-size, --channels, --labels and --skip-bad do the same for every format, or say that they cannot.

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readingOptions } from '../src/cli/data-settings.ts';
import { RunFolder } from '../src/cli/run-folder.ts';
import { converted } from '../src/data/convert.ts';
import { loadDataset } from '../src/data/dataset.ts';
import { fitSquare, withChannels } from '../src/data/resize.ts';
import { makeShapes } from '../src/data/shapes.ts';
import { encodePng } from '../src/io/png.ts';
import { philox4x32 } from '../src/philox.ts';
import { assertError } from './helpers/gpu.ts';

const home = mkdtempSync(join(tmpdir(), 'ddpm-convert-'));
const byte = (i: number): number => philox4x32([i, 0, 0, 0], [8, 8])[0]! & 255;
const put = (name: string, bytes: Uint8Array): string => {
  mkdirSync(join(home, name, '..'), { recursive: true });
  writeFileSync(join(home, name), bytes);
  return join(home, name);
};

const H = 6, W = 9, pixels = Uint8Array.from({ length: 4 * H * W * 3 }, (_, i) => byte(i)), of = (i: number): Uint8Array => pixels.subarray(i * H * W * 3, (i + 1) * H * W * 3);
const idx = put('i/train-images-idx4-ubyte', Uint8Array.from([0, 0, 8, 4, 0, 0, 0, 4, 0, 0, 0, H, 0, 0, 0, W, 0, 0, 0, 3, ...pixels]));
put('i/train-labels-idx1-ubyte', Uint8Array.of(0, 0, 8, 1, 0, 0, 0, 4, 3, 1, 2, 0));
const header = `{'descr': '|u1', 'fortran_order': False, 'shape': (4, ${H}, ${W}, 3), }`.padEnd(117) + '\n';
const npy = put('n/x.npy', Buffer.concat([Uint8Array.of(0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, 118, 0), Buffer.from(header), pixels]));
for (let i = 0; i < 4; i++) put(`f/${i}.png`, encodePng({ width: W, height: H, channels: 3, data: of(i) }));

/** CIFAR records: label bytes, then planes. */
const cifar = (labels: number[][]): Uint8Array => Uint8Array.from(labels.flatMap((each, r) => [...each, ...Array.from({ length: 3072 }, (_, i) => byte(r * 3072 + i))]));

const convert = suite('conversion');
convert.after(() => rmSync(home, { recursive: true, force: true }));

convert('IDX, .npy and a folder of the same images are resized and made grey alike, image by image', async () => {
  for (const [imageSize, channels] of [[4, undefined], [undefined, 1], [4, 1], [12, 3]] as const) {
    const want = [0, 1, 2, 3].flatMap((i) => {
      const picture = { width: W, height: H, channels: 3 as const, data: of(i) };
      return [...withChannels(imageSize ? fitSquare(picture, imageSize) : picture, channels ?? 3).data];
    });
    for (const path of [idx, npy, join(home, 'f')]) {
      const set = await loadDataset(path, { imageSize, channels, cache: join(home, 'cache') });
      assert.equal([set.count, set.height, set.width, set.channels], [4, imageSize ?? H, imageSize ?? W, channels ?? 3], path);
      assert.equal([...set.pixels], want, path);
    }
  }
  assert.equal((await loadDataset(idx, { imageSize: 4, channels: 1, limit: 2 })).labels, Uint8Array.of(3, 1));
});

convert('grey images in colour, and colour ones back, are what they were', () => {
  const grey = makeShapes({ count: 3, size: 8 }), colour = converted(grey, { channels: 3 });
  assert.is(colour.channels, 3);
  assert.equal(converted(colour, { channels: 1 }).pixels, grey.pixels);
  assert.is(converted(grey, { imageSize: 8, channels: 1 }), grey);
  assert.throws(() => converted({ ...grey, count: 5000 }, { imageSize: 1024 }), /more than 4 GiB\. Use a smaller --image-size or --limit 4096/);
  assert.throws(() => converted(grey, { imageSize: 1e6 }), /Use a smaller --image-size\.$/);
});

convert('shapes are drawn in the size and the colours that are asked for', async () => {
  const set = await loadDataset('shapes', { imageSize: 16, channels: 3, limit: 5 });
  assert.equal(set, makeShapes({ count: 5, size: 16, channels: 3 }));
  await assertError(() => loadDataset('shapes', { imageSize: 4 }), 'E-USAGE', /shapes of 4 pixels cannot be drawn/);
});

convert('--skip-bad leaves out damaged records of CIFAR, with what is wrong; elsewhere it is refused', async () => {
  const path = put('c/data_batch_1.bin', Buffer.concat([cifar([[7], [200], [1], [31], [2]]), new Uint8Array(100)])), said: string[] = [];
  await assertError(() => loadDataset(path), 'E-DATA', /5 records are whole and 100 bytes are left over/);
  const set = await loadDataset(path, { skipBad: true, say: (text) => said.push(text) });
  assert.equal([set.count, [...set.labels!], set.pixels.length], [3, [7, 1, 2], 3 * 3072]);
  for (const [image, record] of [[0, 0], [1, 2], [2, 4]] as const) assert.is(set.pixels[image * 3072 + 1], byte(record * 3072 + 1024));
  assert.match(said.join('\n'), /left out: .*100 bytes are left over\nleft out: record 1 of .* \(byte 3073\) has the label 200, and CIFAR-10 has 0 … 9\nleft out: 2 records of .*, for their labels/);
  assert.is((await loadDataset(path, { skipBad: true, limit: 2 })).count, 2);
  await assertError(() => loadDataset(put('c/odd.bin', cifar([[99]])), { skipBad: true }), 'E-DATA', /no record of CIFAR-10 can be read/);
  for (const other of [idx, join(home, 'i'), npy, 'shapes', 'fashion-mnist']) await assertError(() => loadDataset(other, { skipBad: true }), 'E-USAGE', /--skip-bad leaves out damaged files .* is neither/);
});

convert('--labels coarse is for CIFAR-100', async () => {
  const path = put('h/train.bin', cifar([[3, 42], [19, 99]]));
  assert.equal([[...(await loadDataset(path)).labels!], [...(await loadDataset(path, { labels: 'coarse' })).labels!]], [[42, 99], [3, 19]]);
  await assertError(() => loadDataset(idx, { labels: 'coarse' }), 'E-USAGE', /has one kind of labels: only those of CIFAR-100/);
});

convert('data are read as the run read them, unless flags say otherwise; other data in its size and channels', async () => {
  const none = { data: null, imageSize: null, channels: null, labels: null, skipBad: null };
  const config = { data: 'pictures', image_size: 16, channels: '3', labels: 'coarse', skip_bad: true };
  const run = await RunFolder.create(home, 'run', { config, environment: {} });
  assert.equal(readingOptions(none), { skipBad: false });
  assert.equal(readingOptions(none, run), { imageSize: 16, channels: 3, labels: 'coarse', skipBad: true });
  assert.equal(readingOptions({ ...none, data: 'pictures' }, run), readingOptions(none, run));
  assert.equal(readingOptions({ ...none, data: 'others' }, run), { imageSize: 16, channels: 3, skipBad: false });
  assert.equal(readingOptions({ ...none, imageSize: 8, channels: '1', labels: 'fine', skipBad: false }, run), { imageSize: 8, channels: 1, labels: 'fine', skipBad: false });
});

convert.run();
