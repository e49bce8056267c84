// What the kernels of a plan compute and move, beside what the device can: how near each is to its roofline, and which side of it bounds it (Williams et al., 2009).
import type { Engine } from '../src/gpu/engine.ts';
import type { KernelTime } from '../src/gpu/profile.ts';
import { type Shape, watch } from './model.ts';
import type { Peak } from './peak.ts';

/** All calls of one kernel: operations of products (a multiply and an add are two), and bytes as if every tensor crossed memory once a call. */
export interface Work {
  flops: number;
  bytes: number;
}

/** The operations of products in one call. Of other kernels none are counted: they are taken to be bound by memory. */
function operations(kernel: string, n: Shape): number {
  if (kernel.startsWith('conv2d_')) return 2 * n.N! * n.OH! * n.OW! * n.O! * n.KH! * n.KW! * n.C!;
  return kernel.startsWith('matmul') ? 2 * n.batch! * n.M! * n.N! * n.K! : 0;
}

/** The work by kernel of what `capture` records. A slice that a call binds twice, because one of its bindings is not used, counts once. */
export function workIn(engine: Engine, capture: () => unknown): Map<string, Work> {
  const works = new Map<string, Work>();
  watch(engine, capture, (kernel, numbers, slices) => {
    const work = works.get(kernel) ?? { flops: 0, bytes: 0 };
    work.flops += operations(kernel, numbers);
    for (const slice of new Set(slices)) work.bytes += slice.bytes;
    works.set(kernel, work);
  });
  return works;
}

/** Products on tensor cores are held against theirs. One line a kernel: calls, milliseconds, rates, and the share of the roofline: the time that the device's own peak would take, by the time taken. */
export function* rooflineLines(times: readonly KernelTime[], works: ReadonlyMap<string, Work>, peak: Peak): Generator<string> {
  for (const { kernel, calls, ms } of times) {
    const { flops, bytes } = works.get(kernel) ?? { flops: 0, bytes: 0 };
    const gflops = (kernel.includes('subgroup_matrix') && peak.coresGflops) || peak.gflops, arithmetic = flops / gflops / 1e6, memory = bytes / peak.gbs / 1e6, bound = Math.max(arithmetic, memory);
    const rates = `${(flops ? `${(flops / ms / 1e6).toFixed(1)} GFLOP/s` : '').padStart(17)} ${(bytes / ms / 1e6).toFixed(1).padStart(7)} GB/s ${((100 * bound) / ms).toFixed(0).padStart(4)} % of its roofline, ${arithmetic > memory ? 'arithmetic' : 'memory'}`;
    yield `${kernel.padEnd(42)} ${String(calls).padStart(5)} calls ${ms.toFixed(2).padStart(9)} ms${bytes ? rates : ''}`;
  }
}
