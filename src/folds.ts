// Sums whose terms a kernel left in memory: folded at once, or, where nobody reads them before the end of backward, many in one dispatch.
import type { Engine } from './gpu/engine.ts';
import { BYTES, grid, type Slice } from './gpu/kernel.ts';
import * as k from './gpu/kernels.gen.ts';
import { DEFAULTS } from './variants.ts';

/** y[to + floor(i / row) stride + i % row] = sum_s part[from + s step + floor(i / row) pitch + i % row], i < size. In elements; `to` counts from the start of y. */
export interface Sum {
  readonly y: Slice;
  readonly accumulate: 0 | 1;
  readonly from: number;
  readonly terms: number;
  readonly step: number;
  readonly size: number;
  /** By default rows lie one behind the other, here and there. */
  readonly row?: number;
  readonly pitch?: number;
  readonly stride?: number;
  readonly to?: number;
}

/** Bytes of terms that wait at the same time where backward computes again what it did not keep: there memory matters more than dispatches. */
const SPARING = 2 ** 25;

const open = new WeakMap<Engine, Folds>();

/** The sums of one backward pass that wait. */
export class Folds {
  readonly #engine: Engine;
  readonly #waiting: (Sum & { readonly base: number })[] = [];
  readonly #results = new Set<Slice>();
  /** Bytes that may wait at the same time. */
  readonly #all: number;
  #room: Slice | null = null;
  #used = 0;
  #most = 0;

  /** `sparing`: with less room. */
  constructor(engine: Engine, sparing = false) {
    this.#engine = engine;
    const { waiting } = DEFAULTS[engine.deviceClass];
    this.#all = sparing ? Math.min(waiting, SPARING) : waiting;
    open.set(engine, this);
  }

  /** Called before somebody else may write `y`, or read it. */
  before(y: Slice): void {
    if (this.#results.has(y)) this.flush();
  }

  /** A range of the common room, or null where it is too small. */
  take(bytes: number): Slice | null {
    const all = this.#all;
    if (bytes > all) return null;
    if (this.#used + bytes > all) this.flush();
    this.#room ??= this.#engine.allocate(all);
    const slice = { buffer: this.#room.buffer, offset: this.#room.offset + this.#used, bytes };
    this.#used += Math.ceil(bytes / 256) * 256;
    this.#most = Math.max(this.#most, this.#used);
    return slice;
  }

  /** Whether the slice is a range of the common room. */
  holds(part: Slice): boolean {
    return part.buffer === this.#room?.buffer;
  }

  add(part: Slice, sums: readonly Sum[]): void {
    for (const sum of sums) {
      this.#waiting.push({ ...sum, base: (part.offset - this.#room!.offset) / 4 });
      this.#results.add(sum.y);
    }
  }

  flush(): void {
    const buffers = new Set(this.#waiting.map(({ y }) => y.buffer));
    for (const buffer of buffers) launch(this.#engine, { ...this.#room!, bytes: this.#used }, this.#waiting.filter(({ y }) => y.buffer === buffer));
    this.#waiting.length = 0;
    this.#results.clear();
    this.#used = 0;
  }

  /** Backward is over; what still waits is dropped. */
  close(): void {
    open.delete(this.#engine);
    if (!this.#room || !this.#engine.owns(this.#room)) return;
    this.#engine.trim(this.#room, this.#most);
    this.#engine.free(this.#room);
  }
}

/** Room for the terms of sums. `late`: nobody reads these before the end of backward. `fold` gives it back. */
export const termsRoom = (engine: Engine, bytes: number, late = false): Slice => (late ? open.get(engine)?.take(bytes) : null) ?? engine.allocate(bytes);

/** Folds terms that lie in a slice of `termsRoom`, now or when backward ends. Each result is written once, or read only after. */
export function fold(engine: Engine, part: Slice, sums: readonly Sum[]): void {
  const folds = open.get(engine);
  if (folds?.holds(part)) return folds.add(part, sums);
  for (const buffer of new Set(sums.map(({ y }) => y.buffer))) launch(engine, part, sums.filter(({ y }) => y.buffer === buffer).map((sum) => ({ ...sum, base: 0 })));
  engine.free(part);
}

/** A copy: sums of one term, from a slice of its own. */
export type Move = { readonly from: Slice; readonly first?: number } & Pick<Sum, 'size' | 'row' | 'pitch' | 'stride' | 'to'>;

/** Copies rows into y; one dispatch for all that come from one buffer. */
export function move(engine: Engine, y: Slice, moves: readonly Move[]): void {
  for (const buffer of new Set(moves.map(({ from }) => from.buffer))) {
    const its = moves.filter(({ from }) => from.buffer === buffer);
    const offset = Math.min(...its.map(({ from }) => from.offset)), end = Math.max(...its.map(({ from }) => from.offset + from.bytes));
    launch(engine, { buffer, offset, bytes: end - offset }, its.map(({ from, first = 0, ...rest }) => ({ ...rest, y, accumulate: 0, from: first, base: (from.offset - offset) / 4, terms: 1, step: 0 })));
  }
}

/** One dispatch for sums whose results lie in one buffer and are of one type. */
function launch(engine: Engine, part: Slice, sums: readonly (Sum & { readonly base: number })[]): void {
  const { buffer, type = 'f32' } = sums[0]!.y;
  const offset = Math.min(...sums.map(({ y }) => y.offset)), end = Math.max(...sums.map(({ y }) => y.offset + y.bytes));
  const rows = sums.map(({ y, base, from, terms, step, size, row = size, pitch = row, stride = row, to = 0, accumulate }) => ({ terms, accumulate, lengths: [base + from, step, size, row, pitch, stride, (y.offset - offset) / BYTES[type] + to] as const }));
  const { folding, fours } = DEFAULTS[engine.deviceClass], unit = fours && rows.every(({ lengths }) => lengths.every((n) => n % 4 === 0)) ? 4 : 1;
  let groups = 0;
  const table = rows.flatMap(({ terms, accumulate, lengths: [start, step, size, row, pitch, stride, to] }) => {
    const first = groups;
    groups += Math.ceil(size / unit / 256);
    return [first, start / unit, terms, step / unit, size / unit, row / unit, pitch / unit, stride / unit, to / unit, accumulate];
  });
  engine.run(unit === 4 ? k.fold_vec4 : k.fold, grid(groups), { WG: folding, table: engine.constants(Uint32Array.from(table)), part, y: { buffer, offset, bytes: end - offset, type }, sums: sums.length });
}
