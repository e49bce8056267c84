// Where kernels' dims lie: in one uniform buffer, each distinct set once; and longer tables of numbers. They never change, so plans and eager calls share them.
import { USAGE } from './constants.ts';
import { type Kernel, packDims, type Slice } from './kernel.ts';

const BYTES = 65536;

export class Dims {
  readonly #device: GPUDevice;
  readonly #bindings = new Map<string, GPUBufferBinding>();
  readonly #tables = new Map<string, Slice>();
  readonly #buffers: GPUBuffer[] = [];
  #uniform: GPUBuffer | null = null;
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
        this.#uniform = this.#buffer(BYTES, USAGE.UNIFORM);
        this.#next = 0;
      }
      const buffer = this.#uniform!;
      this.#device.queue.writeBuffer(buffer, this.#next, data);
      this.#bindings.set(key, (binding = { buffer, offset: this.#next, size }));
      this.#next += Math.ceil(size / alignment) * alignment;
    }
    return binding;
  }

  /** A slice that holds the numbers. */
  table(numbers: Uint32Array<ArrayBuffer>): Slice {
    const key = numbers.join();
    let slice = this.#tables.get(key);
    if (!slice) {
      const buffer = this.#buffer(Math.ceil(numbers.byteLength / 16) * 16, USAGE.STORAGE);
      this.#device.queue.writeBuffer(buffer, 0, numbers);
      this.#tables.set(key, (slice = { buffer, offset: 0, bytes: numbers.byteLength }));
    }
    return slice;
  }

  #buffer(size: number, usage: number): GPUBuffer {
    const buffer = this.#device.createBuffer({ label: 'dims', size, usage: usage | USAGE.COPY_DST });
    this.#buffers.push(buffer);
    return buffer;
  }

  destroy(): void {
    for (const buffer of this.#buffers) buffer.destroy();
  }
}
