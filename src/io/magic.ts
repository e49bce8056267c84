// Names what some bytes look like from their first few, so that an error can say "this is a web page", not just "wrong magic".

const ascii = (bytes: Uint8Array, length: number): string => String.fromCharCode(...bytes.subarray(0, length));

/** What `bytes` seem to be ("a gzip file", "HTML (a failed download?)", …), or a hex dump of the first four bytes when nothing fits. */
export function looksLike(bytes: Uint8Array): string {
  if (bytes.length === 0) return 'an empty file';
  const head = ascii(bytes, 64), b = (i: number): number => bytes[i] ?? -1;
  if (/^\s*<(!doctype|html|\?xml|head|body)/i.test(head)) return 'HTML or XML (a failed download?)';
  if (head.startsWith('version https://git-lfs')) return 'a Git LFS pointer, not the file itself (git lfs pull fetches it)';
  if (b(0) === 0x1f && b(1) === 0x8b) return 'a gzip file';
  if (head.startsWith('\x89PNG')) return 'a PNG image';
  if (b(0) === 0xff && b(1) === 0xd8) return 'a JPEG image';
  if (head.startsWith('GIF8')) return 'a GIF image';
  if (head.startsWith('PK\x03\x04')) return 'a zip archive (a PyTorch .pt or .bin file is one)';
  if (head.startsWith('\x93NUMPY')) return 'a NumPy .npy file';
  if (head.startsWith('\x89HDF')) return 'an HDF5 file';
  if (head.startsWith('PAR1')) return 'a Parquet file';
  if (b(0) === 0x80 && b(1) >= 2 && b(1) <= 5) return 'a Python pickle';
  if (b(0) === 0 && b(1) === 0 && b(2) >= 8 && b(2) <= 14 && b(3) >= 1 && b(3) <= 8) return 'an IDX file';
  if (b(8) === 0x7b && b(6) === 0 && b(7) === 0) return 'a safetensors file';
  if (ascii(bytes.subarray(257), 5) === 'ustar') return 'a tar archive (unpack it first)';
  if (/^\s*[{[]/.test(head)) return 'JSON text';
  return `bytes that begin ${[...bytes.subarray(0, 4)].map((v) => v.toString(16).padStart(2, '0')).join(' ')}`;
}
