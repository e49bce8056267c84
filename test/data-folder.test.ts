// Folders of images: labels, splits, mixed sizes, damaged files, the cache, and training on one through the command line.

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { PNG } from 'pngjs';
import { loadDataset, type LoadOptions } from '../src/data/dataset.ts';
import { fitSquare, resize } from '../src/data/resize.ts';
import { DdpmError, type ErrorCode } from '../src/errors.ts';
import { decodePng, encodePng } from '../src/io/png.ts';
import { philox4x32 } from '../src/philox.ts';
import { type Command, type Ended, start } from './helpers/commands.ts';
import { SHADER_CACHE } from './helpers/shader-cache.ts';

const hasSharp = await import('sharp' as string).then(() => true, () => false);
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
  assert.equal([set.count, set.height, set.width, set.channels, set.classes, [...set.labels!]], [3, 4, 5, 1, ['cat', 'dog'], [0, 1, 0]]);
  assert.equal([set.pixels[0], set.pixels[20], set.pixels[40], test.count, test.pixels[0]], [1, 3, 2, 1, 9]);
  await fails('E-DATA', /no folder test/, load(folder('a1', { '1.png': grey(2, 2, 1) }), { split: 'test' }));
  assert.is((await load(join(home, 'a1'))).set.labels, null);
});

folders('linked folders are classes too, one that lies in itself is read once, and a link to nothing is an error', async () => {
  const cats = folder('elsewhere', { '1.png': grey(4, 4, 1), 'more/2.png': grey(4, 4, 2) }), path = folder('links', { 'dog/3.png': grey(4, 4, 3), 'dog/4.png': grey(4, 4, 4) });
  symlinkSync(cats, join(path, 'cat'));
  symlinkSync(path, join(path, 'dog', 'self'));
  const { set } = await load(path);
  assert.equal([set.classes, [...set.labels!], Array.from(set.labels!, (_, i) => set.pixels[16 * i])], [['cat', 'dog'], [0, 1, 0, 1], [1, 3, 2, 4]]);
  symlinkSync('nowhere', join(path, 'dog', '5.png'));
  await fails('E-DATA', /cannot read \S+5\.png: there is no such file or folder/, load(path));
});

folders('a class has one number in both splits, whichever of them lack it', async () => {
  const image = grey(2, 2, 1), path = folder('u', { 'train/ape/1.png': image, 'train/bee/1.png': image, 'train/cow/1.png': image, 'test/cow/1.png': image, 'test/ant/1.png': image, 'test/bee/1.png': image });
  const { set, said } = await load(path), { set: test } = await load(path, { split: 'test' }), classes = ['ape', 'bee', 'cow', 'ant'];
  assert.match(said, /test has classes of which there is no training image: ant$/);
  assert.equal([set.classes, [...set.labels!], test.classes, [...test.labels!]], [classes, [0, 1, 2], classes, [3, 1, 2]]);
  // A split of one class has its number too.
  const one = folder('u1', { 'train/ape/1.png': image, 'train/bee/1.png': image, 'test/bee/1.png': image });
  assert.equal([...(await load(one, { split: 'test' })).set.labels!], [1]);
  // Without a folder train the classes lie beside test.
  const beside = folder('u2', { 'ape/1.png': image, 'bee/1.png': image, 'test/bee/1.png': image });
  assert.equal([(await load(beside)).set.classes, [...(await load(beside, { split: 'test' })).set.labels!]], [['ape', 'bee'], [1]]);
  // Loose images have no class, nor do those of the other split then.
  const loose = folder('u3', { 'train/1.png': image, 'test/ape/1.png': image, 'test/bee/1.png': image });
  assert.equal([(await load(loose)).set.labels, (await load(loose, { split: 'test' })).set.labels], [null, null]);
});

