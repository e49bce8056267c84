// The safetensors format (u64 header length, JSON header, raw little-endian tensors) both ways, with every bound checked and no needless copy.

import { DdpmError } from '../errors.ts';
import { widenHalf } from '../gpu/float16.ts';
import { looksLike } from './magic.ts';

/** The typed arrays that tensors are held in. The byte order is the machine's, which is little-endian wherever WebGPU runs. */
export type TensorData =
  | Float32Array | Float64Array
  | Int8Array | Int16Array | Int32Array | BigInt64Array
  | Uint8Array | Uint16Array | Uint32Array | BigUint64Array;

/** The dtypes of safetensors files that are read and written. */
export type Dtype = 'F64' | 'I64' | 'U64' | 'F32' | 'I32' | 'U32' | 'F16' | 'BF16' | 'I16' | 'U16' | 'I8' | 'U8' | 'BOOL';

/** One tensor of a file. `dtype` is the file's; F16 and BF16 are widened to a Float32Array, BOOL is a Uint8Array of 0 and 1. */
export type SafeTensor = { dtype: Dtype; shape: number[]; data: TensorData };

/** A file's tensors by name, and its free text. */
export type SafeTensors = { tensors: Map<string, SafeTensor>; metadata: Record<string, string> };

/** What can be written: the dtype follows from the array's class. */
export type TensorToWrite = { shape: readonly number[]; data: TensorData };

type ArrayClass = { new (buffer: ArrayBufferLike, byteOffset: number, length: number): TensorData; BYTES_PER_ELEMENT: number };

/** How each dtype is stored. The order is that in which dtypes are tried for writing, so each class finds its plain dtype first. */
const STORED: Record<Dtype, ArrayClass> = {
  F64: Float64Array, I64: BigInt64Array, U64: BigUint64Array,
  F32: Float32Array, I32: Int32Array, U32: Uint32Array,
  I16: Int16Array, U16: Uint16Array, I8: Int8Array, U8: Uint8Array,
  F16: Uint16Array, BF16: Uint16Array, BOOL: Uint8Array,
};
const DTYPES = Object.keys(STORED) as Dtype[];

/** The format's own bound on the JSON header; a larger one is an attack or a damaged length. */
const HEADER_LIMIT = 100_000_000;

const isCount = (x: unknown): x is number => Number.isSafeInteger(x) && (x as number) >= 0;
const isObject = (x: unknown): x is Record<string, unknown> => typeof x === 'object' && x !== null && !Array.isArray(x);
const list = (shape: readonly number[]): string => `(${shape.join(', ')})`;

/**
 * Reads a safetensors file. Tensors are views into `bytes` where they are aligned (files written by this module, by PyTorch and by diffusers are) and
 * copies where they are not; F16 and BF16 are always new arrays.
 * @param name the file's name, for messages
 * @throws DdpmError(E-FILE) when the header is cut off, too long, not JSON or of the wrong form, when a tensor's bytes do not match its shape and dtype,
 *   lie outside the file, overlap or leave a gap, and when the file is longer than its tensors
 */
