// What kind of device an adapter is, as far as the choice of kernels goes.

/**
 * `gpu`: workgroup memory is fast. `cpu-subgroups`: llvmpipe, whose subgroups, of 8 or, on ARM and x86 without AVX, of 4, or with AVX-512 of 16, are one vector register. `cpu`: a CPU without them, such as
 * llvmpipe on WebGPU's default limits. `swiftshader`: browsers' CPU, whose compiler takes 6 to 9 seconds for a convolution's GEMM with barriers, where the plain kernel takes less than one
 * and runs as fast.
 */
export type DeviceClass = 'gpu' | 'cpu-subgroups' | 'cpu' | 'swiftshader';

/** Whether the adapter is a CPU that plays a GPU (llvmpipe, SwiftShader, WARP): by what it says of itself, since Firefox hides its names, or by its names, since not all say so. */
export const isSoftware = (info: Partial<GPUAdapterInfo>): boolean => !!info.isFallbackAdapter || /llvmpipe|lavapipe|swiftshader|software|basic render/i.test([info.vendor, info.architecture, info.device, info.description].join(' '));

/** Subgroup width when it is one number on this device and the feature is on, else 0. */
export function subgroupWidth({ features, adapterInfo: info }: GPUDevice): number {
  return features.has('subgroups') && info?.subgroupMinSize === info?.subgroupMaxSize ? (info?.subgroupMinSize ?? 0) : 0;
}

/** Widths that the subgroup kernels are written for. */
export type Lanes = 4 | 8 | 16;
export const isLanes = (width: number): width is Lanes => width === 4 || width === 8 || width === 16;

/** No GPU has subgroups of 8 and no other: a browser that hides the adapter's name is found out by them. Of 4 or 16, which may be a GPU's, it must say so. */
export function deviceClass(device: GPUDevice): DeviceClass {
  const info: Partial<GPUAdapterInfo> = device.adapterInfo ?? {};
  if (info.architecture === 'swiftshader') return 'swiftshader';
  const width = subgroupWidth(device);
  if (width === 8 || (isLanes(width) && isSoftware(info))) return 'cpu-subgroups';
  return isSoftware(info) ? 'cpu' : 'gpu';
}
