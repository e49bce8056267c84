// Which kernels compute a convolution: what can be chosen for a shape on a device, and what is.
import type { Choice } from '../gpu/choices.ts';
import { isLanes } from '../gpu/device-class.ts';
import type { Engine } from '../gpu/engine.ts';
import type { Args } from '../gpu/kernel.ts';
import { conv2d_3x3_tiled, conv2d_backward_weight_3x3_tiled, type conv2d_forward } from '../gpu/kernels.gen.ts';
import { BUSY, CONV_VARIANTS, type ConvDirection, type ConvVariant, DEFAULTS, type HalfVariant } from '../variants.ts';
import { type CoreTile, coreTile, HALF, halfVariant } from './half.ts';
import { subgroupKernels } from './subgroup_kernels.ts';
import { type SubgroupTiles, tiles } from './tiles.ts';

/** The numbers of a convolution (kernels/shared/conv2d.wgsl), without its tensors. */
export type ConvDims = Omit<Args<typeof conv2d_forward>, 'x' | 'w' | 'bias' | 'per_image' | 'residual' | 'y'>;

/** Tiles of `rows` rows, or of `tile` channels, where the variant has such, and a sum in `splits` parts. What is left out follows from the shape. */
export type ConvChoice = { readonly variant: ConvVariant | HalfVariant; readonly rows?: number; readonly tile?: GemmTile | CoreTile; readonly splits?: number };
type FloatChoice = Omit<ConvChoice, 'tile'> & { readonly variant: ConvVariant; readonly tile?: GemmTile };

const keepsSize3x3 = ({ KH, KW, stride, pad_top, pad_left, H, W, OH, OW }: ConvDims) => KH === 3 && KW === 3 && stride === 1 && pad_top === 1 && pad_left === 1 && H === OH && W === OW;

/** Rows that a 3 x 3 tile may have. */
const ROWS = [7, 8, 4] as const;

/** Rows of a 3 x 3 tile: what divides the height best, 7 where it makes no difference. */
export const tileRows = (H: number): number => ROWS.reduce<number>((best, G) => (Math.ceil(H / G) * G < Math.ceil(H / best) * best ? G : best), 7);

/** Columns of such a tile that a lane computes: one where there are no more than lanes, else two, which meet each weight that is loaded. */
export const tileColumns = (columns: number, lanes: number): 1 | 2 => (columns > lanes ? 2 : 1);

/**
 * Whether such a tile has 32 channels, not 16, where there are `count` tiles of pixels, each of so many columns: x is loaded and filtered once for both halves, so that on two cores, each of which takes a
 * tile at a time, it takes 1.7 times as long for twice as much. Compiling it takes seconds, too many for fewer channels than 64. Of 32 columns (sixteen lanes) its sums are 48 KB, as much as a first
 * cache, and it takes as long as two.
 */
export const isWide3x3 = (channels: number, count: number, columns: number): boolean => columns < 32 && channels >= 64 && 1.7 * Math.ceil((count * Math.ceil(channels / 32)) / 2) <= Math.ceil((count * Math.ceil(channels / 16)) / 2);

/** Tiles of pixels x channels of the kernel `conv2d_subgroup`: of eight lanes or four, and of sixteen, whose time goes by the bytes of code that they run through, of which loads are the most. */
export const CONV_TILES: SubgroupTiles = [{ R: 8, Q: 16, cost: 1 }, { R: 8, Q: 8, cost: 1.1 }, { R: 4, Q: 8, cost: 1.2 }, { R: 8, Q: 4, cost: 1.25 }, { R: 2, Q: 4, cost: 1.4 }, { R: 1, Q: 4, cost: 2.1 }];
export const CONV_TILES_16: SubgroupTiles = [{ R: 8, Q: 32, cost: 1 }, { R: 8, Q: 16, cost: 1.15 }, { R: 8, Q: 8, cost: 1.4 }, { R: 4, Q: 8, cost: 1.6 }, { R: 4, Q: 4, cost: 1.75 }, { R: 2, Q: 4, cost: 2.05 }, { R: 1, Q: 4, cost: 2.8 }];

