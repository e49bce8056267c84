// Files in and out: safetensors both ways and damaged in every way, pixels, PNG, animated PNG, atomic writing.

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readdirSync, readFileSync, readSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32, gzipSync, inflateSync } from 'node:zlib';
import { DdpmError, type ErrorCode } from '../src/errors.ts';
import { encodeApng } from '../src/io/apng.ts';
import { readFileOr, readFolderOr, requireWritable, writeAtomic } from '../src/io/files.ts';
import { looksLike } from '../src/io/magic.ts';
import { imageGrid, toBytes, type Picture } from '../src/io/picture.ts';
import { decodePng, encodePng } from '../src/io/png.ts';
import { readSafetensors, safetensorsChunks, writeSafetensors, type SafeTensors, type TensorData } from '../src/io/safetensors.ts';
import { philox4x32 } from '../src/philox.ts';

/** Asserts that `action` throws a DdpmError with this code and a message that matches. */
function throwsWith(code: ErrorCode, message: RegExp, action: () => unknown): void {
  try {
    action();
  } catch (error) {
    assert.instance(error, DdpmError, String((error as Error).stack));
    assert.is((error as DdpmError).code, code);
    assert.match((error as DdpmError).message, message);
    return;
  }
  assert.unreachable(`nothing was thrown, expected ${code} ${message}`);
}

/** A safetensors file from a header (an object, or text) and data, with nothing checked. */
function rawSafetensors(header: unknown, data: number | Uint8Array, headerLength?: bigint): Uint8Array {
  const json = new TextEncoder().encode(typeof header === 'string' ? header : JSON.stringify(header));
  const body = typeof data === 'number' ? new Uint8Array(data) : data;
  const file = new Uint8Array(8 + json.length + body.length);
  new DataView(file.buffer).setBigUint64(0, headerLength ?? BigInt(json.length), true);
  file.set(json, 8);
  file.set(body, 8 + json.length);
  return file;
}

const st = suite('safetensors');

st('round-trips every dtype, shapes with 0 and without dimensions, odd names and metadata, in the given order', () => {
  const tensors: [string, { shape: number[]; data: TensorData }][] = [
    ['bytes', { shape: [3], data: Uint8Array.of(1, 2, 255) }],
    ['f64', { shape: [2, 1], data: Float64Array.of(Math.PI, -0) }],
    ['f32', { shape: [2, 2], data: Float32Array.of(1.5, -Infinity, 1e-40, 3) }],
    ['i64', { shape: [2], data: BigInt64Array.of(-(2n ** 63n), 5n) }],
    ['u64', { shape: [1], data: BigUint64Array.of(2n ** 64n - 1n) }],
    ['i32', { shape: [1], data: Int32Array.of(-7) }],
    ['u32', { shape: [], data: Uint32Array.of(4e9) }],
    ['i16', { shape: [1], data: Int16Array.of(-300) }],
    ['u16', { shape: [1], data: Uint16Array.of(65535) }],
    ['i8', { shape: [1], data: Int8Array.of(-128) }],
    ['nothing', { shape: [4, 0], data: new Float32Array(0) }],
    ['"quoted" é 图', { shape: [1], data: Float32Array.of(2) }],
    ['__proto__', { shape: [1], data: Float32Array.of(9) }],
  ];
  const file = writeSafetensors(tensors, { format: 'pt', note: 'über' });
  assert.is(new DataView(file.buffer).getUint32(0, true) % 8, 0, 'the header is padded to 8');
  const { tensors: read, metadata } = readSafetensors(file, 'test');
  assert.equal(metadata, { format: 'pt', note: 'über' });
  assert.equal([...read.keys()], tensors.map(([name]) => name));
  for (const [name, { shape, data }] of tensors) {
    assert.equal(read.get(name)!.shape, shape, name);
    assert.equal(read.get(name)!.data, data, name);
    assert.is(read.get(name)!.data.constructor, data.constructor, name);
    assert.is(read.get(name)!.data.buffer, file.buffer, `${name} is aligned and so not copied, although the bytes come first in the header`);
  }
  assert.is(read.get('u64')!.dtype, 'U64');
});

