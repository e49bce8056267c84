// A chain of fewer steps out of a trained one: betas that give the same q(x_t | x_0) at the timesteps that stay.
import { DdpmError } from '../errors.ts';
import { makeSchedule, type Schedule } from './schedule.ts';
import { roundHalfEven } from './spacing.ts';

/**
 * The schedule of a chain that visits only some timesteps (given in any order): beta_i = 1 - acp[t_i] / acp[t_{i-1}] (Nichol & Dhariwal 2021, section 4).
 * Its index i is not the network's t: the network is told the original timestep. With every timestep it is the schedule itself, bit for bit.
 *
 * @throws DdpmError E-USAGE for fewer than two timesteps, one that is there twice, or one that is not the schedule's
 */
export function respace(schedule: Schedule, timesteps: readonly number[]): Schedule {
  const rising = [...timesteps].sort((a, b) => a - b), { T, alphasCumprod: acp, betas } = schedule;
  if (rising.length < 2) throw new DdpmError('E-USAGE', `a chain of ${rising.length} timesteps cannot be sampled step by step: keep at least 2, or take the ddim sampler.`);
  return makeSchedule(
    rising.map((t, i) => {
      const before = i === 0 ? -1 : rising[i - 1]!;
      if (!(Number.isInteger(t) && t >= 0 && t < T)) throw new DdpmError('E-USAGE', `timestep ${t} is not one of the schedule's: it has 0 to ${T - 1}.`);
      if (t === before) throw new DdpmError('E-USAGE', `timestep ${t} is in the list twice.`);
      // A quotient of neighbours is their beta, less the digits that 1 - acp / acp loses.
      return t === before + 1 ? betas[t]! : 1 - acp[t]! / (before < 0 ? 1 : acp[before]!);
    }),
  );
}

/**
 * The timesteps that improved-diffusion's `timestep_respacing` names, noisiest first:
 *
 * - `ddim50`: every k-th from 0 on, for the whole k that leaves exactly 50;
 * - `10,20,30`: T is cut into as many sections as there are numbers, and of each so many are kept, evenly, first and last included.
 *
 * @throws DdpmError E-USAGE where it is neither, no k fits, or a section is shorter than what it should give
 */
export function respacedTimesteps(T: number, text: string): number[] {
  const refuse = (why: string): never => {
    throw new DdpmError('E-USAGE', `the respacing "${text}" ${why}`);
  };
  const ddim = /^ddim(\d+)$/.exec(text);
  if (ddim) {
    const wanted = Number(ddim[1]);
    for (let k = 1; k <= T; k++) if (Math.ceil(T / k) === wanted) return Array.from({ length: wanted }, (_, i) => (wanted - 1 - i) * k);
    return refuse(`does not go with ${T} timesteps: no whole stride leaves ${wanted}.${wanted >= 1 && wanted <= T ? ` Write "${wanted}" for evenly spread ones.` : ''}`);
  }
  if (!/^\d+(,\d+)*$/.test(text)) refuse('is neither like ddim50 nor counts for sections, such as 10,20,30.');
  const counts = text.split(',').map(Number), kept: number[] = [];
  let first = 0;
  counts.forEach((count, i) => {
    const size = Math.floor(T / counts.length) + (i < T % counts.length ? 1 : 0);
    if (count < 1 || count > size) refuse(`wants ${count} timesteps of section ${i + 1}, which has ${size}.`);
    const stride = count === 1 ? 1 : (size - 1) / (count - 1);
    // The sum, not a product, as it decides ties in the original.
    for (let j = 0, at = 0; j < count; j++, at += stride) kept.push(first + roundHalfEven(at));
    first += size;
  });
  return kept.reverse();
}