folders('--limit takes as many of each class, always the same, and more of them go on from fewer', async () => {
  const counts = { a: 5, b: 2, c: 4 }, names = Object.entries(counts).flatMap(([name, n]) => Array.from({ length: n }, (_, i) => `${name}/${i}.png`));
  const path = folder('l', Object.fromEntries(names.map((name, i) => [name, grey(1, 1, i)]))), whole = (await load(path)).set;
  assert.equal([...whole.labels!], [0, 1, 2, 0, 1, 2, 0, 2, 0, 2, 0]);
  for (const limit of [1, 3, 4, 7, 11, 12]) {
    const { set } = await load(path, { limit });
    assert.equal([set.count, [...set.pixels], [...set.labels!]], [Math.min(limit, 11), [...whole.pixels].slice(0, limit), [...whole.labels!].slice(0, limit)]);
    assert.equal(set.classes, ['a', 'b', 'c']);
  }
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

folders('a damaged PNG says what is wrong with it and where', async () => {
  const noise = Uint8Array.from({ length: 3 * 64 }, (_, i) => philox4x32([i, 0, 0, 0], [1, 1])[0]! & 255), good = encodePng({ width: 8, height: 8, channels: 3, data: noise });
  const flipped = (at: number): Uint8Array => good.map((byte, i) => (i === at ? byte ^ 4 : byte)), end = good.length;
  const header = Buffer.concat([good.subarray(0, 33), good.subarray(end - 12)]); // IHDR and IEND are whole, and nothing is between them
  const damaged: [Uint8Array, RegExp][] = [
    [good.subarray(0, 100), new RegExp(`its chunk IDAT at byte 33 goes to byte ${end - 12}, and it ends at byte 100: it is cut off`)],
    [good.subarray(0, end - 12), new RegExp(`it ends at byte ${end - 12} without the chunk IEND`)],
    [flipped(60), /the checksum of its chunk IDAT at byte 33 is another one: it is damaged/],
    [flipped(24), /the checksum of its chunk IHDR at byte 8 is another one/],
    [good.map((byte, i) => (i === 37 ? 0 : byte)), /at byte 37 there is no name of a chunk/],
    [header, /its pixels cannot be unpacked \(unexpected end of file\): it is damaged/],
    // Fewer pixels than the header says, all else being whole: they must not be filled with what is in memory.
    [Buffer.concat([encodePng({ width: 8, height: 9, channels: 3, data: new Uint8Array(216) }).subarray(0, 33), good.subarray(33)]), /its pixels are 200 bytes unpacked, and 8 × 9 need 225/],
    [Buffer.concat([encodePng({ width: 8, height: 7, channels: 3, data: new Uint8Array(168) }).subarray(0, 33), good.subarray(33)]), /its pixels are more than the 175 bytes of 8 × 7/],
  ];
  for (const [i, [bytes, message]] of damaged.entries()) {
    const path = folder(`dd${i}`, { 'good.png': good, 'odd.png': bytes });
    await fails('E-DATA', new RegExp(`odd\\.png.*${message.source}[^.]*\\. (Make or download it again\\. )?To leave out such files: --skip-bad$`), load(path, { imageSize: 8 }));
    assert.is((await load(path, { imageSize: 8, skipBad: true })).set.count, 1);
  }
});

folders('an interlaced PNG of an odd size is whole, and not with a row more in its header', async () => {
  const bytes = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAUAAAADCAIAAAGjU2I5AAAACXBIWXMAAAPoAAAD6AG1e1JrAAAAP0lEQVQImQE0AMv/AAAlSgC84QYA3gMoA1Z7oAkcLvgLHQFvlLne3t4BxeoP3t7eACtQdZq/5AkuU3idwucMMe+XFWXQBiDOAAAAAElFTkSuQmCC', 'base64');
  const { set } = await load(folder('il', { '1.png': bytes }));
  assert.equal([set.width, set.height, [...set.pixels]], [5, 3, Array.from({ length: 45 }, (_, i) => (i * 37) & 255)]);
  bytes[23]!++;
  bytes.writeUInt32BE(crc32(bytes.subarray(12, 29)), 29);
  await fails('E-DATA', /its pixels are 52 bytes unpacked, and 5 × 4 need 68/, load(folder('il2', { '1.png': bytes })));
});

(hasSharp ? folders.skip : folders)('JPEG, WebP and GIF say what to type where sharp is not installed, --skip-bad or not', async () => {
  const heads: Record<string, number[]> = { 'a.jpg': [0xff, 0xd8, 0xff, 0xe0], 'b.gif': [...Buffer.from('GIF89a')], 'c.webp': [...Buffer.from('RIFF\x04\0\0\0WEBP')] };
  for (const [name, bytes] of Object.entries(heads)) {
    const path = folder(`s-${name}`, { 'x.png': grey(2, 2, 1), [name]: Uint8Array.from(bytes) });
    for (const skipBad of [false, true]) await fails('E-USAGE', new RegExp(`${name} is .*, which the optional package sharp reads, and it is not installed\\. Type: npm i sharp`), load(path, { skipBad }));
  }
});

// Runs where sharp is installed; it is no dependency, so that nobody has to have it.
(hasSharp ? folders : folders.skip)('JPEG, WebP, GIF and TIFF through sharp: size, channels, orientation, transparency, damage', async () => {
  type Writer = { toColourspace(space: string): Writer; toFormat(format: string, options?: object): Writer; withMetadata(options: object): Writer; toBuffer(): Promise<Uint8Array> };
  const { default: sharp } = (await import('sharp' as string)) as { default(pixels: Uint8Array, options: object): Writer };
  const make = (width: number, height: number, channels: number, pixels: Uint8Array): Writer => sharp(pixels, { raw: { width, height, channels } });
  const smooth = (channels: number): Uint8Array => Uint8Array.from({ length: 24 * 16 * channels }, (_, i) => 60 + 4 * (Math.floor(i / channels) % 24) + 20 * (i % channels));
  for (const [format, error] of [['jpeg', 6], ['webp', 8], ['gif', 8], ['tiff', 6], ['png', 0]] as const) {
    const wanted = smooth(3), bytes = await make(24, 16, 3, wanted).toFormat(format, format === 'jpeg' || format === 'tiff' || format === 'webp' ? { quality: 95 } : {}).toBuffer();
    const { set } = await load(folder(`sharp-${format}`, { [`1.${format}`]: bytes }));
    assert.equal([set.width, set.height, set.channels], [24, 16, 3], format);
    const mean = wanted.reduce((sum, value, i) => sum + Math.abs(value - set.pixels[i]!), 0) / wanted.length;
    assert.ok(mean <= error, `${format}: off by ${mean}`);
  }
  const upright = await make(24, 16, 3, smooth(3)).withMetadata({ orientation: 6 }).toFormat('jpeg').toBuffer(), { set: turned } = await load(folder('sharp-t', { '1.jpg': upright }));
  assert.equal([turned.width, turned.height], [16, 24]);
  assert.is((await load(folder('sharp-g', { '1.jpg': await make(24, 16, 1, smooth(1)).toColourspace('b-w').toFormat('jpeg').toBuffer() }))).set.channels, 1);
  const clear = await make(1, 1, 4, Uint8Array.of(0, 100, 200, 0)).toFormat('webp', { lossless: true, exact: true }).toBuffer();
  assert.equal([...(await load(folder('sharp-a', { '1.webp': clear }))).set.pixels], [255, 255, 255]);
  const jpeg = await make(24, 16, 3, smooth(3)).toFormat('jpeg').toBuffer(), damaged = folder('sharp-d', { 'a.jpg': jpeg, 'b.jpg': jpeg.subarray(0, 60) });
  await fails('E-DATA', /b\.jpg is damaged: .*--skip-bad/, load(damaged));
  assert.is((await load(damaged, { skipBad: true })).set.count, 1);
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
  // Files of the same size and time that no longer hold images: nobody looks into them.
  const files = ['1.png', '2.png'].map((name) => join(path, name)), time = new Date('2024-05-06T07:08:09Z');
  for (const name of files) utimesSync(name, time, time);
  const before = await load(path, { cache: own });
  for (const name of files) {
    writeFileSync(name, new Uint8Array(readFileSync(name).length).fill(0x78));
    utimesSync(name, time, time);
  }
  assert.equal((await load(path, { cache: own })).set, before.set);
  await fails('E-DATA', /1\.png is no image/, load(path, { cache: join(home, 'other') }));
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

folders('train runs on a folder of PNGs, and eval reads them as the run did', async () => {
  // Fashion-MNIST where it is installed, as in CI; else shapes.
  const clothes = await load('fashion-mnist', { limit: 330 }).catch(() => load('shapes', { limit: 330 })), { set } = clothes;
  const name = (i: number): string => `${i < 300 ? 'train' : 'test'}/${set.classes![set.labels![i]!]!.replace('/', ' or ')}/${i}.png`;
  const path = folder('g', Object.fromEntries(Array.from({ length: 330 }, (_, i) => [name(i), encodePng({ width: 28, height: 28, channels: 1, data: set.pixels.subarray(i * 784, (i + 1) * 784) })])));
  writeFileSync(join(path, 'test', set.classes!.at(-1)!, 'cut.png'), grey(28, 28, 1).subarray(0, 60));
  const run = (command: Command, ...flags: string[]): Promise<Ended> => start(command, flags, { env: { XDG_CACHE_HOME: join(home, 'xdg'), ...SHADER_CACHE } });
  const reading = ['--data', path, '--image-size', '16', '--channels', '3', '--skip-bad', '--class-conditional', '--schedule', 'cosine', '--timesteps', '4'];
  const train = await run('train', ...reading, '--preset', 'tiny', '--steps', '2', '--batch-size', '2', '--samples', '1', '--sample-steps', '1', '--out', join(home, 'runs'), '--name', 'x');
  assert.is(train.code, 0, train.stderr);
  assert.match(train.stderr, /data +g +300 × 16×16×3 /);
  assert.match(train.stderr, new RegExp(` ${set.classes!.length} classes `));
  const { width, height, channels } = decodePng(readFileSync(join(home, 'runs', 'x', 'samples', 'final.png')));
  assert.ok(channels === 3 && width >= 16 && height >= 16);
  const measured = await run('eval', join(home, 'runs', 'x'), '--nll', '--n', '2', '--batch-size', '2');
  assert.is(measured.code, 0, measured.stderr);
  assert.match(measured.stderr, /cut\.png cannot be read as PNG[^]*1 of 31 files are damaged/);
  assert.match(measured.stdout, /the first 2 of g, test/);
  const guided = await run('eval', join(home, 'runs', 'x'), '--guidance', '2', '--features', 'pixels', '--n', '2', '--limit', '9', '--sample-steps', '1');
  assert.is(guided.code, 0, guided.stderr);
  const turns = `classes 0 to ${set.classes!.length - 1} in turn, guidance 2`;
  assert.ok(guided.stderr.includes(`in batches of 2, ${turns}`) && guided.stdout.includes(turns), guided.stderr + guided.stdout);
});

folders.run();
