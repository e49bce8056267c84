// Rows of a table, one for each image.
import { threads } from '../autograd.ts';
import * as k from '../gpu/kernels.gen.ts';
import { requireShapes, Tensor } from '../tensor.ts';

/** table (T, K), t (N) uint32 -> (N, K): each image's own row; past the end it is the last. No gradient. */
export function gatherRows(table: Tensor, t: Tensor): Tensor {
  requireShapes(table.shape.length === 2, 'gatherRows', 'a table (T, K)', { table });
  const [T, K] = table.shape as [number, number], N = t.size;
  const rows = Tensor.empty(table.engine, [N, K]);
  table.engine.run(k.schedule_gather, threads(N * K), { table: table.slice, t: t.slice, coef: rows.slice, N, K, T });
  return rows;
}
