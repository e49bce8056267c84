// The members of a tar archive, from its bytes as they arrive: nothing is unpacked to disk, and members that nobody wants are not kept.

import { DdpmError } from '../errors.ts';
import { looksLike } from '../io/magic.ts';

const BLOCK = 512;

export type TarMember = { readonly path: string; readonly bytes: Uint8Array };

/**
 * The regular files of a tar archive (POSIX ustar, GNU), in order.
 * @param wanted which members to give, by path; the others are passed over
 * @throws DdpmError(E-DATA) when a header is damaged, saying at which byte, or the archive is cut off
 */
export async function* tarMembers(chunks: AsyncIterable<Uint8Array>, name: string, wanted: (path: string) => boolean): AsyncGenerator<TarMember> {
  const source = chunks[Symbol.asyncIterator]();
  let chunk: Uint8Array = new Uint8Array(0), at = 0, offset = 0;
  /** The next `length` bytes in pieces, each a view that lives until the next is asked for; ends early where the data end. */
  async function* pieces(length: number): AsyncGenerator<Uint8Array> {
    for (let left = length; left > 0; ) {
      if (at === chunk.length) {
        const { done, value } = await source.next();
        if (done) return;
        chunk = value;
        at = 0;
        continue;
      }
      const piece = chunk.subarray(at, at + Math.min(left, chunk.length - at));
      at += piece.length;
      offset += piece.length;
      left -= piece.length;
      yield piece;
    }
  }
  const take = async (length: number): Promise<Uint8Array> => {
    const parts: Uint8Array[] = [];
    for await (const piece of pieces(length)) parts.push(piece.slice()); // not `length` bytes at once: a damaged size may ask for anything
    const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    parts.reduce((to, part) => (bytes.set(part, to), to + part.length), 0);
    return bytes;
  };
  for (;;) {
    const start = offset, header = await take(BLOCK);
    if (header.length === BLOCK && header.every((byte) => byte === 0)) return;
    if (header.length < BLOCK || !checksumFits(header)) {
      const what = header.length < BLOCK && start > 0 ? `ends at byte ${offset} without the empty block that closes an archive: it is cut off`
        : `has no tar header at byte ${start}${start === 0 ? `; it looks like ${looksLike(header)}` : ': it is damaged'}`;
      throw new DdpmError('E-DATA', `${name} ${what}. Download it again.`);
    }
    const text = (from: number, to: number): string => String.fromCharCode(...header.subarray(from, to)).replace(/\0.*$/s, '');
    const octal = text(124, 136).trim(), size = parseInt(octal, 8);
    if (!/^[0-7]+$/.test(octal)) throw new DdpmError('E-DATA', `${name} gives the member at byte ${start} the size "${octal}", which is no octal number: it is damaged. Download it again.`);
    const prefix = text(257, 262) === 'ustar' ? text(345, 500) : '', path = prefix ? `${prefix}/${text(0, 100)}` : text(0, 100);
    const isFile = header[156] === 0 || header[156] === 0x30;
    let length = 0;
    if (isFile && wanted(path)) {
      const bytes = await take(size);
      length = bytes.length;
      if (length === size) yield { path, bytes };
    } else for await (const piece of pieces(size)) length += piece.length;
    if (length < size) throw new DdpmError('E-DATA', `${name} is cut off: ${path} should have ${size} bytes and ${length} are there. Download it again.`);
    for await (const _ of pieces((BLOCK - (size % BLOCK)) % BLOCK)); // the padding
  }
}

/** The sum of a header's bytes, its own field counted as blanks, stands in it in octal. */
function checksumFits(header: Uint8Array): boolean {
  const stored = parseInt(String.fromCharCode(...header.subarray(148, 156)).replace(/\0.*$/s, '').trim(), 8);
  return header.reduce((sum, byte, i) => sum + (i >= 148 && i < 156 ? 32 : byte), 0) === stored;
}
