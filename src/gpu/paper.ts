// A device of paper: it allocates nothing and computes nothing. A plan captured on it tells what it would launch and hold, whatever the machine.

const LIMITS = {
  maxBufferSize: 2 ** 40, maxStorageBufferBindingSize: 2 ** 40, maxStorageBuffersPerShaderStage: 8, maxUniformBuffersPerShaderStage: 1, maxBindingsPerBindGroup: 16,
  maxComputeWorkgroupStorageSize: 32768, maxComputeInvocationsPerWorkgroup: 256, maxComputeWorkgroupSizeX: 256, maxComputeWorkgroupsPerDimension: 65535,
  minUniformBufferOffsetAlignment: 256,
};

/** What an engine asks of a device until it computes. Memory has no limit; with a subgroup width, an adapter's names, features and workgroup memory it chooses the kernels of a device that has them. */
export function paperDevice(
  subgroupWidth = 0, info: Partial<GPUAdapterInfo> = {}, features: Iterable<string> = subgroupWidth ? ['subgroups'] : [],
  { maxComputeWorkgroupStorageSize }: Pick<GPUSupportedLimits, 'maxComputeWorkgroupStorageSize'> = LIMITS,
): GPUDevice {
  const nothing = () => ({});
  const paper = {
    limits: { ...LIMITS, maxComputeWorkgroupStorageSize },
    features: new Set(features),
    adapterInfo: { vendor: info.vendor, architecture: info.architecture, device: info.device, description: info.description, isFallbackAdapter: info.isFallbackAdapter ?? false, subgroupMinSize: subgroupWidth, subgroupMaxSize: subgroupWidth },
    lost: new Promise(() => {}),
    queue: { writeBuffer: nothing, submit: nothing, onSubmittedWorkDone: async () => {} },
    addEventListener: nothing, pushErrorScope: nothing, popErrorScope: async () => null,
    createBuffer: ({ size }: GPUBufferDescriptor) => ({ size, destroy: nothing }),
    createBindGroup: nothing, createBindGroupLayout: nothing, createPipelineLayout: nothing, createShaderModule: nothing, createComputePipeline: nothing,
    // Eager commands, such as the clearing of parameters, go nowhere.
    createCommandEncoder: () => ({
      beginComputePass: () => ({ setPipeline: nothing, setBindGroup: nothing, dispatchWorkgroups: nothing, end: nothing }),
      copyBufferToBuffer: nothing, clearBuffer: nothing, finish: nothing,
    }),
  };
  return paper as unknown as GPUDevice;
}
