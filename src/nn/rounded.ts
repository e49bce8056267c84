// A model's weights as float16 beside the float32 ones, for as long as a forward pass and its backward read them.
import type { Engine } from '../gpu/engine.ts';
import type { Slice } from '../gpu/kernel.ts';
import { castInto } from '../ops/cast.ts';
import type { ParameterTensor } from '../tensor.ts';
import type { Parameter } from './parameter.ts';

/** Runs fn with the weights' `rounded` set. */
export type WithRounded = <T>(fn: () => T) => T;

/**
 * Rounds all parameters in one dispatch for each flat buffer that they lie in. A convolution on tensor cores reads its weight there; without the copy each would round its own, forward and backward. The
 * copy is freed with the scope or tape that it is made in.
 */
export function roundWeights(engine: Engine, parameters: readonly Parameter[]): WithRounded {
  const tensors = parameters.map(({ tensor }) => tensor), copies = new Map<GPUBuffer, { readonly from: number; readonly copy: Slice }>();
  for (const buffer of new Set(tensors.map(({ slice }) => slice.buffer))) {
    const slices = tensors.flatMap(({ slice }) => (slice.buffer === buffer ? [slice] : []));
    const from = Math.min(...slices.map(({ offset }) => offset)), bytes = Math.max(...slices.map((slice) => slice.offset + slice.bytes)) - from;
    const copy = engine.allocate(bytes / 2, 'f16');
    castInto(engine, bytes / 4, { buffer, offset: from, bytes }, copy);
    copies.set(buffer, { from, copy });
  }
  const half = ({ slice }: ParameterTensor): Slice | null => {
    const { from, copy } = copies.get(slice.buffer)!, offset = copy.offset + (slice.offset - from) / 2;
    // A binding starts at a multiple of 256 bytes: Parameters.place sees to it where it knows of tensor cores.
    return offset % 256 ? null : { buffer: copy.buffer, offset, bytes: slice.bytes / 2, type: 'f16' };
  };
  return (fn) => {
    // What was set before stays so afterwards: a block is run inside of the pass, and by backward once more by itself.
    const before = tensors.map(({ rounded }) => rounded);
    for (const tensor of tensors) tensor.rounded = half(tensor);
    try {
      return fn();
    } finally {
      tensors.forEach((tensor, i) => (tensor.rounded = before[i]!));
    }
  };
}
