// One image of the network that diffusers saved, as tests draw it in Node and in browsers, and how far one may be from the other.
import { makeSchedule } from '../../src/diffusion/schedule.ts';
import type { Engine } from '../../src/gpu/engine.ts';
import { readSafetensors, writeSafetensors } from '../../src/io/safetensors.ts';
import { schedulerConfig } from '../../src/io/scheduler.ts';
import { STREAM } from '../../src/philox.ts';
import type { DrawRequest, ModelFiles } from '../../src/web/site/messages.ts';
import { Model } from '../../src/web/site/model.ts';
import { normalErrors } from '../ref/accuracy.ts';

const SCHEDULE = { name: 'linear', T: 1000 } as const, SEED = 7;
const REQUEST: DrawRequest = { method: 'ddim', steps: 3, eta: 0, seed: SEED, n: 1, interpolate: false, label: null, guidance: 1, inpaint: null };

/** The files of the model in test/golden/unet-dev-gray28.safetensors, 28 x 28. */
export function goldenFiles(bytes: Uint8Array): ModelFiles & { readonly config: string; readonly scheduler: string } {
  const { tensors, metadata } = readSafetensors(bytes, 'golden');
  const weights = writeSafetensors([...tensors].flatMap(([name, tensor]) => (name.startsWith('weights.') ? [[name.slice(8), tensor] as const] : [])));
  return { name: 'golden', weights, config: JSON.stringify({ sample_size: 28, ...(JSON.parse(metadata['config']!) as object) }), scheduler: JSON.stringify(schedulerConfig(SCHEDULE)) };
}

/** Three steps of DDIM, of seed 7. */
export async function goldenDraw(engine: Engine, bytes: Uint8Array): Promise<readonly number[]> {
  const model = new Model(engine, goldenFiles(bytes)), drawn = await model.draw(REQUEST, () => {});
  await model.destroy();
  return [...drawn];
}

/**
 * How far two drawings may be from one another, by value. Drivers and compilers have logarithms and cosines of their own, so the chains start from noise that differs by
 * normalErrors(); and either network gives eps, of up to 4, within 1e-6 of what diffusers computes. From t = 666 to 0 a difference grows by 1 / sqrt(acp_666) at
 * the pixel, and through the network by what its neighbours have on average. Measured: 1.4e-5 with SwiftShader, of which 9e-6 are left where both start from the same
 * noise.
 */
export function goldenTolerance(count: number): Float64Array {
  const apart = normalErrors({ seed: SEED, stream: STREAM.prior, step: 0, samples: [0], count }), around = apart.reduce((a, b) => a + b, 0) / apart.length;
  const growth = 1 / makeSchedule(SCHEDULE).sqrtAlphasCumprod[666]!;
  return apart.map((one) => growth * (one + around + 8e-6));
}
