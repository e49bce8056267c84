// Pixels and canvases: images into numbers and numbers onto the screen, files out.
import { joinApng, scanlines } from '../../io/apng-chunks.ts';
import { imageGrid, type Picture, toBytes } from '../../io/picture.ts';
import { DdpmError } from '../../errors.ts';
import { h } from '../dom.ts';
import type { ImageSize } from './models.ts';

/** n images in [-1, 1], (n, H, W, C), as one picture of so many columns. */
export const grid = (values: Float32Array, { height, width, channels }: ImageSize, columns: number, pad = 1): Picture =>
  imageGrid(toBytes(values), values.length / (height * width * channels), height, width, channels, columns, { pad, background: 0 });

/** Draws a picture onto a canvas at its own size; the style sheet enlarges it, pixel by pixel. */
export function show(canvas: HTMLCanvasElement, picture: Picture): void {
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.getContext('2d')!.putImageData(imageData(picture), 0, 0);
}

function imageData({ width, height, channels, data }: Picture): ImageData {
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = data[channels === 1 ? i : 3 * i + c]!;
    image.data[4 * i + 3] = 255;
  }
  return image;
}

/** Cuts the middle square out of an image file and scales it, over white where it is transparent. Grey weighs the colours as Rec. 601 does. @throws DdpmError E-DATA where it does not decode */
export async function decodeImage(file: Blob, name: string, { height, width, channels }: ImageSize): Promise<Uint8Array> {
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new DdpmError('E-DATA', `${name} is no image that this browser can read, as PNG, JPEG, WebP and GIF are.`);
  }
  const side = Math.min(bitmap.width, bitmap.height * (width / height)), tall = side * (height / width);
  const canvas = new OffscreenCanvas(width, height), ctx = canvas.getContext('2d')!;
  ctx.imageSmoothingQuality = 'high';
  ctx.fillStyle = '#fff';
  ctx.fillRect(0, 0, width, height);
  ctx.drawImage(bitmap, (bitmap.width - side) / 2, (bitmap.height - tall) / 2, side, tall, 0, 0, width, height);
  bitmap.close();
  return fromRgba(ctx.getImageData(0, 0, width, height).data, channels);
}

export function fromRgba(rgba: Uint8ClampedArray, channels: number): Uint8Array {
  const out = new Uint8Array((rgba.length / 4) * channels);
  for (let i = 0; i < rgba.length / 4; i++) {
    const [r, g, b] = [rgba[4 * i]!, rgba[4 * i + 1]!, rgba[4 * i + 2]!];
    if (channels === 1) out[i] = Math.round(0.299 * r + 0.587 * g + 0.114 * b);
    else out.set([r, g, b], 3 * i);
  }
  return out;
}

/** An animated PNG, compressed by the browser. */
export async function animation(frames: readonly Picture[]): Promise<Uint8Array<ArrayBuffer>> {
  const pixels = await Promise.all(frames.map((frame) => through(scanlines(frame), new CompressionStream('deflate'))));
  return joinApng(frames, (_, i) => pixels[i]!);
}

export async function still(picture: Picture): Promise<Blob> {
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  canvas.getContext('2d')!.putImageData(imageData(picture), 0, 0);
  return canvas.convertToBlob({ type: 'image/png' });
}

/** The bytes behind gzip's, where they are that. @throws DdpmError E-DATA where they are damaged */
export async function unpacked(bytes: Uint8Array<ArrayBuffer>, name: string): Promise<Uint8Array<ArrayBuffer>> {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  try {
    return await through(bytes, new DecompressionStream('gzip'));
  } catch {
    throw new DdpmError('E-DATA', `${name} is gzip that is damaged or cut off. Download it again.`);
  }
}

const through = async (bytes: Uint8Array<ArrayBuffer>, stream: CompressionStream | DecompressionStream): Promise<Uint8Array<ArrayBuffer>> =>
  new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());

/** Gives the reader a file. */
export function download(name: string, content: BlobPart, type = 'application/octet-stream'): void {
  const url = URL.createObjectURL(new Blob([content], { type }));
  const link = h('a', { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
