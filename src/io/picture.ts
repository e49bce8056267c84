// From numbers to pictures: conversion to bytes that clamps and rounds and never wraps, and grids of images.

import { DdpmError } from '../errors.ts';

/** An image of 8-bit values, rows from the top, channels last: 1 (grey) or 3 (red, green, blue). */
export type Picture = { width: number; height: number; channels: 1 | 3; data: Uint8Array };

/**
 * Values in [-1, 1], any shape, to bytes: round((clamp(x, -1, 1) + 1) 127.5). Infinities clamp like any other number.
 * @param onNaN called once with the number of NaNs, which become 0, when there are any
 */
export function toBytes(values: Float32Array, onNaN?: (count: number) => void): Uint8Array {
  const bytes = new Uint8Array(values.length);
  let nan = 0;
  for (let i = 0; i < values.length; i++) {
    const x = values[i]!;
    if (Number.isNaN(x)) nan++;
    else bytes[i] = Math.round((Math.min(1, Math.max(-1, x)) + 1) * 127.5);
  }
  if (nan > 0) onNaN?.(nan);
  return bytes;
}

/** How imageGrid() lays its images out. */
export type GridOptions = {
  /** Pixels between images and around them, before scaling (2). */
  pad?: number;
  /** Each pixel becomes scale × scale (1). */
  scale?: number;
  /** Grey value of the padding and of empty places, 0 … 255 (255). */
  background?: number;
};

/**
 * Lays images out in rows.
 * @param images (n, h, w, c) bytes, c = 1 or 3
 * @throws DdpmError(E-SHAPE) when the bytes do not fill the shape or the layout makes no sense; DdpmError(E-USAGE) for numbers that are not bytes
 */
export function imageGrid(images: Uint8Array, n: number, h: number, w: number, c: number, columns: number, options: GridOptions = {}): Picture {
  const { pad = 2, scale = 1, background = 255 } = options;
  if (c !== 1 && c !== 3) throw new DdpmError('E-SHAPE', `a picture has 1 or 3 channels, not ${c}.`);
  if (images.BYTES_PER_ELEMENT !== 1) throw new DdpmError('E-USAGE', 'imageGrid() takes bytes, and was given other numbers: toBytes(values) for a Float32Array in [-1, 1].');
  if (images.length !== n * h * w * c) {
    throw new DdpmError('E-SHAPE', `${n} images of ${h}×${w}×${c} have ${n * h * w * c} values, and ${images.length} were given.`);
  }
  if (![n, h, w, columns, scale].every((x) => Number.isInteger(x) && x > 0) || !Number.isInteger(pad) || pad < 0) {
    throw new DdpmError('E-SHAPE', `cannot lay out ${n} images of ${h}×${w} in ${columns} columns, padding ${pad}, scale ${scale}: whole numbers > 0 are needed.`);
  }
  const across = Math.min(columns, n), rows = Math.ceil(n / across);
  const width = (across * (w + pad) + pad) * scale, height = (rows * (h + pad) + pad) * scale;
  const data = new Uint8Array(width * height * c).fill(background);
  for (let i = 0; i < n; i++) {
    const left = ((i % across) * (w + pad) + pad) * scale, top = (Math.floor(i / across) * (h + pad) + pad) * scale;
    for (let y = 0; y < h * scale; y++) {
      const from = (i * h + Math.floor(y / scale)) * w * c, to = ((top + y) * width + left) * c;
      if (scale === 1) data.set(images.subarray(from, from + w * c), to);
      else for (let x = 0; x < w * scale; x++) for (let k = 0; k < c; k++) data[to + x * c + k] = images[from + Math.floor(x / scale) * c + k]!;
    }
  }
  return { width, height, channels: c, data };
}
