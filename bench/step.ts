// The whole training step and the whole sampling step of a preset: images/s, dispatches, host time, memory.
import type { PresetName } from '../src/cli/presets.ts';
import { median } from '../src/cli/tune-measure.ts';
import { Sampler } from '../src/diffusion/sampler.ts';
import type { OpenedEngine } from '../src/node.ts';
import { type Changes, place, trainingOf } from './model.ts';
import { peak } from './peak.ts';
import { rooflineLines, workIn } from './roofline.ts';

const MiB = 2 ** 20;

export interface StepResult {
  readonly name: string;
  readonly batch: number;
  readonly ms: number;
  readonly min: number;
  readonly imagesPerSecond: number;
  readonly dispatches: number;
  readonly hostMicrosecondsPerDispatch: number;
  readonly planMiB: number;
  /** Of these, the most that is in use at once; null for sampling. */
  readonly peakMiB: number | null;
  readonly parameters: number;
}

/** Times `steps` training steps in groups that are submitted without waiting, after a burn-in. */
export async function trainingStep({ engine, software }: OpenedEngine, preset: PresetName, batch: number, seconds: number, { profile = false, ...changes }: Changes & { readonly profile?: boolean } = {}): Promise<StepResult> {
  let made: ReturnType<typeof trainingOf>;
  const works = workIn(engine, () => (made = trainingOf(engine, preset, batch, changes)));
  const { training, parameters } = made!;
  await training.plan.compile();
  let step = 0;
  const group = async (count: number) => {
    const start = performance.now();
    for (let i = 0; i < count; i++) training.run(step++);
    const host = performance.now() - start;
    await engine.finished();
    return { ms: (performance.now() - start) / count, host: host / count };
  };
  await group(2);
  const single = await group(1);
  const count = Math.max(1, Math.min(10, Math.round(200 / single.ms)));
  const times: { ms: number; host: number }[] = [];
  const end = performance.now() + 1000 * seconds;
  while (times.length < 3 || performance.now() < end) times.push(await group(count));
  if (profile) {
    const top = await peak(engine, software);
    console.log(`    measured peak: ${top.gflops.toFixed(0)} GFLOP/s of FMAs, ${top.coresGflops === null ? '' : `${top.coresGflops.toFixed(0)} of tensor cores, `}${top.gbs.toFixed(1)} GB/s of copying`);
    for (const line of rooflineLines((await engine.profile(training.plan)).slice(0, 16), works, top)) console.log(`    ${line}`);
  }
  const ms = median(times.map((t) => t.ms)), { dispatches } = training.plan;
  return {
    name: `train/${preset}`, batch, ms, min: Math.min(...times.map((t) => t.ms)), imagesPerSecond: (1000 * batch) / ms, dispatches,
    hostMicrosecondsPerDispatch: (1000 * median(times.map((t) => t.host))) / dispatches, planMiB: training.plan.pool.totalBytes / MiB, peakMiB: training.plan.pool.peakBytes / MiB, parameters: parameters.count,
  };
}

/** Times DDIM steps at one batch size. */
export async function samplingStep({ engine }: OpenedEngine, preset: PresetName, batch: number, seconds: number): Promise<StepResult> {
  const { unet, parameters, diffusion, size, channels } = place(engine, preset);
  const sampler = new Sampler((x, t) => unet.forward(x, t), diffusion, [batch, size, size, channels], { method: 'ddim', steps: 50 });
  await sampler.compile();
  await sampler.sample({ seed: 0 });
  const times: number[] = [];
  const end = performance.now() + 1000 * seconds;
  while (times.length < 2 || performance.now() < end) {
    const start = performance.now();
    await sampler.sample({ seed: 0 });
    times.push((performance.now() - start) / sampler.timesteps.length);
  }
  const ms = median(times);
  return {
    name: `sample/${preset}`, batch, ms, min: Math.min(...times), imagesPerSecond: (1000 * batch) / ms, dispatches: sampler.dispatches,
    hostMicrosecondsPerDispatch: 0, planMiB: sampler.bytes / MiB, peakMiB: null, parameters: parameters.count,
  };
}
