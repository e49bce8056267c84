// Which products take float16 factors, and how: the kernels that the self-test of src/ops/precision.ts has seen to be right on this device.
import type { Engine } from '../gpu/engine.ts';
import * as k from '../gpu/kernels.gen.ts';
import type { HalfVariant } from '../variants.ts';

/** The kernels whose factors are float16, by product; tensor cores first. */
export const HALF = {
  conv: { subgroup_matrix: k.conv2d_subgroup_matrix, tiled_f16: k.conv2d_tiled_f16 },
  weight: { subgroup_matrix: k.conv2d_backward_weight_subgroup_matrix, tiled_f16: k.conv2d_backward_weight_tiled_f16 },
  matmul: { subgroup_matrix: k.matmul_subgroup_matrix, tiled_f16: k.matmul_f16 },
} as const;

/** How this engine computes a GEMM with float16 factors; null where it stays float32. `cores`: whether tensor cores take the shape. */
export function halfVariant({ deviceClass, half }: Engine, product: keyof typeof HALF, cores = true): HalfVariant | null {
  if (deviceClass !== 'gpu') return half.has(k.round_half.name) ? 'rounded' : null;
  return (cores ? (['subgroup_matrix', 'tiled_f16'] as const) : (['tiled_f16'] as const)).find((variant) => half.has(HALF[product][variant].name)) ?? null;
}

/** Whether convolutions read their weights as float16: a network then rounds all at once. */
export const readsRounded = ({ half }: Engine): boolean => half.has(HALF.conv.subgroup_matrix.name);

/** Side of the square tiles that the kernels for tensor cores compute. */
export type CoreTile = 64 | 128;

/** Bytes of workgroup memory that they take at most for tiles of 128; WebGPU's default is enough for those of 64. */
export const CORE_BYTES = 45056;

/** The tiles that this device was opened with room for. */
export const coreTiles = ({ device }: Engine): readonly CoreTile[] => (device.limits.maxComputeWorkgroupStorageSize < CORE_BYTES ? [64] : [64, 128]);

/** The tile that is wanted, or the smaller one where there is no room for it: either way all is added in the same order. */
export const coreTile = (engine: Engine, wanted: CoreTile): CoreTile => (coreTiles(engine).includes(wanted) ? wanted : 64);
