// Reads the files of data sets for Node: whole or gzipped, and CIFAR out of its archive as a stream.

import { createReadStream, existsSync, readdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { createGunzip, gunzipSync } from 'node:zlib';
import { DdpmError } from '../errors.ts';
import { readFileOr } from '../io/files.ts';
import { type CifarFile, cifarFiles, type CifarKind, type CifarLabels } from './cifar.ts';
import { parseIdx } from './idx.ts';
import { tarMembers } from './tar.ts';

/** The bytes in a gzip file, or those given where it is none. */
export function unzipped(bytes: Uint8Array, name: string): Uint8Array {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  try {
    const buffer = gunzipSync(bytes);
    return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.length); // never a Node Buffer, whose slice() is not a copy
  } catch (error) {
    throw new DdpmError('E-DATA', `${name} cannot be used: its gzip data is damaged or cut off (${(error as Error).message}; the file has ${bytes.length} bytes). Download it again.`, { cause: error });
  }
}

/** An IDX file, gzipped or plain. */
export async function readIdx(path: string): Promise<{ shape: number[]; data: Uint8Array }> {
  const bytes = await readFileOr(path, 'E-DATA'), raw = unzipped(bytes, path);
  return parseIdx(raw, path, raw !== bytes);
}

export type CifarSource = { readonly kind: CifarKind; readonly files: readonly CifarFile[]; readonly names: string | null };

/** The batches of a split from a folder. */
export async function cifarFolder(folder: string, kind: CifarKind, split: 'train' | 'test', labels: CifarLabels): Promise<CifarSource> {
  const { batches, names } = cifarFiles(kind, split, labels);
  const missing = batches.filter((file) => !existsSync(join(folder, file)));
  if (missing.length > 0) {
    throw new DdpmError('E-DATA', `the ${kind.toUpperCase()} folder ${folder} lacks ${missing.join(', ')}. Unpack the archive again, or name one batch file with --data.`);
  }
  const read = async (file: string): Promise<CifarFile> => ({ name: join(folder, file), bytes: await readFileOr(join(folder, file), 'E-DATA') });
  const text = existsSync(join(folder, names)) ? new TextDecoder().decode((await read(names)).bytes) : null;
  return { kind, files: await Promise.all(batches.map(read)), names: text };
}

/** The batches of a split from cifar-10-binary.tar.gz or cifar-100-binary.tar.gz, gzipped or not. */
export async function cifarArchive(path: string, split: 'train' | 'test', labels: CifarLabels): Promise<CifarSource> {
  const of = (kind: CifarKind): { batches: string[]; names: string } => cifarFiles(kind, split, labels);
  const wanted = new Set((['cifar-10', 'cifar-100'] as const).flatMap((kind) => [...of(kind).batches, of(kind).names]));
  const file = createReadStream(path, { highWaterMark: 1 << 20 });
  const source = /gz$/i.test(path) ? file.pipe(createGunzip({ chunkSize: 1 << 20 })) : file;
  file.on('error', (error) => source.destroy(error));
  const found = new Map<string, Uint8Array>(), seen: string[] = [];
  try {
    const keep = (member: string): boolean => (seen.push(basename(member)), wanted.has(basename(member)));
    for await (const member of tarMembers(source as AsyncIterable<Uint8Array>, path, keep)) found.set(basename(member.path), member.bytes);
  } catch (error) {
    if (error instanceof DdpmError) throw error;
    throw new DdpmError('E-DATA', `${path} cannot be used: it cannot be unpacked (${(error as Error).message}), so it is damaged, cut off or no gzip. Download it again.`, { cause: error });
  } finally {
    file.destroy();
  }
  const kind = found.has(of('cifar-100').batches[0]!) ? 'cifar-100' : 'cifar-10', { batches, names } = of(kind);
  const missing = batches.filter((batch) => !found.has(batch));
  if (missing.length > 0) {
    const pickled = seen.includes('data_batch_1') || seen.includes('meta') ? ' It is the Python version; take the "binary version" (cifar-10-binary.tar.gz).' : '';
    throw new DdpmError('E-DATA', `the archive ${path} lacks ${missing.join(', ')}; it has ${seen.slice(0, 5).join(', ') || 'nothing'}.${pickled}`);
  }
  const text = found.get(names);
  return { kind, files: batches.map((batch) => ({ name: `${path}: ${batch}`, bytes: found.get(batch)! })), names: text ? new TextDecoder().decode(text) : null };
}

/** `path` or `path.gz`, whichever exists. */
export const plainOrGzip = (path: string): string | undefined => [path, `${path}.gz`].find((each) => existsSync(each));

/** The labels that belong to `NAME.npy`: NAME-labels.npy, or labels.npy in the same folder. */
export function npyLabelsBeside(path: string): string | undefined {
  const name = basename(path).replace(/\.npy$/i, '');
  return [`${name}-labels.npy`, 'labels.npy'].map((file) => join(dirname(path), file)).find((file) => existsSync(file));
}

/** The .npy files of a folder that are not named as labels. */
export const npyImageFiles = (folder: string): string[] => readdirSync(folder).filter((file) => /\.npy$/i.test(file) && !/(^|-)labels\.npy$/i.test(file)).sort();
