// Bind groups of eager calls. A loop of them gets the same buffers from the pool again and again, so that its bind groups are kept: made anew each time they cost ten
// microseconds, and a driver runs out of room for them where nothing is awaited and so nothing collected.
import type { Pipeline } from './pipelines.ts';

/** How many are kept. */
const MOST = 8192;

/** A new bind group, its resources in the order of the shader's bindings. */
export const makeBindGroup = (device: GPUDevice, pipeline: Pipeline, resources: readonly GPUBufferBinding[]): GPUBindGroup =>
  device.createBindGroup({ label: pipeline.label, layout: pipeline.layout, entries: resources.map((resource, binding) => ({ binding, resource })) });

export class BindGroups {
  readonly #make: (pipeline: Pipeline, resources: readonly GPUBufferBinding[]) => GPUBindGroup;
  readonly #groups = new Map<string, GPUBindGroup>();
  readonly #ids = new WeakMap<GPUBuffer, number>();
  #nextId = 0;

  constructor(make: (pipeline: Pipeline, resources: readonly GPUBufferBinding[]) => GPUBindGroup) {
    this.#make = make;
  }

  get(pipeline: Pipeline, resources: readonly GPUBufferBinding[]): GPUBindGroup {
    const key = `${pipeline.label} ${resources.map(({ buffer, offset, size }) => `${this.#id(buffer)}+${offset}:${size}`).join()}`;
    let group = this.#groups.get(key);
    if (!group) {
      if (this.#groups.size >= MOST) this.#groups.clear();
      this.#groups.set(key, (group = this.#make(pipeline, resources)));
    }
    return group;
  }

  #id(buffer: GPUBuffer): number {
    let id = this.#ids.get(buffer);
    if (id === undefined) this.#ids.set(buffer, (id = this.#nextId++));
    return id;
  }
}
