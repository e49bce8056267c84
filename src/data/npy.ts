// Images and labels out of NumPy's arrays. Needs no Node.

import { DdpmError } from '../errors.ts';
import type { NpyArray } from '../io/npy.ts';
import type { Images } from './images.ts';

/**
 * Images (N, H, W) or (N, H, W, C), C = 1 or 3: uint8, or float in [0, 1], [-1, 1] or [0, 255], the first of these that holds all values.
 * @returns the images and, for floats, the range that was recognised
 * @throws DdpmError(E-DATA) on other shapes, types and ranges
 */
export function npyImages({ shape, data }: NpyArray, name: string): Images & { range: string | null } {
  const [count = 0, height = 0, width = 0, channels = 1] = shape, size = data.length;
  const fail = (what: string): never => {
    throw new DdpmError('E-DATA', `${name} cannot be used: ${what}`);
  };
  if (shape.length < 3 || shape.length > 4 || (channels !== 1 && channels !== 3)) {
    const first = shape.length === 4 && (shape[1] === 1 || shape[1] === 3) ? ' Its channels seem to come first: save x.transpose(0, 2, 3, 1).' : '';
    fail(`its shape is (${shape.join(', ')}), and images are (count, height, width) or (count, height, width, 1 or 3).${first}`);
  }
  if (size === 0) fail(`it holds no images: its shape is (${shape.join(', ')}).`);
  const images = { count, height, width, channels };
  if (data instanceof Uint8Array) return { ...images, pixels: data, range: null };
  if (!(data instanceof Float32Array || data instanceof Float64Array)) return fail(`its values are whole numbers of another size, and images are uint8 or float; save x.astype(numpy.uint8).`);
  let low = Infinity, high = -Infinity;
  for (let i = 0; i < size; i++) {
    const x = data[i]!;
    if (!Number.isFinite(x)) fail(`value ${i} of it is ${x}, and pixels are finite.`);
    if (x < low) low = x;
    if (x > high) high = x;
  }
  const ranges: [number, number][] = [[0, 1], [-1, 1], [0, 255]];
  const range = ranges.find(([from, to]) => low >= from && high <= to) ?? fail(`its values go from ${low} to ${high}, which is within none of [0, 1], [-1, 1] and [0, 255]. Scale them.`);
  const [from, to] = range, scale = 255 / (to - from), pixels = new Uint8Array(size);
  for (let i = 0; i < size; i++) pixels[i] = Math.round((data[i]! - from) * scale);
  return { ...images, pixels, range: `[${from}, ${to}]` };
}

/**
 * Class labels: whole numbers from 0 to 65535, shape (N) or (N, 1).
 * @throws DdpmError(E-DATA) on anything else, or another count than that of the images
 */
export function npyLabels({ shape, data }: NpyArray, name: string, count: number): Uint8Array | Uint16Array {
  if (shape[0] !== count || data.length !== count) throw new DdpmError('E-DATA', `${name} has the shape (${shape.join(', ')}), and ${count} images need (${count}) labels: the two do not belong together.`);
  const values = Array.from(data, Number), bad = values.findIndex((x) => !Number.isInteger(x) || x < 0 || x > 0xffff);
  if (bad >= 0) throw new DdpmError('E-DATA', `label ${bad} of ${name} is ${values[bad]}, and labels are whole numbers from 0 to 65535.`);
  return values.every((x) => x < 256) ? Uint8Array.from(values) : Uint16Array.from(values);
}
