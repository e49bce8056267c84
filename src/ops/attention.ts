// Scaled dot-product attention over the pixels of an image: GEMM, softmax, GEMM, and their gradients.
import { record } from '../autograd.ts';
import { DdpmError } from '../errors.ts';
import { BYTES, type Slice } from '../gpu/kernel.ts';
import { requireShapes, sameShape, Tensor } from '../tensor.ts';
import { matmul, type Operand } from './matmul.ts';
import { softmaxBackward, softmaxForward } from './softmax.ts';

/**
 * q, k, v (N, T, C) -> softmax(q k^T / sqrt(C / heads)) v, (N, T, C); head h is channels h C/heads to (h + 1) C/heads - 1 (Vaswani et al., 2017, eq. 1).
 * Throws E-SHAPE where the three differ in shape, or C does not divide into the heads.
 */
export function attention(q: Tensor, key: Tensor, value: Tensor, heads: number): Tensor {
  const { engine } = q;
  const [N, T, C] = q.shape as [number, number, number];
  requireShapes(q.shape.length === 3 && sameShape(q, key) && sameShape(q, value), 'attention', 'q, k and v of one shape (N, T, C)', { q, k: key, v: value });
  if (C % heads) throw new DdpmError('E-SHAPE', `attention: ${C} channels do not divide into ${heads} heads.`);
  const D = C / heads, alpha = 1 / Math.sqrt(D), batch = N * heads;
  const heads_ = (slice: Slice): Operand => ({ slice, ld: C, outer: T * C, inner: D });
  // Rows of the scores start at whole vec4s.
  const ld = 4 * Math.ceil(T / 4);
  const square = (slice: Slice): Operand => ({ slice, ld, outer: heads * T * ld, inner: T * ld });
  const room = (): Slice => engine.allocate(BYTES[q.type] * batch * T * ld, q.type);
  const turned = (operand: Operand): Operand => ({ ...operand, transposed: true });
  const shape = { batch, inner: heads };

  const scores = room(), p = room();
  const y = Tensor.empty(engine, q.shape, q.type);
  matmul(engine, T, T, D, heads_(q.slice), turned(heads_(key.slice)), square(scores), { ...shape, alpha });
  softmaxForward(engine, scores, p, { rows: batch * T, size: T, ld });
  engine.free(scores);
  matmul(engine, T, D, T, square(p), heads_(value.slice), heads_(y.slice), shape);

  return record(
    y,
    [q, key, value],
    (dy, [dq, dk, dv]) => {
      const dp = room(), ds = room();
      matmul(engine, T, T, D, heads_(dy), turned(heads_(value.slice)), square(dp), shape);
      softmaxBackward(engine, p, dp, ds, { rows: batch * T, size: T, ld });
      engine.free(dp);
      if (dq) matmul(engine, T, D, T, square(ds), heads_(key.slice), heads_(dq.slice), { ...shape, alpha, accumulate: dq.accumulate });
      if (dk) matmul(engine, T, D, T, turned(square(ds)), heads_(q.slice), heads_(dk.slice), { ...shape, alpha, accumulate: dk.accumulate });
      engine.free(ds);
      // In the order of the inputs: where two are one tensor, the later one adds to what the earlier one wrote.
      if (dv) matmul(engine, T, D, T, turned(square(p)), heads_(dy), heads_(dv.slice), { ...shape, accumulate: dv.accumulate });
    },
    { saved: [p] },
  );
}