export function readSafetensors(bytes: Uint8Array, name: string): SafeTensors {
  const fail = (what: string): never => {
    throw new DdpmError('E-FILE', `${name} is not a good safetensors file: ${what}. Download or write it again.`);
  };
  if (bytes.length < 8) fail(`it has ${bytes.length} bytes; the header's length alone takes 8`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const headerLength = Number(view.getBigUint64(0, true));
  // Any other kind of file reads as an absurd length, so say what it looks like.
  if (headerLength > HEADER_LIMIT) fail(`its header would be ${headerLength} bytes long and the limit is ${HEADER_LIMIT}; it looks like ${looksLike(bytes)}`);
  const start = 8 + headerLength;
  if (start > bytes.length) {
    const kind = looksLike(bytes);
    fail(`its header needs ${start} bytes and the file has ${bytes.length}: it ${kind === 'a safetensors file' ? 'is cut off' : `looks like ${kind}`}`);
  }

  const header = parseHeader(bytes.subarray(8, start), fail);
  const metadata: Record<string, string> = {};
  const entries: { key: string; dtype: Dtype; shape: number[]; begin: number; end: number }[] = [];
  for (const [key, value] of Object.entries(header)) {
    if (key === '__metadata__') {
      if (!isObject(value)) fail('__metadata__ is not an object of strings');
      for (const [field, text] of Object.entries(value as Record<string, unknown>)) {
        if (typeof text !== 'string') fail(`the metadata "${field}" is not a string`);
        metadata[field] = text as string;
      }
      continue;
    }
    entries.push({ key, ...checkEntry(key, value, fail) });
  }

  // Sorted by place, each tensor must begin where the one before it ended: that excludes overlaps and gaps at once.
  entries.sort((a, b) => a.begin - b.begin || a.end - b.end);
  const size = bytes.length - start;
  let at = 0, before = 'the header';
  for (const { key, begin, end } of entries) {
    if (end > size) fail(`the tensor "${key}" ends at byte ${end} of the data, which has only ${size} bytes: the file is cut off`);
    if (begin < at) fail(`the tensor "${key}" begins at byte ${begin} and overlaps ${before}, which ends at ${at}`);
    if (begin > at) fail(`there is a gap of ${begin - at} bytes between ${before} and the tensor "${key}"`);
    at = end;
    before = `"${key}"`;
  }
  if (at !== size) fail(`${size - at} bytes follow the last tensor`);

  const tensors = new Map<string, SafeTensor>();
  // In the header's order, which is the order the writer chose to show.
  const byKey = new Map(entries.map((entry) => [entry.key, entry]));
  for (const key of Object.keys(header)) {
    const entry = byKey.get(key);
    if (!entry) continue;
    tensors.set(key, { dtype: entry.dtype, shape: entry.shape, data: load(bytes.subarray(start + entry.begin, start + entry.end), entry.dtype) });
  }
  return { tensors, metadata };
}

function parseHeader(bytes: Uint8Array, fail: (what: string) => never): Record<string, unknown> {
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    fail(`its header is not JSON (${(error as Error).message}); the bytes after the length look like ${looksLike(bytes)}`);
  }
  if (!isObject(header)) fail('its header is not a JSON object');
  return header as Record<string, unknown>;
}

function checkEntry(key: string, value: unknown, fail: (what: string) => never): { dtype: Dtype; shape: number[]; begin: number; end: number } {
  const where = `the tensor "${key}"`;
  if (!isObject(value)) return fail(`${where} is described by ${JSON.stringify(value)}, not by an object`);
  const { dtype, shape, data_offsets: offsets } = value;
  if (!DTYPES.includes(dtype as Dtype)) return fail(`${where} has the dtype ${JSON.stringify(dtype)}; known are ${DTYPES.join(', ')}`);
  if (!Array.isArray(shape) || !shape.every(isCount)) return fail(`${where} has the shape ${JSON.stringify(shape)}, not a list of whole numbers >= 0`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount) || offsets[0] > offsets[1]) {
    return fail(`${where} has data_offsets ${JSON.stringify(offsets)}, not [begin, end] with 0 <= begin <= end`);
  }
  const [begin, end] = offsets as [number, number];
  const needed = shape.reduce((a, b) => a * b, 1) * STORED[dtype as Dtype].BYTES_PER_ELEMENT;
  if (end - begin !== needed) {
    return fail(`${where} of ${dtype as string} ${list(shape)} needs ${needed} bytes and its data_offsets [${begin}, ${end}] give ${end - begin}`);
  }
  return { dtype: dtype as Dtype, shape: [...shape], begin, end };
}

