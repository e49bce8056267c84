// Ops without a sum: SiLU, addition, dropout, nearest upsampling.
import { pointwise, record, threads } from '../autograd.ts';
import type { Clock } from '../clock.ts';
import { DdpmError } from '../errors.ts';
import * as k from '../gpu/kernels.gen.ts';
import { requireShapes, sameShape, Tensor } from '../tensor.ts';
import { sumPixels } from './sum.ts';

/** x / (1 + exp(-x)), any shape (Hendrycks & Gimpel, 2016). */
export function silu(x: Tensor): Tensor {
  const { engine } = x;
  const y = Tensor.empty(engine, x.shape, x.type);
  engine.run(k.silu_forward, pointwise(x.size), { x: x.slice, y: y.slice });
  return record(y, [x], (dy, [dx]) => dx && engine.run(k.silu_backward, pointwise(x.size), { x: x.slice, dy, dx: dx.slice, accumulate: dx.accumulate }));
}

/** a + b, where b has a's shape, or is (N, C), both float32, and is added to every pixel of its image. */
export function add(a: Tensor, b: Tensor): Tensor {
  const { engine } = a;
  const perImage = !sameShape(a, b);
  const [N, C] = perImage ? [a.shape[0]!, a.shape.at(-1)!] : [1, a.size], P = a.size / (N * C);
  if (perImage && (b.shape.length !== 2 || b.shape[0] !== N || b.shape[1] !== C)) throw new DdpmError('E-SHAPE', `add: (${b.shape.join(', ')}) cannot be added to (${a.shape.join(', ')}).`);
  const y = Tensor.empty(engine, a.shape, a.type);
  engine.run(k.add_forward, threads(a.size), { a: a.slice, b: b.slice, y: y.slice, N, P, C, per_image: Number(perImage) });
  return record(
    y,
    [a, b],
    (dy, [, db]) => {
      if (!db) return;
      if (perImage) sumPixels(engine, dy, N, P, C, db);
      else engine.run(k.accumulate, pointwise(a.size), { x: dy, y: db.slice, copy: 1 - db.accumulate });
    },
    { passes: 0 },
  );
}

/** Zeroes a share p of the values and scales the others by 1 / (1 - p) (Srivastava et al., 2014); the first dimension counts samples. The mask is a function of (seed, stream, step, sample, element). */
export function dropout(x: Tensor, p: number, clock: Clock, stream: number): Tensor {
  const { engine } = x;
  const N = x.shape[0]!, size = x.size / N;
  const y = Tensor.empty(engine, x.shape, x.type);
  const grid = threads(N * Math.ceil(size / 4));
  const dims = { clock: clock.slice, N, size, stream, p };
  engine.run(k.dropout, grid, { ...dims, x: x.slice, y: y.slice, accumulate: 0 });
  return record(y, [x], (dy, [dx]) => dx && engine.run(k.dropout, grid, { ...dims, x: dy, y: dx.slice, accumulate: dx.accumulate }));
}

/** (N, H, W, C) -> (N, 2H, 2W, C), nearest neighbour. */
export function upsample(x: Tensor): Tensor {
  requireShapes(x.shape.length === 4, 'upsample', 'images (N, H, W, C)', { x });
  const { engine } = x;
  const [N, H, W, C] = x.shape as [number, number, number, number];
  const y = Tensor.empty(engine, [N, 2 * H, 2 * W, C], x.type);
  engine.run(k.upsample_forward, threads(x.size), { x: x.slice, y: y.slice, N, H, W, C });
  return record(y, [x], (dy, [dx]) => dx && engine.run(k.upsample_backward, threads(x.size), { dy, dx: dx.slice, N, H, W, C, accumulate: dx.accumulate }));
}
