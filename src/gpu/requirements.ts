// What to ask an adapter for before the device exists.

/** Limits the engine makes use of: the adapter's own, since a larger binding means fewer chunks. */
const LIMITS = [
  'maxBufferSize', 'maxStorageBufferBindingSize', 'maxStorageBuffersPerShaderStage', 'maxComputeWorkgroupStorageSize', 'maxComputeInvocationsPerWorkgroup', 'maxComputeWorkgroupSizeX',
] as const;

const FEATURES = ['subgroups'] as const satisfies readonly GPUFeatureName[];

/** Merge the result into your own `requestDevice` call: `{ requiredLimits, requiredFeatures }`. */
export function engineRequirements(adapter: GPUAdapter): { requiredLimits: Record<string, number>; requiredFeatures: GPUFeatureName[] } {
  const requiredLimits: Record<string, number> = {};
  for (const name of LIMITS) requiredLimits[name] = adapter.limits[name];
  return { requiredLimits, requiredFeatures: FEATURES.filter((f) => adapter.features.has(f)) };
}
