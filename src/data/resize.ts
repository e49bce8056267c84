// Resizes and crops images of bytes. Lanczos-3, widened by the scale where it shrinks, so that every pixel of the source counts and nothing aliases.

import type { Picture } from '../io/picture.ts';

const RADIUS = 3;

const sinc = (x: number): number => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

type Row = { readonly first: number; readonly weights: Float64Array };

/** For each pixel of `to`, the pixels of `from` that it is made of. Weights sum to 1. */
function weights(from: number, to: number): Row[] {
  const scale = from / to, reach = RADIUS * Math.max(1, scale);
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale - 0.5, first = Math.max(0, Math.ceil(centre - reach)), last = Math.min(from - 1, Math.floor(centre + reach));
    const row = Float64Array.from({ length: last - first + 1 }, (_v, j) => {
      const x = (first + j - centre) / Math.max(1, scale);
      return Math.abs(x) < RADIUS ? sinc(x) * sinc(x / RADIUS) : 0;
    });
    const sum = row.reduce((a, b) => a + b, 0);
    return { first, weights: row.map((w) => w / sum) };
  });
}

type Resize = (data: Uint8Array) => Uint8Array;

/** Makes images of W × H × C into width × height: rows first, then columns. Values are those of the file (no linear light), as torchvision and Pillow have it. */
function resizer(W: number, H: number, C: number, width: number, height: number): Resize {
  if (W === width && H === height) return (data) => data;
  const across = weights(W, width), down = weights(H, height), middle = new Float64Array(H * width * C);
  return (data) => {
    const out = new Uint8Array(height * width * C);
    for (let y = 0; y < H; y++) {
      for (let x = 0; x < width; x++) {
        const { first, weights: row } = across[x]!;
        for (let k = 0; k < C; k++) {
          let sum = 0;
          for (let j = 0; j < row.length; j++) sum += row[j]! * data[(y * W + first + j) * C + k]!;
          middle[(y * width + x) * C + k] = sum;
        }
      }
    }
    for (let y = 0; y < height; y++) {
      const { first, weights: column } = down[y]!;
      for (let i = 0; i < width * C; i++) {
        let sum = 0;
        for (let j = 0; j < column.length; j++) sum += column[j]! * middle[(first + j) * width * C + i]!;
        out[y * width * C + i] = Math.min(255, Math.max(0, Math.round(sum))); // Lanczos overshoots at edges
      }
    }
    return out;
  };
}

/** Resizes to width × height. */
export const resize = ({ width: W, height: H, channels, data }: Picture, width: number, height: number): Picture => ({ width, height, channels, data: resizer(W, H, channels, width, height)(data) });

/** Makes images of W × H × C into size × size: their middle, after the shorter side has been made `size`. */
export function squareFitter(W: number, H: number, C: number, size: number): Resize {
  const scale = size / Math.min(W, H), width = Math.max(size, Math.round(W * scale)), height = Math.max(size, Math.round(H * scale));
  const resized = resizer(W, H, C, width, height), left = Math.floor((width - size) / 2), top = Math.floor((height - size) / 2);
  if (width === size && height === size) return resized;
  return (pixels) => {
    const data = resized(pixels), out = new Uint8Array(size * size * C);
    for (let y = 0; y < size; y++) out.set(data.subarray(((top + y) * width + left) * C, ((top + y) * width + left + size) * C), y * size * C);
    return out;
  };
}

/** The size × size middle of the image, after its shorter side has been made `size`. */
export const fitSquare = ({ width, height, channels, data }: Picture, size: number): Picture => ({ width: size, height: size, channels, data: squareFitter(width, height, channels, size)(data) });

/** One channel from three (luma of ITU-R BT.601) or three equal ones from one. */
export function withChannels({ width, height, channels, data }: Picture, wanted: 1 | 3): Picture {
  if (channels === wanted) return { width, height, channels, data };
  const out = new Uint8Array(width * height * wanted);
  for (let i = 0; i < width * height; i++) {
    if (wanted === 1) out[i] = Math.round(0.299 * data[3 * i]! + 0.587 * data[3 * i + 1]! + 0.114 * data[3 * i + 2]!);
    else out[3 * i] = out[3 * i + 1] = out[3 * i + 2] = data[i]!;
  }
  return { width, height, channels: wanted, data: out };
}
