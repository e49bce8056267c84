// Folders of images: labels, splits, mixed sizes, damaged files, the cache, and training on one through the command line.

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PNG } from 'pngjs';
import { loadDataset, type LoadOptions } from '../src/data/dataset.ts';
import { fitSquare, resize } from '../src/data/resize.ts';
import { DdpmError, type ErrorCode } from '../src/errors.ts';
import { decodePng, encodePng } from '../src/io/png.ts';
import { philox4x32 } from '../src/philox.ts';

const home = mkdtempSync(join(tmpdir(), 'ddpm-folder-')), cache = join(home, 'cache');
const grey = (width: number, height: number, value: number): Uint8Array => encodePng({ width, height, channels: 1, data: new Uint8Array(width * height).fill(value) });
const red = (width: number, height: number): Uint8Array => encodePng({ width, height, channels: 3, data: Uint8Array.from({ length: width * height * 3 }, (_, i) => (i % 3 ? 0 : 255)) });

function folder(name: string, files: Record<string, Uint8Array | string>): string {
  for (const [file, bytes] of Object.entries(files)) {
    const path = join(home, name, file);
    mkdirSync(join(path, '..'), { recursive: true });
    writeFileSync(path, bytes);
  }
  return join(home, name);
}

async function load(path: string, options: LoadOptions = {}): Promise<{ set: Awaited<ReturnType<typeof loadDataset>>; said: string }> {
  const said: string[] = [], set = await loadDataset(path, { cache, say: (text) => said.push(text), ...options });
  return { set, said: said.join('\n') };
}

async function fails(code: ErrorCode, message: RegExp, promise: Promise<unknown>): Promise<void> {
  const error = await promise.then(() => undefined, (e: unknown) => e);
  assert.instance(error, DdpmError, String((error as Error | undefined)?.stack));
  assert.is((error as DdpmError).code, code);
  assert.match((error as DdpmError).message, message);
}

const folders = suite('folders of images');
folders.after(() => rmSync(home, { recursive: true, force: true }));

folders('classes are the first-level folders, splits are train and test, hidden files are passed over', async () => {
  const path = folder('a', { 'train/cat/1.png': grey(5, 4, 1), 'train/cat/x/2.png': grey(5, 4, 2), 'train/dog/1.png': grey(5, 4, 3), 'train/.no/1.png': 'x', 'test/dog/9.png': grey(5, 4, 9) });
  const { set } = await load(path), { set: test } = await load(path, { split: 'test' });
  assert.equal([set.count, set.height, set.width, set.channels, set.classes, [...set.labels!]], [3, 4, 5, 1, ['cat', 'dog'], [0, 0, 1]]);
  assert.equal([set.pixels[0], set.pixels[20], set.pixels[40], test.count, test.pixels[0]], [1, 2, 3, 1, 9]);
  await fails('E-DATA', /no folder test/, load(folder('a1', { '1.png': grey(2, 2, 1) }), { split: 'test' }));
  assert.is((await load(join(home, 'a1'))).set.labels, null);
});

folders('grey beside colour is colour, --channels decides, transparent lies over white', async () => {
  const path = folder('b', { '1.png': grey(2, 2, 7), '2.png': red(2, 2) });
  assert.equal(Array.from((await load(path)).set.pixels.filter((_, i) => i % 12 < 3)), [7, 7, 7, 255, 0, 0]);
  assert.equal([...(await load(path, { channels: 1 })).set.pixels], [7, 7, 7, 7, 76, 76, 76, 76]);
  const png = new PNG({ width: 1, height: 1 });
  png.data.set([0, 100, 200, 51]);
  assert.equal([...(await load(folder('b1', { '1.png': PNG.sync.write(png) }))).set.pixels], [204, 224, 244]);
});

folders('mixed sizes are counted and say what to type; --image-size makes them one', async () => {
  const path = folder('c', { '1.png': grey(40, 30, 9), '2.png': grey(40, 30, 9), '3.png': grey(16, 64, 9) });
  await fails('E-DATA', /different sizes: 2 of 40 × 30, 1 of 16 × 64\..*--image-size 16$/, load(path));
  const { set } = await load(path, { imageSize: 16 });
  assert.equal([set.count, set.height, set.width, [...new Set(set.pixels)]], [3, 16, 16, [9]]);
});

