// Annealed Langevin dynamics as rows (Song & Ermon 2019, algorithm 1), with the score of q(x_t): -eps / sqrt(1 - acp).
import { DdpmError } from '../../errors.ts';
import { type Chain, type Row, visits } from './row.ts';

export interface LangevinOptions {
  /** Steps at each noise level (5). */
  readonly innerSteps?: number;
  /** Signal-to-noise ratio r of a step: it moves x by 2 r^2 sigma^2 along the score (0.16; Song et al. 2021, algorithm 5). */
  readonly snr?: number;
  /** End with the x_0 that is predicted at the last level (true), not with a sample that still has its noise (Jolicoeur-Martineau et al. 2020). */
  readonly denoise?: boolean;
}

/**
 * x becomes x + e score + sqrt(2 e) z, e = 2 (r sigma)^2, at each level in turn.
 *
 * Song et al. divide the norm of z by the measured norm of the batch's scores; its expectation 1 / sigma stands here, so that a step is a row
 * and a sample does not depend on its batch. The stationary variance is off by a share of at most r^2 of the noise (2.6 % for 0.16).
 *
 * @throws DdpmError E-USAGE for a ratio that is not in (0, 1), or fewer than one inner step
 */
export function langevinRows(chain: Chain, { innerSteps = 5, snr = 0.16, denoise = true }: LangevinOptions = {}): Row[] {
  if (!(snr > 0 && snr < 1)) throw new DdpmError('E-USAGE', `the signal-to-noise ratio of Langevin's steps is ${snr}; it must lie between 0 and 1, such as 0.16.`);
  if (!(Number.isInteger(innerSteps) && innerSteps >= 1)) throw new DdpmError('E-USAGE', `${innerSteps} Langevin steps at each level: it must be a whole number, at least 1.`);
  let draw = chain.timesteps.length * innerSteps; // falls as t does, to 1
  const rows = visits(chain).flatMap(({ t, from, row }) =>
    Array.from({ length: innerSteps }, (): Row => {
      const e = 2 * (snr * from.sigma) ** 2;
      // The score is (alpha x_0 - x) / sigma^2.
      return { ...row, to: t, x: 1 - e / from.sigma ** 2, start: (e * from.alpha) / from.sigma ** 2, z: Math.sqrt(2 * e), draw: draw-- };
    }),
  );
  return denoise ? [...rows, { ...rows.at(-1)!, to: -1, x: 0, start: 1, z: 0, draw: 0 }] : rows;
}
