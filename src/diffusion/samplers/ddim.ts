// DDIM (Song et al. 2020) as rows: from noise to images with any amount of fresh noise, and from images to noise.
import { DdpmError } from '../../errors.ts';
import { type Chain, type Row, visits } from './row.ts';

export interface DdimOptions {
  /** 0 is deterministic DDIM, 1 has the variance of DDPM's posterior (beta~). */
  readonly eta?: number;
  /** Derive eps again from the clipped x_0 (true); diffusers keeps the network's unless told `use_clipped_model_output`. Without it eta = 1 is not DDPM. */
  readonly rederive?: boolean;
}

/**
 * Equations 12 and 16: next = sqrt(acp') x_0 + sqrt(1 - acp' - s^2) eps + s z.
 *
 * @throws DdpmError E-USAGE if eta is not in [0, 1]
 */
export function ddimRows(chain: Chain, { eta = 0, rederive = true }: DdimOptions = {}): Row[] {
  if (!(eta >= 0 && eta <= 1)) throw new DdpmError('E-USAGE', `eta is ${eta}; it must lie between 0 (deterministic) and 1 (as noisy as DDPM).`);
  return visits(chain).map(({ from, next, row, noise }) => {
    const ratio = (from.alpha / next.alpha) ** 2; // alpha of the step, of a chain that has only these timesteps
    const z = eta * (next.sigma / from.sigma) * Math.sqrt(Math.max(0, 1 - ratio));
    const direction = Math.sqrt(Math.max(0, next.sigma ** 2 - z ** 2));
    return rederive
      ? { ...row, x: direction / from.sigma, start: next.alpha - (direction * from.alpha) / from.sigma, z }
      : { ...row, x: direction * noise.x, start: next.alpha, output: direction * noise.output, z };
  });
}

/**
 * The same walk backwards, from x_0 to the noisiest timestep: the row that leads up to t asks the network at t about x with the noise below it,
 * which the way down would see at t. Exact as the steps become small; x_0 must not be clipped on either way.
 */
export function ddimInverseRows(chain: Chain): Row[] {
  const down = visits(chain);
  return down.toReversed().map(({ t, to, from, next, row, noise }) => {
    // The way down: next = alpha' x_0 + sigma' eps(x, t) with x = alpha x_0 + sigma eps. Solved for x, with eps asked at `next` instead of at x.
    // x_0 of what is there now: (x - sigma' eps) / alpha'; eps = noise.x x + noise.output output.
    const grow = from.alpha / next.alpha, eps = from.sigma - grow * next.sigma;
    return {
      ...row, t, to: t,
      startX: (1 - next.sigma * noise.x) / next.alpha, startOutput: (-next.sigma * noise.output) / next.alpha,
      x: grow + eps * noise.x, output: eps * noise.output, draw: to + 1,
    };
  });
}