/** Channels of a tile of `conv2d_tiled` and `conv2d_3x3_tiled`, which has twice as many pixels. */
export const GEMM_TILES = [64, 32, 16] as const;
export type GemmTile = (typeof GEMM_TILES)[number];

/**
 * Which tile for a product of so many channels, in so many tiles; all add in the same order. A workgroup goes through its turns one after the other, and a smaller tile has fewer of them: where the
 * larger ones leave a GPU idle they take as long as if they filled it. On an H100, whose multiprocessors are 132, a convolution of 8 x 8 at 256 channels takes 133, 47 and 24 microseconds of 4, 8 and
 * 32 workgroups; one of 64 images of 32 x 32 to four channels 188 microseconds in tiles of 64, and 128 in those of 32 (bench/results/2026-11-27-h100-2-tiles.json).
 */
export function gemmTile({ deviceClass }: Engine, channels: number, count: (tile: GemmTile) => number): GemmTile {
  if (deviceClass !== 'gpu' || (channels > 32 && count(64) >= 128)) return 64;
  return count(16) <= 320 ? 16 : 32;
}

/** Pixels and channels of a tile on tensor cores, whose sums are left in `splits` parts: fewer where it would leave most of a large GPU idle. */
export const convTile = (engine: Engine, pixels: number, channels: number, splits = 1): CoreTile => coreTile(engine, splits * tiles(pixels, channels, 128, 128) < 96 ? 64 : 128);

/** Input and output channels of a tile of a weight's gradient there, where there is room for it. */
export const coreWeightTile = (C: number, O: number): CoreTile => (Math.min(C, O) > 64 ? 128 : 64);

/** Whether so many of the largest tiles keep a CPU's cores busy, each in parts of no less than 1,024 pixels: they do four times the work of others for a pixel. */
const enough = ({ N, OH, OW }: ConvDims, variant: 'subgroup' | 'subgroup3x3', count: number): boolean => count * Math.max(1, Math.floor((N * OH * OW) / 1024)) >= BUSY[variant];

/**
 * Rows, in fours, of a tile of `conv2d_backward_weight_subgroup`, and columns, in the `columns` of the smallest. Of eight lanes one of 16 x 16 takes two thirds of the time of one of 32 x 16, one of
 * 64 x 32 three times as long for four times as much, one of 64 x 64 1.6 times as long as that; few pixels are not worth compiling them.
 */
export function subgroupWeightTile(dims: ConvDims, columns: number): { readonly ROWS: 4 | 8 | 16; readonly COLUMNS: 1 | 2 | 4 } {
  const { N, OH, OW, C, O, KH, KW } = dims, rows = KH * KW * C;
  if (rows <= 16) return { ROWS: 4, COLUMNS: 1 };
  const [small, large, largest] = [tiles(rows, O, 32, columns), tiles(rows, O, 64, 2 * columns), tiles(rows, O, 64, 4 * columns)];
  if (N * OH * OW < 64 || 3 * large > small) return { ROWS: 8, COLUMNS: 1 };
  return { ROWS: 16, COLUMNS: 1.6 * largest <= large && enough(dims, 'subgroup', largest) ? 4 : 2 };
}

/** The tile of `conv2d_backward_weight_3x3_subgroup`, and how many there are: 8 input and `columns` output channels or, WIDE, twice as many of both, which takes 3.2 times as long for four times as much. */
export function subgroupWeight3x3Tile(dims: ConvDims, columns: number): { readonly WIDE: 0 | 1; readonly count: number } {
  const narrow = tiles(dims.C, dims.O, 8, columns), wide = tiles(dims.C, dims.O, 16, 2 * columns);
  return 3.2 * wide <= narrow && enough(dims, 'subgroup3x3', wide) ? { WIDE: 1, count: wide } : { WIDE: 0, count: narrow };
}

/** Variants whose sums for a weight's gradient may be split. */
type Split = Exclude<ConvChoice['variant'], 'padded' | 'rounded'>;

