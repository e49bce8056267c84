// Finds and loads a data set by name or path: Fashion-MNIST, IDX files, CIFAR-10 batches, or shapes made in code.

import { existsSync, readdirSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { DdpmError } from '../errors.ts';
import { readFileOr } from '../io/files.ts';
import { looksLike } from '../io/magic.ts';
import { CIFAR_10_CLASSES, type Dataset, FASHION_MNIST_CLASSES, namesFor } from './images.ts';
import { parseIdx } from './idx.ts';
import { makeShapes } from './shapes.ts';

export type { Dataset } from './images.ts';

export type LoadOptions = {
  /** Which half (train). */
  split?: 'train' | 'test';
  /** Only the first so many images. */
  limit?: number;
  /** Where Fashion-MNIST is looked for (fashionMnistFolders()). */
  folders?: readonly string[];
};

/** The four files of Fashion-MNIST, each plain or with `.gz`. */
export const FASHION_MNIST_FILES = ['train-images-idx3-ubyte', 'train-labels-idx1-ubyte', 't10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte'] as const;

/** The folders in which Fashion-MNIST is looked for, first match wins; src/cli/setup.mjs has the same list. */
export function fashionMnistFolders(env: NodeJS.ProcessEnv = process.env, home: string = homedir()): string[] {
  return [
    ...(env.DDPM_DATA ? [env.DDPM_DATA, join(env.DDPM_DATA, 'fashion-mnist')] : []),
    join('data', 'fashion-mnist'),
    ...(env.XDG_DATA_HOME ? [join(env.XDG_DATA_HOME, 'datasets', 'fashion-mnist')] : []),
    join(home, '.local', 'share', 'datasets', 'fashion-mnist'),
    '/usr/share/datasets/fashion-mnist',
  ];
}

const NAMES = ['fashion-mnist', 'shapes'];
const CHOICES = 'fashion-mnist, shapes, a folder of IDX files, one IDX images file, or a folder or file of CIFAR-10 binary batches';

/**
 * Loads a data set.
 * @param spec `fashion-mnist`, `shapes`, or a path: a folder with IDX files (`train-images-idx3-ubyte[.gz]` …), one IDX images file (its labels are
 *   taken from beside it), a folder with CIFAR-10's `data_batch_1.bin` … `test_batch.bin`, or one such file
 * @throws DdpmError(E-USAGE) on a name that does not exist or a bad limit; DdpmError(E-DATA) when files are missing, damaged or do not fit together
 */
export async function loadDataset(spec: string, { split = 'train', limit, folders = fashionMnistFolders() }: LoadOptions = {}): Promise<Dataset> {
  if (limit !== undefined && (!Number.isInteger(limit) || limit < 1)) {
    throw new DdpmError('E-USAGE', `cannot limit the data to ${limit} images: use a whole number >= 1.`);
  }
  const name = spec.trim().toLowerCase().replaceAll('_', '-');
  if (name === 'shapes') return makeShapes({ count: Math.min(limit ?? Infinity, split === 'train' ? 10_000 : 1_000), seed: split === 'train' ? 0 : 1 });
  return first(name === 'fashion-mnist' ? await loadFashionMnist(split, folders) : await loadPath(spec, split), limit);
}

async function loadFashionMnist(split: 'train' | 'test', folders: readonly string[]): Promise<Dataset> {
  const [images, labels] = (split === 'train' ? FASHION_MNIST_FILES.slice(0, 2) : FASHION_MNIST_FILES.slice(2)) as [string, string];
  for (const folder of folders) {
    const path = plainOrGzip(join(folder, images)), labelsPath = plainOrGzip(join(folder, labels));
    if (path && labelsPath) return { ...(await loadIdx(path, labelsPath)), name: 'fashion-mnist', classes: FASHION_MNIST_CLASSES };
  }
  throw new DdpmError('E-DATA', [
    `Fashion-MNIST was not found: ${images} and ${labels} (plain or .gz) lie together in none of its folders.`,
    `It is these four files: ${FASHION_MNIST_FILES.join(', ')}.`,
    `Put them into any of ${folders.join(', ')}, or name their folder: npm run train -- --data FOLDER.`,
    'On Debian and Ubuntu: sudo apt-get install dataset-fashion-mnist. To train without files: npm run train -- --data shapes',
  ].join('\n'));
}

async function loadPath(path: string, split: 'train' | 'test'): Promise<Dataset> {
  if (!existsSync(path)) {
    const guess = suggestion(path.trim().toLowerCase().replaceAll('_', '-'));
    const meant = guess ? ` Did you mean ${guess}?` : '';
    const isPath = /[\\/.]/.test(path);
    throw new DdpmError(isPath ? 'E-DATA' : 'E-USAGE', `there is no data set "${path}", neither a name nor a path that exists.${meant} Choose from: ${CHOICES}.`);
  }
  if (!statSync(path).isDirectory()) return isCifarName(path) ? loadCifar([path]) : loadIdxFile(path);
  const files = readdirSync(path).sort();
  const inside = (file: string): string => join(path, file);

  if (files.includes('cifar-10-batches-bin')) return loadPath(inside('cifar-10-batches-bin'), split);
  const batches = files.filter((file) => /^(data_batch_\d|test_batch)\.bin$/.test(file));
  if (batches.length > 0) {
    const wanted = split === 'test' ? ['test_batch.bin'] : [1, 2, 3, 4, 5].map((i) => `data_batch_${i}.bin`);
    const missing = wanted.filter((file) => !files.includes(file));
    if (missing.length > 0) {
      throw new DdpmError('E-DATA', `the CIFAR-10 folder ${path} lacks ${missing.join(', ')}. Unpack the archive again, or name one batch file with --data.`);
    }
    return loadCifar(wanted.map(inside));
  }

  const prefix = split === 'train' ? /(^|-)train-images[-.]idx\d-ubyte(\.gz)?$/ : /(^|-)(t10k|test)-images[-.]idx\d-ubyte(\.gz)?$/;
  // The plain file and its .gz are one choice, and sort() puts the plain one first.
  const images = files.filter((file) => prefix.test(file) && !(file.endsWith('.gz') && files.includes(file.slice(0, -3))));
  if (images.length === 1) return loadIdxFile(inside(images[0]!));
  if (images.length > 1) throw new DdpmError('E-DATA', `the folder ${path} has several sets of images: ${images.join(', ')}. Name one of them with --data.`);
  const pickled = files.includes('data_batch_1') ? ' It has the Python version of CIFAR-10; take the "binary version" (cifar-10-binary.tar.gz).' : '';
  const seen = files.length > 0 ? `it has ${files.slice(0, 5).join(', ')}${files.length > 5 ? ` and ${files.length - 5} more` : ''}` : 'it is empty';
  const wanted = split === 'train' ? 'train-images-idx3-ubyte' : 't10k-images-idx3-ubyte';
  throw new DdpmError('E-DATA', `the folder ${path} holds no ${split} images that can be read: neither ${wanted}[.gz] nor CIFAR-10's *_batch*.bin; ${seen}.${pickled}`);
}

/** One IDX images file, with the labels that lie beside it if their name follows the pattern. */
function loadIdxFile(path: string): Promise<Dataset> {
  const labels = basename(path).replace(/\.gz$/, '').replace('images', 'labels').replace(/idx\d/, 'idx1');
  const labelsPath = labels === basename(path).replace(/\.gz$/, '') ? undefined : plainOrGzip(join(dirname(path), labels));
  return loadIdx(path, labelsPath);
}

async function loadIdx(path: string, labelsPath: string | undefined): Promise<Dataset> {
  const { shape, data } = parseIdx(await readFileOr(path, 'E-DATA'), path);
  const [count, height, width, channels = 1] = shape as [number, number, number, number?];
  if (shape.length < 3 || shape.length > 4 || (channels !== 1 && channels !== 3)) {
    const hint = shape.length === 1 ? ' These look like labels; name the images file.' : '';
    throw new DdpmError('E-DATA', `${path} has the sizes ${shape.join(' × ')}, and images need count × height × width, or these × 1 or 3 channels.${hint}`);
  }
  if (data.length === 0) throw new DdpmError('E-DATA', `${path} holds no images: its sizes are ${shape.join(' × ')}.`);
  const dataset: Dataset = { name: basename(dirname(resolve(path))), path, count, height, width, channels, pixels: data, labels: null, classes: null, flip: false };
  if (labelsPath === undefined) return dataset;
  const labels = parseIdx(await readFileOr(labelsPath, 'E-DATA'), labelsPath);
  if (labels.shape.length !== 1 || labels.data.length !== count) {
    throw new DdpmError('E-DATA', `${path} has ${count} images and ${labelsPath} has ${labels.shape.join(' × ')} labels: the two do not belong together.`);
  }
  const classes = namesFor(path, labels.data);
  return { ...dataset, labels: labels.data, classes };
}

const CIFAR_RECORD = 1 + 3 * 32 * 32;

const isCifarName = (path: string): boolean => path.endsWith('.bin');

/** CIFAR-10 records are a label and three 32 × 32 planes, red, green, blue; pixels come out with channels last. */
async function loadCifar(paths: readonly string[]): Promise<Dataset> {
  const batches = await Promise.all(paths.map((path) => readFileOr(path, 'E-DATA')));
  batches.forEach((bytes, i) => {
    if (bytes.length > 0 && bytes.length % CIFAR_RECORD === 0) return;
    const cifar100 = bytes.length > 0 && bytes.length % (CIFAR_RECORD + 1) === 0 ? ' Its length fits CIFAR-100, which is not read.' : '';
    const whole = Math.floor(bytes.length / CIFAR_RECORD);
    throw new DdpmError('E-DATA', `${paths[i]} has ${bytes.length} bytes, and CIFAR-10 records of ${CIFAR_RECORD} need a multiple: `
      + `${whole} records are whole and ${bytes.length - whole * CIFAR_RECORD} bytes are left over. It looks like ${looksLike(bytes)}.${cifar100} Download it again.`);
  });
  const count = batches.reduce((sum, bytes) => sum + bytes.length / CIFAR_RECORD, 0);
  const pixels = new Uint8Array(count * 3072), labels = new Uint8Array(count);
  let image = 0;
  batches.forEach((bytes, i) => {
    for (let at = 0; at < bytes.length; at += CIFAR_RECORD, image++) {
      if (bytes[at]! > 9) {
        throw new DdpmError('E-DATA', `record ${at / CIFAR_RECORD} of ${paths[i]} has the label ${bytes[at]}, and CIFAR-10 has 0 … 9: it is damaged or another data set.`);
      }
      labels[image] = bytes[at]!;
      for (let k = 0; k < 3; k++) {
        for (let p = 0, from = at + 1 + k * 1024, to = image * 3072 + k; p < 1024; p++, from++, to += 3) pixels[to] = bytes[from]!;
      }
    }
  });
  const path = paths.length === 1 ? paths[0]! : dirname(paths[0]!);
  return { name: 'cifar-10', path, count, height: 32, width: 32, channels: 3, pixels, labels, classes: CIFAR_10_CLASSES, flip: true };
}

/** The first `limit` images, copied so that the rest can be freed. */
function first(dataset: Dataset, limit: number | undefined): Dataset {
  if (limit === undefined || limit >= dataset.count) return dataset;
  const { height, width, channels, pixels, labels } = dataset;
  return { ...dataset, count: limit, pixels: pixels.slice(0, limit * height * width * channels), labels: labels && labels.slice(0, limit) };
}

const plainOrGzip = (path: string): string | undefined => [path, `${path}.gz`].find((each) => existsSync(each));

/** The known name that a misspelt one most resembles, unless none does. */
function suggestion(name: string): string | undefined {
  const near = NAMES.map((each) => ({ each, d: each.includes(name) && name.length > 2 ? 1 : editDistance(name, each) })).sort((a, b) => a.d - b.d)[0]!;
  return near.d <= Math.max(2, near.each.length / 3) ? near.each : undefined;
}

/** Levenshtein distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) next[j] = Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
    row = next;
  }
  return row[b.length]!;
}
