// What is wrong with a damaged PNG, and at which byte.

import { crc32, inflateSync } from 'node:zlib';
import { looksLike } from './magic.ts';

/** Values a pixel by colour type: grey, RGB, palette, grey and alpha, RGBA. */
const VALUES: Record<number, number> = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };
/** Where the passes of an interlaced PNG begin and how far they step: x, y, dx, dy. */
const ADAM7 = [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]] as const;

/** What is wrong with a PNG's chunks, or with the number of its pixels; null where nothing is. */
export function pngDamage(bytes: Uint8Array): string | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), text = (from: number, to: number): string => String.fromCharCode(...bytes.subarray(from, to));
  if (text(0, 8) !== '\x89PNG\r\n\x1a\n') return `at byte 0 a PNG has 89 50 4e 47 0d 0a 1a 0a, and it looks like ${looksLike(bytes)}`;
  const pixels: Uint8Array[] = [];
  for (let at = 8, type = ''; type !== 'IEND'; ) {
    if (at + 8 > bytes.length) return `it ends at byte ${bytes.length} without the chunk IEND that closes it: it is cut off`;
    const length = view.getUint32(at), end = at + 12 + length;
    type = text(at + 4, at + 8);
    if (!/^[A-Za-z]{4}$/.test(type)) return `at byte ${at + 4} there is no name of a chunk: it is damaged`;
    if (end > bytes.length) return `its chunk ${type} at byte ${at} goes to byte ${end}, and it ends at byte ${bytes.length}: it is cut off`;
    if (crc32(bytes.subarray(at + 4, end - 4)) !== view.getUint32(end - 4)) return `the checksum of its chunk ${type} at byte ${at} is another one: it is damaged`;
    if (at === 8 && (type !== 'IHDR' || length !== 13)) return `its first chunk is ${type} of ${length} bytes, and a PNG begins with IHDR of 13: it is damaged`;
    if (type === 'IDAT') pixels.push(bytes.subarray(at + 8, end - 4));
    at = end;
  }
  const width = view.getUint32(16), height = view.getUint32(20), bits = bytes[24]! * (VALUES[bytes[25]!] ?? 0), needed = scanlineBytes(width, height, bits, bytes[28] === 1);
  try {
    const unpacked = inflateSync(Buffer.concat(pixels), { maxOutputLength: Math.max(1, needed) }).length;
    return unpacked < needed ? `its pixels are ${unpacked} bytes unpacked, and ${width} × ${height} need ${needed}: it is damaged` : null;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return code === 'ERR_BUFFER_TOO_LARGE' ? `its pixels are more than the ${needed} bytes of ${width} × ${height}: it is damaged` : `its pixels cannot be unpacked (${message}): it is damaged`;
  }
}

/** Bytes of all rows, each led by the number of its filter. */
function scanlineBytes(width: number, height: number, bits: number, interlaced: boolean): number {
  return (interlaced ? ADAM7 : [[0, 0, 1, 1] as const]).reduce((sum, [x, y, dx, dy]) => {
    const across = Math.max(0, Math.ceil((width - x) / dx)), down = Math.max(0, Math.ceil((height - y) / dy));
    return across > 0 ? sum + down * (1 + Math.ceil((across * bits) / 8)) : sum;
  }, 0);
}
