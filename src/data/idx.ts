// The IDX format of MNIST and its family: a magic number with type and rank, big-endian sizes, then plain bytes. Needs no Node.

import { DdpmError } from '../errors.ts';
import { looksLike } from '../io/magic.ts';

const TYPES: Record<number, string> = { 0x08: 'uint8', 0x09: 'int8', 0x0b: 'int16', 0x0c: 'int32', 0x0d: 'float32', 0x0e: 'float64' };

/**
 * Parses an IDX file of unsigned bytes.
 * @param raw the file without gzip; the values are a view of it, not a copy
 * @param name the file's name, for messages
 * @param packed whether the file was gzipped, for messages
 * @returns the sizes, slowest first, and the values in that order
 * @throws DdpmError(E-DATA) when the file is not IDX (saying what it looks like), does not hold uint8, is cut off, or is longer than its sizes say
 */
export function parseIdx(raw: Uint8Array, name: string, packed = false): { shape: number[]; data: Uint8Array } {
  const fail = (what: string): never => {
    throw new DdpmError('E-DATA', `${name} cannot be used: ${what}`);
  };
  const rank = raw[3] ?? 0, type = TYPES[raw[2] ?? 0];
  if (raw.length < 4 || raw[0] !== 0 || raw[1] !== 0 || type === undefined || rank < 1 || rank > 8) {
    const inside = !packed ? '' : ' inside its gzip';
    fail(`it is not an IDX file, which begins 00 00 08 with the number of dimensions after it; it looks like ${looksLike(raw)}${inside}.`);
  }
  if (type !== 'uint8') fail(`it holds ${type} values and only uint8 is read (its third byte should be 08). Convert it to uint8.`);
  const start = 4 + 4 * rank;
  if (raw.length < start) fail(`its header of ${rank} dimensions needs ${start} bytes and the file has ${raw.length}: it is cut off. Download it again.`);
  const view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
  const shape = Array.from({ length: rank }, (_, i) => view.getUint32(4 + 4 * i));
  const needed = start + shape.reduce((a, b) => a * b, 1);
  if (raw.length !== needed) {
    const fault = raw.length < needed ? `it is cut off, ${needed - raw.length} bytes are missing` : `${raw.length - needed} bytes too many follow its values`;
    fail(`its sizes ${shape.join(' × ')} need ${needed} bytes and it has ${raw.length}${!packed ? '' : ' unpacked'}: ${fault}. Download it again.`);
  }
  return { shape, data: new Uint8Array(raw.buffer, raw.byteOffset + start, needed - start) }; // never a Node Buffer, whose slice() is not a copy
}
