// A model's weights rounded to float16 beside the float32 ones, for as long as a forward pass and its backward read them.
import { pointwise } from '../autograd.ts';
import type { Engine } from '../gpu/engine.ts';
import type { Slice } from '../gpu/kernel.ts';
import { cast_f16 } from '../gpu/kernels.gen.ts';
import type { ParameterTensor } from '../tensor.ts';
import type { Parameter } from './parameter.ts';

/** Runs fn with the weights' `rounded` set. */
export type WithRounded = <T>(fn: () => T) => T;

/**
 * Rounds all weights in one pass, of which a convolution on tensor cores reads its own; without it each call would round what it reads, twice a step. The copy is freed with the scope or
 * tape that it is made in.
 */
export function roundWeights(engine: Engine, parameters: readonly Parameter[]): WithRounded {
  const tensors = parameters.map(({ tensor }) => tensor), flat = new Map<GPUBuffer, { from: number; to: number; copy: Slice | null }>();
  for (const { slice } of tensors) {
    const { from, to } = flat.get(slice.buffer) ?? { from: slice.offset, to: 0 };
    flat.set(slice.buffer, { from: Math.min(from, slice.offset), to: Math.max(to, slice.offset + slice.bytes), copy: null });
  }
  for (const [buffer, range] of flat) {
    const { from, to } = range, size = (to - from) / 4;
    range.copy = engine.allocate(2 * size, 'f16');
    engine.run(cast_f16, pointwise(size), { x: { buffer, offset: from, bytes: to - from }, y: range.copy, size, accumulate: 0 });
  }
  const half = ({ slice }: ParameterTensor): Slice | null => {
    const { from, copy } = flat.get(slice.buffer)!, offset = copy!.offset + (slice.offset - from) / 2;
    // A binding starts at a multiple of 256 bytes: Parameters.place sees to it where it knows of tensor cores.
    return offset % 256 ? null : { buffer: copy!.buffer, offset, bytes: slice.bytes / 2, type: 'f16' };
  };
  return (fn) => {
    // Backward runs a block again long after the pass; in the pass itself, a block within it.
    const before = tensors.map(({ rounded }) => rounded);
    for (const tensor of tensors) tensor.rounded = half(tensor);
    try {
      return fn();
    } finally {
      tensors.forEach((tensor, i) => (tensor.rounded = before[i]!));
    }
  };
}
