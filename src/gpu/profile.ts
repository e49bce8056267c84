// Where a plan's time goes: every dispatch in a pass of its own, between two timestamps.
import { MAP_READ, USAGE } from './constants.ts';
import type { Engine } from './engine.ts';
import type { Command, Plan } from './plan.ts';

/** Time on the device by kernel, as `engine.profile` measures it with timestamp queries. */
export interface KernelTime {
  readonly kernel: string;
  readonly calls: number;
  /** Milliseconds in all calls. */
  readonly ms: number;
}

/** Query sets hold 4,096 timestamps on every device. */
const BATCH = 2048;

/**
 * Runs the plan once and times each dispatch, by timestamp queries where the device has the feature and by the wall clock where it does not.
 * Sorted by time, by kernel; `each` gets every dispatch.
 */
export async function profile(engine: Engine, plan: Plan<unknown>, each?: (label: string, ms: number, command: Command) => void): Promise<KernelTime[]> {
  await plan.compile();
  await engine.finished();
  const times = new Map<string, { calls: number; ms: number }>();
  const add = (command: Command, ms: number) => {
    const kernel = command.kind === 'dispatch' ? command.pipeline.kernel.name : command.kind;
    const sum = times.get(kernel) ?? { calls: 0, ms: 0 };
    times.set(kernel, { calls: sum.calls + 1, ms: sum.ms + ms });
    each?.(command.kind === 'dispatch' ? command.pipeline.label : command.kind, ms, command);
  };
  if (engine.device.features.has('timestamp-query'))
    for (let from = 0; from < plan.commands.length; from += BATCH) await timestamps(engine, plan.commands.slice(from, from + BATCH), add);
  else
    for (const command of plan.commands) {
      const start = performance.now();
      engine.replay([command]);
      await engine.finished();
      add(command, performance.now() - start);
    }
  return [...times].map(([kernel, { calls, ms }]) => ({ kernel, calls, ms })).sort((a, b) => b.ms - a.ms);
}

/** Milliseconds of one replay of a plan: by two timestamps where the device has them, by the wall clock where it does not. */
export async function timePlan(engine: Engine, plan: Plan<unknown>): Promise<number> {
  const { device } = engine;
  if (!device.features.has('timestamp-query')) {
    const start = performance.now();
    plan.run();
    await engine.finished();
    return performance.now() - start;
  }
  const queries = device.createQuerySet({ type: 'timestamp', count: 2 });
  const resolved = device.createBuffer({ size: 16, usage: USAGE.QUERY_RESOLVE | USAGE.COPY_SRC });
  const staging = device.createBuffer({ size: 16, usage: USAGE.COPY_DST | USAGE.MAP_READ });
  const encoder = device.createCommandEncoder();
  encoder.beginComputePass({ timestampWrites: { querySet: queries, beginningOfPassWriteIndex: 0 } }).end();
  plan.encode(encoder);
  encoder.beginComputePass({ timestampWrites: { querySet: queries, endOfPassWriteIndex: 1 } }).end();
  encoder.resolveQuerySet(queries, 0, 2, resolved, 0);
  encoder.copyBufferToBuffer(resolved, 0, staging, 0, 16);
  engine.submit(encoder);
  await engine.settle(staging.mapAsync(MAP_READ));
  const [start, end] = new BigInt64Array(staging.getMappedRange());
  for (const it of [staging, resolved, queries]) it.destroy();
  return Number(end! - start!) / 1e6;
}

async function timestamps(engine: Engine, commands: readonly Command[], add: (command: Command, ms: number) => void): Promise<void> {
  const { device } = engine;
  const count = 2 * commands.length;
  const queries = device.createQuerySet({ type: 'timestamp', count });
  const resolved = device.createBuffer({ size: 8 * count, usage: USAGE.QUERY_RESOLVE | USAGE.COPY_SRC });
  const staging = device.createBuffer({ size: 8 * count, usage: USAGE.COPY_DST | USAGE.MAP_READ });
  const encoder = device.createCommandEncoder();
  commands.forEach((command, i) => {
    if (command.kind !== 'dispatch') return engine.encodeInto(encoder, [command]);
    const pass = encoder.beginComputePass({ timestampWrites: { querySet: queries, beginningOfPassWriteIndex: 2 * i, endOfPassWriteIndex: 2 * i + 1 } });
    pass.setPipeline(engine.pipelines.now(command.pipeline));
    pass.setBindGroup(0, command.bindings);
    pass.dispatchWorkgroups(command.x, command.y, command.z);
    pass.end();
  });
  encoder.resolveQuerySet(queries, 0, count, resolved, 0);
  encoder.copyBufferToBuffer(resolved, 0, staging, 0, 8 * count);
  engine.submit(encoder);
  await engine.settle(staging.mapAsync(MAP_READ));
  const ticks = new BigInt64Array(staging.getMappedRange());
  commands.forEach((command, i) => command.kind === 'dispatch' && add(command, Number(ticks[2 * i + 1]! - ticks[2 * i]!) / 1e6));
  staging.destroy();
  resolved.destroy();
  queries.destroy();
}
