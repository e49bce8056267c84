// Finds and loads a data set by name or path: Fashion-MNIST, IDX, CIFAR, .npy, folders of images, or shapes made in code.

import { existsSync, readdirSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { DdpmError } from '../errors.ts';
import { readFileOr, readFolderOr } from '../io/files.ts';
import { readNpy } from '../io/npy.ts';
import { typedAs } from '../typed.ts';
import { cifarKind, type CifarLabels, parseCifar } from './cifar.ts';
import { checkBytes, converted } from './convert.ts';
import { imageFiles, loadFolder } from './folder.ts';
import { type Dataset, FASHION_MNIST_CLASSES, namesFor } from './images.ts';
import { npyImages, npyLabels } from './npy.ts';
import { cifarArchive, cifarFolder, type CifarSource, npyImageFiles, npyLabelsBeside, plainOrGzip, readIdx } from './read.ts';
import { makeShapes } from './shapes.ts';

export type { Dataset } from './images.ts';

/** Which images of a data set are read, and how they are made to fit. */
export type LoadOptions = {
  /** Which half (train). */
  split?: 'train' | 'test';
  /** Only the first so many images; of a folder of images these are spread evenly over the classes. */
  limit?: number;
  /** Which labels of CIFAR-100 (fine). */
  labels?: CifarLabels;
  /** Shorter side to resize to before the square middle is cut out; shapes are drawn in it. */
  imageSize?: number | undefined;
  /** Grey or colour (a folder of images is in colour where any image is). */
  channels?: 1 | 3 | undefined;
  /** Leave damaged files of a folder of images, and damaged records of CIFAR, out, with a warning. */
  skipBad?: boolean;
  /** Folder for the decoded pixels of folders of images (cacheFolder()). */
  cache?: string | undefined;
  /** Takes what the user should know, such as the range of numbers that was recognised. */
  say?: (text: string) => void;
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
const CHOICES = 'fashion-mnist, shapes, a folder of IDX files or one IDX images file, CIFAR-10 or CIFAR-100 (binary: folder, file or tar.gz), a .npy file, or a folder of images';

/**
 * Loads a data set.
 * @param spec `fashion-mnist`, `shapes`, or a path: a folder with IDX files (`train-images-idx3-ubyte[.gz]` …), one IDX images file (its labels are
 *   taken from beside it), CIFAR-10 or CIFAR-100 in their binary version (a folder, one file, or the archive), a `.npy` file, a folder of images
 * @throws DdpmError(E-USAGE) on a name that does not exist, a bad limit, and options that the data cannot have; DdpmError(E-DATA) when files are missing, damaged or do not fit together
 */
export async function loadDataset(spec: string, options: LoadOptions = {}): Promise<Dataset> {
  const { split = 'train', limit, labels = 'fine', say = () => {}, folders = fashionMnistFolders() } = options;
  if (limit !== undefined && (!Number.isInteger(limit) || limit < 1)) {
    throw new DdpmError('E-USAGE', `cannot limit the data to ${limit} images: use a whole number >= 1.`);
  }
  const name = spec.trim().toLowerCase().replaceAll('_', '-');
  if (name === 'shapes' || name === 'fashion-mnist') refuseSkipping(options, name);
  const set = name === 'shapes' ? drawShapes(options) : name === 'fashion-mnist' ? await loadFashionMnist(split, folders) : await loadPath(spec, { ...options, split, labels, say });
  if (labels === 'coarse' && set.name !== 'cifar-100') throw new DdpmError('E-USAGE', `${spec} has one kind of labels: only those of CIFAR-100 are fine or coarse. Leave out --labels coarse.`);
  return converted(first(set, limit), options);
}

function drawShapes({ split = 'train', limit = Infinity, imageSize, channels }: LoadOptions): Dataset {
  const look = { ...(imageSize !== undefined && { size: imageSize }), ...(channels !== undefined && { channels }) }, count = Math.min(limit, split === 'train' ? 10_000 : 1_000);
  checkBytes(count, (imageSize ?? 28) ** 2 * (channels ?? 1));
  return makeShapes({ ...look, count, seed: split === 'train' ? 0 : 1 });
}

/** Where all images lie in one file, a damaged one has none that could be told apart and left out. */
function refuseSkipping({ skipBad }: LoadOptions, path: string): void {
  if (skipBad) throw new DdpmError('E-USAGE', `--skip-bad leaves out damaged files of a folder of images, or damaged records of CIFAR; ${path} is neither. Leave the flag out.`);
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
    `Put them into any of ${folders.join(', ')}, or name their folder: ${typedAs('train')} --data FOLDER.`,
    `On Debian and Ubuntu: sudo apt-get install dataset-fashion-mnist. To train without files: ${typedAs('train')} --data shapes`,
  ].join('\n'));
}

