// DPM-Solver++ (Lu et al. 2022) of order 1 and its multistep form of order 2 (2M, midpoint) as rows, with the conventions of diffusers' DPMSolverMultistepScheduler.
import { type Chain, type Row, visits } from './row.ts';

export interface DpmSolverOptions {
  readonly order: 1 | 2;
  /** The last step of order 1 where there are fewer than 15 (diffusers' `lower_order_final`); always so where it leads to x_0 itself, as no midpoint exists there. */
  readonly lowerOrderFinal?: boolean;
}

/**
 * next = (sigma' / sigma) x - alpha' (e^-h - 1) D with h = lambda' - lambda; D is x_0 (order 1), or x_0 + (x_0 - x_0 before) h / (2 h before) (2M).
 * Order 1 is DDIM with eta = 0.
 */
export function dpmSolverRows(chain: Chain, { order, lowerOrderFinal = true }: DpmSolverOptions): Row[] {
  let before = 0; // the h of the step before
  return visits(chain).map(({ i, to, from, next, row }) => {
    const h = next.lambda - from.lambda, d = to < 0 ? 1 : -next.alpha * Math.expm1(-h);
    const isLast = i === chain.timesteps.length - 1;
    const first = order === 1 || i === 0 || to < 0 || (isLast && lowerOrderFinal && chain.timesteps.length < 15);
    const share = first ? 0 : h / (2 * before);
    before = h;
    return { ...row, x: next.sigma / from.sigma, start: d * (1 + share), last: -d * share };
  });
}
