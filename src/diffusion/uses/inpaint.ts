// Inpainting with a model that was not trained for it (RePaint, Lugmayr et al. 2022): at every noise level what is known is put in its place.
import { threads } from '../../autograd.ts';
import { Clock } from '../../clock.ts';
import { DdpmError } from '../../errors.ts';
import * as k from '../../gpu/kernels.gen.ts';
import { STREAM } from '../../philox.ts';
import { sizeOf, Tensor } from '../../tensor.ts';
import type { DiffusionModel, GaussianDiffusion } from '../gaussian.ts';
import { Sampler, type SamplerOptions, type SampleStep } from '../sampler.ts';
import { level } from '../samplers/row.ts';
import { type Batch, type BatchOptions, batchShape, checkImages, inBatches, type Shape, type UseOptions } from './encode.ts';

/** RePaint's resampling (Lugmayr et al., 2022), and the sampler. */
export interface InpaintOptions extends SamplerOptions, UseOptions, BatchOptions {
  /** Steps that a jump goes back up (10, or all but one of fewer). */
  readonly jumpLength?: number;
  /** How often each stretch of the chain is sampled (10); 1 never jumps. Only the repetition makes what is painted fit what is known. */
  readonly resamples?: number;
  readonly onStep?: (step: SampleStep) => void | Promise<void>;
}

/**
 * The way of RePaint through `steps` rows: down, and at every `jumpLength`-th level back up, until each has been gone down `resamples` times.
 * One entry a step down, the number of its row; where a number is followed by one that is not its successor, a jump lies between.
 *
 * @throws DdpmError E-USAGE for jumps that do not fit the chain
 */
export function repaintPath(steps: number, jumpLength = Math.min(10, Math.max(1, steps - 1)), resamples = 10): number[] {
  if (!(Number.isInteger(resamples) && resamples >= 1)) throw new DdpmError('E-USAGE', `${resamples} resamplings: it must be a whole number, at least 1, which never goes back.`);
  if (resamples > 1 && !(Number.isInteger(jumpLength) && jumpLength >= 1 && jumpLength < steps))
    throw new DdpmError('E-USAGE', `a jump of ${jumpLength} steps does not go with ${steps} steps: it must be a whole number from 1 to ${steps - 1}.`);
  const jumps = new Map<number, number>();
  if (resamples > 1) for (let at = 0; at < steps - jumpLength; at += jumpLength) jumps.set(at, resamples - 1);
  const path: number[] = [];
  // `at` counts the steps that will be left after the next one: 0 is the last timestep.
  for (let at = steps - 1; at >= 0; at--) {
    const left = jumps.get(at) ?? 0;
    if (left > 0) {
      jumps.set(at, left - 1);
      at += jumpLength;
    }
    path.push(steps - 1 - at);
  }
  return path;
}

/**
 * Paints the parts of images that a mask leaves open. `images` (N, H, W, C) in [-1, 1]; `mask` (N, H, W), 1 where to paint and 0 where the image is known
 * and stays as it is. Best with the ddpm sampler: its noise is what lets the parts agree.
 *
 * @throws DdpmError E-SHAPE for images or a mask that do not fill the shape; E-USAGE for jumps that do not fit, or a sampler whose steps need those before
 */
export async function inpaint(model: DiffusionModel, diffusion: GaussianDiffusion, images: Float32Array, mask: Float32Array, shape: Shape, options: InpaintOptions): Promise<Float32Array<ArrayBuffer>> {
  const { seed, firstId = 0, jumpLength, resamples, onStep, onCompile, batchSize: _, onBatch: __, ...sampling } = options, { engine } = diffusion, [N, H, W, C] = shape, batch = batchShape(shape, options);
  checkImages(images, shape);
  if (mask.length !== N * H * W) throw new DdpmError('E-SHAPE', `a mask of ${mask.length} values for images of shape (${shape.join(', ')}); it needs ${N * H * W}, one a pixel.`);
  if (!['ddpm', 'ddim', 'dpm++1'].includes(sampling.method)) throw new DdpmError('E-USAGE', `inpainting changes x between steps, and those of ${sampling.method} need the steps before. Take ddpm, ddim or dpm++1.`);
  const sampler = new Sampler(model, diffusion, batch, sampling), { rows } = sampler;
  const held: Tensor[] = [];
  const clock = new Clock(engine);
  try {
    const path = repaintPath(rows.length, jumpLength, resamples);
    await sampler.compile(onCompile);
    const known = Tensor.empty(engine, batch), open = Tensor.empty(engine, [batch[0], H, W]), coef = Tensor.empty(engine, [4]);
    held.push(known, open, coef);
    const renew = async (step: SampleStep, first: number): Promise<void> => {
      const now = level(diffusion.schedule, step.to), next = rows[path[step.done] ?? -1]?.t ?? step.to;
      // From the noise of `to` up to that of the next row, where the path jumps.
      const c = level(diffusion.schedule, next).alpha / now.alpha;
      engine.write(coef.slice, Float32Array.of(now.alpha, now.sigma, c, Math.sqrt(Math.max(0, level(diffusion.schedule, next).sigma ** 2 - (c * now.sigma) ** 2))));
      clock.set({ seed, step: step.done, first });
      engine.run(k.repaint, threads(batch[0] * Math.ceil((H * W * C) / 4)), {
        clock: clock.slice, coef: coef.slice, known: known.slice, mask: open.slice, x: step.x.slice, N: batch[0], size: H * W * C, C, known_stream: STREAM.known, jump_stream: STREAM.jump,
      });
      await onStep?.(step);
    };
    return await inBatches(N, batch, options, ({ first, rows: of }: Batch) => {
      engine.write(known.slice, of(images));
      engine.write(open.slice, of(mask));
      return sampler.sample({ seed, firstId: firstId + first, path, onStep: (step) => renew(step, firstId + first) });
    });
  } finally {
    await sampler.destroy();
    for (const tensor of held) tensor.free();
    engine.free(clock.slice);
  }
}

/** A mask for each of N images out of one, (H, W). */
export function repeatMask(mask: Float32Array, N: number): Float32Array {
  const out = new Float32Array(sizeOf([N, mask.length]));
  for (let n = 0; n < N; n++) out.set(mask, n * mask.length);
  return out;
}