folders('shrinking averages out what is too fine, keeps a ramp, and crops the middle', () => {
  const stripes = { width: 64, height: 4, channels: 1 as const, data: Uint8Array.from({ length: 256 }, (_, i) => (i % 2 ? 255 : 0)) };
  for (const value of resize(stripes, 16, 4).data.filter((_, i) => i % 16 > 2 && i % 16 < 13)) assert.ok(Math.abs(value - 127.5) < 3, String(value));
  const ramp = { width: 64, height: 1, channels: 1 as const, data: Uint8Array.from({ length: 64 }, (_, i) => 2 * i) };
  resize(ramp, 32, 1).data.forEach((value, i) => { if (i > 2 && i < 29) assert.ok(Math.abs(value - (4 * i + 1)) <= 1, `${i}: ${value}`); });
  assert.equal([...fitSquare({ width: 6, height: 2, channels: 1, data: Uint8Array.from([0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]) }, 2).data], [2, 3, 2, 3]);
});

folders('a damaged file is named, and skipped with a count', async () => {
  const whole = grey(8, 8, 5), path = folder('d', { 'a.png': whole, 'b.png': '<!doctype html>', 'c.png': whole.subarray(0, 50), 'd.png': whole });
  await fails('E-DATA', /b\.png is no image: at byte 0 a PNG has 89 50 .* looks like HTML.*--skip-bad/, load(path));
  const { set, said } = await load(path, { skipBad: true });
  assert.is(set.count, 2);
  assert.match(said, /left out: .*b\.png[^]*left out: .*c\.png[^]*2 of 4 files are damaged/);
});

folders('the second start decodes nothing, a damaged cache and a changed file are decoded again', async () => {
  const path = folder('e', { '1.png': grey(3, 3, 1), '2.png': grey(3, 3, 2) }), own = join(home, 'own');
  const first = await load(path, { cache: own }), file = join(own, readdirSync(own)[0]!);
  const again = await load(path, { cache: own });
  assert.equal([again.set, again.said, readdirSync(own).length], [first.set, '', 1]);
  const bytes = readFileSync(file);
  for (const damage of [(): Uint8Array => bytes.subarray(0, 290), (): Uint8Array => bytes.map((b, i) => (i === bytes.length - 1 ? b ^ 1 : b)), (): Uint8Array => new Uint8Array(0)]) {
    writeFileSync(file, damage());
    const { set, said } = await load(path, { cache: own });
    assert.match(said, /is damaged and made again/);
    assert.equal([set, readFileSync(file)], [first.set, bytes]);
  }
  writeFileSync(join(path, '2.png'), grey(3, 3, 200));
  assert.is((await load(path, { cache: own })).set.pixels[9], 200);
});

folders('PNGs cut off or with flipped bits are E-DATA or an image', async () => {
  const good = red(6, 5);
  for (let run = 0; run < 60; run++) {
    const u = philox4x32([run, 0, 0, 0], [3, 9]), bytes = run % 2 ? good.slice(0, u[0]! % good.length) : good.slice();
    if (run % 2 === 0) bytes[u[1]! % good.length]! ^= 1 << (u[2]! & 7);
    rmSync(join(home, 'f'), { recursive: true, force: true });
    await load(folder('f', { '1.png': bytes })).catch((error: unknown) => assert.is((error as DdpmError).code, 'E-DATA', String((error as Error).stack)));
  }
});

folders('train runs on a folder of PNGs', async () => {
  const { set } = await load('shapes', { limit: 200 });
  const path = folder('g', Object.fromEntries(Array.from({ length: 200 }, (_, i) => [`${set.classes![set.labels![i]!]}/${i}.png`, encodePng({ width: 28, height: 28, channels: 1, data: set.pixels.subarray(i * 784, (i + 1) * 784) })])));
  const flags = ['--data', path, '--image-size', '16', '--preset', 'tiny', '--steps', '2', '--batch-size', '2', '--samples', '1', '--sample-steps', '1', '--out', join(home, 'runs'), '--name', 'x'];
  const { status, stderr } = spawnSync(process.execPath, ['--import', 'tsx', 'src/cli/train.ts', ...flags], { encoding: 'utf8', env: { ...process.env, XDG_CACHE_HOME: join(home, 'xdg') } });
  assert.is(status, 0, stderr);
  assert.match(stderr, /data +g +200 × 16×16×1/);
  assert.ok(existsSync(join(home, 'runs', 'x', 'samples', 'final.png')));
  decodePng(readFileSync(join(home, 'runs', 'x', 'samples', 'final.png')));
});

folders.run();
