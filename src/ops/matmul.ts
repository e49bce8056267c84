// Batched products of matrices in strides: which kernel computes one on a device, and how it is launched.
import { isLanes } from '../gpu/device-class.ts';
import type { Engine } from '../gpu/engine.ts';
import { grid, type Slice } from '../gpu/kernel.ts';
import * as k from '../gpu/kernels.gen.ts';
import { DEFAULTS, type HalfVariant, type MatmulVariant } from '../variants.ts';
import { Columns } from './columns.ts';
import { type CoreTile, coreTile, HALF, halfVariant } from './half.ts';
import { subgroupKernels } from './subgroup_kernels.ts';
import { type SubgroupTiles, subgroupTile, tiles } from './tiles.ts';

/** One operand of a batched product: where its rows, images and heads lie, in elements. */
export interface Operand {
  readonly slice: Slice;
  /** Elements from row to row as stored. */
  readonly ld: number;
  /** Elements from image to image and from head to head. */
  readonly outer: number;
  readonly inner: number;
  readonly transposed?: boolean;
}

/** Through workgroup memory, and the side of a workgroup's tile. */
const TILED = {
  tiled: { kernel: k.matmul, side: 32 }, tiled64: { kernel: k.matmul_64, side: 64 }, tiled_f16: { kernel: HALF.matmul.tiled_f16, side: 32 }, tiled64_f16: { kernel: k.matmul_64_f16, side: 64 },
} as const;

type Sizes = Readonly<Record<string, number>>;

/** Whether `tiled64` is worth its larger tiles. */
const fills64 = (M: number, N: number): boolean => Math.min(M, N) > 32;

/** C (M, N) = alpha op(A) (M, K) op(B) (K, N) (+ C) for `batch` matrices, of which `inner` share an image. No gradient. */
export function matmul(engine: Engine, M: number, N: number, K: number, a: Operand, b: Operand, c: Operand, options: { alpha?: number; batch?: number; inner?: number; accumulate?: 0 | 1; variant?: MatmulVariant | HalfVariant; tile?: CoreTile } = {}): void {
  const { alpha = 1, batch = 1, inner = 1, accumulate = 0 } = options;
  const dims = {
    M, N, K, batch, inner, alpha, accumulate, lda: a.ld, ldb: b.ld, ldc: c.ld,
    outer_a: a.outer, outer_b: b.outer, outer_c: c.outer, inner_a: a.inner, inner_b: b.inner, inner_c: c.inner,
  }, args = { ...dims, a: a.slice, b: b.slice, c: c.slice };
  const transposed = [Number(!!a.transposed), Number(!!b.transposed)] as const;
  const variant = options.variant ?? halfMatmul(engine, dims) ?? matmulVariant(engine, a, b, c, { M, N, K, batch, inner });
  if (variant === 'rounded') {
    const copies = new Columns(engine), rounded = (operand: Operand): Operand => ({ ...operand, slice: copies.rounded(operand.slice) });
    matmul(engine, M, N, K, rounded(a), rounded(b), c, { ...options, variant: matmulVariant(engine, a, b, c, { M, N, K, batch, inner }) });
    copies.free();
  } else if (variant === 'subgroup_matrix') {
    const TILE = options.tile ?? coreTile(engine, Math.min(M, N) > 64 ? 128 : 64);
    engine.run(k.matmul_subgroup_matrix, grid(tiles(M, N, TILE, TILE) * batch), { ...args, TILE, TRANS_A: transposed[0], TRANS_B: transposed[1] });
  } else if (variant !== 'subgroup') {
    const { kernel, side } = TILED[variant === 'tiled_f16' && fills64(M, N) && matmulTakes(engine, dims).tiled64 ? 'tiled64_f16' : variant];
    engine.run(kernel, grid(tiles(M, N, side, side) * batch), { ...args, trans_a: transposed[0], trans_b: transposed[1] });
  } else {
    const { matmul: kernel, lanes } = subgroupKernels(engine), { R, Q } = subgroupTile(MATMUL_TILES, M, N, batch, lanes);
    engine.run(kernel, grid(tiles(M, N, lanes * R, 4 * Q) * batch), { ...args, R, Q, TRANS_A: transposed[0], TRANS_B: transposed[1] });
  }
}

/** Tiles of the kernel `matmul_subgroup`. */
export const MATMUL_TILES: SubgroupTiles = [{ R: 8, Q: 16, cost: 1 }, { R: 4, Q: 16, cost: 1.12 }, { R: 8, Q: 8, cost: 1.22 }, { R: 4, Q: 8, cost: 1.25 }, { R: 4, Q: 4, cost: 1.35 }];

/** Which kernels can compute a product of such sizes and strides in float32 here. */
export function matmulTakes(engine: Pick<Engine, 'subgroupWidth'>, { N, ...strides }: Sizes): Readonly<Record<MatmulVariant, boolean>> {
  const aligned = (['a', 'b', 'c'] as const).every((which) => [`ld${which}`, `outer_${which}`, `inner_${which}`].every((name) => strides[name]! % 4 === 0));
  const room = N! % 4 === 0 || strides['ldc']! > N!; // what a row's last vec4 holds beyond the matrix is written as well
  return { tiled: true, tiled64: aligned, subgroup: isLanes(engine.subgroupWidth) && aligned && room };
}

/** How this engine computes it with float16 factors, or null. On tensor cores in whole vec4s: what a row's last one holds beyond the matrix is written as well. */
function halfMatmul(engine: Engine, dims: Sizes & { readonly N: number; readonly ldc: number }): HalfVariant | null {
  const variant = halfVariant(engine, 'matmul');
  if (variant !== 'subgroup_matrix' || (matmulTakes(engine, dims).tiled64 && (dims.N % 4 === 0 || dims.ldc > dims.N))) return variant;
  return engine.half.has(HALF.matmul.tiled_f16.name) ? 'tiled_f16' : null;
}

/** How this engine computes a product of such operands in float32. */
function matmulVariant(engine: Engine, a: Operand, b: Operand, c: Operand, sizes: { readonly M: number; readonly N: number; readonly K: number; readonly batch: number; readonly inner: number }): MatmulVariant {
  const { batch, ...shape } = {
    ...sizes, trans_a: Number(!!a.transposed), trans_b: Number(!!b.transposed), lda: a.ld, ldb: b.ld, ldc: c.ld,
    outer_a: a.outer, outer_b: b.outer, outer_c: c.outer, inner_a: a.inner, inner_b: b.inner, inner_c: c.inner,
  };
  const can = matmulTakes(engine, shape), worth = (variant: MatmulVariant) => can[variant] && (variant !== 'tiled64' || fills64(sizes.M, sizes.N));
  return engine.choices.of(
    'matmul', shape, { batch }, () => ({ variant: DEFAULTS[engine.deviceClass].matmul.find(worth)! }), ({ variant, ...rest }) => Object.hasOwn(can, variant!) && can[variant as MatmulVariant] && !Object.keys(rest).length,
  ).variant;
}
