// npm run bench -- host: what a replayed step costs the host alone, on Dawn's null backend, which takes every command and computes nothing.
import type { PresetName } from '../src/cli/presets.ts';
import { openEngine } from '../src/node.ts';
import { trainingOf } from './model.ts';

/** Prints microseconds a dispatch: the median and the least of a hundred steps. */
export async function host(preset: PresetName, batch: number): Promise<void> {
  const { engine } = await openEngine({ backend: 'null' });
  const { training } = trainingOf(engine, preset, batch, { initial: false });
  await training.plan.compile();
  const times: number[] = [];
  for (let step = 0; step < 110; step++) {
    const start = performance.now();
    training.run(step);
    times.push(performance.now() - start);
    if (step % 10 === 9) await engine.finished();
  }
  const sorted = times.slice(10).sort((a, b) => a - b), each = (ms: number) => ((1000 * ms) / training.plan.dispatches).toFixed(2);
  console.log(`null backend · ${preset}, batch ${batch} · ${training.plan.dispatches} dispatches: ${each(sorted[50]!)} us a dispatch on the host (least ${each(sorted[0]!)})`);
}
