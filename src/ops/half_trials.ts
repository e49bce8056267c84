// Small products of two factors, ragged in every tile: what the self-tests of float16 run on a kernel before it may be chosen.
import type { Engine } from '../gpu/engine.ts';
import type { Slice } from '../gpu/kernel.ts';
import type { HalfVariant } from '../variants.ts';
import type { ConvChoice, ConvDims, GemmTile } from './conv2d_choice.ts';
import { backwardInput, backwardWeight, forward, forwardTwo } from './conv2d_kernels.ts';
import type { CoreTile } from './half.ts';
import { matmul } from './matmul.ts';

/** What is tried, and `tiled`, which it is held against. */
export type Variant = 'tiled' | HalfVariant;

/** A small product of two factors, computed by a variant. */
export interface ProductTrial {
  readonly what: string;
  /** Values of the factors and of the result. */
  readonly sizes: readonly [a: number, b: number, y: number];
  /** Which of these are activations or their gradients, not a weight or its gradient. */
  readonly activations: readonly [a: boolean, b: boolean, y: boolean];
  readonly run: (engine: Engine, variant: Exclude<Variant, 'rounded'>, a: Slice, b: Slice, y: Slice) => void;
}

/** `tile`: of the kernels for tensor cores, which have two; `gemm`: of the others' convolutions. */
type Tile = { readonly tile?: CoreTile; readonly gemm?: GemmTile };

/** Ragged in every tile, and over the border of the largest; tensor cores take multiples of eight channels. */
function shape(cores: boolean): { readonly dims: ConvDims; readonly X: number; readonly W: number; readonly Y: number } {
  const [C, O] = cores ? [40, 136] : [36, 132];
  return {
    dims: { N: 3, H: 9, W: 7, C, OH: 9, OW: 7, O, KH: 3, KW: 3, stride: 1, pad_top: 1, pad_left: 1, WC: C, C0: 0, has_bias: 0, has_per_image: 0, has_residual: 0, accumulate: 0, splits: 1 },
    X: 3 * 9 * 7 * C, W: 9 * C * O, Y: 3 * 9 * 7 * O,
  };
}
/** What is given where nothing is added. */
const none = (x: Slice, w: Slice) => ({ bias: w, per_image: w, residual: x });

const conv = ({ tile, gemm }: Tile): readonly ProductTrial[] => {
  const { dims, X, W, Y } = shape(!!tile), activations = [true, false, true] as const;
  const of = (variant: Exclude<Variant, 'rounded'>): ConvChoice => {
    const side = { subgroup_matrix: tile, tiled_f16: gemm, tiled: undefined }[variant];
    return { variant, ...(side && { tile: side }) };
  };
  return [
    { what: 'conv2d', sizes: [X, W, Y], activations, run: (engine, variant, x, w, y) => forward(engine, { ...dims, x, w, y, ...none(x, w) }, of(variant)) },
    // The same pixels twice, as half of the channels each.
    { what: 'conv2d of two inputs', sizes: [X, 2 * W, Y], activations, run: (engine, variant, x, w, y) => forwardTwo(engine, { ...dims, WC: 2 * dims.C, x, w, y, ...none(x, w) }, x, variant, of(variant).tile) },
    { what: 'gradient by the input', sizes: [Y, W, X], activations, run: (engine, variant, dy, w, dx) => backwardInput(engine, dims, dy, w, { slice: dx, accumulate: 0 }, of(variant)) },
  ];
};
const weight = ({ tile }: Tile): readonly ProductTrial[] => {
  const { dims, X, W, Y } = shape(!!tile);
  return [{
    what: 'gradient by the weight', sizes: [X, Y, W], activations: [true, true, false],
    run: (engine, variant, x, dy, dw) => backwardWeight(engine, dims, x, dy, { slice: dw, accumulate: 0 }, null, tile && variant === 'subgroup_matrix' ? { variant, tile } : { variant }),
  }];
};
// The last are of whole vec4s, which plain float16 has a kernel of its own for, and tensor cores no other.
const product = ({ tile }: Tile): readonly ProductTrial[] =>
  ([[66, 70, false, false], [66, 70, false, true], [66, 70, true, false], [68, 72, false, false], [68, 72, false, true], [68, 72, true, false], [68, 72, true, true]] as const).slice(tile ? 3 : 0).map(([M, N, first, second]) => ({
    what: `product${first && second ? ', both turned' : first ? ', the first turned' : second ? ', the second turned' : ''}`,
    sizes: [2 * M * 52, 2 * 52 * N, 2 * M * N], activations: [true, true, true],
    run: (engine, variant, a, b, c) => {
      const operand = (slice: Slice, ld: number, outer: number, transposed = false) => ({ slice, ld, outer, inner: 0, transposed });
      matmul(engine, M, N, 52, operand(a, first ? M : 52, M * 52, first), operand(b, second ? 52 : N, 52 * N, second), operand(c, N, M * N), { batch: 2, variant, ...(tile && { tile }) });
    },
  }));

/** Trials of each product, in such tiles; with `tile` those of tensor cores. */
export const productTrials = (tile: Tile = {}) => ({ conv: conv(tile), weight: weight(tile), matmul: product(tile) }) as const;
