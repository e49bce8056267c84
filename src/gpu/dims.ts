// Where kernels' dims lie: in one uniform buffer, each distinct set once. They never change, so plans and eager calls share them.
import { USAGE } from './constants.ts';
import { type Kernel, packDims } from './kernel.ts';

const BYTES = 65536;

export class Dims {
  readonly #device: GPUDevice;
  readonly #bindings = new Map<string, GPUBufferBinding>();
  readonly #buffers: GPUBuffer[] = [];
  #next = BYTES;

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** The binding of a kernel's dims, whose values `number` gives by name. */
  get(kernel: Kernel, number: (name: string) => number): GPUBufferBinding {
    const key = Object.entries(kernel.dims).map(([name, type]) => type[0]! + number(name)).join();
    let binding = this.#bindings.get(key);
    if (!binding) {
      const data = packDims(kernel, number), size = data.byteLength, alignment = this.#device.limits.minUniformBufferOffsetAlignment;
      if (this.#next + size > BYTES) {
        this.#buffers.push(this.#device.createBuffer({ label: 'dims', size: BYTES, usage: USAGE.UNIFORM | USAGE.COPY_DST }));
        this.#next = 0;
      }
      const buffer = this.#buffers.at(-1)!;
      this.#device.queue.writeBuffer(buffer, this.#next, data);
      this.#bindings.set(key, (binding = { buffer, offset: this.#next, size }));
      this.#next += Math.ceil(size / alignment) * alignment;
    }
    return binding;
  }

  destroy(): void {
    for (const buffer of this.#buffers) buffer.destroy();
  }
}