/** Workgroups that compute a weight's gradient, of each split. */
export function weightGroups(variant: Split, dims: ConvDims, columns: number, tile: number = coreWeightTile(dims.C, dims.O)): number {
  const { C, O, KH, KW } = dims, rows = KH * KW * C, { ROWS: fours, COLUMNS } = subgroupWeightTile(dims, columns);
  return { plain: rows * O, subgroup: tiles(rows, O, 4 * fours, columns * COLUMNS), subgroup3x3: subgroupWeight3x3Tile(dims, columns).count, tiled: tiles(rows, O, 128, 128), tiled_f16: tiles(rows, O, 128, 128), tiled3x3: tiles(3 * C, O, 32, 64), subgroup_matrix: KH * KW * tiles(C, O, tile, tile) }[variant];
}

/** A split is at least 256 pixels, on tensor cores 512; on GPUs, which take workgroups in waves, there is none more than keeps all of it busy. The count is a function of the shape alone, so that a resumed run adds in the same order. */
export function weightSplits(variant: Split, dims: ConvDims, columns: number): number {
  const count = BUSY[variant] / weightGroups(variant, dims, columns), whole = variant.startsWith('tiled') ? Math.floor(count) : Math.ceil(count);
  return Math.max(1, Math.min(whole, Math.floor((dims.N * dims.OH * dims.OW) / (variant === 'subgroup_matrix' ? 512 : 256))));
}

/**
 * Parts in which the filtered GEMM and that of tensor cores leave their sums on a GPU, by the image alone: a batch must not change what is added first. Small images leave a device half empty, even many of
 * them, and its workgroups take one turn after another: on an H100, in float32, 64 workgroups, of 128 images of 4 x 4, took 166 microseconds, and 256, of 8 x 8, 198 for the same 96 turns. A part has at
 * least as many turns as the image has pixels; a turn is a column of three taps and eight channels, or one tap and 32, of which tensor cores take two at a time in their larger tile.
 */
export function convSplits(engine: Engine, variant: 'tiled3x3' | 'subgroup_matrix', dims: ConvDims, direction: ConvDirection): number {
  if (engine.deviceClass !== 'gpu' || !keepsSize3x3(dims)) return 1;
  const channels = direction === 'input' ? dims.O : dims.C, turns = variant === 'tiled3x3' ? 3 * Math.ceil(channels / 8) : 9 * Math.ceil(channels / 32);
  return Math.max(1, Math.min(8, Math.floor(turns / (dims.H * dims.W))));
}

/** A variant with its numbers, all said. */
function whole(engine: Engine, variant: ConvVariant, dims: ConvDims, direction: ConvDirection): FloatChoice {
  if (variant === 'padded') return { variant };
  if (direction === 'weight') return { variant, splits: weightSplits(variant, dims, subgroupKernels(engine).columns) };
  if (variant === 'tiled3x3') return { variant, splits: convSplits(engine, variant, dims, direction) };
  return variant === 'subgroup3x3' ? { variant, rows: tileRows(dims.H) } : { variant };
}

/** Whether the kernels of `tiled3x3` have the workgroup memory that they take: a device opened with default limits has not. */
const hasRoom3x3 = ({ device }: Engine): boolean => [conv2d_3x3_tiled, conv2d_backward_weight_3x3_tiled].every(({ workgroupBytes }) => workgroupBytes <= device.limits.maxComputeWorkgroupStorageSize);

/** Whether this device computes the shape so. The choice may come from a file. */
function takes(engine: Engine, dims: ConvDims, direction: ConvDirection, { variant, rows, tile, splits, ...rest }: Choice): boolean {
  const fours = dims.C % 4 === 0 && dims.O % 4 === 0, lanes = isLanes(engine.subgroupWidth);
  const can = { plain: true, padded: !fours, tiled: fours, subgroup: fours && lanes, subgroup3x3: fours && lanes && keepsSize3x3(dims), tiled3x3: fours && hasRoom3x3(engine) && keepsSize3x3(dims) };
  if (!Object.hasOwn(can, variant!) || !can[variant as ConvVariant] || Object.keys(rest).length) return false;
  const rowsOk = rows === undefined || (ROWS as readonly unknown[]).includes(rows);
  const tileOk = tile === undefined || (direction !== 'weight' && (variant === 'tiled' || variant === 'tiled3x3') && (GEMM_TILES as readonly unknown[]).includes(tile));
  const most = direction === 'weight' ? 4096 : variant === 'tiled3x3' ? 64 : 0;
  const splitsOk = splits === undefined || (Number.isInteger(splits) && splits as number >= 1 && splits as number <= most);
  return rowsOk && tileOk && splitsOk;
}

