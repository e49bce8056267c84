// Scopes: allocations that are freed together, and what a function returned out of one.
import { DdpmError } from '../errors.ts';
import type { Slice } from './kernel.ts';

/** Allocations made since the scope was opened; `holds` scopes (a tape's) keep what nested scopes would free. */
export interface Scope {
  readonly slices: Map<GPUBuffer, Slice>;
  readonly holds: boolean;
}

const leftOpen = (): DdpmError => new DdpmError('E-ENGINE', 'scopes must be closed in the reverse order of their opening; that of a tape is open from record() to backward().');

/** The scopes that are open, the innermost last. */
export class Scopes {
  readonly #open: Scope[] = [];
  readonly #free: (slice: Slice) => void;

  constructor(free: (slice: Slice) => void) {
    this.#free = free;
  }

  get depth(): number {
    return this.#open.length;
  }

  /** Whether the innermost holds what is made in it. */
  get holds(): boolean {
    return this.#open.at(-1)?.holds ?? false;
  }

  add(slice: Slice): void {
    this.#open.at(-1)?.slices.set(slice.buffer, slice);
  }

  /** What is freed by hand belongs to none. */
  forget({ buffer }: Slice): void {
    for (let i = this.#open.length - 1; i >= 0 && !this.#open[i]!.slices.delete(buffer); i--);
  }

  open(holds: boolean): Scope {
    const scope = { slices: new Map<GPUBuffer, Slice>(), holds };
    this.#open.push(scope);
    return scope;
  }

  /** Frees what the innermost scope allocated except `keep`, which passes to the scope around it. */
  close(scope: Scope, keep: ReadonlySet<GPUBuffer> = new Set()): void {
    if (this.#closeInside(scope)) throw leftOpen();
    this.#open.pop();
    for (const [buffer, slice] of scope.slices) {
      if (keep.has(buffer)) this.add(slice);
      else this.#free(slice);
    }
  }

  /** Runs fn in a scope of its own, and frees what it made but its result. */
  enclose<T>(fn: () => T): T {
    const scope = this.open(false);
    let result: T;
    try {
      result = fn();
    } catch (error) {
      this.#closeInside(scope); // its error is the one to be told of
      this.close(scope);
      throw error;
    }
    const left = this.#closeInside(scope);
    this.close(scope, buffersIn(result));
    if (left) throw leftOpen();
    return result;
  }

  /** Forgets the scopes inside of the first `depth`, and what they hold. */
  cut(depth: number): void {
    this.#open.length = depth;
  }

  /** Closes scopes that were left open inside this one, and says whether there were any. */
  #closeInside(scope: Scope): boolean {
    const at = this.#open.lastIndexOf(scope);
    if (at < 0) throw new DdpmError('E-ENGINE', 'a scope was closed that is not open.');
    const inside = this.#open.splice(at + 1);
    for (const { slices } of inside) for (const slice of slices.values()) this.#free(slice);
    return inside.length > 0;
  }
}

/** The GPU buffers of the tensors in a result: a tensor, or arrays and plain objects of them. */
export function buffersIn(value: unknown, found = new Set<GPUBuffer>()): Set<GPUBuffer> {
  if (value === null || typeof value !== 'object') return found;
  // Arrays first: they have a `slice` of their own.
  if (Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype) {
    if ('buffer' in value && 'offset' in value) found.add((value as Slice).buffer);
    else for (const v of Object.values(value)) buffersIn(v, found);
  } else if ('slice' in value) found.add((value.slice as Slice).buffer);
  return found;
}
