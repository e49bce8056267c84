// CIFAR-100, archives, .npy and held-out splits; and every parser against truncated and bit-flipped input.

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { parseCifar } from '../src/data/cifar.ts';
import { loadDataset } from '../src/data/dataset.ts';
import { parseIdx } from '../src/data/idx.ts';
import { npyImages } from '../src/data/npy.ts';
import { readNpy } from '../src/io/npy.ts';
import { unzipped } from '../src/data/read.ts';
import { tarMembers } from '../src/data/tar.ts';
import { DdpmError } from '../src/errors.ts';
import { philox4x32 } from '../src/philox.ts';

const home = mkdtempSync(join(tmpdir(), 'ddpm-formats-'));
const random = (seed: number, i: number): number => philox4x32([i, 0, 0, 0], [seed, 77])[0]!;

function folder(name: string, files: Record<string, Uint8Array | string>): string {
  for (const [file, bytes] of Object.entries(files)) {
    const path = join(home, name, file);
    mkdirSync(join(path, '..'), { recursive: true });
    writeFileSync(path, bytes);
  }
  return join(home, name);
}

async function fails(message: RegExp, action: () => unknown): Promise<void> {
  const error = await Promise.resolve().then(action).then(() => undefined, (e: unknown) => e);
  assert.instance(error, DdpmError, String((error as Error | undefined)?.stack));
  assert.is((error as DdpmError).code, 'E-DATA');
  assert.match((error as DdpmError).message, message);
}

/** CIFAR records: label bytes, then planes of pseudo-random values. */
function cifar(labels: number[][], seed: number): Uint8Array {
  const record = labels[0]!.length + 3072, bytes = new Uint8Array(labels.length * record);
  labels.forEach((each, r) => {
    bytes.set(each, r * record);
    for (let i = 0; i < 3072; i++) bytes[r * record + each.length + i] = random(seed, r * 3072 + i);
  });
  return bytes;
}

function npy(shape: number[], dtype: string, data: Uint8Array | Float32Array | Int32Array | BigInt64Array): Uint8Array {
  const text = `{'descr': '${dtype}', 'fortran_order': False, 'shape': (${shape.join(', ')},), }`;
  const header = text.padEnd(Math.ceil((text.length + 11) / 64) * 64 - 11) + '\n', bytes = new Uint8Array(10 + header.length + data.byteLength);
  bytes.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, header.length & 255, header.length >> 8]);
  bytes.set(Buffer.from(header), 10);
  bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), 10 + header.length);
  return bytes;
}

const fine = Array.from({ length: 100 }, (_, i) => `fine ${i}`), coarse = Array.from({ length: 20 }, (_, i) => `coarse ${i}`);
const hundred = folder('h/cifar-100-binary', {
  'train.bin': cifar([[3, 42], [19, 99], [0, 0]], 1), 'test.bin': cifar([[7, 8]], 2), 'fine_label_names.txt': `${fine.join('\n')}\n`, 'coarse_label_names.txt': `${coarse.join('\n')}\n\n`,
});
const ten = folder('t/cifar-10-batches-bin', {
  ...Object.fromEntries([1, 2, 3, 4, 5].map((i) => [`data_batch_${i}.bin`, cifar([[i], [9 - i]], i)])), 'test_batch.bin': cifar([[5]], 9),
  'batches.meta.txt': 'plane\ncar\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n',
});
const archive = (name: string, of: string, flags: string): string => {
  execFileSync('tar', [flags, join(home, name), '-C', join(of, '..'), of.split('/').at(-1)!]);
  return join(home, name);
};

const formats = suite('formats');
formats.after(() => rmSync(home, { recursive: true, force: true }));

formats('CIFAR-100: fine and coarse labels with their names, both splits, file and folder', async () => {
  const train = await loadDataset(hundred), groups = await loadDataset(join(home, 'h'), { labels: 'coarse' }), test = await loadDataset(hundred, { split: 'test' });
  assert.equal([train.name, train.count, [...train.labels!], train.classes], ['cifar-100', 3, [42, 99, 0], fine]);
  assert.equal([[...groups.labels!], groups.classes], [[3, 19, 0], coarse]);
  assert.equal([test.count, [...test.labels!]], [1, [8]]);
  for (const [k, p] of [[0, 0], [1, 5], [2, 1023]] as const) assert.is(train.pixels[3072 + p * 3 + k], random(1, 3072 + k * 1024 + p) & 255);
  const file = await loadDataset(join(hundred, 'train.bin'));
  assert.equal([file.name, file.pixels, file.labels], ['cifar-100', train.pixels, train.labels]);
});

