// config.json of a U-Net: the fields of diffusers' UNet2DModel, their defaults, and which values are implemented.
import { DdpmError } from '../errors.ts';

/** A level of the way down: residual blocks, alone or with attention. */
export type DownBlockType = 'DownBlock2D' | 'AttnDownBlock2D';
/** A level of the way up: residual blocks, alone or with attention. */
export type UpBlockType = 'UpBlock2D' | 'AttnUpBlock2D';

/** diffusers' `config.json` of a UNet2DModel, complete: what `readConfig` returns, and `unet.config` is. Sizes are in pixels and channels. */
export interface UNetConfig {
  readonly _class_name: 'UNet2DModel';
  readonly sample_size: number | readonly [number, number] | null;
  readonly in_channels: number;
  readonly out_channels: number;
  readonly center_input_sample: boolean;
  readonly time_embedding_type: 'positional';
  /** Width of the time embedding; null is 4 block_out_channels[0]. */
  readonly time_embedding_dim: number | null;
  readonly freq_shift: number;
  readonly flip_sin_to_cos: boolean;
  readonly down_block_types: readonly DownBlockType[];
  readonly up_block_types: readonly UpBlockType[];
  readonly block_out_channels: readonly number[];
  readonly layers_per_block: number;
  readonly mid_block_scale_factor: number;
  readonly downsample_padding: number;
  readonly dropout: number;
  readonly act_fn: 'silu' | 'swish';
  readonly attention_head_dim: number | null;
  readonly norm_num_groups: number;
  /** Of the attention in the middle; null is norm_num_groups, or no norm at all where resnet_time_scale_shift is 'scale_shift'. */
  readonly attn_norm_num_groups: number | null;
  readonly norm_eps: number;
  /** Whether the time embedding is added ('default') or scales and shifts ('scale_shift'). */
  readonly resnet_time_scale_shift: 'default' | 'scale_shift';
  readonly add_attention: boolean;
  /** How labels become an embedding that is added to that of t: null looks it up in a table of num_class_embeds rows, 'timestep' treats them as times, 'identity' takes embeddings. */
  readonly class_embed_type: null | 'timestep' | 'identity';
  readonly num_class_embeds: number | null;
}

/** The content of a config.json: any subset of the fields; what is absent has diffusers' default, which is not DDPM's. */
export type UNetFields = { readonly [name: string]: unknown };

/** diffusers' defaults. A file that comes from DDPM overrides most of them: honour the file. */
const DEFAULTS: UNetConfig = {
  _class_name: 'UNet2DModel', sample_size: null, in_channels: 3, out_channels: 3, center_input_sample: false, time_embedding_type: 'positional', time_embedding_dim: null,
  freq_shift: 0, flip_sin_to_cos: true, down_block_types: ['DownBlock2D', 'AttnDownBlock2D', 'AttnDownBlock2D', 'AttnDownBlock2D'],
  up_block_types: ['AttnUpBlock2D', 'AttnUpBlock2D', 'AttnUpBlock2D', 'UpBlock2D'], block_out_channels: [224, 448, 672, 896], layers_per_block: 2,
  mid_block_scale_factor: 1, downsample_padding: 1, dropout: 0, act_fn: 'silu', attention_head_dim: 8, norm_num_groups: 32, attn_norm_num_groups: null,
  norm_eps: 1e-5, resnet_time_scale_shift: 'default', add_attention: true,
  class_embed_type: null, num_class_embeds: null,
};

/** Fields that came late to diffusers (0.19 to 0.22); older versions warn of each that they ignore it. */
const LATE: readonly string[] = ['dropout', 'time_embedding_dim', 'attn_norm_num_groups'] satisfies (keyof UNetConfig)[];

/** The fields of a config.json, without those that came late and say nothing but their default. */
export const configFields = (config: UNetConfig): UNetFields =>
  Object.fromEntries(Object.entries(config).filter(([name, value]) => !LATE.includes(name) || value !== DEFAULTS[name as keyof UNetConfig]));

