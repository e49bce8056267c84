// Folders of image files: PNG by our own means, JPEG, WebP, GIF and TIFF through the optional package sharp. First-level folders are classes.

import { type Dirent, existsSync, readdirSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { basename, join, relative, resolve } from 'node:path';
import { DdpmError } from '../errors.ts';
import { readFileOr } from '../io/files.ts';
import { looksLike } from '../io/magic.ts';
import type { Picture } from '../io/picture.ts';
import { decodePng } from '../io/png.ts';
import type { Dataset } from './images.ts';
import { cacheFile, cacheFolder, type Decoded, readCache, writeCache } from './pixel-cache.ts';
import { fitSquare, withChannels } from './resize.ts';

const IMAGE = /\.(png|jpe?g|webp|gif|tiff?)$/i;
const LARGEST = 2 ** 28; // pixels of one image: more is a damaged header

export type FolderOptions = {
  split: 'train' | 'test';
  limit?: number | undefined;
  /** Shorter side to resize to, before the square middle is cut out. */
  imageSize?: number | undefined;
  /** Grey or colour for all (colour where any image has it). */
  channels?: 1 | 3 | undefined;
  /** Leaves damaged files out, with a warning, instead of stopping. */
  skipBad?: boolean | undefined;
  /** Folder for decoded pixels. */
  cache?: string | undefined;
  say: (text: string) => void;
};

type Size = { width: number; height: number; channels: 1 | 3 };

/** The image files below a folder, as sorted relative paths. Hidden ones are passed over. */
export function imageFiles(folder: string): string[] {
  const visible = (entry: Dirent): boolean => IMAGE.test(entry.name) && !entry.isDirectory();
  const paths = readdirSync(folder, { recursive: true, withFileTypes: true }).filter(visible).map((entry) => relative(folder, join(entry.parentPath, entry.name)).replaceAll('\\', '/'));
  return paths.filter((path) => !path.split('/').some((part) => part.startsWith('.') || part === '__MACOSX')).sort();
}

type Sharp = (input: Uint8Array) => {
  metadata(): Promise<{ width: number; height: number; channels: number; space?: string }>;
  flatten(options: { background: string }): { toColourspace(space: string): { raw(): { toBuffer(options: { resolveWithObject: true }): Promise<{ data: Uint8Array; info: { width: number; height: number; channels: number } }> } } };
};

async function decodeOther(bytes: Uint8Array, path: string): Promise<Picture> {
  const name = 'sharp'; // optional, so that nobody's types or bundle need it
  let sharp: Sharp;
  try {
    sharp = ((await import(name)) as { default: Sharp }).default;
  } catch (error) {
    throw new DdpmError('E-USAGE', `${path} is ${looksLike(bytes)}, which the optional package sharp reads, and it is not installed. Type: npm i sharp   (or convert the images to PNG)`, { cause: error });
  }
  try {
    const grey = (await sharp(bytes).metadata()).space === 'b-w';
    const { data, info } = await sharp(bytes).flatten({ background: '#fff' }).toColourspace(grey ? 'b-w' : 'srgb').raw().toBuffer({ resolveWithObject: true });
    return { width: info.width, height: info.height, channels: info.channels as 1 | 3, data: Uint8Array.from(data) };
  } catch (error) {
    throw new DdpmError('E-DATA', `${path} is damaged: ${(error as Error).message}; it looks like ${looksLike(bytes)}.`, { cause: error });
  }
}

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

async function decode(path: string, background = 255): Promise<Picture> {
  const bytes = await readFileOr(path, 'E-DATA');
  if (!probe(bytes.subarray(0, 64), path)) return decodeOther(bytes, path);
  try {
    return decodePng(bytes, path, background);
  } catch (error) {
    throw new DdpmError('E-DATA', (error as Error).message, { cause: error });
  }
}

async function sizeOf(path: string): Promise<Size> {
  const file = await open(path, 'r').catch((error: Error) => { throw new DdpmError('E-DATA', `cannot read ${path}: ${error.message}.`, { cause: error }); });
  const head = new Uint8Array(64);
  const { bytesRead } = await file.read(head, 0, 64, 0).finally(() => file.close());
  return probe(head.subarray(0, bytesRead), path) ?? decode(path);
}

/**
 * Loads the images below a folder, transparent ones over white. With `train` and `test` in it, these are the splits.
 * @throws DdpmError(E-DATA) on a damaged file (unless skipBad) or on mixed sizes without imageSize, E-USAGE where sharp is needed and missing
 */
export async function loadFolder(folder: string, options: FolderOptions): Promise<Dataset> {
  const { split, limit, imageSize, skipBad = false, say } = options;
  const half = join(folder, split), root = existsSync(half) && statSync(half).isDirectory() ? half : folder;
  if (split === 'test' && root === folder) throw new DdpmError('E-DATA', `the folder ${folder} has no folder test, from which the held-out images would come. Put some there.`);
  const all = imageFiles(root).filter((path) => root !== folder || !path.startsWith('test/'));
  if (all.length === 0) throw new DdpmError('E-DATA', `the folder ${root} holds no PNG, JPEG, WebP, GIF or TIFF images.`);
  const names = [...new Set(all.map((path) => (path.includes('/') ? path.slice(0, path.indexOf('/')) : '')))].sort(), classes = names.length > 1 && !names.includes('') ? names : null;
  const files = limit === undefined ? all : all.slice(0, limit);

  const facts = files.map((path) => { const { size, mtimeMs } = statSync(join(root, path), { throwIfNoEntry: false }) ?? { size: -1, mtimeMs: 0 }; return [path, size, mtimeMs]; });
  const cache = cacheFile(options.cache ?? cacheFolder(), [resolve(root), facts, imageSize, options.channels, skipBad]);
  let decoded = await readCache(cache);
  if (decoded === 'damaged') say(`${cache} is damaged and made again`);
  if (decoded === null || decoded === 'damaged') {
    decoded = await decodeAll(root, files, options);
    await writeCache(cache, decoded).catch((error: Error) => say(`the decoded pixels are not kept: ${error.message}`));
  }
  const { kept, ...images } = decoded;
  if (kept.length < files.length) say(`${files.length - kept.length} of ${files.length} files are damaged and left out (--skip-bad)`);
  const labels = classes && Uint16Array.from(kept, (file) => classes.indexOf(files[file]!.slice(0, files[file]!.indexOf('/'))));
  return { name: basename(resolve(folder)), path: root, ...images, labels, classes, flip: false };
}

async function decodeAll(root: string, files: readonly string[], { imageSize, channels: wanted, skipBad, say }: FolderOptions): Promise<Decoded> {
  const bad = (error: unknown): void => {
    if (!(error instanceof DdpmError) || error.code !== 'E-DATA') throw error;
    if (!skipBad) throw new DdpmError('E-DATA', `${error.message} Make it again, delete it, or leave such files out with --skip-bad.`, { cause: error });
    say(`left out: ${error.message}`);
  };
  const sizes = new Map<string, number>(), good: number[] = [];
  let height = 0, width = 0, colour = false;
  for (const [i, file] of files.entries()) {
    try {
      const size = await sizeOf(join(root, file)), key = `${size.width} × ${size.height}`;
      ({ width, height } = size);
      colour ||= size.channels === 3;
      sizes.set(key, (sizes.get(key) ?? 0) + 1);
      good.push(i);
    } catch (error) {
      bad(error);
    }
  }
  if (sizes.size > 1 && imageSize === undefined) {
    const counts = [...sizes].sort((a, b) => b[1] - a[1]), smallest = Math.min(...counts.flatMap(([key]) => key.split(' × ').map(Number)));
    throw new DdpmError('E-DATA', `the images of ${root} have different sizes: ${counts.slice(0, 5).map(([key, n]) => `${n} of ${key}`).join(', ')}${counts.length > 5 ? ` and ${counts.length - 5} more sizes` : ''}. `
      + `To resize their shorter sides and cut out the middle: --image-size ${2 ** Math.floor(Math.log2(Math.max(8, smallest)))}`);
  }
  if (imageSize !== undefined) width = height = imageSize;
  const channels = wanted ?? (colour ? 3 : 1), size = height * width * channels;
  if (good.length * size > 2 ** 32) throw new DdpmError('E-LIMIT', `${good.length} images of ${size} bytes are more than 4 GiB. Use a smaller --image-size or --limit ${Math.floor(2 ** 32 / size)}.`);
  const pixels = new Uint8Array(good.length * size), kept: number[] = [];
  for (const i of good) {
    try {
      const path = join(root, files[i]!), picture = await decode(path), square = imageSize === undefined ? picture : fitSquare(picture, imageSize);
      if (square.width !== width || square.height !== height) throw new DdpmError('E-DATA', `${path} changed while it was read.`);
      pixels.set(withChannels(square, channels).data, kept.length * size);
      kept.push(i);
    } catch (error) {
      bad(error);
    }
  }
  if (kept.length === 0) throw new DdpmError('E-DATA', `none of the ${files.length} images of ${root} can be read.`);
  return { count: kept.length, height, width, channels, pixels: kept.length < good.length ? pixels.slice(0, kept.length * size) : pixels, kept: Uint32Array.from(kept) };
}
