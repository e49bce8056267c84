// The whole trajectories that diffusers wrote into golden/samplers-diffusers.safetensors, and the options that make them here.
import { readFileSync } from 'node:fs';
import type { SamplerOptions } from '../../src/diffusion/sampler.ts';
import type { ScheduleName } from '../../src/diffusion/schedule.ts';
import { readSafetensors } from '../../src/io/safetensors.ts';

const NAME = 'samplers-diffusers.safetensors';
export const { tensors } = readSafetensors(readFileSync(new URL(`../golden/${NAME}`, import.meta.url)), NAME);

/** The file's model. */
export const closedForm = (x: ArrayLike<number>, t: number): Float64Array => Float64Array.from({ length: x.length }, (_, i) => 0.3 * x[i] + 0.1 * Math.sin(5 * x[i]) * (t / 1000));

/** diffusers' default clips x_0 and keeps the network's eps, and its solvers end at the noise of t = 0. */
export const TRAJECTORIES: readonly (readonly [string, ScheduleName, SamplerOptions])[] = [
  ['ddim50-leading', 'linear', { method: 'ddim', steps: 50, rederive: false, clipDenoised: true }],
  ['ddim20-noclip', 'linear', { method: 'ddim', steps: 20, rederive: false, clipDenoised: false }],
  ['ddim50-cosine', 'cosine', { method: 'ddim', steps: 50, rederive: false, clipDenoised: true }],
  ['dpmpp2m-20', 'linear', { method: 'dpm++2m', steps: 20, setAlphaToOne: false, clipDenoised: false }],
  ['dpmpp1-10', 'linear', { method: 'dpm++1', steps: 10, setAlphaToOne: false, clipDenoised: false }],
];
