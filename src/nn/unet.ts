// The U-Net of DDPM, configured by the fields and made of the tensor names of diffusers' UNet2DModel.
import { checkpoint, pointwise } from '../autograd.ts';
import type { Clock } from '../clock.ts';
import { DdpmError } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import { fill } from '../gpu/kernels.gen.ts';
import { cast } from '../ops/cast.ts';
import { placeFrequencies, timestepEmbedding } from '../ops/embedding.ts';
import { readsRounded } from '../ops/half.ts';
import { linears } from '../ops/linears.ts';
import { add, silu } from '../ops/pointwise.ts';
import { Tensor } from '../tensor.ts';
import { type UNetConfig, type UNetFields, readConfig } from './config.ts';
import { Attention, type BlockOptions, Conv2d, Downsample2D, Embedding, GroupNorm, Linear, type Mode, ResnetBlock2D, Upsample2D } from './layers.ts';
import { Module, parametersOf } from './parameter.ts';
import { roundWeights, type WithRounded } from './rounded.ts';

class TimestepEmbedding extends Module {
  readonly linear_1: Linear;
  readonly linear_2: Linear;
  constructor(channels: number, out: number) {
    super();
    this.linear_1 = new Linear(channels, out);
    this.linear_2 = new Linear(out, out);
  }
  forward(x: Tensor): Tensor {
    return this.linear_2.forward(silu(this.linear_1.forward(x)));
  }
}

/** Runs a block: with a tape, by keeping what backward needs, or (`again`) by running it a second time then. */
const run = (engine: Engine, mode: Mode, block: (mode: Mode) => Tensor): Tensor => {
  const { again } = mode;
  return again ? checkpoint(engine, (unread) => again(() => block({ ...mode, unread }))) : engine.scope(() => block(mode));
};
/** A resnet, and attention behind it where there is such. */
const pair = (resnet: ResnetBlock2D, attention: Attention | undefined, x: Tensor | readonly [Tensor, Tensor], temb: Tensor, mode: Mode): Tensor =>
  attention ? attention.forward(resnet.forward(x, temb, { ...mode, unread: false }), mode) : resnet.forward(x, temb, mode);

/** One level going down: pairs of resnet and, where the type says so, attention; then half the size. */
class DownBlock extends Module {
  readonly attentions?: Attention[];
  readonly resnets: ResnetBlock2D[];
  readonly downsamplers?: Downsample2D[];
  constructor(resnets: ResnetBlock2D[], attentions: Attention[] | null, downsampler: Downsample2D | null) {
    super();
    if (attentions) this.attentions = attentions;
    this.resnets = resnets;
    if (downsampler) this.downsamplers = [downsampler];
  }
  /** Returns every intermediate result that the way up will read. */
  forward(x: Tensor, temb: Tensor, mode: Mode): Tensor[] {
    const skips: Tensor[] = [];
    this.resnets.forEach((resnet, i) => {
      const from = skips.at(-1) ?? x;
      skips.push(run(x.engine, mode, (how) => pair(resnet, this.attentions?.[i], from, temb, how)));
    });
    if (this.downsamplers) skips.push(this.downsamplers[0]!.forward(skips.at(-1)!));
    return skips;
  }
}

class UpBlock extends Module {
  readonly attentions?: Attention[];
  readonly resnets: ResnetBlock2D[];
  readonly upsamplers?: Upsample2D[];
  constructor(resnets: ResnetBlock2D[], attentions: Attention[] | null, upsampler: Upsample2D | null) {
    super();
    if (attentions) this.attentions = attentions;
    this.resnets = resnets;
    if (upsampler) this.upsamplers = [upsampler];
  }
  /** Takes its skips from the end of the list. */
  forward(x: Tensor, skips: Tensor[], temb: Tensor, mode: Mode): Tensor {
    const { engine } = x;
    this.resnets.forEach((resnet, i) => {
      const from = [x, skips.pop()!] as const;
      x = run(engine, mode, (how) => pair(resnet, this.attentions?.[i], from, temb, how));
    });
    const last = x;
    return this.upsamplers ? run(engine, mode, (how) => this.upsamplers![0]!.forward(last, how)) : last;
  }
}

class MidBlock extends Module {
  readonly attentions?: Attention[];
  readonly resnets: ResnetBlock2D[];
  constructor(resnets: ResnetBlock2D[], attention: Attention | null) {
    super();
    if (attention) this.attentions = [attention];
    this.resnets = resnets;
  }
  forward(x: Tensor, temb: Tensor, mode: Mode): Tensor {
    const first = run(x.engine, mode, (how) => pair(this.resnets[0]!, this.attentions?.[0], x, temb, how));
    return run(x.engine, mode, (how) => this.resnets[1]!.forward(first, temb, how));
  }
}

/** What a forward pass may get: `clock` turns dropout on, `labels` are (N) uint32, or (N, D) float32 where the model takes vectors. */
export interface ForwardOptions {
  /** What drives dropout; without it dropout is off. */
  readonly clock?: Clock | null;
  /** (N) uint32, for a model with classes; (N, 4 block_out_channels[0]) float32 where class_embed_type is 'identity'. */
  readonly labels?: Tensor | null;
}

