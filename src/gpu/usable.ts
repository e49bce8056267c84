// What may be used, and how: mistakes that WebGPU would tell of later, without a name, and after which nothing runs any more, are errors of the call that makes them.
import { DdpmError } from '../errors.ts';
import type { Engine } from './engine.ts';
import type { Grid, Kernel, Slice } from './kernel.ts';

/** Which engine allocated a buffer. */
const homes = new WeakMap<GPUBuffer, Engine>();
const freed = new WeakSet<Slice>();
const gone = new WeakSet<GPUBuffer>();

/** Notes whose a buffer is. */
export const setHome = (buffer: GPUBuffer, engine: Engine): unknown => homes.set(buffer, engine);
/** Notes that a slice was freed, whoever is given its buffer next. */
export const retire = (slice: Slice): unknown => freed.add(slice);
/** Whether it was: its buffer may be another tensor's now. */
export const isRetired = (slice: Slice): boolean => freed.has(slice);
/** Notes that a plan's memory is no more. */
export const bury = (buffers: Iterable<GPUBuffer>): void => {
  for (const buffer of buffers) gone.add(buffer);
};

/** Throws E-ENGINE where this engine cannot use the slice: it was freed, its plan or its engine was destroyed, or it is on another device. */
export function requireUsable(engine: Engine, slice: Slice, what: string): void {
  if (freed.has(slice)) throw new DdpmError('E-ENGINE', `${what} was freed before.`);
  if (gone.has(slice.buffer)) throw new DdpmError('E-ENGINE', `${what} lay in a plan that was destroyed, or whose capture failed.`);
  const home = homes.get(slice.buffer);
  if (!home || home === engine) return;
  if (home.device !== engine.device) throw new DdpmError('E-ENGINE', `${what} is on another device than this engine. Take it over through the host: Tensor.from(engine, x.shape, await x.read()).`);
  home.flush(); // which may hold back what computes it
}

/** Throws E-KERNEL for counts of workgroups that are no whole numbers, E-LIMIT for more than the device allows. */
export function requireGrid(kernel: Kernel, [x, y = 1, z = 1]: Grid, limit: number): void {
  if (![x, y, z].every((n) => Number.isInteger(n) && n >= 0)) throw new DdpmError('E-KERNEL', `${kernel.name}: a grid of ${x} x ${y} x ${z} workgroups; these are whole numbers.`);
  if (x > limit || y > limit || z > limit) throw new DdpmError('E-LIMIT', `${kernel.name}: a grid of ${x} x ${y} x ${z} workgroups; this device allows ${limit} a dimension.`);
}

/** Throws E-KERNEL where a buffer is written and given as something else as well: WebGPU allows a buffer one use in a dispatch, whatever its ranges, but for ranges that are all written. */
export function requireApart(kernel: Kernel, resources: readonly GPUBufferBinding[]): void {
  const names = Object.keys(kernel.bindings);
  const end = ({ offset = 0, size = 0 }: GPUBufferBinding): number => offset + size;
  names.forEach((written, i) => {
    if (kernel.bindings[written] === 'read') return;
    const other = resources.findIndex((r, j) => j !== i && r.buffer === resources[i]!.buffer && (kernel.bindings[names[j]!] === 'read' || (r.offset! < end(resources[i]!) && resources[i]!.offset! < end(r))));
    if (other >= 0) throw new DdpmError('E-KERNEL', `${kernel.name}: ${written}, which is written, lies in the buffer of ${names[other]}. WebGPU allows a buffer that is written no other use in the same dispatch: write into another tensor.`);
  });
}
