// The binary version of CIFAR-10 and CIFAR-100: records of one or two label bytes and three 32 × 32 planes, red, green, blue. Needs no Node.

import { DdpmError } from '../errors.ts';
import { looksLike } from '../io/magic.ts';
import { CIFAR_10_CLASSES, type Dataset } from './images.ts';

const PLANE = 32 * 32;
const PIXELS = 3 * PLANE;

export type CifarKind = 'cifar-10' | 'cifar-100';
export type CifarFile = { readonly name: string; readonly bytes: Uint8Array };
/** Of CIFAR-100, the 100 classes or the 20 groups of them. */
export type CifarLabels = 'fine' | 'coarse';

/** The files of a split and the one with the names of the classes, without their folder. */
export function cifarFiles(kind: CifarKind, split: 'train' | 'test', labels: CifarLabels): { batches: string[]; names: string } {
  if (kind === 'cifar-100') return { batches: [`${split}.bin`], names: `${labels}_label_names.txt` };
  return { batches: split === 'test' ? ['test_batch.bin'] : [1, 2, 3, 4, 5].map((i) => `data_batch_${i}.bin`), names: 'batches.meta.txt' };
}

/** Which of the two a batch is, by its length and its labels; CIFAR-10 where neither fits. */
export function cifarKind(bytes: Uint8Array): CifarKind {
  const fits = (labels: number, ...below: number[]): boolean => {
    const record = labels + PIXELS;
    if (bytes.length === 0 || bytes.length % record) return false;
    for (let at = 0; at < bytes.length; at += record) if (below.some((limit, i) => bytes[at + i]! >= limit)) return false;
    return true;
  };
  if (fits(1, 10)) return 'cifar-10';
  return fits(2, 20, 100) || (bytes.length > 0 && bytes.length % (1 + PIXELS) && bytes.length % (2 + PIXELS) === 0) ? 'cifar-100' : 'cifar-10';
}

export type CifarOptions = {
  /** Which labels of CIFAR-100 (fine). */
  labelled?: CifarLabels;
  /** The text of batches.meta.txt, fine_label_names.txt or coarse_label_names.txt. */
  names?: string | null;
  /** Only the first so many images. */
  limit?: number | undefined;
  /** Takes what is wrong with a file, and its damaged records are left out; without it they are an error. */
  leaveOut?: ((why: string) => void) | undefined;
};

/**
 * Images with channels last, and their labels.
 * @throws DdpmError(E-DATA) when a batch is not whole records or a label is out of range
 */
export function parseCifar(files: readonly CifarFile[], kind: CifarKind, { labelled = 'fine', names = null, limit = Infinity, leaveOut }: CifarOptions = {}): Pick<Dataset, 'count' | 'height' | 'width' | 'channels' | 'pixels' | 'labels' | 'classes'> {
  const title = kind === 'cifar-10' ? 'CIFAR-10' : 'CIFAR-100', labelBytes = kind === 'cifar-10' ? 1 : 2, record = labelBytes + PIXELS;
  const bad = (what: string, refused: string): void => {
    if (!leaveOut) throw new DdpmError('E-DATA', `${what}${refused}`);
    leaveOut(what);
  };
  for (const { name, bytes } of files) {
    if (bytes.length > 0 && bytes.length % record === 0) continue;
    const whole = Math.floor(bytes.length / record);
    bad(`${name} has ${bytes.length} bytes, and ${title} records of ${record} need a multiple: `
      + `${whole} records are whole and ${bytes.length - whole * record} bytes are left over`, `. It looks like ${looksLike(bytes)}. Download it again.`);
  }
  const which = kind === 'cifar-100' && labelled === 'fine' ? 1 : 0, classLimit = kind === 'cifar-10' ? 10 : which === 1 ? 100 : 20;
  const most = Math.min(limit, files.reduce((sum, { bytes }) => sum + Math.floor(bytes.length / record), 0));
  const pixels = new Uint8Array(most * PIXELS), labels = new Uint8Array(most);
  let count = 0;
  for (const { name, bytes } of files) {
    let odd = 0;
    for (let at = 0; at + record <= bytes.length && count < most; at += record) {
      const label = bytes[at + which]!;
      if (label >= classLimit) {
        if (odd++ === 0) bad(`record ${at / record} of ${name} (byte ${at + which}) has the label ${label}, and ${title} has 0 … ${classLimit - 1}`, ': it is damaged or another data set.');
        continue;
      }
      labels[count] = label;
      for (let k = 0; k < 3; k++) {
        for (let p = 0, from = at + labelBytes + k * PLANE, to = count * PIXELS + k; p < PLANE; p++, from++, to += 3) pixels[to] = bytes[from]!;
      }
      count++;
    }
    if (odd > 0) leaveOut?.(`${odd} records of ${name}, for their labels`);
  }
  if (count === 0) throw new DdpmError('E-DATA', `${files.map(({ name }) => name).join(', ')}: no record of ${title} can be read. Download it again.`);
  const lines = names?.split(/\r?\n/).map((line) => line.trim()).filter((line) => line !== '') ?? [];
  const classes = lines.length === classLimit ? lines : kind === 'cifar-10' ? CIFAR_10_CLASSES : null;
  const all = count === most;
  return { count, height: 32, width: 32, channels: 3, pixels: all ? pixels : pixels.slice(0, count * PIXELS), labels: all ? labels : labels.slice(0, count), classes };
}
