// What a classifier needs besides convolutions: labels of a batch, global average pooling, cross-entropy.
import { record, threads } from '../autograd.ts';
import { DdpmError } from '../errors.ts';
import * as k from '../gpu/kernels.gen.ts';
import { Tensor } from '../tensor.ts';

/** table (count) uint32, index (N) uint32 -> table[index], (N) uint32. */
export function gatherIntegers(table: Tensor, index: Tensor): Tensor {
  const y = Tensor.empty(table.engine, [index.size]);
  table.engine.run(k.gather_integers, threads(index.size), { table: table.slice, index: index.slice, y: y.slice, N: index.size });
  return y;
}

/** x (N, H, W, C) -> (N, C), the mean over the pixels: global average pooling. */
export function meanPixels(x: Tensor): Tensor {
  const { engine } = x;
  const N = x.shape[0]!, C = x.shape.at(-1)!, P = x.size / (N * C);
  const y = Tensor.empty(engine, [N, C]);
  engine.run(k.mean_pixels_forward, threads(N * C), { x: x.slice, y: y.slice, N, P, C });
  return record(y, [x], (dy, [dx]) => dx && engine.run(k.mean_pixels_backward, threads(x.size), { dy, dx: dx.slice, N, P, C, accumulate: dx.accumulate }));
}

/** Mean cross-entropy of softmax(logits) (N, C) against the classes label (N) uint32, in nats, shape (1). */
export function crossEntropy(logits: Tensor, label: Tensor): Tensor {
  const { engine } = logits;
  const [N, C] = logits.shape as [number, number];
  if (logits.shape.length !== 2 || label.size !== N) throw new DdpmError('E-SHAPE', `crossEntropy: logits (${logits.shape.join(', ')}) and ${label.size} labels do not go together.`);
  const each = Tensor.empty(engine, [N]), loss = Tensor.empty(engine, [1]);
  const inputs = { x: logits.slice, label: label.slice };
  engine.run(k.cross_entropy_forward, threads(N), { ...inputs, each: each.slice, N, C });
  engine.run(k.mean, [1], { x: each.slice, y: loss.slice, N });
  each.free();
  return record(loss, [logits], (dloss, [dx]) => dx && engine.run(k.cross_entropy_backward, threads(N), { ...inputs, dloss, dx: dx.slice, N, C, accumulate: dx.accumulate }));
}
