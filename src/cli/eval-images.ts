// The images that eval measures: drawn from a model, read from files, or real ones of the other split.

import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Dataset } from '../data/dataset.ts';
import { DdpmError } from '../errors.ts';
import { readFileOr, readFolderOr, writeAtomic } from '../io/files.ts';
import { npzChunks, readNpz } from '../io/npz.ts';
import { toBytes } from '../io/picture.ts';
import { decodePng } from '../io/png.ts';
import type { Images } from '../quality/extractor.ts';
import { drawSamples, say } from './command.ts';
import type { Parsed } from './flags.ts';
import { Bar, showCompiling } from './progress.ts';
import { describeSampler, imageShape, openSampler, type PlacedModel, samplerOptions } from './sampling.ts';
import type { EVAL } from './settings.ts';

/** Images to measure, and how they came about. */
export interface Measured {
  readonly images: Images;
  readonly protocol: Readonly<Record<string, string | number>>;
}

/** Samples of the model, quantised. */
export async function drawImages(placed: PlacedModel, { settings, given }: Parsed<typeof EVAL>): Promise<Measured> {
  const { n, seed, weights, batchSize, guidance } = settings, { model, unet, from } = placed;
  const image = imageShape(unet, model), options = samplerOptions(settings, given, model.scheduler);
  // Of a model with classes, each in turn.
  const { network, sampler } = openSampler(placed, image, options, { n, batchSize, label: null, guidance });
  const evaluations = sampler.rows.length, described = describeSampler(options, evaluations);
  say('sampler', [described, `seed ${seed}`, `${n} of ${image.join('×')} in batches of ${sampler.shape[0]}`, network.description].filter(Boolean).join(', '));
  await showCompiling((progress) => sampler.compile(progress));
  const bar = new Bar(n * evaluations);
  const samples = await drawSamples(sampler, { n, seed, onBatch: (first) => network.begin(first), onStep: ({ first, rows, done }) => bar.draw(first * evaluations + rows * done) });
  say('time', bar.clear());
  await sampler.destroy();
  network.free();
  const [height, width, channels] = image;
  const pixels = toBytes(samples, (count) => {
    throw new DdpmError('E-NONFINITE', `${count} values of the samples are not numbers: the weights may be damaged or the training diverged.`);
  });
  const protocol = { sampler: described, ...(network.description && { labels: network.description }), weights, ...(from && { checkpoint: `step ${from.checkpoint.step}` }), seed, quantisation: 'uint8: clamped to [-1, 1], rounded' };
  return { images: { count: n, height, width, channels, pixels }, protocol };
}

/** Whether what is named holds images rather than a model: a run may have pictures, too, such as the curve of its likelihood. */
export const holdsImages = (path: string): boolean =>
  path.endsWith('.npz') || (existsSync(path) && statSync(path).isDirectory() && !existsSync(join(path, 'config.json')) && pngsOf(path).length > 0);

const pngsOf = (folder: string): string[] => readFolderOr(folder, () => readdirSync(folder)).filter((file) => file.toLowerCase().endsWith('.png')).sort();

/**
 * The first n images of a folder of PNGs, or of an .npz file whose first array is uint8 (count, height, width, channels), as samples are exchanged.
 *
 * @throws DdpmError E-DATA where the images are not of one size or not of that type
 */
export async function readImages(path: string, n: number): Promise<Measured> {
  if (path.endsWith('.npz')) {
    const [found] = readNpz(await readFileOr(path, 'E-DATA'), path);
    const { shape, data } = found?.[1] ?? { shape: [], data: null };
    const [count, height, width, channels = 1] = shape as [number, number, number, number?];
    if (!(data instanceof Uint8Array) || shape.length < 3 || shape.length > 4 || (channels !== 1 && channels !== 3))
      throw new DdpmError('E-DATA', `the first array of ${path} ${found ? `is (${shape.join(', ')}) ${data!.constructor.name.replace('Array', '')}` : 'is missing'}; images are uint8 of (count, height, width) or (count, height, width, 1 or 3).`);
    const used = Math.min(n, count);
    return { images: { count: used, height, width, channels, pixels: data.subarray(0, used * height * width * channels) }, protocol: { source: `${path}, array ${found![0]}` } };
  }
  const files = pngsOf(path).slice(0, n);
  const pictures = await Promise.all(files.map(async (file) => decodePng(await readFileOr(join(path, file), 'E-DATA'), join(path, file))));
  const { height, width } = pictures[0]!, channels = Math.max(...pictures.map((p) => p.channels));
  const pixels = new Uint8Array(files.length * height * width * channels);
  pictures.forEach((picture, i) => {
    if (picture.height !== height || picture.width !== width)
      throw new DdpmError('E-DATA', `${join(path, files[i]!)} is ${picture.height}×${picture.width} and ${join(path, files[0]!)} is ${height}×${width}: images to measure are of one size.`);
    // A colour picture may be saved as grey where it has no colour.
    for (let p = 0; p < height * width; p++) for (let c = 0; c < channels; c++) pixels[(i * height * width + p) * channels + c] = picture.data[p * picture.channels + Math.min(c, picture.channels - 1)]!;
  });
  return { images: { count: files.length, height, width, channels, pixels }, protocol: { source: `${path}, ${files.length} PNG files` } };
}

/** Writes images as readImages takes them. */
export async function keepImages(path: string, { count, height, width, channels, pixels }: Images): Promise<void> {
  await writeAtomic(path, npzChunks([['arr_0', { shape: [count, height, width, channels], data: pixels as Uint8Array<ArrayBuffer> }]]));
  say('images', path);
}

/** The first n images. */
export function firstImages(data: Images, n: number): Images {
  const count = Math.min(n, data.count), { height, width, channels, pixels } = data;
  return { count, height, width, channels, pixels: pixels.subarray(0, count * height * width * channels) };
}

/** Real images, as a perfect model would draw them. */
export const realImages = (data: Dataset, n: number, split: string): Measured => ({ images: firstImages(data, n), protocol: { source: `real images, the ${split} split` } });
