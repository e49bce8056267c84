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

/**
 * Images with channels last, and their labels.
 * @param names the text of batches.meta.txt, fine_label_names.txt or coarse_label_names.txt
 * @throws DdpmError(E-DATA) when a batch is not whole records or a label is out of range
 */
export function parseCifar(files: readonly CifarFile[], kind: CifarKind, labelled: CifarLabels = 'fine', names: string | null = null): Pick<Dataset, 'count' | 'height' | 'width' | 'channels' | 'pixels' | 'labels' | 'classes'> {
  const title = kind === 'cifar-10' ? 'CIFAR-10' : 'CIFAR-100', labelBytes = kind === 'cifar-10' ? 1 : 2, record = labelBytes + PIXELS;
  for (const { name, bytes } of files) {
    if (bytes.length > 0 && bytes.length % record === 0) continue;
    const whole = Math.floor(bytes.length / record);
    throw new DdpmError('E-DATA', `${name} has ${bytes.length} bytes, and ${title} records of ${record} need a multiple: `
      + `${whole} records are whole and ${bytes.length - whole * record} bytes are left over. It looks like ${looksLike(bytes)}. Download it again.`);
  }
  const which = kind === 'cifar-100' && labelled === 'fine' ? 1 : 0, limit = kind === 'cifar-10' ? 10 : which === 1 ? 100 : 20;
  const count = files.reduce((sum, { bytes }) => sum + bytes.length / record, 0);
  const pixels = new Uint8Array(count * PIXELS), labels = new Uint8Array(count);
  let image = 0;
  for (const { name, bytes } of files) {
    for (let at = 0; at < bytes.length; at += record, image++) {
      const label = bytes[at + which]!;
      if (label >= limit) {
        throw new DdpmError('E-DATA', `record ${at / record} of ${name} (byte ${at + which}) has the label ${label}, and ${title} has 0 … ${limit - 1}: it is damaged or another data set.`);
      }
      labels[image] = label;
      for (let k = 0; k < 3; k++) {
        for (let p = 0, from = at + labelBytes + k * PLANE, to = image * PIXELS + k; p < PLANE; p++, from++, to += 3) pixels[to] = bytes[from]!;
      }
    }
  }
  const lines = names?.split(/\r?\n/).map((line) => line.trim()).filter((line) => line !== '') ?? [];
  const classes = lines.length === limit ? lines : kind === 'cifar-10' ? CIFAR_10_CLASSES : null;
  return { count, height: 32, width: 32, channels: 3, pixels, labels, classes };
}
