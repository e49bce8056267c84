// A tape of closures. Ops write gradients; the tape allocates, accumulates and frees them, and walks backwards so that every activation has one point of death.
import { DdpmError } from './errors.ts';
import { Folds } from './folds.ts';
import type { Engine } from './gpu/engine.ts';
import { type Slice, grid } from './gpu/kernel.ts';
import * as k from './gpu/kernels.gen.ts';
import { buffersIn, type Scope } from './gpu/scopes.ts';
import { ParameterTensor, Tensor } from './tensor.ts';

/** Where an op writes an input's gradient; with `accumulate` it adds to what is there. */
export interface Destination {
  readonly slice: Slice;
  readonly accumulate: 0 | 1;
  /** Nobody reads it before the end of backward: its sum may wait until then (src/folds.ts). */
  readonly late?: boolean;
}

/** How an op goes back: from dy, the gradient of its result, it writes the gradient of each of its inputs, in their order, where `out` says; null where none is wanted. */
export type Backward = (dy: Slice, out: readonly (Destination | null)[]) => void;

/** A part of the forward pass that was run without keeping what its gradient needs: backward runs it again. */
interface Segment {
  readonly output: Tensor;
  readonly again: () => Tensor;
}

interface Node {
  readonly output: Tensor;
  readonly inputs: readonly (Tensor | null)[];
  readonly backward: Backward;
  readonly saved: readonly Slice[];
  /** The input whose gradient is dy itself: the tape hands dy over instead of copying it. */
  readonly passes: number;
  readonly parts: readonly Tensor[];
}

const active = new WeakMap<Engine, Tape>();

/**
 * Puts an op on the active tape and returns y. Without a tape, or if no input needs a gradient, nothing is recorded. `saved` are slices that backward reads, freed after
 * it; they and y must come from engine.allocate. `passes` is the number of an input whose gradient is dy itself, which backward need not write. `parts` are tensors over
 * ranges of y, for ops with several results: their gradients are ranges of dy.
 */
export function record(y: Tensor, inputs: readonly (Tensor | null)[], backward: Backward, { saved = [], passes = -1, parts = [] }: { saved?: Slice[]; passes?: number; parts?: readonly Tensor[] } = {}): Tensor {
  const tape = active.get(y.engine);
  if (tape && inputs.some((x) => x?.requiresGrad)) {
    y.requiresGrad = true;
    tape.nodes.push({ output: y, inputs, backward, saved, passes, parts });
    for (const part of parts) {
      part.requiresGrad = true;
      tape.wholes.set(part.slice, y.slice);
    }
  } else if (!tape) for (const slice of saved) y.engine.free(slice);
  return y;
}

/**
 * Gradient checkpointing (Chen et al., 2016): fn's result, without what its gradient needs; backward runs fn again, then walks what it records. The
 * gradients are the same bits: the same kernels see the same numbers in the same order. What fn draws at random must be a function of a clock, as dropout is.
 * fn reads parameters, and its result is a tensor of its own. When it is run again nobody reads the values of that result, and `again` is true: its last op may leave them out (conv2d's `unread`).
 * Without a tape this is engine.scope(fn).
 */
export function checkpoint(engine: Engine, fn: (again: boolean) => Tensor): Tensor {
  const tape = active.get(engine), first = () => fn(false);
  if (!tape) return engine.scope(first);
  // A scope that holds nothing: what fn makes inside dies as it would without a tape.
  const output = untaped(engine, first);
  output.requiresGrad = true;
  tape.nodes.push({ output, again: () => fn(true) });
  return output;
}

/** Launches a pointwise kernel over `values` float32 in vec4s of one invocation each. */
export const pointwise = (values: number) => grid(Math.ceil(values / 256));
/** Launches one invocation for each of `count` items. */
export const threads = (count: number) => grid(Math.ceil(count / 64));

/**
 * Reverse-mode differentiation: ops called inside `record` are noted with their backward functions, which `backward(loss)` calls in reverse, from a loss of shape (1)
 * (E-SHAPE otherwise). The gradients of parameters go to their places in the flat buffer; those of other inputs are read with `gradient`.
 */
export class Tape {
  readonly engine: Engine;
  /** What was recorded, in order. */
  nodes: (Node | Segment)[] = [];
  /** The whole of each result that is a part of another tensor. */
  readonly wholes = new Map<Slice, Slice>();
  readonly #leaves = new Map<Slice, Slice>();
  #scope: Scope | null = null;

  constructor(engine: Engine) {
    this.engine = engine;
  }

