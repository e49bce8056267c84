// One kernel on anybody's buffers, without an engine: a pipeline, a bind group, a dispatch.
import { DdpmError } from '../errors.ts';
import { USAGE } from './constants.ts';
import { type Grid, type Kernel, packDims } from './kernel.ts';
import { Pipelines } from './pipelines.ts';

/** A buffer for every binding, a number for every override and every field of dims; overrides with a default may be left out. */
export type BufferArgs<K extends Kernel> = { readonly [N in keyof K['bindings']]: GPUBuffer | GPUBufferBinding } & { readonly [N in keyof K['overrides'] | keyof K['dims']]: number } & {
  readonly [N in keyof K['optional']]?: number;
};

const cache = new WeakMap<GPUDevice, Pipelines>();

/**
 * Records kernel<<<grid>>>(args) into a compute pass of the caller's, or into an encoder, in a pass of its own. Nothing is submitted. The pipeline is compiled at
 * the first call and kept with the device. Throws E-KERNEL where an argument is missing, E-LIMIT where the kernel needs a feature, such as subgroups, and the device has it not.
 */
export function dispatch<K extends Kernel>(device: GPUDevice, into: GPUCommandEncoder | GPUComputePassEncoder, kernel: K, [x, y = 1, z = 1]: Grid, args: BufferArgs<K>): void {
  const given = args as unknown as Readonly<Record<string, GPUBuffer | GPUBufferBinding | number | undefined>>;
  const number = (name: string): number => {
    const value = given[name];
    if (typeof value !== 'number') throw new DdpmError('E-KERNEL', `${kernel.name}: ${name} must be a number.`);
    return value;
  };
  const constants: Record<string, number> = {};
  for (const name of [...Object.keys(kernel.overrides), ...Object.keys(kernel.optional).filter((n) => given[n] !== undefined)]) constants[name] = number(name);
  const resources = Object.keys(kernel.bindings).map((name): GPUBufferBinding => {
    const value = given[name];
    if (typeof value !== 'object') throw new DdpmError('E-KERNEL', `${kernel.name}: binding ${name} is missing.`);
    return 'usage' in value ? { buffer: value } : value;
  });
  if (Object.keys(kernel.dims).length) {
    const data = packDims(kernel, number);
    const buffer = device.createBuffer({ label: 'dims', size: data.byteLength, usage: USAGE.UNIFORM, mappedAtCreation: true });
    new Uint8Array(buffer.getMappedRange()).set(new Uint8Array(data));
    buffer.unmap();
    resources.push({ buffer });
  }
  let pipelines = cache.get(device);
  if (!pipelines) cache.set(device, (pipelines = new Pipelines(device)));
  const pipeline = pipelines.get(kernel, constants);
  const pass = 'dispatchWorkgroups' in into ? into : into.beginComputePass({ label: pipeline.label });
  pass.setPipeline(pipelines.now(pipeline));
  pass.setBindGroup(0, device.createBindGroup({ label: pipeline.label, layout: pipeline.layout, entries: resources.map((resource, binding) => ({ binding, resource })) }));
  pass.dispatchWorkgroups(x, y, z);
  if (pass !== into) pass.end();
}
