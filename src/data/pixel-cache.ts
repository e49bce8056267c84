// Decoded pixels kept in one file, so that the second start on a folder decodes nothing.

import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { homedir, userInfo } from 'node:os';
import { join } from 'node:path';
import { writeAtomic } from '../io/files.ts';

const MAGIC = 'ddpm.wgsl images 1';
const CHUNK = 64 << 20; // reading and writing stop at 2 GiB at once

export type Decoded = { count: number; height: number; width: number; channels: number; pixels: Uint8Array; kept: Uint32Array };

/** Where caches lie: $XDG_CACHE_HOME/ddpm.wgsl or ~/.cache/ddpm.wgsl. An empty HOME is as good as none. */
export const cacheFolder = (env: NodeJS.ProcessEnv = process.env): string => join(env.XDG_CACHE_HOME || join(homedir() || userInfo().homedir, '.cache'), 'ddpm.wgsl');

/** The file for this content: `what` is all that the pixels depend on. */
export const cacheFile = (folder: string, what: unknown): string => join(folder, `${createHash('sha256').update(JSON.stringify([MAGIC, what])).digest('hex').slice(0, 32)}.images`);

function* parts(bytes: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += CHUNK) yield bytes.subarray(at, at + CHUNK);
}

/** The digest of all that a cache file says. */
function digest(header: string, kept: Uint8Array, pixels: Uint8Array): Uint8Array {
  const hash = createHash('sha256').update(header).update(kept);
  for (const part of parts(pixels)) hash.update(part);
  return hash.digest();
}

/** Writes the cache. @throws DdpmError(E-FILE) when it cannot be written */
export async function writeCache(path: string, { pixels, kept, ...sizes }: Decoded): Promise<void> {
  const header = `${MAGIC} ${JSON.stringify(sizes)}`.padEnd(255) + '\n', list = new Uint8Array(kept.buffer, kept.byteOffset, kept.byteLength);
  await writeAtomic(path, [new TextEncoder().encode(header), digest(header, list, pixels), list, ...parts(pixels)]);
}

/** What the cache holds: null where there is none, 'damaged' where it is not what was written. */
export async function readCache(path: string): Promise<Decoded | null | 'damaged'> {
  const file = await open(path, 'r').catch(() => null);
  if (!file) return null;
  try {
    const fill = async (bytes: Uint8Array, from: number): Promise<void> => {
      for (let at = 0; at < bytes.length; ) {
        const { bytesRead } = await file.read(bytes, at, Math.min(CHUNK, bytes.length - at), from + at);
        if (bytesRead === 0) throw new Error('cut off');
        at += bytesRead;
      }
    };
    const head = new Uint8Array(256), stored = new Uint8Array(32);
    await fill(head, 0);
    await fill(stored, 256);
    const header = new TextDecoder().decode(head);
    const sizes = JSON.parse(header.slice(MAGIC.length)) as Omit<Decoded, 'pixels' | 'kept'>;
    const bytes = sizes.count * sizes.height * sizes.width * sizes.channels;
    if ((await file.stat()).size !== 288 + 4 * sizes.count + bytes) return 'damaged';
    const kept = new Uint32Array(sizes.count), list = new Uint8Array(kept.buffer), pixels = new Uint8Array(bytes);
    await fill(list, 288);
    await fill(pixels, 288 + list.length);
    return digest(header, list, pixels).every((byte, i) => byte === stored[i]) ? { ...sizes, pixels, kept } : 'damaged';
  } catch {
    return 'damaged';
  } finally {
    await file.close();
  }
}
