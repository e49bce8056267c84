// The kernels that spread values within a subgroup, in the widths that they are written for.
import { isLanes } from '../gpu/device-class.ts';
import type { Engine } from '../gpu/engine.ts';
import * as k from '../gpu/kernels.gen.ts';

const KERNELS = {
  4: { conv: k.conv2d_subgroup_lanes4, conv3x3: k.conv2d_3x3_subgroup_lanes4, weight: k.conv2d_backward_weight_subgroup_lanes4, weight3x3: k.conv2d_backward_weight_3x3_subgroup_lanes4, matmul: k.matmul_subgroup_lanes4 },
  8: { conv: k.conv2d_subgroup, conv3x3: k.conv2d_3x3_subgroup, weight: k.conv2d_backward_weight_subgroup, weight3x3: k.conv2d_backward_weight_3x3_subgroup, matmul: k.matmul_subgroup },
} as const;

/** Those of this device, and its lanes. Where it has other subgroups nothing launches them, and what is counted of them on the way counts eight. */
export function subgroupKernels({ subgroupWidth }: Pick<Engine, 'subgroupWidth'>): { readonly lanes: 4 | 8 } & (typeof KERNELS)[4 | 8] {
  const lanes = isLanes(subgroupWidth) ? subgroupWidth : 8;
  return { lanes, ...KERNELS[lanes] };
}
