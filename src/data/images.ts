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

/** The names of an IDX set's classes, which its files do not hold: Fashion-MNIST's where a folder on its path says so and the labels fit, else null. */
export function namesFor(path: string, labels: Uint8Array): readonly string[] | null {
  return /fashion[-_]?mnist/i.test(path) && labels.every((label) => label < 10) ? FASHION_MNIST_CLASSES : null;
}
