// Image files to pixels: PNG by our own means, JPEG, WebP, GIF and TIFF through the optional package sharp.

import { open } from 'node:fs/promises';
import { DdpmError } from '../errors.ts';
import { readFileOr, reason } from '../io/files.ts';
import { looksLike } from '../io/magic.ts';
import type { Picture } from '../io/picture.ts';
import { decodePng } from '../io/png.ts';

/** Names of image files. */
export const IMAGE = /\.(png|jpe?g|webp|gif|tiff?)$/i;
const LARGEST = 2 ** 28; // pixels of one image: more is a damaged header

export type Size = { width: number; height: number; channels: 1 | 3 };

type Sharp = (input: Uint8Array, options: { autoOrient: boolean }) => {
  metadata(): Promise<{ autoOrient: { width: number; height: number }; space?: string }>;
  flatten(options: { background: string }): { toColourspace(space: string): { raw(): { toBuffer(options: { resolveWithObject: true }): Promise<{ data: Uint8Array; info: { width: number; height: number; channels: number } }> } } };
};

/** What sharp makes of a file. Photographs are turned upright, as their cameras say. */
async function throughSharp<T>(path: string, use: (image: ReturnType<Sharp>) => Promise<T>): Promise<T> {
  const bytes = await readFileOr(path, 'E-DATA'), name = 'sharp'; // optional, so that nobody's types or bundle need it
  let sharp: Sharp;
  try {
    sharp = ((await import(name)) as { default: Sharp }).default;
  } catch (error) {
    throw new DdpmError('E-USAGE', `${path} is ${looksLike(bytes)}, which the optional package sharp reads, and it is not installed. Type: npm i sharp   (or convert the images to PNG)`, { cause: error });
  }
  try {
    return await use(sharp(bytes, { autoOrient: true }));
  } catch (error) {
    throw new DdpmError('E-DATA', `${path} is damaged: ${(error as Error).message.trim().replace(/\s+/g, ' ')}; it looks like ${looksLike(bytes)}.`, { cause: error });
  }
}

const isGrey = (space: string | undefined): boolean => space === 'b-w' || space === 'grey16';

/** Size and channels of a PNG from its first bytes, null for the formats of sharp. */
function probe(head: Uint8Array, path: string): Size | null {
  const b = (i: number): number => head[i] ?? -1, text = String.fromCharCode(...head.subarray(0, 12));
  if ((b(0) === 0xff && b(1) === 0xd8) || text.startsWith('GIF8') || (text.startsWith('RIFF') && text.endsWith('WEBP')) || text.startsWith('II*\0') || text.startsWith('MM\0*')) return null;
  if (!text.startsWith('\x89PNG\r\n\x1a\n')) throw new DdpmError('E-DATA', `${path} is no image: at byte 0 a PNG has 89 50 4e 47 0d 0a 1a 0a, and this looks like ${looksLike(head)}.`);
  if (head.length < 26) throw new DdpmError('E-DATA', `${path} is cut off after ${head.length} bytes, within the header of a PNG.`);
  const view = new DataView(head.buffer, head.byteOffset), width = view.getUint32(16), height = view.getUint32(20);
  if (width * height === 0 || width * height > LARGEST) throw new DdpmError('E-DATA', `${path} is damaged: at byte 16 its header has the size ${width} × ${height}.`);
  return { width, height, channels: b(25) & 2 ? 3 : 1 };
}

/**
 * The size of an image, from its header alone.
 * @throws DdpmError(E-DATA) where it is no image or its header is damaged, E-USAGE where sharp is needed and missing
 */
export async function sizeOfImage(path: string): Promise<Size> {
  const file = await open(path, 'r').catch((error: Error) => { throw new DdpmError('E-DATA', `cannot read ${path}: ${reason(error)}.`, { cause: error }); });
  const head = new Uint8Array(64);
  const { bytesRead } = await file.read(head, 0, 64, 0).finally(() => file.close());
  return probe(head.subarray(0, bytesRead), path) ?? throughSharp(path, async (image) => {
    const { autoOrient, space } = await image.metadata();
    return { width: autoOrient.width, height: autoOrient.height, channels: isGrey(space) ? 1 : 3 };
  });
}

/**
 * The pixels of an image, transparent ones over white.
 * @throws DdpmError(E-DATA) where it is damaged, saying what and where, E-USAGE where sharp is needed and missing
 */
export async function decodeImage(path: string): Promise<Picture> {
  const bytes = await readFileOr(path, 'E-DATA');
  if (!probe(bytes.subarray(0, 64), path)) {
    return throughSharp(path, async (image) => {
      const grey = isGrey((await image.metadata()).space);
      const { data, info } = await image.flatten({ background: '#fff' }).toColourspace(grey ? 'b-w' : 'srgb').raw().toBuffer({ resolveWithObject: true });
      return { width: info.width, height: info.height, channels: info.channels as 1 | 3, data: Uint8Array.from(data) };
    });
  }
  try {
    return decodePng(bytes, path, 255);
  } catch (error) {
    throw new DdpmError('E-DATA', (error as Error).message, { cause: error });
  }
}
