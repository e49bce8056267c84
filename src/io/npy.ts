// NumPy's .npy format both ways: a magic number, a header that is a Python dictionary, raw values.

import { DdpmError, type ErrorCode } from '../errors.ts';
import { looksLike } from './magic.ts';

export type NpyData = Float64Array | Float32Array | Uint8Array | Int8Array | Uint16Array | Int16Array | Uint32Array | Int32Array | BigUint64Array | BigInt64Array;

/** An array in C order: the last index runs fastest. */
export interface NpyArray {
  readonly shape: readonly number[];
  readonly data: NpyData;
}

type ArrayClass = { new (buffer: ArrayBufferLike, byteOffset: number, length: number): NpyData; new (length: number): NpyData; BYTES_PER_ELEMENT: number };

/** NumPy's names of the types, without the byte order, which is little-endian wherever WebGPU runs. */
const TYPES: Readonly<Record<string, ArrayClass>> = {
  f8: Float64Array, f4: Float32Array, u1: Uint8Array, i1: Int8Array, b1: Uint8Array,
  u2: Uint16Array, i2: Int16Array, u4: Uint32Array, i4: Int32Array, u8: BigUint64Array, i8: BigInt64Array,
};
const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59]; // \x93NUMPY

/**
 * Reads an array. It is a view into `bytes` where that is aligned; Fortran's order is turned into C's.
 *
 * @param name the file's name, for messages
 * @throws DdpmError E-FILE, or the given code, where it is not .npy, is cut off or too long, or holds values of another kind
 */
export function readNpy(bytes: Uint8Array, name: string, code: ErrorCode = 'E-FILE'): NpyArray {
  const fail = (what: string): never => {
    throw new DdpmError(code, `${name} cannot be read as .npy: ${what}.`);
  };
  if (bytes.length < 12 || MAGIC.some((byte, i) => bytes[i] !== byte)) fail(`it does not begin as such files do; it looks like ${looksLike(bytes)}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), old = bytes[6] === 1;
  const start = old ? 10 : 12, end = start + (old ? view.getUint16(8, true) : view.getUint32(8, true));
  if (end > bytes.length) fail(`its header ends at byte ${end} and the file at ${bytes.length}: it is cut off`);
  const header = new TextDecoder().decode(bytes.subarray(start, end));
  const [, type] = /'descr':\s*'([^']+)'/.exec(header) ?? fail(`its header has no plain type: ${header.trim()}`);
  const [, fortran] = /'fortran_order':\s*(True|False)/.exec(header) ?? fail(`its header does not say its order: ${header.trim()}`);
  const [, sizes] = /'shape':\s*\(([\d,\sL]*)\)/.exec(header) ?? fail(`its header has no shape: ${header.trim()}`);
  const shape = [...sizes!.matchAll(/\d+/g)].map(([digits]) => Number(digits));
  const known = TYPES[type!.replace(/^[<|=]/, '')];
  if (!known) fail(`its values are ${type}, and ${Object.keys(TYPES).join(', ')} are read (not big-endian ones). Save it with another type, such as array.astype('<f4')`);
  const Class = known!, count = shape.reduce((a, b) => a * b, 1), needed = count * Class.BYTES_PER_ELEMENT;
  if (bytes.length - end !== needed) fail(`${count} values of ${type} take ${needed} bytes, and ${bytes.length - end} follow its header`);
  // Not bytes.slice(): a Node Buffer's slice is a view.
  const aligned = (bytes.byteOffset + end) % Class.BYTES_PER_ELEMENT === 0;
  const body = aligned ? bytes : new Uint8Array(bytes.subarray(end));
  const data = new Class(body.buffer, aligned ? bytes.byteOffset + end : 0, count);
  return { shape, data: fortran === 'True' && shape.length > 1 ? fromFortran(data, shape, new Class(count)) : data };
}

/** From the first index running fastest to the last. */
function fromFortran(data: NpyData, shape: readonly number[], out: NpyData): NpyData {
  const index = shape.map(() => 0);
  const steps = shape.map((_, axis) => shape.slice(0, axis).reduce((a, b) => a * b, 1));
  for (let i = 0; i < data.length; i++) {
    out[i] = data[index.reduce((at, v, axis) => at + v * steps[axis]!, 0)]!;
    for (let axis = shape.length - 1; axis >= 0 && ++index[axis]! === shape[axis]; axis--) index[axis] = 0;
  }
  return out;
}

/** A .npy file, version 1.0, as numpy.save writes it. */
export function writeNpy({ shape, data }: NpyArray): Uint8Array {
  const type = Object.keys(TYPES).find((key) => data instanceof TYPES[key]!)!;
  const order = data.BYTES_PER_ELEMENT === 1 ? '|' : '<';
  const sizes = shape.length === 1 ? `${shape[0]},` : shape.join(', ');
  const text = `{'descr': '${order}${type}', 'fortran_order': False, 'shape': (${sizes}), }`;
  const end = Math.ceil((11 + text.length) / 64) * 64; // values start at a multiple of 64, behind a line break
  const file = new Uint8Array(end + data.byteLength).fill(0x20, 0, end);
  file.set([...MAGIC, 1, 0]);
  new DataView(file.buffer).setUint16(8, end - 10, true);
  file.set(new TextEncoder().encode(text), 10);
  file[end - 1] = 0x0a;
  file.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), end);
  return file;
}