/**
 * diffusers' UNet2DModel: x (N, H, W, in_channels), t (N) uint32 -> (N, H, W, out_channels). Height and width must halve as often as there are levels less
 * one (E-SHAPE). Source: Ho et al., 2020, appendix B.
 */
export class UNet extends Module {
  readonly conv_in: Conv2d;
  readonly time_embedding: TimestepEmbedding;
  readonly class_embedding?: Embedding | TimestepEmbedding;
  readonly down_blocks: DownBlock[] = [];
  readonly mid_block: MidBlock;
  readonly up_blocks: UpBlock[] = [];
  readonly conv_norm_out: GroupNorm;
  readonly conv_out: Conv2d;
  readonly #config: UNetConfig;
  readonly #frequencies = new WeakMap<Engine, Tensor>();
  readonly #again: boolean;

  /**
   * From the content of a config.json; throws E-MODEL by name for a field whose value is not implemented.
   * `checkpointBlocks` trades time for memory: backward runs each block's forward pass again instead of keeping what it computed. Same bits.
   */
  constructor(fields: UNetFields, { dropout, checkpointBlocks = false }: { dropout?: number; checkpointBlocks?: boolean } = {}) {
    super();
    this.#again = checkpointBlocks;
    const c = (this.#config = readConfig(fields));
    const widths = c.block_out_channels, groups = c.norm_num_groups, eps = c.norm_eps;
    const time = c.time_embedding_dim ?? 4 * widths[0]!;
    let blocks = 0;
    const options = (): BlockOptions => ({ groups, eps, dropout: dropout ?? c.dropout, stream: 256 + blocks++, scaleShift: c.resnet_time_scale_shift === 'scale_shift' });
    const resnet = (from: number, to: number) => new ResnetBlock2D(from, to, time, options());
    const attention = (channels: number, norm: number | null = groups) => new Attention(channels, c.attention_head_dim, norm, eps);
    // As in diffusers: the groups of attention are those of the middle alone, which has no norm where the time embedding scales and shifts.
    const middle = c.attn_norm_num_groups ?? (c.resnet_time_scale_shift === 'default' ? groups : null);

    this.conv_in = new Conv2d(c.in_channels, widths[0]!, 3);
    this.time_embedding = new TimestepEmbedding(widths[0]!, time);
    if (c.class_embed_type === 'timestep') this.class_embedding = new TimestepEmbedding(widths[0]!, time);
    else if (c.class_embed_type === null && c.num_class_embeds !== null) this.class_embedding = new Embedding(c.num_class_embeds, time);
    let width = widths[0]!;
    c.down_block_types.forEach((type, level) => {
      const to = widths[level]!;
      const resnets = Array.from({ length: c.layers_per_block }, (_, i) => resnet(i === 0 ? width : to, to));
      const attentions = type === 'AttnDownBlock2D' ? resnets.map(() => attention(to)) : null;
      this.down_blocks.push(new DownBlock(resnets, attentions, level < widths.length - 1 ? new Downsample2D(to, c.downsample_padding) : null));
      width = to;
    });
    this.mid_block = new MidBlock([resnet(width, width), resnet(width, width)], c.add_attention ? attention(width, middle) : null);
    const reversed = [...widths].reverse();
    c.up_block_types.forEach((type, level) => {
      const to = reversed[level]!, below = reversed[Math.min(level + 1, reversed.length - 1)]!;
      const resnets = Array.from({ length: c.layers_per_block + 1 }, (_, i) => resnet((i === 0 ? width : to) + (i === c.layers_per_block ? below : to), to));
      const attentions = type === 'AttnUpBlock2D' ? resnets.map(() => attention(to)) : null;
      this.up_blocks.push(new UpBlock(resnets, attentions, level < widths.length - 1 ? new Upsample2D(to) : null));
      width = to;
    });
    this.conv_norm_out = new GroupNorm(groups, widths[0]!, eps);
    this.conv_out = new Conv2d(widths[0]!, c.out_channels, 3, 0);
  }

  /** The configuration with every default filled in: what config.json will say. */
  get config(): UNetConfig {
    return this.#config;
  }

  /** Uploads what is not learnt; Parameters.place calls it. */
  prepare(engine: Engine): void {
    if (!this.#frequencies.has(engine)) this.#frequencies.set(engine, placeFrequencies(engine, this.#embedding));
  }

  get #embedding() {
    const { block_out_channels, flip_sin_to_cos, freq_shift } = this.#config;
    return { size: block_out_channels[0]!, flipSinToCos: flip_sin_to_cos, freqShift: freq_shift };
  }

  /** Whether forward() needs labels. */
  get conditional(): boolean {
    return this.#config.class_embed_type !== null || this.#config.num_class_embeds !== null;
  }

  /**
   * x (N, H, W, in_channels), t (N) uint32 -> (N, H, W, out_channels).
   *
   * A model with self-conditioning (Chen et al., 2022) has twice the channels of the images: x is then a pair, the images and the start that was
   * predicted for them, which are read as one; without the second, zeros take its place.
   *
   * @throws DdpmError E-SHAPE for images or labels that do not fit the model
   */
  forward(x: Tensor | readonly [Tensor, Tensor | null], t: Tensor, { clock = null, labels = null }: ForwardOptions = {}): Tensor {
    const [image, start] = x instanceof Tensor ? [x, null] : x;
    const { engine } = image, { storage } = engine;
    const [N, H, W, C] = image.shape as [number, number, number, number];
    const { in_channels: wanted, block_out_channels: widths } = this.#config;
    const factor = 2 ** (widths.length - 1);
    const conditioned = start !== null || 2 * C === wanted;
    if (C + (start ? start.shape.at(-1)! : conditioned ? C : 0) !== wanted)
      throw new DdpmError('E-SHAPE', `the model takes ${wanted} channels; the images have ${C}${start ? ` and what goes with them ${start.shape.at(-1)}` : ''}.`);
    if (H % factor || W % factor) throw new DdpmError('E-SHAPE', `images of ${H} x ${W} do not halve ${widths.length - 1} times: height and width must be multiples of ${factor}.`);
    const frequencies = this.#frequencies.get(engine);
    if (!frequencies) throw new DdpmError('E-ENGINE', 'the model is not on this device yet: call Parameters.place(engine, model) first.');
    this.#checkLabels(labels, N);

    const pass = (rounded: WithRounded): Tensor => {
      // Every block applies SiLU to the same embedding: once is enough.
      const temb = engine.scope(() => silu(this.#embed(t, labels, frequencies)));
      const mode: Mode = { clock, again: this.#again ? rounded : null, projected: this.#project(temb) };
      // Between the first convolution and the last, activations are what the engine stores; the embedding of t stays float32.
      let h = engine.scope(() => {
        const first = cast(image, storage);
        return this.conv_in.forward(conditioned ? [first, start ? cast(start, storage) : zerosLike(first)] : first);
      });
      const skips = [h];
      for (const block of this.down_blocks) {
        skips.push(...block.forward(h, temb, mode));
        h = skips.at(-1)!;
      }
      const bottom = h;
      h = engine.scope(() => this.mid_block.forward(bottom, temb, mode));
      for (const block of this.up_blocks) h = block.forward(h, skips, temb, mode);
      return cast(this.conv_out.forward(this.conv_norm_out.forward(h, true)), 'f32');
    };
    return engine.scope(() => {
      const rounded: WithRounded = readsRounded(engine) ? roundWeights(engine, parametersOf(this)) : (fn) => fn();
      return rounded(() => pass(rounded));
    });
  }

  /** What every block's time_emb_proj makes of the embedding, in one product. */
  #project(temb: Tensor): ReadonlyMap<ResnetBlock2D, Tensor> {
    const blocks = [...this.down_blocks, this.mid_block, ...this.up_blocks].flatMap(({ resnets }) => resnets);
    const layers = blocks.map(({ time_emb_proj: { weight, bias } }) => ({ w: weight.tensor, bias: bias.tensor }));
    const projected = temb.engine.scope(() => linears(temb, layers));
    return new Map(blocks.map((block, i) => [block, projected[i]!]));
  }

  /** The embedding of t, and of the labels where the model has classes. */
  #embed(t: Tensor, labels: Tensor | null, frequencies: Tensor): Tensor {
    const time = this.time_embedding.forward(timestepEmbedding(t, frequencies, this.#embedding));
    if (!labels) return time;
    const kind = this.class_embedding;
    if (!kind) return add(time, labels);
    return add(time, kind.forward(kind instanceof Embedding ? labels : timestepEmbedding(labels, frequencies, this.#embedding)));
  }

  #checkLabels(labels: Tensor | null, N: number): void {
    const { class_embed_type: type, num_class_embeds: classes, block_out_channels: widths, time_embedding_dim } = this.#config, wide = time_embedding_dim ?? 4 * widths[0]!;
    if (!labels && this.conditional) throw new DdpmError('E-SHAPE', `the model has classes (${type ?? `num_class_embeds = ${classes}`}): forward() needs labels, one for each of the ${N} images.`);
    if (!labels) return;
    if (!this.conditional) throw new DdpmError('E-SHAPE', 'the model has no classes, so there is no use for labels. Its config needs num_class_embeds or class_embed_type.');
    const size = type === 'identity' ? N * wide : N;
    if (labels.size !== size) throw new DdpmError('E-SHAPE', `labels of shape (${labels.shape.join(', ')}) for ${N} images; the model takes ${type === 'identity' ? `(${N}, ${wide})` : `(${N})`}.`);
  }
}

function zerosLike(x: Tensor): Tensor {
  const zeros = Tensor.empty(x.engine, x.shape, x.type);
  // No bit of a zero is set, whatever its type.
  x.engine.run(fill, pointwise(x.size), { y: { ...zeros.slice, type: 'f32' }, value: 0 });
  return zeros;
}
