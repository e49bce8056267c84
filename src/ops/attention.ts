// Scaled dot-product attention over the pixels of an image: GEMM, softmax, GEMM, and their gradients.
import { record } from '../autograd.ts';
import { DdpmError } from '../errors.ts';
import { isLanes } from '../gpu/device-class.ts';
import type { Engine } from '../gpu/engine.ts';
import { BYTES, type Slice, grid } from '../gpu/kernel.ts';
import * as k from '../gpu/kernels.gen.ts';
import { requireShapes, sameShape, Tensor } from '../tensor.ts';
import { DEFAULTS, type HalfVariant, type MatmulVariant } from '../variants.ts';
import { Columns } from './columns.ts';
import { type CoreTile, coreTile, HALF, halfVariant } from './half.ts';
import { subgroupKernels } from './subgroup_kernels.ts';
import { softmaxBackward, softmaxForward } from './softmax.ts';
import { type SubgroupTile, subgroupTile, tiles } from './tiles.ts';

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

/** Workgroups for tiles of `height` x `width` of C. */
/** Tiles of the kernel `matmul_subgroup`. */
export const MATMUL_TILES: readonly [SubgroupTile, ...SubgroupTile[]] = [{ R: 8, Q: 16, cost: 1 }, { R: 4, Q: 16, cost: 1.12 }, { R: 8, Q: 8, cost: 1.22 }, { R: 4, Q: 8, cost: 1.25 }, { R: 4, Q: 4, cost: 1.35 }];

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

/**
 * q, k, v (N, T, C) -> softmax(q k^T / sqrt(C / heads)) v, (N, T, C); head h is channels h C/heads to (h + 1) C/heads - 1 (Vaswani et al., 2017, eq. 1).
 * Throws E-SHAPE where the three differ in shape, or C does not divide into the heads.
 */
export function attention(q: Tensor, key: Tensor, value: Tensor, heads: number): Tensor {
  const { engine } = q;
  const [N, T, C] = q.shape as [number, number, number];
  requireShapes(q.shape.length === 3 && sameShape(q, key) && sameShape(q, value), 'attention', 'q, k and v of one shape (N, T, C)', { q, k: key, v: value });
  if (C % heads) throw new DdpmError('E-SHAPE', `attention: ${C} channels do not divide into ${heads} heads.`);
  const D = C / heads, alpha = 1 / Math.sqrt(D), batch = N * heads;
  const heads_ = (slice: Slice): Operand => ({ slice, ld: C, outer: T * C, inner: D });
  // Rows of the scores start at whole vec4s.
  const ld = 4 * Math.ceil(T / 4);
  const square = (slice: Slice): Operand => ({ slice, ld, outer: heads * T * ld, inner: T * ld });
  const room = (): Slice => engine.allocate(BYTES[q.type] * batch * T * ld, q.type);
  const turned = (operand: Operand): Operand => ({ ...operand, transposed: true });
  const shape = { batch, inner: heads };

  const scores = room(), p = room();
  const y = Tensor.empty(engine, q.shape, q.type);
  matmul(engine, T, T, D, heads_(q.slice), turned(heads_(key.slice)), square(scores), { ...shape, alpha });
  softmaxForward(engine, scores, p, { rows: batch * T, size: T, ld });
  engine.free(scores);
  matmul(engine, T, D, T, square(p), heads_(value.slice), heads_(y.slice), shape);

  return record(
    y,
    [q, key, value],
    (dy, [dq, dk, dv]) => {
      const dp = room(), ds = room();
      matmul(engine, T, T, D, heads_(dy), turned(heads_(value.slice)), square(dp), shape);
      softmaxBackward(engine, p, dp, ds, { rows: batch * T, size: T, ld });
      engine.free(dp);
      if (dq) matmul(engine, T, D, T, square(ds), heads_(key.slice), heads_(dq.slice), { ...shape, alpha, accumulate: dq.accumulate });
      if (dk) matmul(engine, T, D, T, turned(square(ds)), heads_(q.slice), heads_(dk.slice), { ...shape, alpha, accumulate: dk.accumulate });
      engine.free(ds);
      // In the order of the inputs: where two are one tensor, the later one adds to what the earlier one wrote.
      if (dv) matmul(engine, T, D, T, turned(square(p)), heads_(dy), heads_(dv.slice), { ...shape, accumulate: dv.accumulate });
    },
    { saved: [p] },
  );
}