st('does not copy aligned data, and copies misaligned data, also from a Node Buffer', () => {
  const file = writeSafetensors([['x', { shape: [4], data: Float32Array.of(1, 2, 3, 4) }]]);
  assert.is(readSafetensors(file, 'test').tensors.get('x')!.data.buffer, file.buffer);
  for (const shift of [1, 2, 3]) {
    const moved = Buffer.alloc(file.length + shift);
    moved.set(file, shift);
    assert.equal(readSafetensors(moved.subarray(shift), 'test').tensors.get('x')!.data, Float32Array.of(1, 2, 3, 4));
  }
});

st('writes the tensors\' own memory, also of views into larger arrays', () => {
  const data = Float32Array.of(0, 1, 2, 3);
  const chunks = safetensorsChunks([['x', { shape: [2], data: data.subarray(1, 3) }]]);
  assert.is(chunks[1]!.buffer, data.buffer);
  assert.equal(readSafetensors(Buffer.concat(chunks), 'test').tensors.get('x')!.data, Float32Array.of(1, 2));
});

st('widens F16 and BF16 exactly', () => {
  const half = Uint16Array.of(0x3c00, 0xc000, 0x0001, 0x03ff, 0x7bff, 0x7c00, 0xfc00, 0x3555, 0x8000);
  const brain = Uint16Array.of(0x3f80, 0xc2f7, 0x7f80, 0x0001);
  const file = rawSafetensors(
    { h: { dtype: 'F16', shape: [9], data_offsets: [0, 18] }, b: { dtype: 'BF16', shape: [4], data_offsets: [18, 26] } },
    Buffer.concat([Buffer.from(half.buffer), Buffer.from(brain.buffer)]),
  );
  const { tensors } = readSafetensors(file, 'test');
  const h = tensors.get('h')!, b = tensors.get('b')!;
  assert.is(h.dtype, 'F16');
  assert.equal(h.data, Float32Array.of(1, -2, 2 ** -24, 1023 * 2 ** -24, 65504, Infinity, -Infinity, 0.333251953125, -0));
  assert.is(b.dtype, 'BF16');
  assert.equal(b.data, Float32Array.of(1, -123.5, Infinity, 2 ** -133));
  const nan = readSafetensors(rawSafetensors({ h: { dtype: 'F16', shape: [1], data_offsets: [0, 2] } }, Uint8Array.of(1, 0x7e)), 'test');
  assert.ok(Number.isNaN(nan.tensors.get('h')!.data[0]));
});

