// A device of paper: it has the limits and features of a real one, allocates nothing and computes nothing. A plan captured on it tells what it would launch and hold.

/** What an engine asks of a device while it captures; anything else is missing, and throws. */
export function paperDevice({ limits, features, adapterInfo }: Pick<GPUDevice, 'limits' | 'features'> & { adapterInfo?: GPUAdapterInfo }): GPUDevice {
  const buffer = ({ size }: GPUBufferDescriptor) => ({ size, destroy: () => {} });
  const paper = {
    limits, features, adapterInfo,
    lost: new Promise(() => {}),
    queue: { writeBuffer: () => {}, submit: () => {}, onSubmittedWorkDone: async () => {} },
    addEventListener: () => {},
    createBuffer: buffer,
    createBindGroup: () => ({}),
    createBindGroupLayout: () => ({}),
    // Eager commands, such as the clearing of parameters, go nowhere.
    createPipelineLayout: () => ({}),
    createShaderModule: () => ({}),
    createComputePipeline: () => ({}),
    createCommandEncoder: () => ({
      beginComputePass: () => ({ setPipeline: () => {}, setBindGroup: () => {}, dispatchWorkgroups: () => {}, end: () => {} }),
      copyBufferToBuffer: () => {}, clearBuffer: () => {}, finish: () => ({}),
    }),
  };
  return paper as unknown as GPUDevice;
}