/** Fields whose other values change the network in ways that are not implemented. */
const ONLY: { readonly [name: string]: readonly unknown[] } = {
  _class_name: ['UNet2DModel'], center_input_sample: [false], time_embedding_type: ['positional'], mid_block_scale_factor: [1], act_fn: ['silu', 'swish'],
  resnet_time_scale_shift: ['default', 'scale_shift'], downsample_type: ['conv'], upsample_type: ['conv'], class_embed_type: [null, 'timestep', 'identity'], num_train_timesteps: [null],
  mid_block_type: ['UNetMidBlock2D'],
};

/** Fills in the defaults and checks every field; throws E-MODEL by name for what is unknown or not implemented. */
export function readConfig(fields: UNetFields): UNetConfig {
  const refuse = (why: string): never => {
    throw new DdpmError('E-MODEL', `config.json: ${why}`);
  };
  for (const [name, value] of Object.entries(fields)) {
    const allowed = ONLY[name];
    if (allowed && !allowed.includes(value)) refuse(`${name} = ${JSON.stringify(value)} is not implemented; ${allowed.map((v) => JSON.stringify(v)).join(' or ')} is.`);
    if (!allowed && !(name in DEFAULTS) && !name.startsWith('_')) refuse(`the field "${name}" is not known.`);
  }
  const known = Object.fromEntries(Object.keys(DEFAULTS).map((name) => [name, name in fields ? fields[name] : DEFAULTS[name as keyof UNetConfig]]));
  const c = known as unknown as UNetConfig;
  const whole = (name: keyof UNetConfig, least: number) => {
    const value = c[name];
    if (typeof value !== 'number' || !Number.isInteger(value) || value < least) refuse(`${name} must be a whole number of at least ${least}, not ${JSON.stringify(value)}.`);
  };
  for (const name of ['in_channels', 'out_channels', 'layers_per_block', 'norm_num_groups'] as const) whole(name, 1);
  // More is a mistake, and the larger it is the longer the model takes to build.
  if (c.layers_per_block > 1000) refuse(`layers_per_block must be 1,000 at most, not ${c.layers_per_block}.`);
  for (const name of ['freq_shift', 'downsample_padding'] as const) whole(name, 0);
  for (const name of ['num_class_embeds', 'time_embedding_dim', 'attn_norm_num_groups'] as const) if (c[name] !== null) whole(name, 1);
  const levels = Array.isArray(c.block_out_channels) ? c.block_out_channels.length : 0;
  if (!levels || c.down_block_types?.length !== levels || c.up_block_types?.length !== levels) refuse('block_out_channels, down_block_types and up_block_types must be lists of one length.');
  for (const type of c.down_block_types) if (type !== 'DownBlock2D' && type !== 'AttnDownBlock2D') refuse(`the block type "${String(type)}" is not implemented; DownBlock2D and AttnDownBlock2D are.`);
  for (const type of c.up_block_types) if (type !== 'UpBlock2D' && type !== 'AttnUpBlock2D') refuse(`the block type "${String(type)}" is not implemented; UpBlock2D and AttnUpBlock2D are.`);
  c.block_out_channels.forEach((width, level) => {
    if (!Number.isInteger(width) || width < 1 || width % c.norm_num_groups) refuse(`block_out_channels[${level}] = ${width} is not a multiple of norm_num_groups = ${c.norm_num_groups}.`);
    if (c.attention_head_dim !== null && c.attention_head_dim > 0 && width % c.attention_head_dim) refuse(`block_out_channels[${level}] = ${width} does not divide into heads of ${c.attention_head_dim}.`);
  });
  const last = c.block_out_channels.at(-1)!;
  if (c.attn_norm_num_groups !== null && last % c.attn_norm_num_groups) refuse(`block_out_channels[${levels - 1}] = ${last} is not a multiple of attn_norm_num_groups = ${c.attn_norm_num_groups}.`);
  if (!(c.norm_eps > 0)) refuse(`norm_eps must be positive, not ${c.norm_eps}.`);
  if (!(c.dropout >= 0 && c.dropout < 1)) refuse(`dropout must be in [0, 1), not ${c.dropout}.`);
  return c;
}