const one = (fields: object): object => ({ x: { dtype: 'F32', shape: [2], data_offsets: [0, 8], ...fields } });
const DAMAGED: [string, Uint8Array, RegExp][] = [
  ['empty', new Uint8Array(0), /has 0 bytes/],
  ['7 bytes', new Uint8Array(7), /has 7 bytes/],
  ['a web page', Buffer.from('<!DOCTYPE html><html><body>404</body></html>'), /limit is 100000000; it looks like HTML/],
  ['a pickle in a zip', Buffer.concat([Buffer.from('PK\x03\x04'), Buffer.alloc(60, 1)]), /looks like a zip archive \(a PyTorch/],
  ['a Git LFS pointer', Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n'), /Git LFS pointer/],
  ['header length over the limit', rawSafetensors('{}', 0, 100_000_001n), /would be 100000001 bytes long/],
  ['header length 2^64 - 1', rawSafetensors('{}', 0, 2n ** 64n - 1n), /limit is 100000000/],
  ['header longer than the file', rawSafetensors('{}', 0, 500n), /needs 508 bytes and the file has 10: it is cut off/],
  ['header not JSON', rawSafetensors('{"x": {"dtype": "F32"', 0), /header is not JSON/],
  ['header not UTF-8', Uint8Array.of(4, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0xff, 0xfe, 0x7d), /header is not JSON/],
  ['header a list', rawSafetensors('[]', 0), /not a JSON object/],
  ['an entry a number', rawSafetensors({ x: 5 }, 0), /"x" is described by 5/],
  ['unknown dtype', rawSafetensors(one({ dtype: 'Q4' }), 8), /dtype "Q4"; known are F64/],
  ['no dtype', rawSafetensors({ x: { shape: [], data_offsets: [0, 4] } }, 4), /the dtype undefined/],
  ['dtype from the prototype', rawSafetensors(one({ dtype: 'constructor' }), 8), /dtype "constructor"/],
  ['negative shape', rawSafetensors(one({ shape: [-2] }), 8), /shape \[-2\]/],
  ['fractional shape', rawSafetensors(one({ shape: [0.5, 4] }), 8), /shape \[0.5,4\]/],
  ['shape a number', rawSafetensors(one({ shape: 2 }), 8), /shape 2/],
  ['shape beyond 2^53', rawSafetensors(one({ shape: [2 ** 40, 2 ** 40] }), 8), /needs 4\.8\d*e\+24 bytes/],
  ['offsets reversed', rawSafetensors(one({ data_offsets: [8, 0] }), 8), /data_offsets \[8,0\]/],
  ['one offset', rawSafetensors(one({ data_offsets: [0] }), 8), /data_offsets \[0\]/],
  ['offsets as text', rawSafetensors(one({ data_offsets: ['0', '8'] }), 8), /data_offsets \["0","8"\]/],
  ['size unlike the shape', rawSafetensors(one({ shape: [3] }), 8), /F32 \(3\) needs 12 bytes and its data_offsets \[0, 8\] give 8/],
  ['past the end', rawSafetensors(one({}), 7), /ends at byte 8 of the data, which has only 7 bytes: the file is cut off/],
  ['first not at 0', rawSafetensors(one({ data_offsets: [4, 12] }), 12), /gap of 4 bytes between the header and the tensor "x"/],
  ['a gap', rawSafetensors({ ...one({}), y: { dtype: 'U8', shape: [1], data_offsets: [9, 10] } }, 10), /gap of 1 bytes between "x" and the tensor "y"/],
  ['an overlap', rawSafetensors({ ...one({}), y: { dtype: 'U8', shape: [8], data_offsets: [4, 12] } }, 12), /"y" begins at byte 4 and overlaps "x"/],
  ['the same bytes twice', rawSafetensors({ ...one({}), y: { dtype: 'F32', shape: [2], data_offsets: [0, 8] } }, 8), /overlaps/],
  ['bytes at the end', rawSafetensors(one({}), 9), /1 bytes follow the last tensor/],
  ['metadata a list', rawSafetensors({ __metadata__: [] }, 0), /__metadata__ is not an object/],
  ['metadata not text', rawSafetensors({ __metadata__: { epoch: 3 } }, 0), /metadata "epoch" is not a string/],
];
for (const [what, bytes, message] of DAMAGED) {
  st(`refuses: ${what}`, () => throwsWith('E-FILE', new RegExp(`^a/b\\.safetensors is not a good .*${message.source}`, 's'), () => readSafetensors(bytes, 'a/b.safetensors')));
}

st('any one changed or cut byte of a header is refused or read as another valid file, never a crash', () => {
  const file = writeSafetensors([['w', { shape: [2, 3], data: new Float32Array(6) }], ['b', { shape: [3], data: new Float32Array(3) }]], { a: 'b' });
  const attempt = (bytes: Uint8Array): void => {
    try {
      readSafetensors(bytes, 'fuzz');
    } catch (error) {
      assert.instance(error, DdpmError, `${(error as Error).stack}`);
    }
  };
  for (let i = 0; i < file.length; i++) {
    attempt(file.subarray(0, i));
    for (let trial = 0; trial < 4; trial++) {
      const changed = file.slice();
      changed[i] = philox4x32([i, trial, 0, 0], [1, 2])[0];
      attempt(changed);
    }
  }
});

st('refuses to write what cannot be read back', () => {
  const x = { shape: [1], data: Float32Array.of(1) };
  throwsWith('E-FILE', /two tensors named "x"/, () => writeSafetensors([['x', x], ['x', x]]));
  throwsWith('E-FILE', /__metadata__/, () => writeSafetensors([['__metadata__', x]]));
  throwsWith('E-FILE', /shape \(2, 3\) has 6 elements and its data 1/, () => writeSafetensors([['x', { ...x, shape: [2, 3] }]]));
  throwsWith('E-FILE', /typed arrays/, () => writeSafetensors([['x', { shape: [1], data: [1] as unknown as Float32Array }]]));
});

const golden = (name: string): SafeTensors => readSafetensors(readFileSync(new URL(`golden/${name}.safetensors`, import.meta.url)), name);

st('reads the files written by PyTorch', () => {
  const unet = golden('unet-dev-rgb16');
  const config = JSON.parse(unet.metadata.config!) as { in_channels: number; block_out_channels: number[] };
  assert.is(config.in_channels, 3);
  const convIn = unet.tensors.get('weights.conv_in.weight')!;
  assert.equal(convIn.shape, [config.block_out_channels[0], 3, 3, 3]);
  assert.is(unet.tensors.get('t')!.dtype, 'I64');
  assert.instance(unet.tensors.get('t')!.data, BigInt64Array);
  // The file states its own loss, so this checks that values and order are right, not only sizes.
  for (const name of ['unet-dev-rgb16', 'unet-dev-gray28']) {
    const { tensors } = golden(name);
    const eps = tensors.get('eps')!.data as Float32Array, target = tensors.get('target')!.data as Float32Array;
    const mse = eps.reduce((sum, value, i) => sum + (value - target[i]!) ** 2, 0) / eps.length;
    const loss = (tensors.get('loss')!.data as Float32Array)[0]!;
    assert.ok(Math.abs(mse - loss) < 1e-6 * loss, `${name}: ${mse} and ${loss}`);
    for (const key of tensors.keys()) {
      if (key.startsWith('weights.')) assert.equal(tensors.get(key.replace('weights', 'grads'))?.shape, tensors.get(key)!.shape, key);
    }
  }
  const samplers = golden('samplers-diffusers');
  assert.ok(samplers.tensors.has('x_T'));
});

st('reads float64 tables: linear betas are the linear betas', () => {
  const { tensors } = golden('gaussian-diffusion-T1000');
  const [name, betas] = [...tensors].find(([key]) => /linear.*betas$/.test(key))!;
  assert.is(betas.dtype, 'F64', name);
  assert.is(betas.data.length, 1000);
  for (const i of [0, 1, 500, 999]) assert.ok(Math.abs((betas.data[i] as number) - (1e-4 + ((0.02 - 1e-4) * i) / 999)) < 1e-15, `${name}[${i}]`);
});

st('writes the golden files again with the same tensors', () => {
  for (const name of ['unet-dev-gray28', 'samplers-diffusers', 'gaussian-diffusion-T1000']) {
    const first = golden(name), again = readSafetensors(writeSafetensors(first.tensors, first.metadata), name);
    assert.equal(again.metadata, first.metadata);
    assert.equal([...again.tensors.keys()], [...first.tensors.keys()]);
    for (const [key, { data, shape, dtype }] of first.tensors) {
      const copy = again.tensors.get(key)!;
      assert.is(copy.dtype, dtype);
      assert.equal(copy.shape, shape);
      const bytes = (x: TensorData): Buffer => Buffer.from(x.buffer, x.byteOffset, x.byteLength);
      assert.ok(bytes(copy.data).equals(bytes(data)), key);
    }
  }
});

st.run();

const png = suite('pictures');

png('toBytes clamps, rounds and never wraps', () => {
  const values = Float32Array.of(-1, 1, 0, -1.0001, 1.0001, -300, 300, Infinity, -Infinity, 1 / 255, -1 / 255 - 1e-4, 0.9999);
  assert.equal([...toBytes(values)], [0, 255, 128, 0, 255, 0, 255, 255, 0, 128, 127, 255]);
});

png('toBytes inverts x / 127.5 - 1 for all 256 values', () => {
  const values = Float32Array.from({ length: 256 }, (_, i) => i / 127.5 - 1);
  assert.equal([...toBytes(values)], Array.from({ length: 256 }, (_, i) => i));
});

png('toBytes turns NaN into 0 and counts it', () => {
  let seen = -1;
  assert.equal([...toBytes(Float32Array.of(NaN, 1, NaN), (count) => (seen = count))], [0, 255, 0]);
  assert.is(seen, 2);
  seen = -1;
  toBytes(Float32Array.of(0, 1), (count) => (seen = count));
  assert.is(seen, -1);
});

png('imageGrid puts every pixel where it belongs', () => {
  // Three 1 × 2 grey images in two columns, padding 1.
  const grid = imageGrid(Uint8Array.of(10, 11, 20, 21, 30, 31), 3, 1, 2, 1, 2, { pad: 1, background: 0 });
  assert.is(grid.width, 7);
  assert.is(grid.height, 5);
  assert.equal([...grid.data], [
    0, 0, 0, 0, 0, 0, 0,
    0, 10, 11, 0, 20, 21, 0,
    0, 0, 0, 0, 0, 0, 0,
    0, 30, 31, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0,
  ]);
});

png('imageGrid scales colour without mixing channels, and a scaled grid is the plain one with larger pixels', () => {
  const images = Uint8Array.from({ length: 5 * 3 * 4 * 3 }, (_, i) => (i * 37) % 251);
  const plain = imageGrid(images, 5, 3, 4, 3, 3), large = imageGrid(images, 5, 3, 4, 3, 3, { scale: 3 });
  assert.is(large.width, plain.width * 3);
  assert.is(large.height, plain.height * 3);
  for (let y = 0; y < large.height; y++) {
    for (let x = 0; x < large.width; x++) {
      for (let k = 0; k < 3; k++) {
        const want = plain.data[(Math.floor(y / 3) * plain.width + Math.floor(x / 3)) * 3 + k], got = large.data[(y * large.width + x) * 3 + k];
        if (want !== got) assert.is(got, want, `${x}, ${y}, ${k}`);
      }
    }
  }
  assert.is(plain.data[0], 255, 'white background');
});

png('imageGrid refuses what does not fit', () => {
  throwsWith('E-SHAPE', /2 images of 2×2×1 have 8 values, and 7 were given/, () => imageGrid(new Uint8Array(7), 2, 2, 2, 1, 2));
  throwsWith('E-SHAPE', /1 or 3 channels, not 2/, () => imageGrid(new Uint8Array(8), 1, 2, 2, 2, 2));
  throwsWith('E-SHAPE', /0 columns/, () => imageGrid(new Uint8Array(4), 1, 2, 2, 1, 0));
  throwsWith('E-USAGE', /imageGrid\(\) takes bytes.* toBytes\(values\)/, () => imageGrid(new Float32Array(4) as never, 1, 2, 2, 1, 1));
});

const noise = (width: number, height: number, channels: 1 | 3): Picture =>
  ({ width, height, channels, data: Uint8Array.from({ length: width * height * channels }, (_, i) => philox4x32([i, 0, 0, 0], [3, 0])[0]) });

png('PNG round-trips grey and colour, of odd sizes, with the right colour type', () => {
  for (const picture of [noise(7, 5, 1), noise(5, 9, 3), noise(1, 1, 1), noise(1, 1, 3)]) {
    const file = encodePng(picture);
    assert.is(file[25], picture.channels === 1 ? 0 : 2, 'colour type');
    assert.equal(decodePng(file), picture);
  }
});

png('decodePng says what a bad file is', () => {
  const file = encodePng(noise(9, 9, 1));
  throwsWith('E-FILE', /^x\.png cannot be read as PNG.*HTML/s, () => decodePng(Buffer.from('<html>'), 'x.png'));
  throwsWith('E-FILE', /cannot be read as PNG/, () => decodePng(file.slice(0, 60)));
  const damaged = file.slice();
  damaged[50]! ^= 0xff;
  throwsWith('E-FILE', /cannot be read as PNG/, () => decodePng(damaged));
  throwsWith('E-FILE', /an empty file/, () => decodePng(new Uint8Array(0)));
});

png('encodePng refuses data that does not fill the picture', () => {
  throwsWith('E-SHAPE', /2×2 picture of 3 channels has 12 bytes, and 4 were given/, () => encodePng({ width: 2, height: 2, channels: 3, data: new Uint8Array(4) }));
});

/** The chunks of a PNG; checks its signature and every CRC. */
function chunksOf(file: Uint8Array): { type: string; data: Uint8Array }[] {
  assert.equal([...file.subarray(0, 8)], [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength), chunks = [];
  let at = 8;
  while (at < file.length) {
    const length = view.getUint32(at);
    assert.is(view.getUint32(at + 8 + length), crc32(file.subarray(at + 4, at + 8 + length)), `CRC of the chunk at ${at}`);
    chunks.push({ type: String.fromCharCode(...file.subarray(at + 4, at + 8)), data: file.subarray(at + 8, at + 8 + length) });
    at += 12 + length;
  }
  assert.is(at, file.length);
  return chunks;
}

png('an animated PNG has all frames, numbered, timed, looping, and its first frame is a PNG', () => {
  const crcOfIend = 0xae426082; // from the PNG specification's example files: an anchor that does not come from crc32 itself
  for (const channels of [1, 3] as const) {
    const frames = [noise(6, 4, channels), { ...noise(6, 4, channels), data: new Uint8Array(24 * channels).fill(9) }, noise(6, 4, channels)];
    const file = encodeApng(frames, { delay: 50, lastDelay: 2000 });
    assert.is(new DataView(file.buffer).getUint32(file.length - 4), crcOfIend);
    const chunks = chunksOf(file);
    assert.equal(chunks.map(({ type }) => type), ['IHDR', 'acTL', 'fcTL', 'IDAT', 'fcTL', 'fdAT', 'fcTL', 'fdAT', 'IEND']);
    assert.equal([...chunks[1]!.data], [0, 0, 0, 3, 0, 0, 0, 0], 'three frames, for ever');
    const number = (data: Uint8Array): number => new DataView(data.buffer, data.byteOffset).getUint32(0);
    assert.equal(chunks.filter(({ type }) => /f[cd]../.test(type)).map(({ data }) => number(data)), [0, 1, 2, 3, 4]);
    const delays = chunks.filter(({ type }) => type === 'fcTL').map(({ data }) => {
      assert.is(data.length, 26);
      const view = new DataView(data.buffer, data.byteOffset);
      assert.equal([view.getUint32(4), view.getUint32(8), view.getUint32(12), view.getUint32(16)], [6, 4, 0, 0]);
      return view.getUint16(20) / view.getUint16(22);
    });
    assert.equal(delays, [0.05, 0.05, 2]);
    const stored = chunks.filter(({ type }) => type === 'IDAT' || type === 'fdAT').map(({ type, data }) => inflateSync(type === 'IDAT' ? data : data.subarray(4)));
    stored.forEach((lines, i) => {
      const row = 6 * channels, pixels = [0, 1, 2, 3].flatMap((y) => [...lines.subarray(y * (row + 1) + 1, (y + 1) * (row + 1))]);
      assert.equal(pixels, [...frames[i]!.data]);
      assert.ok([0, 1, 2, 3].every((y) => lines[y * (row + 1)] === 0) && lines.length === 4 * (row + 1));
    });
    assert.equal(decodePng(file), frames[0]);
  }
});

png('an animation refuses no frames, frames of two sizes, and impossible delays', () => {
  throwsWith('E-SHAPE', /at least one frame/, () => encodeApng([]));
  throwsWith('E-SHAPE', /frame 1 is 3×2×1 and frame 0 is 2×2×1/, () => encodeApng([noise(2, 2, 1), noise(3, 2, 1)]));
  throwsWith('E-SHAPE', /frame 0 should have 4 bytes and has 3/, () => encodeApng([{ width: 2, height: 2, channels: 1, data: new Uint8Array(3) }]));
  throwsWith('E-USAGE', /70000 ms/, () => encodeApng([noise(2, 2, 1)], { delay: 70_000 }));
});

png.run();

const files = suite('files');
const folder = mkdtempSync(join(tmpdir(), 'ddpm-io-'));
files.after(() => rmSync(folder, { recursive: true, force: true }));

async function rejectsWith(code: ErrorCode, message: RegExp, promise: Promise<unknown>): Promise<void> {
  const error = await promise.then(() => null, (e: unknown) => e);
  throwsWith(code, message, () => {
    if (error) throw error;
  });
}

files('writeAtomic makes folders, replaces, takes bytes, text and chunks, and leaves no temporary file', async () => {
  const path = join(folder, 'a', 'b', 'file.bin');
  await writeAtomic(path, 'text');
  assert.is(readFileSync(path, 'utf8'), 'text');
  await writeAtomic(path, Uint8Array.of(1, 2, 3));
  assert.equal([...(await readFileOr(path))], [1, 2, 3]);
  await writeAtomic(path, [Uint8Array.of(1), new Uint8Array(0), Uint8Array.of(2, 3, 4)]);
  assert.equal([...(await readFileOr(path))], [1, 2, 3, 4]);
  assert.equal(readdirSync(join(folder, 'a', 'b')), ['file.bin']);
});

files('a write that fails half way leaves the old file and no temporary one', async () => {
  const path = join(folder, 'kept.bin');
  await writeAtomic(path, 'old');
  const chunks = function* (): Generator<Uint8Array> {
    yield new Uint8Array(100);
    throw new Error('interrupted');
  };
  await rejectsWith('E-FILE', /cannot write .*kept\.bin: interrupted/, writeAtomic(path, chunks()));
  assert.is(readFileSync(path, 'utf8'), 'old');
  assert.equal(readdirSync(folder).filter((file) => file.includes('kept')), ['kept.bin']);
});

files('two writes to one path at once both succeed and one of them wins whole', async () => {
  const path = join(folder, 'race.bin');
  await Promise.all([writeAtomic(path, new Uint8Array(1e6).fill(1)), writeAtomic(path, new Uint8Array(1e6).fill(2))]);
  const bytes = await readFileOr(path);
  assert.ok(bytes.length === 1e6 && bytes.every((value) => value === bytes[0]));
});

files('a pipe is written into, and not replaced by a file', async () => {
  const path = join(folder, 'pipe');
  execFileSync('mkfifo', [path]);
  const end = openSync(path, constants.O_RDWR | constants.O_NONBLOCK), got = Buffer.alloc(9);
  await requireWritable(path);
  await writeAtomic(path, [Uint8Array.of(1, 2), Uint8Array.of(3)]);
  assert.ok(statSync(path).isFIFO());
  assert.equal([...got.subarray(0, readSync(end, got))], [1, 2, 3]);
  closeSync(end);
});

files('errors say what happened', async () => {
  await rejectsWith('E-FILE', /cannot read .*nowhere: there is no such file or folder/, readFileOr(join(folder, 'nowhere')));
  await rejectsWith('E-DATA', /it is a folder, not a file/, readFileOr(folder, 'E-DATA'));
  writeFileSync(join(folder, 'plain'), 'x');
  throwsWith('E-DATA', /cannot read the folder .*plain: a part of the path is a file/, () => void readFolderOr(join(folder, 'plain'), () => readdirSync(join(folder, 'plain')), 'E-DATA'));
  await rejectsWith('E-FILE', /cannot write .*: a part of the path is a file/, writeAtomic(join(folder, 'plain', 'below'), 'x'));
  await rejectsWith('E-FILE', /cannot write/, writeAtomic(folder, 'x'));
  await rejectsWith('E-FILE', /cannot write .*: a part of the path is a file/, requireWritable(join(folder, 'plain', 'below')));
  await rejectsWith('E-FILE', /cannot write .*: it is a folder/, requireWritable(folder));
  // Where Node's own way of making folders never ends.
  if (process.platform === 'linux') await rejectsWith('E-FILE', /cannot write \/proc\/ddpm\/x: there is no such file or folder/, writeAtomic('/proc/ddpm/x', 'x'));
  const before = readdirSync(folder);
  await requireWritable(join(folder, 'plain'));
  assert.equal(readdirSync(folder), before, 'trying leaves nothing');
});

files('readFileOr gives a plain Uint8Array, whose slice copies', async () => {
  writeFileSync(join(folder, 'small'), 'abc');
  const bytes = await readFileOr(join(folder, 'small'));
  assert.is(bytes.constructor, Uint8Array);
});

files('looksLike recognises what people pass by mistake', () => {
  const cases: [string | Uint8Array, RegExp][] = [
    ['  <html>', /HTML/], ['<?xml version="1.0"?><Error>', /HTML or XML/], [gzipSync('x'), /gzip/], [encodePng(noise(1, 1, 1)), /PNG/],
    [Uint8Array.of(0xff, 0xd8, 0xff), /JPEG/], ['\x93NUMPY', /npy/], [Uint8Array.of(0x80, 2, 0x7d), /pickle/], [Uint8Array.of(0, 0, 8, 3), /IDX/],
    [writeSafetensors([]), /safetensors/], ['{"a": 1}', /JSON/], [new Uint8Array(0), /empty/], [Uint8Array.of(1, 2, 3, 4, 5), /begin 01 02 03 04/],
  ];
  for (const [bytes, want] of cases) assert.match(looksLike(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes), want);
});

files.run();
