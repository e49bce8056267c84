// What a data set is once it is in memory, and the names of the classes of the well-known ones. Needs no Node: a browser's parsers give the same.

/** Images in memory as the device gets them: 8 bits a channel, (count, height, width, channels). */
export interface Dataset {
  /** For headers and run folders, e.g. "fashion-mnist". */
  name: string;
  /** Where it came from. */
  path: string;
  count: number;
  height: number;
  width: number;
  /** 1 or 3. */
  channels: number;
  pixels: Uint8Array;
  /** (count), the class of each image, or null where none are known. */
  labels: Uint8Array | Uint16Array | null;
  /** The name of each class, or null where the labels are plain numbers. */
  classes: readonly string[] | null;
  /** Whether a mirrored image is as good as the original, so that training may flip by default; not so for Fashion-MNIST, whose shoes all face one way. */
  flip: boolean;
}

/** What the parsers give: images and, where the format has them, labels. */
export type Images = Pick<Dataset, 'count' | 'height' | 'width' | 'channels' | 'pixels'>;

export const FASHION_MNIST_CLASSES: readonly string[] = ['T-shirt/top', 'trouser', 'pullover', 'dress', 'coat', 'sandal', 'shirt', 'sneaker', 'bag', 'ankle boot'];
export const CIFAR_10_CLASSES: readonly string[] = ['airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck'];

/** How many classes labels tell apart: as many as have names, or up to the largest label. */
export function classCount({ labels, classes }: { readonly labels: ArrayLike<number>; readonly classes: readonly string[] | null }): number {
  let most = classes?.length ?? 0;
  for (let i = 0; i < labels.length; i++) most = Math.max(most, labels[i]! + 1);
  return most;
}

/** The first-level folder of a path, '' where there is none: the class of an image. */
export const folderOf = (path: string): string => (path.includes('/') ? path.slice(0, path.indexOf('/')) : '');

/**
 * The paths below the folder that holds all of them, and below `train` where it has that; null for those in `test` or beside `train`: what is trained on of a
 * folder that a browser gives as a list.
 */
export function trainingPaths(paths: readonly string[]): (string | null)[] {
  const tops = new Set(paths.map(folderOf)), within = (path: string, folder: string): string | null => (folderOf(path) === folder ? path.slice(folder.length + 1) : null);
  const [top] = tops, below = tops.size === 1 && top ? paths.map((path) => within(path, top)!) : paths;
  const own = below.some((path) => folderOf(path) === 'train');
  return below.map((path) => (own ? within(path, 'train') : folderOf(path) === 'test' ? null : path));
}

/** The names that are given as those of classes, each once; null where there is only one, or an image without. */
export function classesAmong(names: Iterable<string>): string[] | null {
  const all = [...new Set(names)];
  return all.length > 1 && !all.includes('') ? all : null;
}

/** The names of an IDX set's classes, which its files do not hold: Fashion-MNIST's where a folder on its path says so and the labels fit, else null. */
export function namesFor(path: string, labels: Uint8Array): readonly string[] | null {
  return /fashion[-_]?mnist/i.test(path) && labels.every((label) => label < 10) ? FASHION_MNIST_CLASSES : null;
}
