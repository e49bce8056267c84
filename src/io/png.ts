// PNG both ways, through pngjs.

import { PNG } from 'pngjs';
import { DdpmError } from '../errors.ts';
import type { Picture } from './picture.ts';
import { pngDamage } from './png-damage.ts';

/**
 * A PNG file, 8 bits a channel, grey (colour type 0) or RGB (2).
 * @throws DdpmError(E-SHAPE) when the data does not fill the picture
 */
export function encodePng({ width, height, channels, data }: Picture): Uint8Array {
  if (data.length !== width * height * channels || data.length === 0) {
    throw new DdpmError('E-SHAPE', `a ${width}×${height} picture of ${channels} channels has ${width * height * channels} bytes, and ${data.length} were given.`);
  }
  const colorType = channels === 1 ? 0 : 2;
  const png = { width, height, data: Buffer.from(data.buffer, data.byteOffset, data.byteLength) } as unknown as PNG;
  return PNG.sync.write(png, { colorType, inputColorType: colorType, bitDepth: 8, inputHasAlpha: false });
}

/**
 * Reads a PNG of any kind: grey files give one channel, all others three. Transparency is dropped, or laid over the grey value `background`; 16-bit values are scaled to 8.
 * @throws DdpmError(E-FILE) when it is damaged or not a PNG
 */
export function decodePng(bytes: Uint8Array, name = 'the image', background?: number): Picture {
  const refuse = (what: string, cause?: unknown): DdpmError => new DdpmError('E-FILE', `${name} cannot be read as PNG: ${what}. Make or download it again.`, { cause });
  const damage = pngDamage(bytes); // pngjs would fill pixels that are missing with whatever is in memory
  if (damage) throw refuse(damage);
  let png;
  try {
    png = PNG.sync.read(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  } catch (error) {
    throw refuse((error as Error).message, error);
  }
  const { width, height } = png, channels = png.color ? 3 : 1;
  const data = new Uint8Array(width * height * channels);
  for (let i = 0; i < width * height; i++) { // pngjs always gives RGBA
    const alpha = background === undefined ? 255 : png.data[i * 4 + 3]!;
    for (let k = 0; k < channels; k++) data[i * channels + k] = Math.round((png.data[i * 4 + k]! * alpha + (background ?? 0) * (255 - alpha)) / 255);
  }
  return { width, height, channels, data };
}
