// The chunks of an animated PNG, around frames that are compressed already: Node and browsers compress in different ways.

import { DdpmError } from '../errors.ts';
import type { Picture } from './picture.ts';

export type ApngOptions = {
  /** Time each frame is shown, in milliseconds (80). */
  delay?: number;
  /** Time the last frame is held before the animation starts again, in milliseconds (1500). */
  lastDelay?: number;
};

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);

/**
 * An animated PNG, 8 bits a channel, that loops for ever. Frames are stored unfiltered: noise, of which a denoising mostly consists, gains nothing from filters.
 * @param frames at least one, all of the same size and number of channels
 * @param pixels gives the scanlines of a frame, compressed in zlib's format
 * @throws DdpmError(E-SHAPE) when there is no frame, frames differ in size, or a frame's data does not fill it; DdpmError(E-USAGE) on a bad delay
 */
export function joinApng(frames: readonly Picture[], pixels: (frame: Picture, index: number) => Uint8Array, { delay = 80, lastDelay = 1500 }: ApngOptions = {}): Uint8Array<ArrayBuffer> {
  const first = frames[0];
  if (!first) throw new DdpmError('E-SHAPE', 'an animation needs at least one frame.');
  for (const ms of [delay, lastDelay]) {
    if (!Number.isInteger(ms) || ms < 0 || ms > 65535) throw new DdpmError('E-USAGE', `a frame cannot be shown for ${ms} ms: use a whole number from 0 to 65535.`);
  }
  const { width, height, channels } = first;
  frames.forEach((frame, i) => {
    if (frame.width !== width || frame.height !== height || frame.channels !== channels) {
      const size = (p: Picture): string => `${p.width}×${p.height}×${p.channels}`;
      throw new DdpmError('E-SHAPE', `frame ${i} is ${size(frame)} and frame 0 is ${size(first)}: all frames of an animation must have one size.`);
    }
    if (frame.data.length !== width * height * channels || frame.data.length === 0) {
      throw new DdpmError('E-SHAPE', `frame ${i} should have ${width * height * channels} bytes and has ${frame.data.length}.`);
    }
  });

  let sequence = 0; // fcTL and fdAT chunks share one running number
  const parts: Uint8Array[] = [
    SIGNATURE,
    chunk('IHDR', u32(width), u32(height), Uint8Array.of(8, channels === 1 ? 0 : 2, 0, 0, 0)),
    chunk('acTL', u32(frames.length), u32(0)), // 0 plays = for ever
  ];
  frames.forEach((frame, i) => {
    const shown = i === frames.length - 1 ? lastDelay : delay;
    // Size, offset (0, 0), delay as a fraction of 1000, then: keep what was there, overwrite.
    parts.push(chunk('fcTL', u32(sequence++), u32(width), u32(height), u32(0), u32(0), u16(shown), u16(1000), Uint8Array.of(0, 0)));
    parts.push(i === 0 ? chunk('IDAT', pixels(frame, i)) : chunk('fdAT', u32(sequence++), pixels(frame, i)));
  });
  parts.push(chunk('IEND'));
  return join(parts);
}

const u16 = (value: number): Uint8Array => Uint8Array.of(value >>> 8, value);
const u32 = (value: number): Uint8Array => Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);

function join(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Length, type, data, and the CRC of type and data. */
function chunk(type: string, ...data: Uint8Array[]): Uint8Array {
  const body = join([new TextEncoder().encode(type), ...data]);
  return join([u32(body.length - 4), body, u32(crc32(body))]);
}

/** Scanlines as PNG wants them: each is led by the number of its filter, here 0 for none. */
export function scanlines({ height, data }: Picture): Uint8Array<ArrayBuffer> {
  const row = data.length / height, lines = new Uint8Array((row + 1) * height);
  for (let y = 0; y < height; y++) lines.set(data.subarray(y * row, (y + 1) * row), y * (row + 1) + 1);
  return lines;
}

/** CRC-32 as in zlib (polynomial 0xedb88320), of which browsers have none. */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ CRC[(crc ^ byte) & 255]!;
  return (crc ^ 0xffffffff) >>> 0;
}

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});