type PathOptions = Required<Pick<LoadOptions, 'split' | 'labels' | 'say'>> & LoadOptions;

async function loadPath(path: string, options: PathOptions): Promise<Dataset> {
  const { split, labels } = options;
  if (!existsSync(path)) {
    const guess = suggestion(path.trim().toLowerCase().replaceAll('_', '-'));
    const meant = guess ? ` Did you mean ${guess}?` : '';
    const isPath = /[\\/.]/.test(path);
    throw new DdpmError(isPath ? 'E-DATA' : 'E-USAGE', `there is no data set "${path}", neither a name nor a path that exists.${meant} Choose from: ${CHOICES}.`);
  }
  if (!statSync(path).isDirectory()) return loadFile(path, options);
  const files = readFolderOr(path, () => readdirSync(path).sort(), 'E-DATA');
  const inside = (file: string): string => join(path, file);

  for (const folder of ['cifar-10-batches-bin', 'cifar-100-binary']) if (files.includes(folder)) return loadPath(inside(folder), options);
  if (files.some((file) => /^(data_batch_\d|test_batch)\.bin$/.test(file))) return loadCifar(path, await cifarFolder(path, 'cifar-10', split, labels), options);
  if (files.includes('train.bin') || files.includes('test.bin')) return loadCifar(path, await cifarFolder(path, 'cifar-100', split, labels), options);
  if (files.includes(`${split}.npy`)) return loadNpy(inside(`${split}.npy`), options);

  const prefix = split === 'train' ? /(^|-)train-images[-.]idx\d-ubyte(\.gz)?$/ : /(^|-)(t10k|test)-images[-.]idx\d-ubyte(\.gz)?$/;
  // The plain file and its .gz are one choice, and sort() puts the plain one first.
  const images = files.filter((file) => prefix.test(file) && !(file.endsWith('.gz') && files.includes(file.slice(0, -3))));
  if (images.length === 1) return loadIdxFile(inside(images[0]!), options);
  if (images.length > 1) throw new DdpmError('E-DATA', `the folder ${path} has several sets of images: ${images.join(', ')}. Name one of them with --data.`);
  if (images.length === 0 && imageFiles(path).length > 0) return loadFolder(path, options);
  const pickled = files.includes('data_batch_1') ? ' It has the Python version of CIFAR-10; take the "binary version" (cifar-10-binary.tar.gz).' : '';
  const arrays = npyImageFiles(path);
  const seen = files.length > 0 ? `it has ${files.slice(0, 5).join(', ')}${files.length > 5 ? ` and ${files.length - 5} more` : ''}` : 'it is empty';
  const wanted = split === 'train' ? 'train-images-idx3-ubyte' : 't10k-images-idx3-ubyte';
  throw new DdpmError('E-DATA', `the folder ${path} holds no ${split} images that can be read: neither ${wanted}[.gz] nor CIFAR's *.bin nor ${split}.npy; ${seen}.${pickled}${arrays.length > 0 ? ` To train on one array name it: --data ${inside(arrays[0]!)}` : ''}`);
}

/** One file. Where the test images are asked for and a file of training images is named, the test images are those beside it. */
async function loadFile(path: string, options: PathOptions): Promise<Dataset> {
  const { split, labels } = options;
  if (/\.(tar\.gz|tgz|tar)$/i.test(path)) return loadCifar(path, await cifarArchive(path, split, labels), options);
  const file = split === 'test' ? testBeside(path) : path;
  if (/\.npy$/i.test(file)) return loadNpy(file, options);
  if (!file.endsWith('.bin')) return loadIdxFile(file, options);
  const bytes = await readFileOr(file, 'E-DATA');
  return loadCifar(file, { kind: cifarKind(bytes), files: [{ name: file, bytes }], names: null }, options);
}