formats('archives made by tar give what their folders give', async () => {
  for (const [name, of, flags] of [['ten.tar.gz', ten, '-czf'], ['ten.tar', ten, '-cf'], ['hundred.tgz', hundred, '-czf']] as const) {
    const path = archive(name, of, flags);
    for (const split of ['train', 'test'] as const) assert.equal(await loadDataset(path, { split }), { ...(await loadDataset(of, { split })), path });
  }
  assert.equal((await loadDataset(ten)).classes!.slice(0, 2), ['plane', 'car']);
});

formats('refuses an archive cut off, without its files, or of another kind', async () => {
  const whole = execFileSync('cat', [archive('w.tar.gz', ten, '-czf')]), plain = execFileSync('cat', [archive('w.tar', ten, '-cf')]);
  const put = (name: string, bytes: Uint8Array | string): string => join(folder('a', { [name]: bytes }), name);
  await fails(/cannot be unpacked/, () => loadDataset(put('cut.tar.gz', whole.subarray(0, whole.length - 5000))));
  await fails(/is cut off/, () => loadDataset(put('cut.tar', plain.subarray(0, 9000))));
  await fails(/no tar header at byte 0; it looks like HTML/, () => loadDataset(put('page.tar', '<!doctype html>')));
  await fails(/cannot be unpacked/, () => loadDataset(put('page.tar.gz', '<!doctype html>')));
  const python = folder('p/cifar-10-batches-py', { data_batch_1: 'x', 'batches.meta': 'x' });
  await fails(/lacks data_batch_1.bin.*Python version/, () => loadDataset(archive('p.tar.gz', python, '-czf')));
});

formats('.npy: uint8 and floats in each range give the same bytes, with labels beside', async () => {
  const values = Uint8Array.from({ length: 2 * 3 * 4 * 3 }, (_, i) => (i === 0 ? 0 : i === 1 ? 255 : random(3, i)));
  const floats = (f: (x: number) => number): Float32Array => Float32Array.from(values, f);
  const path = folder('n', {
    'bytes.npy': npy([2, 3, 4, 3], '|u1', values), 'unit.npy': npy([2, 3, 4, 3], '<f4', floats((x) => x / 255)), 'signed.npy': npy([2, 3, 4, 3], '<f4', floats((x) => x / 127.5 - 1)),
    'wide.npy': npy([2, 3, 4, 3], '<f4', floats((x) => x)), 'bytes-labels.npy': npy([2], '<i8', BigInt64Array.of(7n, 300n)), 'labels.npy': npy([2], '<i4', Int32Array.of(1, 2)),
  });
  const want = { bytes: [7, 300], unit: [1, 2], signed: [1, 2], wide: [1, 2] };
  for (const [name, labels] of Object.entries(want)) {
    const said: string[] = [], set = await loadDataset(join(path, `${name}.npy`), { say: (text) => said.push(text) });
    assert.equal([set.count, set.height, set.width, set.channels, set.pixels, [...set.labels!]], [2, 3, 4, 3, values, labels], name);
    assert.is(said.join().replace(/.*in /, ''), { bytes: '', unit: '[0, 1]', signed: '[-1, 1]', wide: '[0, 255]' }[name]);
  }
  await fails(/channels seem to come first/, () => npyImages(readNpy(npy([1, 3, 4, 4], '|u1', new Uint8Array(48)), 'x'), 'x'));
  await fails(/go from 0 to 300/, () => npyImages(readNpy(npy([1, 1, 2], '<f4', Float32Array.of(0, 300)), 'x'), 'x'));
  await fails(/value 1 of it is NaN/, () => npyImages(readNpy(npy([1, 1, 2], '<f4', Float32Array.of(0, NaN)), 'x'), 'x'));
  await fails(/4 values of \|u1 take 4 bytes, and 3 follow its header/, () => readNpy(npy([2, 2], '|u1', new Uint8Array(3)), 'x', 'E-DATA'));
  await fails(/do not belong together/, () => loadDataset(join(folder('n2', { 'x.npy': npy([1, 2, 2], '|u1', new Uint8Array(4)), 'labels.npy': npy([2], '|u1', new Uint8Array(2)) }), 'x.npy')));
  // Of several arrays in a folder labels.npy is that which has as many images.
  const images = (count: number): Uint8Array => npy([count, 2, 2], '|u1', new Uint8Array(4 * count)), several = folder('n3', { 'a.npy': images(1), 'b.npy': images(2), 'labels.npy': npy([2], '|u1', Uint8Array.of(4, 5)) }), said: string[] = [];
  assert.equal([...(await loadDataset(join(several, 'b.npy'))).labels!], [4, 5]);
  assert.is((await loadDataset(join(several, 'a.npy'), { say: (text) => said.push(text) })).labels, null);
  assert.match(said.join(), /labels\.npy has 2 labels, not the 1 of .*a\.npy: its own would be .*a-labels\.npy$/);
  await fails(/nor train\.npy; it has a\.npy, b\.npy, labels\.npy\. To train on one array name it: --data .*a\.npy$/, () => loadDataset(several));
});