function load(bytes: Uint8Array, dtype: Dtype): TensorData {
  const Array_ = STORED[dtype];
  // Not bytes.slice(): a Node Buffer's slice is a view.
  const aligned = bytes.byteOffset % Array_.BYTES_PER_ELEMENT === 0 ? bytes : new Uint8Array(bytes);
  const data = new Array_(aligned.buffer, aligned.byteOffset, bytes.byteLength / Array_.BYTES_PER_ELEMENT);
  if (dtype === 'F16') return widenHalf(data as Uint16Array);
  return dtype === 'BF16' ? widenBfloat16(data as Uint16Array) : data;
}

/** A bfloat16 is the upper half of a float32. */
function widenBfloat16(data: Uint16Array): Float32Array {
  const words = new Uint32Array(data.length);
  for (let i = 0; i < data.length; i++) words[i] = data[i]! << 16;
  return new Float32Array(words.buffer);
}

/**
 * A safetensors file as pieces to be written one after another: the header, then the tensors' own memory, nothing copied. Wider dtypes come first, so
 * that every tensor is aligned when it is read back; the header keeps the given order.
 * @throws DdpmError(E-FILE) on a name used twice, the reserved name __metadata__, or data that does not fill its shape
 */
export function safetensorsChunks(tensors: Iterable<readonly [string, TensorToWrite]>, metadata: Record<string, string> = {}): Uint8Array[] {
  const entries = [...tensors].map(([key, { shape, data }]) => ({ key, shape, data, dtype: dtypeOf(key, data), begin: 0 }));
  const names = new Set<string>();
  for (const { key, shape, data } of entries) {
    if (names.has(key)) throw new DdpmError('E-FILE', `cannot write two tensors named "${key}" into one safetensors file. Rename one.`);
    if (key === '__metadata__') throw new DdpmError('E-FILE', 'a tensor cannot be named "__metadata__": the name is taken by the format. Rename it.');
    names.add(key);
    const length = shape.reduce((a, b) => a * b, 1);
    if (!shape.every(isCount) || length !== data.length) {
      throw new DdpmError('E-FILE', `cannot write the tensor "${key}": its shape ${list(shape)} has ${length} elements and its data ${data.length}.`);
    }
  }
  const placed = [...entries].sort((a, b) => b.data.BYTES_PER_ELEMENT - a.data.BYTES_PER_ELEMENT); // sort is stable
  let at = 0;
  for (const entry of placed) {
    entry.begin = at;
    at += entry.data.byteLength;
  }
  // Built as text: an object literal would lose a tensor named "__proto__" and move names that look like array indices to the front.
  const fields = entries.map(({ key, dtype, shape, begin, data }) =>
    `${JSON.stringify(key)}:${JSON.stringify({ dtype, shape, data_offsets: [begin, begin + data.byteLength] })}`);
  if (Object.keys(metadata).length > 0) fields.unshift(`"__metadata__":${JSON.stringify(metadata)}`);
  const json = new TextEncoder().encode(`{${fields.join(',')}}`);
  const headerLength = Math.ceil(json.length / 8) * 8;
  const header = new Uint8Array(8 + headerLength).fill(0x20, 8);
  header.set(json, 8);
  new DataView(header.buffer).setBigUint64(0, BigInt(headerLength), true);
  return [header, ...placed.map(({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength))];
}

function dtypeOf(key: string, data: TensorData): Dtype {
  const dtype = DTYPES.find((each) => data instanceof STORED[each]);
  if (!dtype) throw new DdpmError('E-FILE', `cannot write the tensor "${key}": its data is not one of the typed arrays that safetensors can hold.`);
  return dtype;
}

/**
 * A whole safetensors file in memory. For large ones pass `safetensorsChunks(…)` to `writeAtomic`, which joins nothing.
 * @throws DdpmError(E-FILE) as safetensorsChunks
 */
export function writeSafetensors(tensors: Iterable<readonly [string, TensorToWrite]>, metadata: Record<string, string> = {}): Uint8Array {
  const chunks = safetensorsChunks(tensors, metadata);
  const file = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    file.set(chunk, at);
    at += chunk.length;
  }
  return file;
}
