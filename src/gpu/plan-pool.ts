// The memory of a plan. While it is captured, tensors lie in stand-ins for buffers; when it is whole, and the life of each is known, they are packed.
import { USAGE } from './constants.ts';
import { DdpmError } from '../errors.ts';
import { bury } from './usable.ts';

/** What a tensor occupies: its stand-in, from when to when it lives, and the buffer that it lies in at last. */
interface Room {
  size: number;
  readonly from: number;
  to: number;
}

/** A buffer that is made at the end, and the rooms that take turns in it. */
interface Packed {
  readonly size: number;
  readonly rooms: Room[];
}

/**
 * Rooms whose lives overlap lie in different buffers, all others may share one. The largest is placed first, of equals the longest-lived, each into the smallest
 * buffer that is free all its life ("greedy by size" of Pisarchyk and Lee, Efficient Memory Management for Deep Neural Net Inference, 2020). A buffer is never cut into parts:
 * WebGPU forbids reading one part and writing another in the same dispatch.
 */
export function pack(rooms: readonly Room[]): Packed[] {
  const packed: Packed[] = [];
  for (const room of [...rooms].sort((a, b) => b.size - a.size || b.to - b.from - (a.to - a.from))) {
    const free = packed.findLast(({ rooms: others }) => others.every((o) => o.to < room.from || o.from > room.to));
    if (free) free.rooms.push(room);
    else packed.push({ size: room.size, rooms: [room] });
  }
  return packed;
}

const rounded = (bytes: number): number => 256 * Math.ceil(Math.max(1, bytes) / 256);

/** The interface of Pool during a capture; `build` makes the buffers. */
export class PlanPool {
  readonly #device: GPUDevice;
  readonly #rooms = new Map<GPUBuffer, Room>();
  readonly #live = new Set<GPUBuffer>();
  #buffers: GPUBuffer[] = [];
  #time = 0;
  /** Bytes of the largest tensor; and, once the buffers are built, in use at once at most, and of all buffers. */
  largestBytes = 0;
  peakBytes = 0;
  totalBytes = 0;
  destroyed = false;

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  take(bytes: number): GPUBuffer {
    const size = rounded(bytes), limit = this.#device.limits.maxBufferSize;
    if (size > limit) throw new DdpmError('E-LIMIT', `a tensor needs a buffer of ${size} bytes; this device allows ${limit}. Use a smaller batch size, or request a larger maxBufferSize.`);
    const standIn = { size } as GPUBuffer;
    this.#rooms.set(standIn, { size, from: this.#time++, to: Infinity });
    this.#live.add(standIn);
    this.largestBytes = Math.max(this.largestBytes, bytes);
    return standIn;
  }

  owns(buffer: GPUBuffer): boolean {
    return this.#rooms.has(buffer);
  }

  /** What lives when the capture ends lives as long as the plan. */
  isLive(buffer: GPUBuffer): boolean {
    return this.#live.has(buffer);
  }

  give(buffer: GPUBuffer): void {
    if (!this.#live.delete(buffer)) throw new DdpmError('E-ENGINE', this.#rooms.has(buffer) ? 'a buffer was freed twice' : 'a buffer was given to a pool that does not own it');
    this.#rooms.get(buffer)!.to = this.#time++;
  }

  /** A room that turned out too large. */
  trim(buffer: GPUBuffer, bytes: number): void {
    const room = this.#rooms.get(buffer);
    if (room) room.size = Math.min(room.size, rounded(bytes));
  }

  /** Makes the buffers, and calls `place` with every stand-in and the buffer behind it. */
  build(place: (standIn: GPUBuffer, buffer: GPUBuffer) => void): void {
    const standIns = new Map([...this.#rooms].map(([standIn, room]) => [room, standIn]));
    const changes = [...standIns.keys()].flatMap(({ size, from, to }) => [{ at: from, size }, ...(to < Infinity ? [{ at: to, size: -size }] : [])]).sort((a, b) => a.at - b.at);
    let live = 0;
    for (const { size } of changes) this.peakBytes = Math.max(this.peakBytes, (live += size));
    for (const { size, rooms } of pack([...standIns.keys()])) {
      const buffer = this.#device.createBuffer({ size, usage: USAGE.STORAGE | USAGE.COPY_SRC | USAGE.COPY_DST });
      this.#buffers.push(buffer);
      this.totalBytes += size;
      for (const room of rooms) place(standIns.get(room)!, buffer);
    }
  }

  /** Destroys everything; the caller has waited for the last submit that uses it. */
  destroy(): void {
    for (const buffer of this.#buffers) buffer.destroy();
    this.#buffers = [];
    this.destroyed = true;
    bury(this.#rooms.keys());
    this.#rooms.clear();
    this.#live.clear();
    this.totalBytes = 0;
  }
}