  /** Runs fn with every op recorded. What fn allocates lives until backward has passed it, and no scope frees anything before: without a backward to come, do not record. */
  record<T>(fn: () => T): T {
    if (active.has(this.engine) || this.#scope) throw new DdpmError('E-ENGINE', 'a tape records once, and one at a time.');
    this.#scope = this.engine.openScope(true);
    active.set(this.engine, this);
    try {
      return fn();
    } catch (error) {
      this.engine.closeScope(this.#scope);
      this.#scope = null;
      this.nodes.length = 0; // their tensors are freed
      throw error;
    } finally {
      active.delete(this.engine);
    }
  }

  /**
   * Writes d (scale loss) / d parameter into every parameter's gradient, or adds it to what is there; `scaleBy` is a factor more, on the device. The loss stays alive, and what `keep` holds; everything else
   * that was recorded is freed.
   */
  backward(loss: Tensor, keep: unknown = null, { scale = 1, scaleBy = null, accumulate = false }: { scale?: number; scaleBy?: { readonly slice: Slice } | null; accumulate?: boolean } = {}): void {
    if (!this.#scope) throw new DdpmError('E-ENGINE', 'backward() without record().');
    const scope = this.#scope, kept = buffersIn([loss, keep]), folds = new Folds(this.engine, this.nodes.some((node) => 'again' in node));
    try {
      this.#walk(loss, kept, scale, scaleBy?.slice ?? null, accumulate, folds);
      folds.flush();
    } catch (error) {
      kept.clear();
      throw error;
    } finally {
      this.nodes.length = 0;
      this.#scope = null;
      folds.close();
      this.engine.closeScope(scope, kept);
    }
  }

  #walk(loss: Tensor, kept: Set<GPUBuffer>, scale: number, scaling: Slice | null, accumulate: boolean, folds: Folds): void {
    const { engine } = this;
    if (loss.size !== 1) throw new DdpmError('E-SHAPE', `backward() starts from one value, not from shape (${loss.shape.join(', ')}).`);
    // Keyed by slice: the views of a tensor share it.
    const gradients = new Map<Slice, Slice>();
    const written = accumulate ? null : new Set<Slice>();
    const seed = engine.allocate(4);
    if (scaling) engine.run(k.loss_gradient, [1], { scaling, y: seed, a: scale });
    else engine.run(k.fill, [1], { y: seed, value: scale });
    gradients.set(loss.slice, seed);

    const left = this.nodes;
    for (let node = left.pop(); node; node = left.pop()) {
      const dy = gradients.get(node.output.slice);
      gradients.delete(node.output.slice);
      if ('again' in node) {
        if (!kept.has(node.output.slice.buffer)) engine.free(node.output.slice);
        if (dy) gradients.set(this.#again(node, left).slice, dy);
        continue;
      }
      // What nobody has used has no gradient.
      for (const { slice } of node.parts) if (!gradients.delete(slice) && dy) engine.clear(rangeOf(slice, node.output.slice, dy));
      if (dy) {
        node.backward(dy, node.inputs.map((input, i) => (i === node.passes ? null : this.#destination(input, gradients, written, folds))));
        if (!this.#hand(dy, node.inputs[node.passes] ?? null, gradients, written, folds)) engine.free(dy);
      }
      for (const slice of node.saved) engine.free(slice);
      if (!kept.has(node.output.slice.buffer)) engine.free(node.output.slice);
    }
    for (const [leaf, slice] of gradients) {
      this.#leaves.set(leaf, slice);
      kept.add(slice.buffer);
    }
  }

  /** Runs a segment again, its nodes on top of those that are left. */
  #again({ again }: Segment, left: (Node | Segment)[]): Tensor {
    this.nodes = left;
    active.set(this.engine, this);
    try {
      return again();
    } finally {
      active.delete(this.engine);
    }
  }

  /** After backward: the gradient of an input that was marked requiresGrad and is not a parameter. The caller frees it. */
  gradient(x: Tensor): Tensor {
    const slice = this.#leaves.get(x.slice);
    if (!slice) throw new DdpmError('E-ENGINE', 'no gradient: the tensor was not marked requiresGrad before the tape recorded, or the loss does not depend on it.');
    return new Tensor(this.engine, x.shape, slice);
  }

  #destination(input: Tensor | null, gradients: Map<Slice, Slice>, written: Set<Slice> | null, folds: Folds): Destination | null {
    if (!input?.requiresGrad) return null;
    if (input instanceof ParameterTensor) {
      const accumulate = written && !written.has(input.slice) ? 0 : 1;
      written?.add(input.slice);
      folds.before(input.grad);
      return { slice: input.grad, accumulate, late: true };
    }
    const there = gradients.get(input.slice);
    if (there) return { slice: there, accumulate: 1 };
    const whole = this.wholes.get(input.slice);
    let slice = (whole && gradients.get(whole)) ?? this.engine.allocate((whole ?? input.slice).bytes, input.type);
    if (whole) {
      gradients.set(whole, slice);
      slice = rangeOf(input.slice, whole, slice);
    }
    gradients.set(input.slice, slice);
    return { slice, accumulate: 0 };
  }

  /** Makes dy the input's gradient, or adds it; true if dy was taken. */
  #hand(dy: Slice, input: Tensor | null, gradients: Map<Slice, Slice>, written: Set<Slice> | null, folds: Folds): boolean {
    if (!input?.requiresGrad) return false;
    if (input instanceof ParameterTensor) throw new DdpmError('E-ENGINE', `${input.name}: a parameter cannot take dy over; its gradient has its own place.`);
    if (!gradients.has(input.slice) && !this.wholes.has(input.slice)) {
      gradients.set(input.slice, dy);
      return true;
    }
    const { slice, accumulate } = this.#destination(input, gradients, written, folds)!;
    this.engine.run(k.accumulate, pointwise(input.size), { x: dy, y: slice, copy: 1 - accumulate });
    return false;
  }
}

/** What a part of `whole` is in another slice of its size. */
const rangeOf = (part: Slice, whole: Slice, other: Slice): Slice => ({ ...part, buffer: other.buffer, offset: other.offset + part.offset - whole.offset });

/** Runs fn without recording, and frees all that it made but its result, through which no gradient flows. */
export function noGrad<T>(engine: Engine, fn: () => T): T {
  return untaped(engine, fn);
}

function untaped<T>(engine: Engine, fn: () => T): T {
  const tape = active.get(engine);
  active.delete(engine);
  try {
    return engine.enclose(fn);
  } finally {
    if (tape) active.set(engine, tape);
  }
}
