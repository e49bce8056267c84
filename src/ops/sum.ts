// Sums over pixels or rows: the gradients of what was broadcast.
import type { Destination } from '../autograd.ts';
import type { Engine } from '../gpu/engine.ts';
import { grid, type Slice } from '../gpu/kernel.ts';
import * as k from '../gpu/kernels.gen.ts';
import { DEFAULTS, isWorkgroup } from '../variants.ts';

/** y[n,c] = sum over p of x[n,p,c], for x (N, P, C). */
export function sumPixels(engine: Engine, x: Slice, N: number, P: number, C: number, { slice: y, accumulate }: Destination): void {
  const usual = () => (({ workgroup, columns }) => ({ workgroup, columns }))(DEFAULTS[engine.deviceClass].sums);
  const { workgroup, columns } = engine.choices.of('sum_pixels', { P, C }, { N }, usual, ({ workgroup: size, columns: shared, ...rest }) => isWorkgroup(size) && isWorkgroup(shared) && shared <= size && !Object.keys(rest).length);
  const all = C % 4 ? N * C : (N * C) / 4;
  engine.run(C % 4 ? k.sum_pixels : k.sum_pixels_vec4, grid(Math.ceil(all / columns)), { x, y, N, P, C, accumulate, WG: workgroup, COLUMNS: columns });
}

/** y[c] = sum over rows of x[row,c]. Where a GPU would have few and long sums, in two stages of about as many terms each. */
export function sumRows(engine: Engine, x: Slice, rows: number, C: number, y: Destination): void {
  if (rows < DEFAULTS[engine.deviceClass].sums.stages) return sumPixels(engine, x, 1, rows, C, y);
  let share = Math.ceil(Math.sqrt(rows));
  while (rows % share) share++;
  const part = engine.allocate((4 * rows * C) / share);
  sumPixels(engine, x, rows / share, share, C, { slice: part, accumulate: 0 });
  sumPixels(engine, part, 1, rows / share, C, y);
  engine.free(part);
}