formats('the test images of a file of training images lie beside it, or are an error', async () => {
  assert.is((await loadDataset(join(ten, 'data_batch_2.bin'), { split: 'test' })).path, join(ten, 'test_batch.bin'));
  const path = folder('s', { 'train.npy': npy([1, 2, 2], '|u1', new Uint8Array(4)), 'test.npy': npy([3, 2, 2], '|u1', new Uint8Array(12)), 'my-train.npy': npy([1, 2, 2], '|u1', new Uint8Array(4)) });
  assert.is((await loadDataset(join(path, 'train.npy'), { split: 'test' })).count, 3);
  assert.is((await loadDataset(path, { split: 'test' })).count, 3);
  await fails(/lie not beside it \(my-t10k.npy or my-test.npy\)/, () => loadDataset(join(path, 'my-train.npy'), { split: 'test' }));
});

formats('truncated and bit-flipped input gives images or an E-DATA, never another error', async () => {
  const idx = Uint8Array.of(0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8), tar = execFileSync('cat', [archive('f.tar', hundred, '-cf')]);
  async function* chunks(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < bytes.length; at += 1000) yield bytes.subarray(at, at + 1000);
  }
  const parsers: [string, Uint8Array, number, (bytes: Uint8Array) => unknown][] = [
    ['idx', idx, 400, (b) => parseIdx(b, 'x')],
    ['idx.gz', gzipSync(idx), 400, (b) => parseIdx(unzipped(b, 'x'), 'x')],
    ['npy', npy([2, 2, 2], '<f4', Float32Array.of(0, 1, 0.5, 0, 1, 1, 0, 0)), 800, (b) => npyImages(readNpy(b, 'x', 'E-DATA'), 'x')],
    ['cifar', cifar([[3], [4]], 5), 200, (b) => parseCifar([{ name: 'x', bytes: b }], 'cifar-10')],
    ['tar', tar, 300, async (b) => { for await (const member of tarMembers(chunks(b), 'x', () => true)) assert.ok(member.bytes.length <= b.length); }],
  ];
  for (const [name, good, runs, parse] of parsers) {
    let refused = 0;
    for (let run = 0; run < runs; run++) {
      const bytes = Uint8Array.from(run % 2 ? good.subarray(0, random(4, run) % good.length) : good);
      // Headers are small beside the pixels: half of the flips go there.
      if (run % 2 === 0) for (let flip = 0; flip <= run % 3; flip++) bytes[random(5, run * 4 + flip) % (run % 4 ? good.length : Math.min(good.length, 600))]! ^= 1 << (random(6, run * 4 + flip) & 7);
      try {
        await parse(bytes);
      } catch (error) {
        assert.instance(error, DdpmError, `${name}, run ${run}: ${(error as Error).stack}`);
        assert.is((error as DdpmError).code, 'E-DATA');
        refused++;
      }
    }
    assert.ok(refused > runs / 3, `${name}: ${refused} of ${runs} refused`);
  }
});

formats.run();
