// A data set in another size, or in grey or colour, whatever format it came from.

import { DdpmError } from '../errors.ts';
import type { Dataset } from './images.ts';
import { squareFitter, withChannels } from './resize.ts';

export type Conversion = {
  /** Shorter side to resize to, before the square middle is cut out. */
  imageSize?: number | undefined;
  channels?: 1 | 3 | undefined;
};

const LARGEST = 2 ** 32; // bytes of pixels

/** Throws E-LIMIT where so many images are too many to hold. */
export function checkBytes(count: number, size: number): void {
  const most = Math.floor(LARGEST / size);
  if (count > most) throw new DdpmError('E-LIMIT', `${count} images of ${size} bytes are more than 4 GiB. Use a smaller --image-size${most ? ` or --limit ${most}` : ''}.`);
}

/** The same images and labels, each image resized and in the channels that are asked for. What is asked for already comes back as it is. */
export function converted(data: Dataset, { imageSize, channels = data.channels as 1 | 3 }: Conversion): Dataset {
  const { count, pixels, channels: C } = data, height = imageSize ?? data.height, width = imageSize ?? data.width;
  if (height === data.height && width === data.width && channels === C) return data;
  checkBytes(count, height * width * channels);
  const from = data.height * data.width * C, to = height * width * channels, out = new Uint8Array(count * to);
  const fit = imageSize === undefined ? (each: Uint8Array) => each : squareFitter(data.width, data.height, C, imageSize);
  for (let i = 0; i < count; i++) out.set(withChannels({ width, height, channels: C as 1 | 3, data: fit(pixels.subarray(i * from, (i + 1) * from)) }, channels).data, i * to);
  return { ...data, height, width, channels, pixels: out };
}
