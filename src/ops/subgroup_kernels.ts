// The kernels that spread values within a subgroup, in the widths that they are written for.
import { isLanes, type Lanes } from '../gpu/device-class.ts';
import type { Engine } from '../gpu/engine.ts';
import * as k from '../gpu/kernels.gen.ts';

const KERNELS = {
  4: { columns: 8, conv: k.conv2d_subgroup_lanes4, conv3x3: k.conv2d_3x3_subgroup_lanes4, weight: k.conv2d_backward_weight_subgroup_lanes4, weight3x3: k.conv2d_backward_weight_3x3_subgroup_lanes4, matmul: k.matmul_subgroup_lanes4 },
  8: { columns: 16, conv: k.conv2d_subgroup, conv3x3: k.conv2d_3x3_subgroup, weight: k.conv2d_backward_weight_subgroup, weight3x3: k.conv2d_backward_weight_3x3_subgroup, matmul: k.matmul_subgroup },
  16: { columns: 16, conv: k.conv2d_subgroup_lanes16, conv3x3: k.conv2d_3x3_subgroup_lanes16, weight: k.conv2d_backward_weight_subgroup_lanes16, weight3x3: k.conv2d_backward_weight_3x3_subgroup_lanes16, matmul: k.matmul_subgroup_lanes16 },
} as const;

/**
 * Those of this device, its lanes, and the `columns`, output channels, of the smallest tile of a weight's gradient: two a lane, of sixteen one, so that sums are split as those of eight lanes are and both
 * compute the same bits. Where it has other subgroups nothing launches them, and what is counted of them on the way counts eight.
 */
export function subgroupKernels({ subgroupWidth }: Pick<Engine, 'subgroupWidth'>): { readonly lanes: Lanes } & (typeof KERNELS)[Lanes] {
  const lanes = isLanes(subgroupWidth) ? subgroupWidth : 8;
  return { lanes, ...KERNELS[lanes] };
}