function usual(engine: Engine, dims: ConvDims, direction: ConvDirection): ConvVariant {
  const { narrow, conv3x3, conv } = DEFAULTS[engine.deviceClass];
  const variant = (dims.C % 4 || dims.O % 4 ? narrow : keepsSize3x3(dims) ? conv3x3 : conv)[direction];
  return variant === 'tiled3x3' && !hasRoom3x3(engine) ? 'tiled' : variant;
}

const OPS = { forward: 'conv2d_forward', input: 'conv2d_backward_input', weight: 'conv2d_backward_weight' } as const;

/** How this engine computes a convolution or one of its gradients in float32. */
export function floatChoice(engine: Engine, dims: ConvDims, direction: ConvDirection): FloatChoice {
  const { N, H, W, C, OH, OW, O, KH, KW, stride, pad_top, pad_left } = dims, sizes = { H, W, OH, OW }, kernel = { C, O, KH, KW, stride, pad_top, pad_left };
  // The images of a batch, or the pixels that a 1 x 1 convolution takes for rows, are only a matter of how many there are; but a sum over them is split by their number.
  const rows = KH === 1 && KW === 1 && stride === 1 && pad_top === 0 && pad_left === 0;
  const [shape, at] = direction === 'weight' ? [{ N, ...sizes, ...kernel }, {}] : rows ? [kernel, { N, ...sizes }] : [{ ...sizes, ...kernel }, { N }];
  return engine.choices.of<FloatChoice>(OPS[direction], shape, at, () => whole(engine, usual(engine, dims, direction), dims, direction), (choice) => takes(engine, dims, direction, choice));
}

/** Channels that kernels take: multiples of so many. Those for tensor cores read eight float16 at a time. */
export const channelsAtATime = (engine: Engine): 4 | 8 => (engine.half.has(HALF.conv.subgroup_matrix.name) && engine.half.has(HALF.weight.subgroup_matrix.name) ? 8 : 4);

/** How this engine computes it: the same, with float16 factors where there is a GEMM that takes them. */
export function convChoice(engine: Engine, dims: ConvDims, direction: ConvDirection): ConvChoice {
  const choice = floatChoice(engine, dims, direction), { C, O, WC, C0, KH, KW } = dims, cores = [C, O, WC, C0].every((channels) => channels % 8 === 0) && Math.max(KH, KW) <= 16;
  const half = halfVariant(engine, direction === 'weight' ? 'weight' : 'conv', cores);
  if (!half || choice.variant === 'plain' || choice.variant === 'padded') return choice;
  return half === 'subgroup_matrix' && direction !== 'weight' ? { variant: half, splits: convSplits(engine, half, dims, direction) } : { variant: half, ...(direction !== 'weight' && choice.tile && { tile: choice.tile }) };
}

/** What is worth measuring for a shape on this device. */
export function convCandidates(engine: Engine, dims: ConvDims, direction: ConvDirection): ConvChoice[] {
  const most = Math.max(1, Math.floor((dims.N * dims.OH * dims.OW) / 64));
  const each = (variant: ConvVariant): ConvChoice[] => {
    if (variant === 'padded') return [{ variant }];
    if (direction !== 'weight') {
      const tilings = engine.deviceClass === 'gpu' ? GEMM_TILES.map((tile) => ({ ...whole(engine, variant, dims, direction), tile })) : [];
      if (variant === 'subgroup3x3') return ROWS.map((rows) => ({ variant, rows }));
      if (variant === 'tiled3x3') return [...[1, 2, 4, 8].map((splits) => ({ variant, splits })), ...tilings];
      return variant === 'tiled' ? [{ variant }, ...tilings] : [{ variant }];
    }
    const usually = weightSplits(variant, dims, subgroupKernels(engine).columns), counts = [1, usually / 2, usually, 2 * usually, 4 * usually].map((count) => Math.max(1, Math.min(most, Math.round(count))));
    return [...new Set(counts)].map((splits) => ({ variant, splits }));
  };
  return CONV_VARIANTS.flatMap(each).filter((choice) => takes(engine, dims, direction, choice));
}
