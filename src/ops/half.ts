// Which products take float16 factors, and how: the kernels that the self-test of src/ops/precision.ts has seen to be right on this device.
import type { Engine } from '../gpu/engine.ts';
import * as k from '../gpu/kernels.gen.ts';
import type { HalfVariant } from '../variants.ts';

/** The kernels whose factors are float16. */
export const HALF = {
  conv: { tiled_f16: k.conv2d_tiled_f16 },
  weight: { tiled_f16: k.conv2d_backward_weight_tiled_f16 },
  matmul: { tiled_f16: k.matmul_f16 },
} as const;

/** How this engine computes a GEMM with float16 factors; null where it stays float32. */
export function halfVariant({ deviceClass, half }: Engine, product: keyof typeof HALF): HalfVariant | null {
  if (deviceClass !== 'gpu') return half.has(k.round_half.name) ? 'rounded' : null;
  return half.has(HALF[product].tiled_f16.name) ? 'tiled_f16' : null;
}
