// The layers of a U-Net, named as in diffusers.
import type { Clock } from '../clock.ts';
import { attention } from '../ops/attention.ts';
import { conv2d, type Conv2dOptions, linear, type LinearOptions } from '../ops/conv2d.ts';
import { embedding } from '../ops/embedding.ts';
import { film } from '../ops/film.ts';
import { groupNorm, type GroupNormOptions } from '../ops/group_norm.ts';
import { upsample } from '../ops/pointwise.ts';
import type { Tensor } from '../tensor.ts';
import { normal, ones, varianceScaling, zeros } from './init.ts';
import { Module, Parameter } from './parameter.ts';

/** How a block is run. */
export interface Mode {
  /** What drives dropout in training; without it dropout is off. */
  readonly clock: Clock | null;
  /** What the blocks' time_emb_proj make of the embedding, all at once; a block that is not in it does so itself. */
  readonly projected?: ReadonlyMap<ResnetBlock2D, Tensor>;
  /** Gradient checkpointing: backward runs each block again, inside of this. */
  readonly again?: (<T>(block: () => T) => T) | null;
  /** It is run again: nobody reads what the block gives. */
  readonly unread?: boolean;
}

/** A convolution and its bias: (N, H, W, C) -> (N, OH, OW, O); see conv2d(). */
export class Conv2d extends Module {
  readonly weight: Parameter;
  readonly bias: Parameter;
  constructor(inChannels: number, outChannels: number, kernel: 1 | 3, scale = 1) {
    super();
    this.weight = new Parameter([outChannels, inChannels, kernel, kernel], 'conv', varianceScaling(scale));
    this.bias = new Parameter([outChannels], 'plain', zeros);
  }
  forward(x: Tensor | readonly [Tensor, Tensor], options?: Conv2dOptions): Tensor {
    return conv2d(x, this.weight.tensor, this.bias.tensor, options);
  }
}

/** A linear layer: (..., C) -> (..., O). */
export class Linear extends Module {
  readonly weight: Parameter;
  readonly bias: Parameter;
  constructor(inFeatures: number, outFeatures: number, scale = 1) {
    super();
    this.weight = new Parameter([outFeatures, inFeatures], 'linear', varianceScaling(scale));
    this.bias = new Parameter([outFeatures], 'plain', zeros);
  }
  forward(x: Tensor, options?: LinearOptions): Tensor {
    return linear(x, this.weight.tensor, this.bias.tensor, options);
  }
}

/** Rows of a table by number: (N) uint32 -> (N, size). */
export class Embedding extends Module {
  readonly weight: Parameter;
  constructor(count: number, size: number) {
    super();
    this.weight = new Parameter([count, size], 'plain', normal);
  }
  forward(ids: Tensor): Tensor {
    return embedding(ids, this.weight.tensor);
  }
}

/** A group norm and its scale and offset: (N, H, W, C) -> the same shape; see groupNorm(). */
export class GroupNorm extends Module {
  readonly weight: Parameter;
  readonly bias: Parameter;
  // Private, so that the walk over fields meets parameters only.
  readonly #groups: number;
  readonly #eps: number;
  constructor(groups: number, channels: number, eps: number) {
    super();
    this.weight = new Parameter([channels], 'plain', ones);
    this.bias = new Parameter([channels], 'plain', zeros);
    this.#groups = groups;
    this.#eps = eps;
  }
  /** `scaleShift` (N, 2C) modulates the result before the SiLU: h (1 + scale) + shift. Dropout comes last. */
  forward(x: Tensor | readonly [Tensor, Tensor], silu = false, scaleShift: Tensor | null = null, dropout: GroupNormOptions['dropout'] = null): Tensor {
    const { tensor: gamma } = this.weight, { tensor: beta } = this.bias;
    const options = { groups: this.#groups, eps: this.#eps, silu, dropout };
    return scaleShift ? groupNorm(x, film(gamma, beta, scaleShift), null, options) : groupNorm(x, gamma, beta, options);
  }
}

/** The settings of a residual block. */
export interface BlockOptions {
  readonly groups: number;
  readonly eps: number;
  readonly dropout: number;
  /** Philox stream of this block's dropout. */
  readonly stream: number;
  /** The time embedding scales and shifts what norm2 normalised, instead of being added before it. */
  readonly scaleShift?: boolean;
}

/**
 * x + conv2(dropout(silu(norm2(conv1(silu(norm1(x))) + e)))), e = time_emb_proj(silu(temb)), x through a 1 x 1 convolution where the width changes.
 * With scaleShift, norm2(conv1(..)) (1 + scale) + shift, (scale, shift) = e (Nichol and Dhariwal, 2021).
 */
export class ResnetBlock2D extends Module {
  readonly norm1: GroupNorm;
  readonly conv1: Conv2d;
  readonly time_emb_proj: Linear;
  readonly norm2: GroupNorm;
  readonly conv2: Conv2d;
  readonly conv_shortcut?: Conv2d;
  readonly #dropout: number;
  readonly #stream: number;
  readonly #scaleShift: boolean;

