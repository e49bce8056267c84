// What sample reads besides the model: images, by file or by their number in a data set, a mask, and starting noise.

import { loadDataset } from '../data/dataset.ts';
import { DdpmError } from '../errors.ts';
import { readFileOr } from '../io/files.ts';
import type { Picture } from '../io/picture.ts';
import { decodePng } from '../io/png.ts';
import { readSafetensors } from '../io/safetensors.ts';
import { nchwToNhwc, sizeOf } from '../tensor.ts';
import { readingOptions } from './data-settings.ts';
import { parseNumber } from './flags.ts';
import type { ImageShape, PlacedModel } from './sampling.ts';

const size = (shape: ImageShape): string => shape.join('×');

/** Bytes as values in [-1, 1]. */
const values = (bytes: Uint8Array): Float32Array<ArrayBuffer> => Float32Array.from(bytes, (b) => b / 127.5 - 1);

/** The name of the data set that numbers of images mean: --data, or that of the run. */
export function dataSetOf({ from }: PlacedModel, data: string | null): string {
  const name = data ?? from?.run.config()['data'];
  if (typeof name !== 'string') throw new DdpmError('E-USAGE', 'which data set do the images come from? The model is of no run that would say it: name it with --data, or name image files.');
  return name;
}

/**
 * Images named with commas between them, each a PNG file or the number of an image in the data set: (N, H, W, C) in [-1, 1].
 *
 * @param flag what asks for them, for messages
 * @throws DdpmError E-SHAPE for an image of another size than the model's, E-USAGE for a number that the data set does not have
 */
export async function readImages(names: string, flag: string, image: ImageShape, placed: PlacedModel, data: string | null): Promise<{ names: string[]; images: Float32Array<ArrayBuffer> }> {
  const list = names.split(',').map((name) => name.trim()).filter(Boolean), [height, width, channels] = image;
  if (list.length === 0) throw new DdpmError('E-USAGE', `${flag} names no image. Name PNG files, or numbers of images in the data set: ${flag} 12`);
  const numbers = list.filter((name) => /^\d+$/.test(name)).map(Number);
  const set = numbers.length ? await loadDataset(dataSetOf(placed, data), { limit: Math.max(...numbers) + 1, ...readingOptions({ data }, placed.from?.run) }) : null;
  if (set && (set.height !== height || set.width !== width || set.channels !== channels))
    throw new DdpmError('E-SHAPE', `the images of ${set.name} are ${set.height}×${set.width}×${set.channels}, and the model makes ${size(image)}. Choose the data that it was trained on with --data.`);
  const images = new Float32Array(list.length * sizeOf(image));
  for (const [i, name] of list.entries()) {
    if (/^\d+$/.test(name)) {
      if (Number(name) >= set!.count) throw new DdpmError('E-USAGE', `${flag} ${name}: ${set!.name} has images 0 to ${set!.count - 1}.`);
      images.set(values(set!.pixels.subarray(Number(name) * sizeOf(image), (Number(name) + 1) * sizeOf(image))), i * sizeOf(image));
    } else images.set(values(fitted(await readPng(name, flag), name, image)), i * sizeOf(image));
  }
  return { names: list, images };
}

/**
 * Which pixels to paint, (H, W), 1 where: a PNG whose bright pixels are, or a box x,y,width,height.
 *
 * @throws DdpmError E-SHAPE for another size, E-USAGE for a box outside of the image or a mask that leaves nothing to paint
 */
export async function readMask(name: string, image: ImageShape): Promise<Float32Array<ArrayBuffer>> {
  const [height, width] = image, mask = new Float32Array(height * width);
  if (/^[\d,\s]+$/.test(name)) {
    const [x, y, w, h, ...rest] = name.split(',').map(parseNumber) as [number, number, number, number];
    if (![x, y, w, h].every(Number.isInteger) || rest.length || w < 1 || h < 1 || x + w > width || y + h > height)
      throw new DdpmError('E-USAGE', `--mask ${name}: a box is x,y,width,height within ${width}×${height}, such as --mask ${Math.floor(width / 4)},${Math.floor(height / 4)},${Math.ceil(width / 2)},${Math.ceil(height / 2)}.`);
    for (let i = y; i < y + h; i++) mask.fill(1, i * width + x, i * width + x + w);
    return mask;
  }
  const picture = await readPng(name, '--mask');
  if (picture.height !== height || picture.width !== width) throw new DdpmError('E-SHAPE', `the mask ${name} is ${picture.height}×${picture.width}, and the images are ${height}×${width}. It needs their size, white where to paint.`);
  for (let p = 0; p < mask.length; p++) mask[p] = Number(picture.data[p * picture.channels]! >= 128);
  if (!mask.includes(1)) throw new DdpmError('E-USAGE', `the mask ${name} is all dark: there is nothing to paint. White is where to paint.`);
  return mask;
}

/** x_T of a file, turned to NHWC. The image size is the file's, which must be the model's where the model has one. */
export async function readNoise(path: string, channels: number, sample_size: number | readonly [number, number] | null): Promise<{ n: number; image: ImageShape; data: Float32Array }> {
  const { tensors } = readSafetensors(await readFileOr(path), path);
  const tensor = tensors.get('x_T');
  if (!tensor) throw new DdpmError('E-FILE', `${path} has no tensor x_T; it has ${[...tensors.keys()].slice(0, 5).join(', ') || 'none'}.`);
  const { shape, data, dtype } = tensor;
  const [n, found, height, width] = shape as [number, number, number, number];
  const wanted = sample_size === null ? ['H', 'W'] : typeof sample_size === 'number' ? [sample_size, sample_size] : sample_size;
  const fits = shape.length === 4 && n > 0 && found === channels && (sample_size === null || (height === wanted[0] && width === wanted[1]));
  if (!fits) throw new DdpmError('E-SHAPE', `x_T in ${path} has the shape (${shape.join(', ')}); this model takes (N, ${channels}, ${wanted.join(', ')}).`);
  if (!(data instanceof Float32Array)) throw new DdpmError('E-FILE', `x_T in ${path} is ${dtype}; it must be float32.`);
  return { n, image: [height, width, channels], data: nchwToNhwc(data, [n, channels, height, width]) };
}

async function readPng(name: string, flag: string): Promise<Picture> {
  try {
    return decodePng(await readFileOr(name), name);
  } catch (error) {
    if (!(error instanceof DdpmError)) throw error;
    throw new DdpmError(error.code, `${error.message.replace(/\.$/, '')}. ${flag} takes ${flag === '--mask' ? 'a PNG file or a box x,y,width,height' : 'PNG files, or numbers of images in the data set'}.`, { cause: error });
  }
}

/** The picture's bytes in the model's channels: grey for colour by repetition, colour for grey by its luma (ITU-R BT.601). */
function fitted(picture: Picture, name: string, image: ImageShape): Uint8Array {
  const [height, width, channels] = image;
  if (picture.height !== height || picture.width !== width) throw new DdpmError('E-SHAPE', `${name} is ${picture.height}×${picture.width}, and the model makes ${height}×${width}. Resize it first.`);
  if (picture.channels === channels) return picture.data;
  const out = new Uint8Array(height * width * channels);
  for (let p = 0; p < height * width; p++) {
    if (channels === 3) out.fill(picture.data[p]!, 3 * p, 3 * p + 3);
    else out[p] = Math.round(0.299 * picture.data[3 * p]! + 0.587 * picture.data[3 * p + 1]! + 0.114 * picture.data[3 * p + 2]!);
  }
  return out;
}
