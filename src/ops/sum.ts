// Sums over pixels or rows: the gradients of what was broadcast.
import { type Destination, threads } from '../autograd.ts';
import type { Engine } from '../gpu/engine.ts';
import type { Slice } from '../gpu/kernel.ts';
import * as k from '../gpu/kernels.gen.ts';

/** y[n,c] = sum over p of x[n,p,c], for x (N, P, C). */
export function sumPixels(engine: Engine, x: Slice, N: number, P: number, C: number, { slice: y, accumulate }: Destination): void {
  if (C % 4) engine.run(k.sum_pixels, threads(N * C), { x, y, N, P, C, accumulate });
  else engine.run(k.sum_pixels_vec4, threads((N * C) / 4), { x, y, N, P, C, accumulate });
}
