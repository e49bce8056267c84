// NumPy's .npz format both ways: a zip archive of .npy files, stored or deflated.

import { crc32, inflateRawSync } from 'node:zlib';
import { DdpmError } from '../errors.ts';
import { looksLike } from './magic.ts';
import { type NpyArray, readNpy, writeNpy } from './npy.ts';

const LOCAL = 0x04034b50, CENTRAL = 0x02014b50, END = 0x06054b50;
/** The first day that a zip archive knows, 1 January 1980: the same arrays give the same bytes. */
const DATE = 0x21;

/**
 * Reads the arrays of an archive, by name and without `.npy`; entries of another kind are passed over.
 *
 * @param only the names that are wanted; others are not unpacked
 * @throws DdpmError E-FILE where it is no zip archive, damaged, or has entries that are encrypted or larger than 4 GiB
 */
export function readNpz(bytes: Uint8Array, name: string, only?: readonly string[]): Map<string, NpyArray> {
  const fail = (what: string): never => {
    throw new DdpmError('E-FILE', `${name} cannot be read as .npz: ${what}. Download or write it again.`);
  };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  // The end of the directory is the last thing in the file but for a comment of at most 64 KiB.
  let end = bytes.length - 22;
  while (end >= Math.max(0, bytes.length - 22 - 65535) && view.getUint32(end, true) !== END) end--;
  if (end < 0 || view.getUint32(end, true) !== END) fail(`it is no complete zip archive; it looks like ${looksLike(bytes)}`);
  const entries = view.getUint16(end + 10, true);
  const arrays = new Map<string, NpyArray>();
  for (let i = 0, at = view.getUint32(end + 16, true); i < entries; i++) {
    if (at + 46 > bytes.length || view.getUint32(at, true) !== CENTRAL) fail('its directory is damaged');
    const [flags, method] = [view.getUint16(at + 8, true), view.getUint16(at + 10, true)];
    const [crc, packed, size] = [16, 20, 24].map((offset) => view.getUint32(at + offset, true)) as [number, number, number];
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((offset) => view.getUint16(at + offset, true)) as [number, number, number];
    const local = view.getUint32(at + 42, true);
    const entry = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameLength));
    at += 46 + nameLength + extraLength + commentLength;
    const key = entry.replace(/\.npy$/, '');
    if (key === entry || (only && !only.includes(key))) continue;
    if (flags & 1) fail(`${entry} is encrypted`);
    if (packed === 0xffffffff || size === 0xffffffff || local === 0xffffffff) fail(`${entry} is larger than the 4 GiB that are read`);
    if (local + 30 > bytes.length || view.getUint32(local, true) !== LOCAL) fail(`${entry} is not where the directory says`);
    // The local header's own lengths: its extra field is often another one than the directory's.
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    if (start + packed > bytes.length) fail(`${entry} is cut off`);
    const raw = bytes.subarray(start, start + packed);
    let content = raw;
    if (method === 8) {
      try {
        content = inflateRawSync(raw, { maxOutputLength: Math.max(1, size) });
      } catch (error) {
        fail(`${entry} does not unpack (${(error as Error).message})`);
      }
    } else if (method !== 0) fail(`${entry} is packed by method ${method}; stored and deflated entries are read`);
    if (content.length !== size || crc32(content) !== crc) fail(`${entry} is damaged: its checksum is another one`);
    arrays.set(key, readNpy(content, `${entry} in ${name}`));
  }
  return arrays;
}

/**
 * An archive of arrays as numpy.savez writes it, stored, in pieces to be written one after another.
 *
 * @throws DdpmError E-FILE where it would be larger than the 4 GiB that a plain zip archive holds
 */
export function npzChunks(arrays: Iterable<readonly [string, NpyArray]>): Uint8Array[] {
  const chunks: Uint8Array[] = [], directory: Uint8Array[] = [];
  let at = 0;
  for (const [key, array] of arrays) {
    const content = writeNpy(array), name = new TextEncoder().encode(`${key}.npy`);
    if (at + content.length > 0xffff0000) throw new DdpmError('E-FILE', `cannot write ${key}: an .npz file holds at most 4 GiB here.`);
    // Version needed, flags (UTF-8 names), method, time, date, checksum, packed and unpacked size, lengths of name and extra field.
    const common = [2, 20, 2, 0x800, 2, 0, 2, 0, 2, DATE, 4, crc32(content), 4, content.length, 4, content.length, 2, name.length, 2, 0];
    chunks.push(fields([4, LOCAL, ...common]), name, content);
    directory.push(fields([4, CENTRAL, 2, 20, ...common, 2, 0, 2, 0, 2, 0, 4, 0, 4, at]), name);
    at += 30 + name.length + content.length;
  }
  const entries = directory.length / 2, size = directory.reduce((sum, chunk) => sum + chunk.length, 0);
  return [...chunks, ...directory, fields([4, END, 2, 0, 2, 0, 2, entries, 2, entries, 4, size, 4, at, 2, 0])];
}

/** Little-endian integers, given as pairs of width in bytes and value. */
function fields(pairs: readonly number[]): Uint8Array {
  const bytes: number[] = [];
  for (let i = 0; i < pairs.length; i += 2) for (let b = 0; b < pairs[i]!; b++) bytes.push((pairs[i + 1]! / 2 ** (8 * b)) & 255);
  return Uint8Array.from(bytes);
}
