// npm run bench -- plan: dispatches and memory of the presets' plans, counted on a device of paper: nothing is allocated, and no GPU is needed.
import { PRESETS, type PresetName } from '../src/cli/presets.ts';
import { Sampler } from '../src/diffusion/sampler.ts';
import { Engine } from '../src/gpu/engine.ts';
import type { Plan } from '../src/gpu/plan.ts';
import { paperDevice } from '../src/gpu/paper.ts';
import { assumePrecision, type Precision } from '../src/ops/precision.ts';
import { place, trainingOf } from './model.ts';

const MiB = 2 ** 20;

/** Dispatches by kernel, most first. */
function byKernel(plan: Plan<unknown>): [string, number][] {
  const counts = new Map<string, number>();
  for (const c of plan.commands) if (c.kind === 'dispatch') counts.set(c.pipeline.kernel.name, (counts.get(c.pipeline.kernel.name) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]);
}

/** Prints the counts of each preset's plans as a GPU and as a CPU (8-wide subgroups) would run them. */
export function plans(presets: readonly PresetName[], batch: number | null, each: boolean, { checkpointBlocks = false, precision = 'f32' }: { checkpointBlocks?: boolean; precision?: Precision } = {}): void {
  for (const preset of presets)
    for (const [kind, width] of [['GPU', 32], ['CPU', 8]] as const) {
      const engine = new Engine(paperDevice(width, {}, ['subgroups', 'shader-f16'])), N = batch ?? PRESETS[preset].batchSize;
      assumePrecision(engine, precision);
      const { training } = trainingOf(engine, preset, N, { initial: false, checkpointBlocks });
      const { unet, diffusion, size, channels } = place(engine, preset, { initial: false });
      const sampler = new Sampler((x, t) => unet.forward(x, t), diffusion, [N, size, size, channels], { method: 'ddim', steps: 50 });
      const report = (name: string, dispatches: number, bytes: number) => {
        console.log(`${name.padEnd(7)} ${preset.padEnd(13)} batch ${String(N).padStart(4)} on a ${kind}: ${String(dispatches).padStart(5)} dispatches ${(bytes / MiB).toFixed(1).padStart(9)} MiB`);
      };
      report('train', training.plan.dispatches, training.plan.pool.totalBytes);
      if (each) for (const [kernel, calls] of byKernel(training.plan)) console.log(`        ${String(calls).padStart(5)} ${kernel}`);
      report('sample', sampler.dispatches, sampler.bytes);
    }
}
