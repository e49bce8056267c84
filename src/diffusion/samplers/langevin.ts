// Annealed Langevin dynamics as rows (Song & Ermon 2019, algorithm 1), with the score of q(x_t): -eps / sqrt(1 - acp).
import { DdpmError } from '../../errors.ts';
import { type Chain, level, type Row, visits } from './row.ts';

export interface LangevinOptions {
  /** Steps at each noise level (7). */
  readonly innerSteps?: number;
  /** Signal-to-noise ratio r of a step: it moves x by 2 r^2 sigma^2 along the score (0.25; Song et al. 2021, algorithm 5). */
  readonly snr?: number;
  /** End with the x_0 that is predicted at the last level (true), not with a sample that still has its noise (Jolicoeur-Martineau et al. 2020). */
  readonly denoise?: boolean;
}

/**
 * The variance of the noise at the end of a level over that of the level itself, at the worst level: what the steps of the levels before left of a larger
 * noise is added up. 1 would be right; far above it the network is asked about noise that it never saw.
 */
export function langevinExcess({ schedule, timesteps }: Pick<Chain, 'schedule' | 'timesteps'>, { innerSteps = 7, snr = 0.25 }: LangevinOptions = {}): number {
  const left = (1 - 2 * snr ** 2) ** (2 * innerSteps), own = (1 - left) / (1 - snr ** 2);
  let excess = 1, worst = 1;
  timesteps.forEach((t, i) => {
    const ratio = ({ alpha, sigma }: ReturnType<typeof level>): number => (sigma / alpha) ** 2;
    excess = own + (i === 0 ? left : (left * excess * ratio(level(schedule, timesteps[i - 1]!))) / ratio(level(schedule, t)));
    worst = Math.max(worst, excess);
  });
  return worst;
}

/**
 * x becomes x + e score + sqrt(2 e) z, e = 2 (r sigma)^2, at each level in turn; from level to level x / alpha stays, so that this is the dynamics
 * of Song & Ermon on data with noise sigma / alpha: only the noise has to shrink, not the image to grow.
 *
 * Song et al. divide the norm of z by the measured norm of the batch's scores; its expectation 1 / sigma stands here, so that a step is a row
 * and a sample does not depend on its batch.
 *
 * The noise is more than the level's own, by the factor (1 - q) / ((1 - q / g) (1 - r^2)) of its variance in the long run, where g is the ratio of
 * (sigma / alpha)^2 from level to level and q = (1 - 2 r^2)^(2 innerSteps) what a level leaves of an excess. The network was not trained for much of it:
 * q must be well below g. 50 levels of a linear schedule have g = 0.67; the defaults give q = 0.15 and 1.18, r = 0.16 and 5 steps a hopeless 3.5.
 *
 * @throws DdpmError E-USAGE for a ratio that is not in (0, 1), or fewer than one inner step
 */
export function langevinRows(chain: Chain, { innerSteps = 7, snr = 0.25, denoise = true }: LangevinOptions = {}): Row[] {
  if (!(snr > 0 && snr < 1)) throw new DdpmError('E-USAGE', `the signal-to-noise ratio of Langevin's steps is ${snr}; it must lie between 0 and 1, such as 0.25.`);
  if (!(Number.isInteger(innerSteps) && innerSteps >= 1)) throw new DdpmError('E-USAGE', `${innerSteps} Langevin steps at each level: it must be a whole number, at least 1.`);
  let draw = chain.timesteps.length * innerSteps; // falls as t does, to 1
  const all = visits(chain);
  const rows = all.flatMap(({ t, to, from, next, row }, i) =>
    Array.from({ length: innerSteps }, (_, j): Row => {
      const leaves = j === innerSteps - 1 && i < all.length - 1, scale = leaves ? next.alpha / from.alpha : 1;
      const e = 2 * (snr * from.sigma) ** 2;
      // The score is (alpha x_0 - x) / sigma^2.
      return { ...row, to: leaves ? to : t, x: scale * (1 - e / from.sigma ** 2), start: (scale * e * from.alpha) / from.sigma ** 2, z: scale * Math.sqrt(2 * e), draw: draw-- };
    }),
  );
  return denoise ? [...rows, { ...rows.at(-1)!, to: -1, x: 0, start: 1, z: 0, draw: 0 }] : rows;
}
