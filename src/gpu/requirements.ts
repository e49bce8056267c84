// What to ask an adapter for before the device exists, and what a device that somebody else opened must have.
import { DdpmError } from '../errors.ts';

/** Limits the engine makes use of: the adapter's own, since a larger binding means fewer chunks. */
const LIMITS = [
  'maxBufferSize', 'maxStorageBufferBindingSize', 'maxStorageBuffersPerShaderStage', 'maxComputeWorkgroupStorageSize', 'maxComputeInvocationsPerWorkgroup', 'maxComputeWorkgroupSizeX',
] as const;

/** Dawn's name, until browsers have the one of the draft, subgroup-matrix. */
export const SUBGROUP_MATRIX = 'chromium-experimental-subgroup-matrix' as GPUFeatureName;

/** Whether an adapter multiplies matrices of 16 x 16, float16 by float16 into float32, as the subgroup matrix kernels do (tensor cores). */
export function multipliesMatrices(info: Partial<GPUAdapterInfo>): boolean {
  const { subgroupMatrixConfigs = [] } = info as { readonly subgroupMatrixConfigs?: readonly { readonly componentType: string; readonly resultComponentType: string; readonly M: number; readonly N: number; readonly K: number }[] };
  return [...subgroupMatrixConfigs].some((c) => c.componentType === 'f16' && c.resultComponentType === 'f32' && c.M === 16 && c.N === 16 && c.K === 16);
}

const FEATURES = ['subgroups'] as const satisfies readonly GPUFeatureName[];

/**
 * Merge the result into your own `requestDevice` call: `{ requiredLimits, requiredFeatures }`. Without it a device has WebGPU's default limits, which are enough for small models.
 * With the precision `f16` it asks for what that needs, where the adapter has it; `usePrecision` then turns it on.
 */
export function engineRequirements(adapter: GPUAdapter, { precision = 'f32' }: { precision?: 'f32' | 'f16' } = {}): { requiredLimits: Record<string, number>; requiredFeatures: GPUFeatureName[] } {
  const requiredLimits: Record<string, number> = {};
  for (const name of LIMITS) requiredLimits[name] = adapter.limits[name];
  const wanted: readonly GPUFeatureName[] = precision === 'f16' ? [...FEATURES, 'shader-f16', ...(multipliesMatrices(adapter.info ?? {}) ? [SUBGROUP_MATRIX] : [])] : FEATURES;
  return { requiredLimits, requiredFeatures: wanted.filter((f) => adapter.features.has(f)) };
}

/** Numbers of a device's limits that something needs. */
export type Needs = { readonly [N in (typeof LIMITS)[number] | 'maxUniformBuffersPerShaderStage' | 'maxBindingsPerBindGroup']?: number };

/** What the kernels need, whatever the model: WebGPU's defaults, below which only devices in compatibility mode are. */
export const LEAST: Needs = {
  maxStorageBuffersPerShaderStage: 8, maxUniformBuffersPerShaderStage: 1, maxBindingsPerBindGroup: 9,
  maxComputeInvocationsPerWorkgroup: 256, maxComputeWorkgroupSizeX: 256, maxComputeWorkgroupStorageSize: 16384,
};

/** Throws E-LIMIT with a list of every limit of the device that is below what `what` needs. */
export function requireLimits(device: GPUDevice, needs: Needs, what: string): void {
  const missing = Object.entries(needs).filter(([name, need]) => device.limits[name as keyof Needs] < need);
  if (missing.length === 0) return;
  const list = missing.map(([name, need]) => `\n  ${name}: ${need} needed, the device has ${device.limits[name as keyof Needs]}`).join('');
  throw new DdpmError('E-LIMIT', `${what} needs more than this device allows:${list}\nWhere the adapter offers more, ask for it: adapter.requestDevice(engineRequirements(adapter)).`);
}
