// Whole-file reading with clear errors, and writing that leaves either the old file or the complete new one, never half.

import { existsSync, mkdirSync, statfsSync, statSync } from 'node:fs';
import { open, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { DdpmError, type ErrorCode } from '../errors.ts';

/** What a failed system call means, in words, with something to do about it. */
export function reason(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  switch (code) {
    case 'ENOENT': return 'there is no such file or folder; check the path';
    case 'EISDIR': return 'it is a folder, not a file';
    case 'ENOTDIR': case 'EEXIST': return 'a part of the path is a file, not a folder';
    case 'EACCES': case 'EPERM': return 'permission denied; check who owns it';
    case 'EROFS': return 'the file system is read-only; choose another folder';
    case 'ENOSPC': case 'EDQUOT': return 'the disk is full; free some space and try again';
    case 'ERR_FS_FILE_TOO_LARGE': return 'it is larger than the 2 GiB that can be read at once';
    default: return message;
  }
}

/**
 * The bytes of the file at `path`.
 * @param code error code to use, for callers to whom the file means something more special than a file
 * @throws DdpmError(code, default E-FILE) when it cannot be read, saying why
 */
export async function readFileOr(path: string, code: ErrorCode = 'E-FILE'): Promise<Uint8Array> {
  try {
    const buffer = await readFile(path);
    return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.length); // never a Node Buffer, whose slice() is not a copy
  } catch (error) {
    throw new DdpmError(code, `cannot read ${path}: ${reason(error)}`, { cause: error });
  }
}

/**
 * What `read` gives of the folder at `path`.
 * @throws DdpmError(code, default E-FILE) where it cannot be read, saying why
 */
export function readFolderOr<T>(path: string, read: () => T, code: ErrorCode = 'E-FILE'): T {
  try {
    return read();
  } catch (error) {
    throw new DdpmError(code, `cannot read the folder ${path}: ${reason(error)}`, { cause: error });
  }
}

/** E-FILE for a failed system call: which file or folder cannot be written, and why; `bytes` is how much it takes, where that is known. */
export function notWritten(path: string, cause: unknown, bytes?: number): DdpmError {
  const room = (cause as NodeJS.ErrnoException).code === 'ENOSPC' && bytes !== undefined ? `it takes ${size(bytes)}, and ${free(path)}; ` : '';
  return new DdpmError('E-FILE', `cannot write ${path}: ${room}${reason(cause)}`, { cause });
}

const size = (bytes: number): string => (bytes < 2 ** 20 ? `${Math.ceil(bytes / 1024)} KiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`);

/** What the file system of a path, of which the last parts need not be there, has left. */
function free(path: string): string {
  try {
    const { bavail, bsize, files, ffree } = statfsSync(existsSync(path) ? path : dirname(path));
    return files > 0 && ffree === 0 ? 'no more files can be made' : `${size(bavail * bsize)} are free`;
  } catch {
    return 'less is free';
  }
}

/** Makes a folder and those above it. Node's own way says of a read-only file system that there is no such folder, and in /proc it never ends. */
export function makeFolder(path: string): void {
  const isFolder = (): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
  if (isFolder()) return;
  if (dirname(path) !== path) makeFolder(dirname(path));
  try {
    mkdirSync(path);
  } catch (error) {
    if (!isFolder()) throw error; // unless another process was faster
  }
}

/** What is neither a file nor a folder, such as a pipe or /dev/null, is written into: a rename would put a file in its place. */
const isDevice = async (path: string): Promise<boolean> => {
  const there = await stat(path).catch(() => null);
  return there !== null && !there.isFile() && !there.isDirectory();
};

let serial = 0; // two writes to one path from one process must not share a temporary name

/**
 * Writes a file by a temporary name in the same folder, fsync and rename, so that a crash or a full disk never leaves half a file under `path`.
 * Missing folders are made. Chunks are written one after another without being joined.
 * @throws DdpmError(E-FILE) when it cannot be written; what was at `path` before is then still there
 */
export async function writeAtomic(path: string, bytes: Uint8Array | string | Iterable<Uint8Array>): Promise<void> {
  const temporary = `${path}.${process.pid}-${++serial}.part`, device = await isDevice(path);
  const chunks = typeof bytes === 'string' ? [new TextEncoder().encode(bytes)] : bytes instanceof Uint8Array ? [bytes] : bytes;
  try {
    makeFolder(dirname(path));
    const file = await open(device ? path : temporary, 'w');
    try {
      for (const chunk of chunks) await file.writeFile(chunk);
      if (!device) await file.sync();
    } finally {
      await file.close();
    }
    if (!device) await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {});
    throw notWritten(path, error, Array.isArray(chunks) ? (chunks as Uint8Array[]).reduce((sum, { length }) => sum + length, 0) : undefined);
  }
}

/**
 * Tries whether `writeAtomic` could write a file, for what takes long to come to that. Missing folders are made.
 * @throws DdpmError(E-FILE) when it could not
 */
export async function requireWritable(path: string): Promise<void> {
  const temporary = `${path}.${process.pid}-${++serial}.part`;
  try {
    if ((await stat(path).catch(() => null))?.isDirectory()) throw Object.assign(new Error(), { code: 'EISDIR' });
    if (await isDevice(path)) return;
    makeFolder(dirname(path));
    await (await open(temporary, 'w')).close();
    await rm(temporary);
  } catch (error) {
    throw notWritten(path, error);
  }
}