/** The file of test images that belongs to one of training images: measuring on the latter would flatter the model. Any other file is what it is. */
function testBeside(path: string): string {
  const name = basename(path);
  const others = [name.replace('train', 't10k'), name.replace('train', 'test'), name.replace(/^data_batch_\d/, 'test_batch')].filter((other) => other !== name);
  if (others.length === 0) return path;
  const found = others.map((other) => plainOrGzip(join(dirname(path), other.replace(/\.gz$/, '')))).find((each) => each !== undefined);
  if (found) return found;
  throw new DdpmError('E-DATA', `${path} holds training images, and the test images that are wanted lie not beside it (${others.join(' or ')}). Put them there, or name another file with --data.`);
}

/** One IDX images file, with the labels that lie beside it if their name follows the pattern. */
function loadIdxFile(path: string, options: LoadOptions): Promise<Dataset> {
  refuseSkipping(options, path);
  const labels = basename(path).replace(/\.gz$/, '').replace('images', 'labels').replace(/idx\d/, 'idx1');
  const labelsPath = labels === basename(path).replace(/\.gz$/, '') ? undefined : plainOrGzip(join(dirname(path), labels));
  return loadIdx(path, labelsPath);
}

async function loadIdx(path: string, labelsPath: string | undefined): Promise<Dataset> {
  const { shape, data } = await readIdx(path);
  const [count, height, width, channels = 1] = shape as [number, number, number, number?];
  if (shape.length < 3 || shape.length > 4 || (channels !== 1 && channels !== 3)) {
    const hint = shape.length === 1 ? ' These look like labels; name the images file.' : '';
    throw new DdpmError('E-DATA', `${path} has the sizes ${shape.join(' × ')}, and images need count × height × width, or these × 1 or 3 channels.${hint}`);
  }
  if (data.length === 0) throw new DdpmError('E-DATA', `${path} holds no images: its sizes are ${shape.join(' × ')}.`);
  const dataset: Dataset = { name: basename(dirname(resolve(path))), path, count, height, width, channels, pixels: data, labels: null, classes: null, flip: false };
  if (labelsPath === undefined) return dataset;
  const labels = await readIdx(labelsPath);
  if (labels.shape.length !== 1 || labels.data.length !== count) {
    throw new DdpmError('E-DATA', `${path} has ${count} images and ${labelsPath} has ${labels.shape.join(' × ')} labels: the two do not belong together.`);
  }
  const classes = namesFor(path, labels.data);
  return { ...dataset, labels: labels.data, classes };
}

async function loadCifar(path: string, { kind, files, names }: CifarSource, { labels: labelled, limit, skipBad, say }: PathOptions): Promise<Dataset> {
  const leaveOut = skipBad ? (why: string): void => say(`left out: ${why}`) : undefined;
  return { name: kind, path, ...parseCifar(files, kind, { labelled, names, limit, leaveOut }), flip: true };
}

async function loadNpy(path: string, options: PathOptions): Promise<Dataset> {
  refuseSkipping(options, path);
  const { range, ...images } = npyImages(readNpy(await readFileOr(path, 'E-DATA'), path, 'E-DATA'), path);
  if (range) options.say(`${path}: the numbers are taken to be in ${range}`);
  const beside = npyLabelsBeside(path);
  const array = beside && beside !== path ? readNpy(await readFileOr(beside, 'E-DATA'), beside, 'E-DATA') : null;
  // labels.npy is of one array of a folder; where it has several, the others go without.
  const others = array && basename(beside!) === 'labels.npy' && array.shape[0] !== images.count && npyImageFiles(dirname(path)).length > 1;
  if (others) options.say(`${beside} has ${array.shape[0]} labels, not the ${images.count} of ${path}: its own would be ${path.replace(/\.npy$/i, '-labels.npy')}`);
  const labels = array && !others ? npyLabels(array, beside!, images.count) : null;
  return { name: basename(path).replace(/\.npy$/i, ''), path, ...images, labels, classes: null, flip: false };
}

/** The first `limit` images, copied so that the rest can be freed. */
function first(dataset: Dataset, limit: number | undefined): Dataset {
  if (limit === undefined || limit >= dataset.count) return dataset;
  const { height, width, channels, pixels, labels } = dataset;
  return { ...dataset, count: limit, pixels: pixels.slice(0, limit * height * width * channels), labels: labels && labels.slice(0, limit) };
}

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
