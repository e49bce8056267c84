// From float32 to float16 and back: the edges of a network whose activations are stored as float16.
import { pointwise, record } from '../autograd.ts';
import type { Engine } from '../gpu/engine.ts';
import type { ElementType, Slice } from '../gpu/kernel.ts';
import * as k from '../gpu/kernels.gen.ts';
import { Tensor } from '../tensor.ts';

/** x stored as float16, rounded, or as float32, any shape; x itself where it is that already. Its gradient is cast the other way. */
export function cast(x: Tensor, type: ElementType): Tensor {
  if (x.type === type) return x;
  const y = Tensor.empty(x.engine, x.shape, type);
  castInto(x.engine, x.size, x.slice, y.slice);
  return record(y, [x], (dy, [dx]) => dx && castInto(x.engine, x.size, dy, dx.slice, dx.accumulate));
}

/** y = x as y stores it, `size` values, or on top of what is there. */
export function castInto(engine: Engine, size: number, x: Slice, y: Slice, accumulate: 0 | 1 = 0): void {
  engine.run(y.type === 'f16' ? k.cast_f16 : k.cast_f32, pointwise(size), { x, y, size, accumulate });
}
