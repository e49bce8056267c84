// Folders of image files. First-level folders are classes; train and test are splits.

import { existsSync, readdirSync, realpathSync, type Stats, statSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { DdpmError } from '../errors.ts';
import { readFolderOr } from '../io/files.ts';
import { checkBytes } from './convert.ts';
import { decodeImage, IMAGE, sizeOfImage } from './decode.ts';
import { classesAmong, type Dataset, folderOf } from './images.ts';
import { cacheFile, cacheFolder, type Decoded, readCache, writeCache } from './pixel-cache.ts';
import { fitSquare, withChannels } from './resize.ts';

export type FolderOptions = {
  split: 'train' | 'test';
  /** Only the first so many, spread over the classes. */
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

/** The image files below a folder, linked folders included, as sorted relative paths. Hidden ones are passed over. */
export function imageFiles(folder: string): string[] {
  const files: string[] = [];
  const walk = (at: string, above: readonly string[]): void => {
    const path = join(folder, at), real = realpathSync(path);
    if (above.includes(real)) return; // a link to a folder that it lies in
    for (const entry of readFolderOr(path, () => readdirSync(path, { withFileTypes: true }), 'E-DATA')) {
      if (entry.name.startsWith('.') || entry.name === '__MACOSX') continue;
      const name = at === '' ? entry.name : `${at}/${entry.name}`;
      if (entry.isDirectory() || (entry.isSymbolicLink() && statOf(join(folder, name))?.isDirectory())) walk(name, [...above, real]);
      else if (IMAGE.test(entry.name)) files.push(name);
    }
  };
  walk('', []);
  return files.sort();
}

/** Null where a link leads nowhere. */
function statOf(path: string): Stats | null {
  try {
    return statSync(path);
  } catch {
    return null;
  }
}

type Split = { readonly root: string; readonly files: readonly string[] };

/** The images of a split: those in the folder of its name; without a folder `train`, the training images are all but those in `test`. */
function splitOf(folder: string, split: 'train' | 'test'): Split {
  const own = join(folder, split), root = existsSync(own) && statSync(own).isDirectory() ? own : split === 'train' ? folder : null;
  return { root: root ?? own, files: root === null ? [] : imageFiles(root).filter((path) => root !== folder || !path.startsWith('test/')) };
}

/**
 * The names of the classes, in the order of their numbers: one list for both splits, so that a class has one number wherever its images lie.
 * Those of the training images come first: their numbers do not depend on what is held out. Null where images lie beside the folders, or all in one.
 */
function classNames(train: Split, test: Split): string[] | null {
  const sorted = ({ files }: Split): string[] => [...new Set(files.map(folderOf))].sort();
  return classesAmong([...sorted(train), ...sorted(test)]);
}

/** The first image of each class, then the second of each, and so on: the first N of all are spread over the classes as evenly as can be. */
function inTurns(files: readonly string[]): string[] {
  const seen = new Map<string, number>();
  const turns = files.map((path) => {
    const turn = seen.get(folderOf(path)) ?? 0;
    seen.set(folderOf(path), turn + 1);
    return { path, turn };
  });
  return turns.sort((a, b) => a.turn - b.turn).map(({ path }) => path); // stable: the classes keep their order
}

/**
 * Loads the images below a folder, transparent ones over white, the classes in turns. With `train` and `test` in it, these are the splits.
 * @throws DdpmError(E-DATA) on a damaged file (unless skipBad) or on mixed sizes without imageSize, E-USAGE where sharp is needed and missing
 */
export async function loadFolder(folder: string, options: FolderOptions): Promise<Dataset> {
  const { split, limit, imageSize, skipBad = false, say } = options;
  const own = splitOf(folder, split), { root } = own, classes = classNames(split === 'train' ? own : splitOf(folder, 'train'), split === 'test' ? own : splitOf(folder, 'test'));
  if (own.files.length === 0 && split === 'test' && !existsSync(root)) throw new DdpmError('E-DATA', `the folder ${folder} has no folder test, from which the held-out images would come. Put some there.`);
  if (own.files.length === 0) throw new DdpmError('E-DATA', `the folder ${root} holds no PNG, JPEG, WebP, GIF or TIFF images.`);
  const files = (classes ? inTurns(own.files) : own.files).slice(0, limit);

  const untaught = classes && split === 'train' ? classes.filter((name) => !own.files.some((path) => folderOf(path) === name)) : [];
  if (untaught.length > 0) say(`${join(folder, 'test')} has classes of which there is no training image: ${untaught.join(', ')}`);

  const facts = files.map((path) => { const { size, mtimeMs } = statOf(join(root, path)) ?? { size: -1, mtimeMs: 0 }; return [path, size, mtimeMs]; });
  const cache = cacheFile(options.cache ?? cacheFolder(), [resolve(root), facts, imageSize, options.channels, skipBad]);
  let decoded = await readCache(cache);
  if (decoded === 'damaged') say(`${cache} is damaged and made again`);
  if (decoded === null || decoded === 'damaged') {
    decoded = await decodeAll(root, files, options);
    await writeCache(cache, decoded).catch((error: Error) => say(`the decoded pixels are not kept: ${error.message}`));
  }
  const { kept, ...images } = decoded;
  if (kept.length < files.length) say(`${files.length - kept.length} of ${files.length} files are damaged and left out (--skip-bad)`);
  const labels = classes && Uint16Array.from(kept, (file) => classes.indexOf(folderOf(files[file]!)));
  return { name: basename(resolve(folder)), path: root, ...images, labels, classes, flip: false };
}

async function decodeAll(root: string, files: readonly string[], { imageSize, channels: wanted, skipBad, say }: FolderOptions): Promise<Decoded> {
  const bad = (error: unknown): void => {
    if (!(error instanceof DdpmError) || error.code !== 'E-DATA') throw error;
    if (!skipBad) throw new DdpmError('E-DATA', `${error.message} To leave out such files: --skip-bad`, { cause: error });
    say(`left out: ${error.message}`);
  };
  const sizes = new Map<string, number>(), good: number[] = [];
  let height = 0, width = 0, colour = false;
  for (const [i, file] of files.entries()) {
    try {
      const size = await sizeOfImage(join(root, file)), key = `${size.width} × ${size.height}`;
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
  checkBytes(good.length, size);
  const pixels = new Uint8Array(good.length * size), kept: number[] = [];
  for (const i of good) {
    try {
      const path = join(root, files[i]!), picture = await decodeImage(path), square = imageSize === undefined ? picture : fitSquare(picture, imageSize);
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
