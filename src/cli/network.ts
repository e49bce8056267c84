// The network of a model as a sampler takes it: with labels and guidance where it has classes, with its own last prediction where it was trained so.

import type { DiffusionModel } from '../diffusion/gaussian.ts';
import type { Shape } from '../diffusion/uses/encode.ts';
import { guided } from '../diffusion/uses/guidance.ts';
import { isLearned } from '../diffusion/variance.ts';
import { DdpmError } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import type { Scheduler } from '../io/scheduler.ts';
import type { UNet } from '../nn/unet.ts';
import { Tensor } from '../tensor.ts';

export interface LabelSettings {
  /** A class, `all` for each in turn, `none` for what stands for no class, or null where nothing was asked for. */
  readonly label: string | null;
  /** w in uncond + w (cond - uncond). */
  readonly guidance: number;
}

/** Channels of the images: the network's output without a learned variance. Its input has twice as many where it is conditioned on itself. */
export const imageChannels = (unet: UNet, { variance }: Pick<Scheduler, 'variance'>): number => unet.config.out_channels / (isLearned(variance) ? 2 : 1);

/** The forward pass with whatever the network reads beside x and t; it is conditioned on its own last prediction where it takes twice the channels of an image. */
export function forwardOf(unet: UNet, channels: number): (x: Tensor, t: Tensor, start: Tensor | null | undefined, labels: Tensor | null) => Tensor {
  const selfConditioned = unet.config.in_channels === 2 * channels;
  return (x, t, start, labels) => unet.forward(selfConditioned ? [x, start ?? null] : x, t, { labels });
}

/**
 * The rows of a model's table of classes, of which the last stands for no class; 0 for a model without classes.
 *
 * @throws DdpmError E-MODEL where it embeds classes otherwise
 */
export function classRows({ conditional, config: { num_class_embeds: rows, class_embed_type: type } }: UNet): number {
  if (!conditional) return 0;
  if (rows === null) throw new DdpmError('E-MODEL', `the model embeds classes by "${type}", and only rows of a table (num_class_embeds) can be chosen here.`);
  return rows;
}

export class Network {
  readonly model: DiffusionModel;
  /** For the header: empty for a model without classes. */
  readonly description: string;
  /** How many classes take turns; 1 where all samples are of one, or of none. */
  readonly classes: number;
  readonly #labels: Tensor | null;
  readonly #none: Tensor | null;
  readonly #classOf: (id: number) => number;

  /**
   * For batches of one shape, (N, H, W, C).
   *
   * @throws DdpmError E-USAGE for labels or guidance that the model has no use for, or a class that it does not know
   */
  constructor(engine: Engine, unet: UNet, [batch, , , channels]: Shape, { label, guidance }: LabelSettings) {
    const forward = forwardOf(unet, channels), rows = classRows(unet);
    if (!rows) {
      for (const [flag, given] of [['--label', label !== null], ['--guidance', guidance !== 1]] as const)
        if (given) throw new DdpmError('E-USAGE', `${flag} is for models with classes, and this one was trained without labels. Leave it out.`);
      this.model = (x, t, start) => forward(x, t, start, null);
      this.description = '';
      this.classes = 1;
      this.#labels = this.#none = null;
      this.#classOf = () => 0;
      return;
    }
    // The last row of the table stands for no class where guidance is to be possible.
    const classes = rows - 1;
    const chosen = label === null || label === 'all' ? null : label === 'none' ? classes : /^\d+$/.test(label) ? Number(label) : NaN;
    if (chosen !== null && !(chosen < rows))
      throw new DdpmError('E-USAGE', `--label is "${label}"; it must be a class from 0 to ${classes - 1}, all or none.`);
    this.classes = chosen === null ? classes : 1;
    this.#classOf = chosen === null ? (id) => id % classes : () => chosen;
    const upload = (row: (n: number) => number) => Tensor.from(engine, [batch], Uint32Array.from({ length: batch }, (_, n) => row(n)));
    this.#labels = upload((n) => this.#classOf(n));
    this.#none = guidance === 1 ? null : upload(() => classes);
    this.model = guided(forward, { labels: this.#labels, ...(this.#none && { none: this.#none }), scale: guidance });
    this.description = `${chosen === null ? `classes 0 to ${classes - 1} in turn` : chosen === classes ? 'no class' : `class ${chosen}`}${guidance === 1 ? '' : `, guidance ${guidance}`}`;
  }

  /** Call before the batch whose first sample is `first`: a sample's class goes by its id. */
  begin(first: number): void {
    const labels = this.#labels;
    labels?.engine.write(labels.slice, Uint32Array.from({ length: labels.size }, (_, n) => this.#classOf(first + n)));
  }

  free(): void {
    for (const tensor of [this.#labels, this.#none]) tensor?.free();
  }
}
