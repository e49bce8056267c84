// A synthetic data set made in code: one smooth-edged shape of random kind, size, place, turn and brightness on black.

import { DdpmError } from '../errors.ts';
import { philox4x32, unit } from '../philox.ts';
import type { Dataset } from './images.ts';

/** The classes, in the order of the labels. */
export const SHAPE_KINDS = ['disc', 'square', 'triangle', 'cross', 'ring'] as const;

/** Second half of the Philox key ("shap"), far from the numbers in STREAM, so that drawing data never shares a stream with training. */
const SHAPES_STREAM = 0x73686170;

/** How many synthetic images, how large, from which seed. */
export type ShapesOptions = {
  /** Number of images (10,000). */
  count?: number;
  /** Height and width in pixels, at least 8 (28). */
  size?: number;
  /** 1 for grey, 3 for colour (1). */
  channels?: 1 | 3;
  /** Image i of a seed is always the same, whatever `count` is (0). */
  seed?: number;
};

/**
 * Makes the images: pixels (count, size, size, channels), labels 0 … 4 as in SHAPE_KINDS.
 * @throws DdpmError(E-USAGE) when an option is out of range
 */
export function makeShapes({ count = 10_000, size = 28, channels = 1, seed = 0 }: ShapesOptions = {}): Dataset {
  if (!Number.isInteger(count) || count < 1) throw new DdpmError('E-USAGE', `cannot make ${count} shapes: the count must be a whole number >= 1.`);
  if (!Number.isInteger(size) || size < 8) throw new DdpmError('E-USAGE', `shapes of ${size} pixels cannot be drawn: the size must be a whole number >= 8.`);
  if (channels !== 1 && channels !== 3) throw new DdpmError('E-USAGE', `shapes have 1 or 3 channels, not ${String(channels)}.`);
  const pixels = new Uint8Array(count * size * size * channels), labels = new Uint8Array(count);
  for (let i = 0; i < count; i++) {
    const u = [...philox4x32([i, 0, 0, 0], [seed, SHAPES_STREAM]), ...philox4x32([i, 1, 0, 0], [seed, SHAPES_STREAM])].map(unit);
    const kind = Math.floor(u[0]! * SHAPE_KINDS.length);
    labels[i] = kind;
    const r = size * (0.18 + 0.2 * u[1]!), reach = r + 1; // every kind fits in the circle of radius r
    const cx = reach + (size - 2 * reach) * u[2]!, cy = reach + (size - 2 * reach) * u[3]!;
    const turn = kind === 1 || kind === 3 ? (u[4]! - 0.5) * (Math.PI / 2) : u[4]! * 2 * Math.PI; // squares and crosses repeat after a quarter turn
    const colour = channels === 1 ? [255 * (0.4 + 0.6 * u[5]!)] : [u[5]!, u[6]!, u[7]!].map((v) => 255 * (0.25 + 0.75 * v));
    const cos = Math.cos(turn), sin = Math.sin(turn), base = i * size * size;
    const top = Math.max(0, Math.floor(cy - reach)), bottom = Math.min(size, Math.ceil(cy + reach));
    const left = Math.max(0, Math.floor(cx - reach)), right = Math.min(size, Math.ceil(cx + reach));
    for (let y = top; y < bottom; y++) {
      for (let x = left; x < right; x++) {
        const dx = x + 0.5 - cx, dy = y + 0.5 - cy;
        // A pixel is covered in proportion to how deep its centre lies within half a pixel of the edge: smooth edges from one distance a pixel.
        const cover = Math.min(1, Math.max(0, 0.5 - distance(kind, cos * dx + sin * dy, cos * dy - sin * dx, r)));
        if (cover > 0) for (let k = 0; k < channels; k++) pixels[(base + y * size + x) * channels + k] = Math.round(cover * colour[k]!);
      }
    }
  }
  return { name: 'shapes', path: `made in code, seed ${seed}`, count, height: size, width: size, channels, pixels, labels, classes: SHAPE_KINDS, flip: false };
}

/** Signed distance in pixels from (x, y) to the edge of a shape of outer radius r around the origin, negative inside (a bound at corners, which rounds them a little). */
function distance(kind: number, x: number, y: number, r: number): number {
  const ax = Math.abs(x), ay = Math.abs(y);
  switch (kind) {
    case 0: return Math.hypot(x, y) - r;
    case 1: return Math.max(ax, ay) - r * Math.SQRT1_2;
    case 2: return Math.max(y, ax * (Math.sqrt(3) / 2) - y / 2) - r / 2; // equilateral: three half planes at r / 2
    case 3: return Math.min(Math.max(ax - 0.95 * r, ay - 0.3 * r), Math.max(ay - 0.95 * r, ax - 0.3 * r));
    default: return Math.abs(Math.hypot(x, y) - 0.75 * r) - 0.25 * r;
  }
}
