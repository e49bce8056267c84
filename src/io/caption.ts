// Pictures with words under them: a grid of images, each with a line of text in letters of three by five pixels.

import { DdpmError } from '../errors.ts';
import type { Picture } from './picture.ts';

/** An image of bytes, (height, width, channels), and what stands under it. */
export interface Cell {
  readonly image: Uint8Array;
  readonly caption: string;
}

const GLYPH = { width: 3, height: 5 } as const;
/** Rows from the top, a digit of 0 to 7 each: the bits of three pixels. Small letters only where they mean something else: T is not t. */
const FONT: Readonly<Record<string, string>> = {
  0: '75557', 1: '26227', 2: '71747', 3: '71717', 4: '55711', 5: '74717', 6: '74757', 7: '71122', 8: '75757', 9: '75717',
  A: '25755', B: '65656', C: '34443', D: '65556', E: '74647', F: '74644', G: '34553', H: '55755', I: '72227', J: '11152', K: '55655', L: '44447', M: '57755',
  N: '65555', O: '25552', P: '65644', Q: '25563', R: '65655', S: '34216', T: '72222', U: '55557', V: '55552', W: '55775', X: '55255', Y: '55222', Z: '71247',
  t: '27221', x: '00525',
  '=': '07070', '-': '00700', '+': '02720', '.': '00002', ',': '00024', ':': '02020', '/': '11244', '%': '51245', '(': '12221', ')': '42224', '_': '00007', '^': '25000', ' ': '00000',
};

export interface CaptionOptions {
  /** Each pixel of an image becomes scale × scale (1). */
  readonly scale?: number;
  /** Pixels between cells and around them (4). */
  readonly pad?: number;
}

/**
 * Lays cells out in rows, black on white. Text that is wider than its image is set smaller, and cut off where even that does not fit.
 *
 * @param cells null leaves a place empty
 * @throws DdpmError(E-SHAPE) when an image does not fill its shape
 */
export function captionedGrid(cells: readonly (Cell | null)[], [h, w, c]: readonly [number, number, number], columns: number, { scale = 1, pad = 4 }: CaptionOptions = {}): Picture {
  if (c !== 1 && c !== 3) throw new DdpmError('E-SHAPE', `a picture has 1 or 3 channels, not ${c}.`);
  const bad = cells.find((cell) => cell && cell.image.length !== h * w * c);
  if (bad) throw new DdpmError('E-SHAPE', `an image of ${bad.image.length} bytes in a grid of ${h}×${w}×${c}.`);
  const across = w * scale, size = textSize(across), line = size * (GLYPH.height + 2), down = h * scale + line;
  const rows = Math.ceil(cells.length / columns), width = columns * (across + pad) + pad, height = rows * (down + pad) + pad;
  const data = new Uint8Array(width * height * c).fill(255);
  cells.forEach((cell, i) => {
    if (!cell) return;
    const left = (i % columns) * (across + pad) + pad, top = Math.floor(i / columns) * (down + pad) + pad;
    for (let y = 0; y < h * scale; y++)
      for (let x = 0; x < across; x++)
        for (let k = 0; k < c; k++) data[((top + y) * width + left + x) * c + k] = cell.image[(Math.floor(y / scale) * w + Math.floor(x / scale)) * c + k]!;
    write({ width, height, channels: c, data }, cell.caption, left, top + h * scale + size, across);
  });
  return { width, height, channels: c, data };
}

/** Pixels of a pixel of a letter: five letters should fit. */
const textSize = (across: number): number => Math.min(2, Math.max(1, Math.floor(across / (5 * (GLYPH.width + 1)))));

function write({ width, channels, data }: Picture, text: string, left: number, top: number, across: number): void {
  const fits = (size: number): boolean => text.length * (GLYPH.width + 1) * size <= across + size;
  const size = fits(textSize(across)) ? textSize(across) : 1, step = (GLYPH.width + 1) * size;
  [...text].slice(0, Math.floor((across + size) / step)).forEach((letter, i) => {
    const glyph = FONT[letter] ?? FONT[letter.toUpperCase()] ?? FONT['-']!;
    for (let y = 0; y < GLYPH.height * size; y++)
      for (let x = 0; x < GLYPH.width * size; x++) {
        const lit = (Number(glyph[Math.floor(y / size)]) >> (GLYPH.width - 1 - Math.floor(x / size))) & 1;
        if (lit) data.fill(0, ((top + y) * width + left + i * step + x) * channels, ((top + y) * width + left + i * step + x + 1) * channels);
      }
  });
}
