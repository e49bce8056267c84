// Measures: each case is checked against the plain kernel first, then timed on the device; the device's own peak is measured, not looked up.
import { distance, median } from '../src/cli/tune-measure.ts';
import type { Engine } from '../src/gpu/engine.ts';
import type { Slice } from '../src/gpu/kernel.ts';
import { timePlan } from '../src/gpu/profile.ts';

export { noise } from '../src/cli/tune-cases.ts';

/** One thing to time: `run` records dispatches; what it writes is compared with what `reference` writes. */
export interface Case {
  /** family/shape/variant, e.g. `conv2d_forward/16x28x28 16->16 k3/subgroup`. */
  readonly name: string;
  readonly flops: number;
  /** Bytes read and written if every tensor crosses memory once. */
  readonly bytes: number;
  readonly output: Slice;
  /** Products in the sum behind one output: how far two orders of summation may differ. */
  readonly terms?: number;
  run(): void;
  reference?(): void;
}

export interface Row {
  readonly name: string;
  /** Milliseconds of one run: median, smallest, median absolute deviation. */
  readonly ms: number;
  readonly min: number;
  readonly mad: number;
  readonly samples: number;
  readonly gflops: number;
  readonly gbs: number;
  /** Relative L2 distance from the plain kernel; null where it is the plain kernel. */
  readonly error: number | null;
  /** Timestamps of the device, or the host's clock where there are none. */
  readonly clock: 'gpu' | 'wall';
}

async function difference(engine: Engine, item: Case): Promise<number | null> {
  if (!item.reference) return null;
  item.reference();
  const want = await engine.read(item.output);
  engine.clear(item.output);
  item.run();
  return distance(await engine.read(item.output), want);
}

/** Checks, warms up, and takes `samples` times of as many runs as fill `minMs`. Throws where the check fails. */
export async function measure(engine: Engine, item: Case, { samples = 12, minMs = 5 } = {}): Promise<Row> {
  const error = await difference(engine, item);
  // A running sum of k random products is off by about sqrt(k) 2^-24 of its size; twice that, since the plain kernel is off as well.
  if (error !== null && !(error < Math.sqrt(item.terms ?? 1) * 2 ** -23 + 2 ** -22)) throw new Error(`${item.name}: differs from the plain kernel by ${error} (relative L2)`);
  const capture = async (runs: number) => {
    const plan = engine.capture(() => {
      for (let i = 0; i < runs; i++) item.run();
    });
    await plan.compile();
    return plan;
  };
  const once = await capture(1);
  await timePlan(engine, once);
  const single = await timePlan(engine, once);
  const runs = Math.max(1, Math.min(200, Math.round(minMs / Math.max(single, 1e-3))));
  const plan = await capture(runs);
  await timePlan(engine, plan);
  const times: number[] = [];
  for (let i = 0; i < samples; i++) times.push((await timePlan(engine, plan)) / runs);
  await once.destroy();
  await plan.destroy();
  const ms = median(times);
  return {
    name: item.name, ms, min: Math.min(...times), mad: median(times.map((t) => Math.abs(t - ms))), samples,
    gflops: item.flops / ms / 1e6, gbs: item.bytes / ms / 1e6, error, clock: engine.device.features.has('timestamp-query') ? 'gpu' : 'wall',
  };
}
