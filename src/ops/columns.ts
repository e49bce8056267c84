// Temporary copies of matrices with more or fewer columns, or rounded to float16, made where they are needed and freed together.
import { pointwise, threads } from '../autograd.ts';
import type { Engine } from '../gpu/engine.ts';
import { BYTES, type ElementType, type Slice } from '../gpu/kernel.ts';
import { copy_columns, round_half } from '../gpu/kernels.gen.ts';

export class Columns {
  readonly #engine: Engine;
  readonly #owned: Slice[] = [];

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Room for rows of `width` values. */
  room(rows: number, width: number, type: ElementType = 'f32'): Slice {
    const slice = this.#engine.allocate(BYTES[type] * rows * width, type);
    this.#owned.push(slice);
    return slice;
  }

  /** Rows of `width` values as rows of `wide`, zeros behind; x itself where nothing changes. A row of x starts at `first` of every `stride`. */
  widened(x: Slice, rows: number, width: number, wide: number, { stride = width, first = 0 } = {}): Slice {
    if (wide === width && stride === width) return x;
    const y = this.room(rows, wide, x.type);
    this.#engine.run(copy_columns, threads(rows), { x, y, rows, width, x_stride: stride, x_first: first, y_stride: wide, y_first: 0, y_width: wide, accumulate: 0 });
    return y;
  }

  /** The first `width` of every `wide` values into dense rows of y, or into columns `first` of rows of `stride`. */
  cut(x: Slice, y: Slice, rows: number, width: number, wide: number, { accumulate = 0, stride = width, first = 0 } = {}): void {
    this.#engine.run(copy_columns, threads(rows), { x, y, rows, width, x_stride: wide, x_first: 0, y_stride: stride, y_first: first, y_width: width, accumulate });
  }

  /** Rounded to float16, as float32. */
  rounded(x: Slice): Slice {
    const y = this.room(1, x.bytes / 4);
    this.#engine.run(round_half, pointwise(x.bytes / 4), { x, y });
    return y;
  }

  free(): void {
    for (const slice of this.#owned) this.#engine.free(slice);
  }
}
