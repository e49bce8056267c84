// Files as data sets: IDX images with their labels, batches of CIFAR, and folders of images whose subfolders are classes.
import { type CifarFile, cifarKind, parseCifar } from '../../data/cifar.ts';
import { parseIdx } from '../../data/idx.ts';
import { folderOf, namesFor, trainingPaths } from '../../data/images.ts';
import { tarMembers } from '../../data/tar.ts';
import { DdpmError } from '../../errors.ts';
import { decodeImage, unpacked } from './pictures.ts';
import type { ImageSize } from './models.ts';
import { dataSet, type TrainData } from './run-file.ts';

/** A file of IDX: images (count, height, width), or the labels (count) of some. @throws DdpmError E-DATA for other sizes, or a damaged file */
export async function readIdx(bytes: Uint8Array<ArrayBuffer>, file: string): Promise<TrainData | Uint8Array> {
  const { shape, data } = parseIdx(await unpacked(bytes, file), file), [count = 0, height = 0, width = 0, channels = 1] = shape;
  if (shape.length === 1) return new Uint8Array(data);
  if (shape.length < 3 || shape.length > 4 || data.length === 0 || (channels !== 1 && channels !== 3))
    throw new DdpmError('E-DATA', `${file} has the sizes ${shape.join(' × ')}, and images need count × height × width, or those × 3 for colours.`);
  return { name: file.replace(/\.gz$/, ''), count, height, width, channels, pixels: new Uint8Array(data), labels: null, classes: null };
}

/** How the labels of Fashion-MNIST begin. Its files have the names of MNIST's, which begins 5 0 4. */
const FASHION_BEGINS = [9, 0, 0, 3, 0, 2, 7, 2, 5, 5];

/** Images with the labels of another file. @throws DdpmError E-DATA where they are not as many */
export function labelled(set: TrainData, labels: Uint8Array, file: string): TrainData {
  if (labels.length !== set.count) throw new DdpmError('E-DATA', `${file} has ${labels.length} labels, and ${set.name} has ${set.count} images. Choose the labels that belong to them.`);
  const name = FASHION_BEGINS.every((label, i) => labels[i] === label) ? 'fashion-mnist' : set.name;
  return { ...set, name, labels, classes: namesFor(name, labels) };
}

/** A file of a CIFAR, or those that are wanted of its archive. */
async function cifarFilesIn(file: File): Promise<CifarFile[]> {
  const bytes = await unpacked(new Uint8Array(await file.arrayBuffer()), file.name), found: CifarFile[] = [];
  if (!/\.(tar\.gz|tgz|tar)$/i.test(file.name)) return [{ name: file.name, bytes }];
  for await (const member of tarMembers((async function* () { yield bytes; })(), file.name, (path) => /\b(data_batch_\d|train)\.bin$|\.txt$/.test(path)))
    found.push({ name: member.path.replace(/^.*\//, ''), bytes: member.bytes });
  return found;
}

/** Batches of either CIFAR, by name: the order that Node reads them in. A file of names may be among them. */
export async function cifarImages(dropped: readonly File[]): Promise<TrainData> {
  // Of a folder its batches and names are meant.
  const known = dropped.filter(({ name }) => /^(data_batch_\d|train)\.bin$|\.txt$/.test(name)), wanted = known.some(({ name }) => name.endsWith('.bin')) ? known : dropped;
  const all = (await Promise.all(wanted.map(cifarFilesIn))).flat(), texts = all.filter(({ name }) => name.endsWith('.txt'));
  const files = all.filter((file) => !texts.includes(file)).sort((a, b) => (a.name < b.name ? -1 : 1));
  if (files.length === 0) throw new DdpmError('E-DATA', 'the batches are missing: data_batch_1.bin to data_batch_5.bin of CIFAR-10, or train.bin of CIFAR-100, which their binary versions have.');
  const kind = cifarKind(files[0]!.bytes), names = texts.find(({ name }) => /^(batches\.meta|fine_label_names)/.test(name));
  const { count, height, width, channels, pixels, labels, classes } = parseCifar(files, kind, { names: names ? new TextDecoder().decode(names.bytes) : null });
  return { name: kind, count, height, width, channels, pixels: new Uint8Array(pixels), labels, classes };
}

/** Where a file lay below what was chosen or dropped; its name where it was chosen by itself. */
export type Located = { readonly file: File; readonly path: string };

/** Images scaled to one size; the first-level folders that they lie in are their classes. `failed` gets those that do not decode, which are left out. */
export async function folderImages(found: readonly Located[], size: ImageSize, failed: (error: Error) => void): Promise<TrainData | null> {
  // Of a folder the files that are no images are passed over; one that was chosen by itself is meant.
  const seen = found.filter(({ file, path }) => !path.split('/').some((part) => part.startsWith('.') || part === '__MACOSX') && (path === file.name || file.type.startsWith('image/')));
  const below = trainingPaths(seen.map(({ path }) => path)), sorted = seen.flatMap(({ file }, i) => (below[i] === null ? [] : [{ file, path: below[i]! }])).sort((a, b) => (a.path < b.path ? -1 : 1));
  const images: Uint8Array[] = [], folders: string[] = [];
  for (const { file, path } of sorted) {
    try {
      images.push(await decodeImage(file, path, size));
      folders.push(folderOf(path));
    } catch (error) {
      failed(error as Error);
    }
  }
  return images.length === 0 ? null : dataSet('images', size, images, folders);
}