  constructor(inChannels: number, outChannels: number, timeChannels: number, { groups, eps, dropout, stream, scaleShift = false }: BlockOptions) {
    super();
    this.norm1 = new GroupNorm(groups, inChannels, eps);
    this.conv1 = new Conv2d(inChannels, outChannels, 3);
    this.time_emb_proj = new Linear(timeChannels, scaleShift ? 2 * outChannels : outChannels);
    this.norm2 = new GroupNorm(groups, outChannels, eps);
    this.conv2 = new Conv2d(outChannels, outChannels, 3, 0);
    if (inChannels !== outChannels) this.conv_shortcut = new Conv2d(inChannels, outChannels, 1);
    this.#dropout = dropout;
    this.#stream = stream;
    this.#scaleShift = scaleShift;
  }

  /** x (N, H, W, C) or the two halves of a skip connection; temb (N, T) with its SiLU applied. */
  forward(x: Tensor | readonly [Tensor, Tensor], temb: Tensor, { clock, projected, unread = false }: Mode): Tensor {
    let h = this.norm1.forward(x, true);
    const e = projected?.get(this) ?? this.time_emb_proj.forward(temb);
    h = this.conv1.forward(h, { perImage: this.#scaleShift ? null : e });
    const dropout = clock && this.#dropout > 0 ? { p: this.#dropout, clock, stream: this.#stream } : null;
    h = this.norm2.forward(h, true, this.#scaleShift ? e : null, dropout);
    const residual = this.conv_shortcut ? this.conv_shortcut.forward(x, { unread }) : (x as Tensor);
    return this.conv2.forward(h, { residual, unread });
  }
}

/** x + to_out(attention(to_q(h), to_k(h), to_v(h))), h = group_norm(x). */
export class Attention extends Module {
  readonly group_norm?: GroupNorm;
  readonly to_q: Linear;
  readonly to_k: Linear;
  readonly to_v: Linear;
  readonly to_out: readonly [Linear];
  readonly #heads: number;

  /** Without groups nothing is normalised. */
  constructor(channels: number, headDim: number | null, groups: number | null, eps: number) {
    super();
    if (groups !== null) this.group_norm = new GroupNorm(groups, channels, eps);
    this.to_q = new Linear(channels, channels);
    this.to_k = new Linear(channels, channels);
    this.to_v = new Linear(channels, channels);
    this.to_out = [new Linear(channels, channels, 0)];
    this.#heads = headDim === null ? 1 : channels / headDim;
  }

  forward(x: Tensor, { unread = false }: { readonly unread?: boolean } = {}): Tensor {
    const [N, H, W, C] = x.shape as [number, number, number, number];
    const h = (this.group_norm?.forward(x) ?? x).view([N, H * W, C]);
    const y = attention(this.to_q.forward(h), this.to_k.forward(h), this.to_v.forward(h), this.#heads);
    return this.to_out[0].forward(y.view([N, H, W, C]), { residual: x, unread });
  }
}

/** A convolution of stride 2 that halves height and width: (N, H, W, C) -> (N, H/2, W/2, C). */
export class Downsample2D extends Module {
  readonly conv: Conv2d;
  readonly #padding: readonly [number, number, number, number];
  /** A padding of 0 is DDPM's: nothing at the top and left, one at the bottom and right. */
  constructor(channels: number, padding: number) {
    super();
    this.conv = new Conv2d(channels, channels, 3);
    this.#padding = padding === 0 ? [0, 1, 0, 1] : [padding, padding, padding, padding];
  }
  forward(x: Tensor): Tensor {
    return this.conv.forward(x, { stride: 2, padding: this.#padding });
  }
}

/** Nearest upsampling by two, then a 3 x 3 convolution: (N, H, W, C) -> (N, 2H, 2W, C). */
export class Upsample2D extends Module {
  readonly conv: Conv2d;
  constructor(channels: number) {
    super();
    this.conv = new Conv2d(channels, channels, 3);
  }
  forward(x: Tensor, { unread = false }: { readonly unread?: boolean } = {}): Tensor {
    return this.conv.forward(upsample(x), { unread });
  }
}
