// Feature-wise linear modulation (Perez et al., 2018): a scale and a shift for each image and channel, folded into the scale and offset of a group norm.
import { type Destination, record, threads } from '../autograd.ts';
import { DdpmError } from '../errors.ts';
import * as k from '../gpu/kernels.gen.ts';
import { Tensor } from '../tensor.ts';

/**
 * gamma, beta (C) and s (N, 2C), scales then shifts -> (N, 2, C), scale and offset of each image for groupNorm():
 * (gamma xhat + beta) (1 + scale) + shift = gamma (1 + scale) xhat + (beta (1 + scale) + shift).
 */
export function film(gamma: Tensor, beta: Tensor, s: Tensor): Tensor {
  const { engine } = gamma;
  const C = gamma.size, N = s.shape[0]!;
  if (beta.size !== C || s.size !== 2 * N * C) throw new DdpmError('E-SHAPE', `film: scales and shifts (${s.shape.join(', ')}) do not fit ${C} channels.`);
  const y = Tensor.empty(engine, [N, 2, C]);
  const weights = { gamma: gamma.slice, beta: beta.slice };
  engine.run(k.film_forward, threads(N * C), { ...weights, s: s.slice, y: y.slice, N, C });
  return record(y, [gamma, beta, s], (dy, [dgamma, dbeta, ds]) => {
    if (ds) engine.run(k.film_backward, threads(N * C), { ...weights, dy, ds: ds.slice, N, C, accumulate: ds.accumulate });
    if (!dgamma && !dbeta) return;
    // A gradient that nobody wants still needs a place: the kernel writes both.
    const unwanted = dgamma && dbeta ? null : engine.allocate(4 * C);
    const { accumulate } = (dgamma ?? dbeta) as Destination;
    engine.run(k.film_fold, threads(C), { s: s.slice, dy, dgamma: (dgamma?.slice ?? unwanted)!, dbeta: (dbeta?.slice ?? unwanted)!, N, C, accumulate });
    if (unwanted) engine.free(unwanted);
  });
}
