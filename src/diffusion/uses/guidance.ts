// Classifier-free guidance (Ho & Salimans 2022): a conditional network as one that leans towards its labels.
import { threads } from '../../autograd.ts';
import { DdpmError } from '../../errors.ts';
import * as k from '../../gpu/kernels.gen.ts';
import { Tensor } from '../../tensor.ts';
import type { DiffusionModel } from '../gaussian.ts';

/** A network that is told a class for each image: labels (N) uint32; otherwise as DiffusionModel. */
export type ConditionalModel = (x: Tensor, t: Tensor, start: Tensor | null, labels: Tensor) => Tensor;

/** Classifier-free guidance (Ho & Salimans, 2022): the labels, and how strongly they are followed. */
export interface Guidance {
  /** (N) uint32; may be written to between draws. */
  readonly labels: Tensor;
  /** (N) uint32 of the label that stands for no class, which training gave to a share of the images. Not needed for a scale of 1. */
  readonly none?: Tensor;
  /** w in uncond + w (cond - uncond): 1 only conditions, 0 ignores the labels, larger follows them more closely than the data do (1). */
  readonly scale?: number;
}

/**
 * The network for a Sampler. Where it matters both evaluations are part of the step; a learned variance is that of the labelled one.
 *
 * @throws DdpmError E-USAGE for a scale that is not finite, or not 1 without `none`
 */
export function guided(model: ConditionalModel, { labels, none, scale = 1 }: Guidance): DiffusionModel {
  if (!Number.isFinite(scale)) throw new DdpmError('E-USAGE', `the guidance scale is ${scale}; it must be a number, such as 2.`);
  if (scale === 1) return (x, t, start) => model(x, t, start ?? null, labels);
  if (!none) throw new DdpmError('E-USAGE', 'guidance needs a label that stands for no class, which the network was trained with. Without one the scale is 1.');
  return (x, t, start) => {
    const { engine } = x;
    return engine.scope(() => {
      const [cond, uncond] = [labels, none].map((each) => engine.scope(() => model(x, t, start ?? null, each))) as [Tensor, Tensor];
      const y = Tensor.empty(engine, cond.shape);
      engine.run(k.guidance, threads(y.size), { cond: cond.slice, uncond: uncond.slice, y: y.slice, size: y.size, C: x.shape.at(-1)!, M: y.shape.at(-1)!, w: scale });
      return y;
    });
  };
}
