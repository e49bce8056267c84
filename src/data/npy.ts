// NumPy's .npy files (format versions 1 to 3): the header, the numbers, and images or labels made of them. Needs no Node.

import { DdpmError } from '../errors.ts';
import { looksLike } from '../io/magic.ts';
import type { Images } from './images.ts';

const BYTES: Record<string, number> = { b1: 1, u1: 1, i1: 1, u2: 2, i2: 2, u4: 4, i4: 4, f4: 4, u8: 8, i8: 8, f8: 8 };

export type Npy = { readonly shape: readonly number[]; readonly dtype: string; readonly size: number; at(i: number): number; readonly raw: Uint8Array };

/**
 * Parses a .npy file.
 * @returns its sizes, slowest first, NumPy's name of its type without the byte order ('u1', 'f4' …), and its values
 * @throws DdpmError(E-DATA) when it is not one, holds other than plain numbers in C order, or has not the length that its shape needs
 */
export function parseNpy(bytes: Uint8Array, name: string): Npy {
  const fail = (what: string): never => {
    throw new DdpmError('E-DATA', `${name} cannot be used: ${what}`);
  };
  if (bytes.length < 10 || String.fromCharCode(...bytes.subarray(0, 6)) !== '\x93NUMPY') fail(`it is not a .npy file, which begins 93 4e 55 4d 50 59; it looks like ${looksLike(bytes)}.`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), version = bytes[6]!;
  if (version < 1 || version > 3 || bytes.length < 12) fail(`byte 6 gives the format version ${version}, and 1, 2 and 3 are read.`);
  const start = version === 1 ? 10 : 12, end = start + (version === 1 ? view.getUint16(8, true) : view.getUint32(8, true));
  if (bytes.length < end) fail(`its header goes to byte ${end} and it has ${bytes.length}: it is cut off.`);
  const header = new TextDecoder('latin1').decode(bytes.subarray(start, Math.min(end, start + 4096)));
  const [, order, dtype = ''] = /'descr':\s*'([<>|=])([a-zA-Z]\d+)'/.exec(header) ?? [], tuple = /'shape':\s*\(([\d,\s]*)\)/.exec(header)?.[1];
  const width = BYTES[dtype];
  if (width === undefined) fail(`its values are ${dtype || `not plain numbers (its header is ${JSON.stringify(header.slice(0, 80).trim())})`}; save uint8, or float32 with x.astype(numpy.float32).`);
  if (tuple === undefined) fail(`its header at byte ${start} has no shape: it is damaged.`);
  if (/'fortran_order':\s*True/.test(header)) fail('it is in Fortran order; save numpy.ascontiguousarray(x).');
  const shape = tuple!.split(',').map((size) => size.trim()).filter((size) => size !== '').map(Number), size = shape.reduce((a, b) => a * b, 1);
  const needed = end + size * width!;
  if (bytes.length !== needed) fail(`its shape (${shape.join(', ')}) of ${dtype} needs ${needed} bytes and it has ${bytes.length}: it is ${bytes.length < needed ? 'cut off' : 'damaged'}.`);
  const little = order !== '>', raw = bytes.subarray(end), values = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
  const read: Record<string, (i: number) => number> = {
    b1: (i) => values.getUint8(i), u1: (i) => values.getUint8(i), i1: (i) => values.getInt8(i),
    u2: (i) => values.getUint16(2 * i, little), i2: (i) => values.getInt16(2 * i, little),
    u4: (i) => values.getUint32(4 * i, little), i4: (i) => values.getInt32(4 * i, little), f4: (i) => values.getFloat32(4 * i, little),
    u8: (i) => Number(values.getBigUint64(8 * i, little)), i8: (i) => Number(values.getBigInt64(8 * i, little)), f8: (i) => values.getFloat64(8 * i, little),
  };
  return { shape, dtype, size, raw, at: read[dtype]! };
}

/**
 * Images (N, H, W) or (N, H, W, C), C = 1 or 3: uint8, or float in [0, 1], [-1, 1] or [0, 255], the first of these that holds all values.
 * @returns the images and, for floats, the range that was recognised
 * @throws DdpmError(E-DATA) on other shapes, types and ranges
 */
export function npyImages(npy: Npy, name: string): Images & { range: string | null } {
  const { shape, dtype, size, at } = npy, [count = 0, height = 0, width = 0, channels = 1] = shape;
  const fail = (what: string): never => {
    throw new DdpmError('E-DATA', `${name} cannot be used: ${what}`);
  };
  if (shape.length < 3 || shape.length > 4 || (channels !== 1 && channels !== 3)) {
    const first = shape.length === 4 && (shape[1] === 1 || shape[1] === 3) ? ' Its channels seem to come first: save x.transpose(0, 2, 3, 1).' : '';
    fail(`its shape is (${shape.join(', ')}), and images are (count, height, width) or (count, height, width, 1 or 3).${first}`);
  }
  if (size === 0) fail(`it holds no images: its shape is (${shape.join(', ')}).`);
  const images = { count, height, width, channels };
  if (dtype === 'u1') return { ...images, pixels: new Uint8Array(npy.raw.buffer, npy.raw.byteOffset, size), range: null };
  if (dtype !== 'f4' && dtype !== 'f8') fail(`its values are ${dtype}, and images are uint8 or float; save x.astype(numpy.uint8).`);
  let low = Infinity, high = -Infinity;
  for (let i = 0; i < size; i++) {
    const x = at(i);
    if (!Number.isFinite(x)) fail(`value ${i} of it is ${x}, and pixels are finite.`);
    if (x < low) low = x;
    if (x > high) high = x;
  }
  const ranges: [number, number][] = [[0, 1], [-1, 1], [0, 255]];
  const range = ranges.find(([from, to]) => low >= from && high <= to) ?? fail(`its values go from ${low} to ${high}, which is within none of [0, 1], [-1, 1] and [0, 255]. Scale them.`);
  const [from, to] = range, scale = 255 / (to - from), pixels = new Uint8Array(size);
  for (let i = 0; i < size; i++) pixels[i] = Math.round((at(i) - from) * scale);
  return { ...images, pixels, range: `[${from}, ${to}]` };
}

/**
 * Class labels: whole numbers from 0 to 65535, shape (N) or (N, 1).
 * @throws DdpmError(E-DATA) on anything else, or another count than that of the images
 */
export function npyLabels({ shape, dtype, size, at }: Npy, name: string, count: number): Uint8Array | Uint16Array {
  if (shape[0] !== count || size !== count) throw new DdpmError('E-DATA', `${name} has the shape (${shape.join(', ')}), and ${count} images need (${count}) labels: the two do not belong together.`);
  const values = Array.from({ length: size }, (_, i) => at(i)), bad = values.findIndex((x) => !Number.isInteger(x) || x < 0 || x > 0xffff);
  if (bad >= 0 || dtype === 'b1') throw new DdpmError('E-DATA', `label ${Math.max(0, bad)} of ${name} is ${values[Math.max(0, bad)]} (${dtype}), and labels are whole numbers from 0 to 65535.`);
  return values.every((x) => x < 256) ? Uint8Array.from(values) : Uint16Array.from(values);
}
