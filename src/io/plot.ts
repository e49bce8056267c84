// One curve over its axes as a picture: what a figure of a loss or a bound by t needs, and no more.
import { DdpmError } from '../errors.ts';
import type { Picture } from './picture.ts';

/** Letters of five by seven dots, a row a number, the highest bit at the left. */
const FONT: Readonly<Record<string, readonly number[]>> = {
  '0': [14, 17, 19, 21, 25, 17, 14], '1': [4, 12, 4, 4, 4, 4, 14], '2': [14, 17, 1, 2, 4, 8, 31], '3': [31, 2, 4, 2, 1, 17, 14], '4': [2, 6, 10, 18, 31, 2, 2],
  '5': [31, 16, 30, 1, 1, 17, 14], '6': [6, 8, 16, 30, 17, 17, 14], '7': [31, 1, 2, 4, 8, 8, 8], '8': [14, 17, 17, 14, 17, 17, 14], '9': [14, 17, 17, 15, 1, 2, 12],
  '.': [0, 0, 0, 0, 0, 12, 12], '-': [0, 0, 0, 31, 0, 0, 0], '+': [0, 4, 4, 31, 4, 4, 0], '/': [1, 1, 2, 4, 8, 16, 16], ' ': [0, 0, 0, 0, 0, 0, 0], ':': [0, 12, 12, 0, 12, 12, 0],
  a: [0, 0, 14, 1, 15, 17, 15], b: [16, 16, 30, 17, 17, 17, 30], c: [0, 0, 14, 16, 16, 17, 14], d: [1, 1, 15, 17, 17, 17, 15], e: [0, 0, 14, 17, 31, 16, 14], f: [6, 9, 8, 28, 8, 8, 8],
  g: [0, 15, 17, 17, 15, 1, 14], h: [16, 16, 30, 17, 17, 17, 17], i: [4, 0, 12, 4, 4, 4, 14], k: [16, 16, 18, 20, 24, 20, 18], l: [12, 4, 4, 4, 4, 4, 14], m: [0, 0, 26, 21, 21, 21, 21],
  n: [0, 0, 30, 17, 17, 17, 17], o: [0, 0, 14, 17, 17, 17, 14], p: [0, 0, 30, 17, 30, 16, 16], r: [0, 0, 22, 25, 16, 16, 16], s: [0, 0, 15, 16, 14, 1, 30], t: [8, 8, 28, 8, 8, 9, 6],
  u: [0, 0, 17, 17, 17, 19, 13], v: [0, 0, 17, 17, 17, 10, 4], w: [0, 0, 17, 17, 21, 21, 10], x: [0, 0, 17, 10, 4, 10, 17], y: [0, 0, 17, 17, 15, 1, 14], z: [0, 0, 31, 2, 4, 8, 31],
};
const LETTER = 2; // pixels a dot
const ADVANCE = 6 * LETTER;
const TALL = 7 * LETTER;

export interface PlotOptions {
  /** In the letters a to z, digits and . - + / : alone. */
  readonly xLabel: string;
  readonly yLabel: string;
  readonly width?: number;
  readonly height?: number;
}

/** Numbers of the form 1, 2 or 5 times a power of ten that split [0, high] into at most six. */
function steps(high: number): number[] {
  const raw = high / 6, power = 10 ** Math.floor(Math.log10(raw)), step = power * ([1, 2, 5, 10].find((m) => m * power >= raw) ?? 10);
  return Array.from({ length: Math.floor(high / step + 1e-9) + 1 }, (_, i) => i * step);
}

/**
 * values[i] over i = 0, 1, …, on a logarithmic axis whose ends are powers of ten; grey, 0 is black. Values that are not positive have no place on it, and
 * those far below the rest (by more than twelve powers of ten) are drawn at its foot.
 *
 * @throws DdpmError E-SHAPE where no value is positive and finite
 */
export function plotLogarithmic(values: ArrayLike<number>, { xLabel, yLabel, width = 720, height = 440 }: PlotOptions): Picture {
  const good = Array.from(values).filter((v) => v > 0 && Number.isFinite(v));
  if (good.length === 0) throw new DdpmError('E-SHAPE', 'a logarithmic plot needs values above 0, and there are none.');
  const top = Math.ceil(Math.log10(Math.max(...good)) - 1e-9), foot = Math.max(top - 12, Math.min(top - 1, Math.floor(Math.log10(Math.min(...good)) + 1e-9)));
  const [left, right, above, below] = [7 * ADVANCE, 2 * ADVANCE, 3 * TALL, 4 * TALL];
  const data = new Uint8Array(width * height).fill(255);
  const dot = (x: number, y: number, grey = 0): void => {
    if (x >= 0 && x < width && y >= 0 && y < height) data[y * width + x] = Math.min(data[y * width + x]!, grey);
  };
  const text = (words: string, x: number, y: number): void =>
    [...words].forEach((letter, k) =>
      FONT[letter]?.forEach((row, j) => {
        for (let i = 0; i < 5; i++) if ((row >> (4 - i)) & 1) for (let a = 0; a < LETTER * LETTER; a++) dot(x + k * ADVANCE + i * LETTER + (a % LETTER), y + j * LETTER + Math.floor(a / LETTER));
      }),
    );
  const count = values.length, wide = width - left - right, high = height - above - below;
  const xOf = (i: number): number => left + Math.round((wide * i) / Math.max(1, count - 1));
  const yOf = (v: number): number => above + Math.round(high * Math.min(1, (top - Math.log10(v)) / (top - foot)));

  for (let power = foot; power <= top; power++) {
    const y = yOf(10 ** power), name = `1e${power}`;
    for (let x = left; x <= left + wide; x++) dot(x, y, power === foot ? 0 : 225);
    text(name, left - ADVANCE * name.length - 6, y - TALL / 2);
  }
  for (const i of steps(Math.max(1, count - 1))) {
    for (let y = above + high; y < above + high + 7; y++) dot(xOf(i), y);
    text(String(i), xOf(i) - (ADVANCE * String(i).length) / 2, above + high + 12);
  }
  for (let y = above; y <= above + high; y++) dot(left, y);
  text(yLabel, 8, 10);
  text(xLabel, left + wide - ADVANCE * xLabel.length, above + high + 2 * TALL + 4);

  let before: readonly [number, number] | null = null;
  for (let i = 0; i < count; i++) {
    const v = values[i]!, here = v > 0 && Number.isFinite(v) ? ([xOf(i), yOf(v)] as const) : null;
    if (here) {
      const [x0, y0] = before ?? here, length = Math.max(1, Math.abs(here[0] - x0), Math.abs(here[1] - y0));
      // Two pixels thick.
      for (let s = 0; s <= length; s++) for (let a = 0; a < 4; a++) dot(Math.round(x0 + ((here[0] - x0) * s) / length) + (a & 1), Math.round(y0 + ((here[1] - y0) * s) / length) + (a >> 1));
    }
    before = here;
  }
  return { width, height, channels: 1, data };
}
