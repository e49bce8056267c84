// npm run bench -- toggles: a training step under one Dawn toggle after another, in turn with a step under openEngine's own, so that what else the machine does meets all alike.
import type { PresetName } from '../src/cli/presets.ts';
import { median } from '../src/cli/tune-measure.ts';
import { openEngine } from '../src/node.ts';
import { trainingOf } from './model.ts';

/** What might pay (src/dawn/native/Toggles.cpp in Dawn); a minus turns off what is on. */
const CANDIDATES = [
  [], ['skip_validation'], ['disable_workgroup_init'], ['disable_polyfills_on_integer_div_and_mod'], ['-lazy_clear_resource_on_first_use'],
  ['use_vulkan_memory_model'], ['-vulkan_use_buffer_robust_access_2'], ['-use_vulkan_zero_initialize_workgroup_memory_extension'], ['enable_spirv_validation'],
];

/**
 * Prints for each toggle: time and processor time of a step, the median of their ratios to those of the step before it under the engine's own toggles, and how long
 * the pipelines took to compile. The first row has no toggle: what it differs from 1 by is the noise.
 */
export async function toggles(preset: PresetName, batch: number, rounds: number): Promise<void> {
  const open = async (toggles: readonly string[]) => {
    const opened = await openEngine({ toggles }), { training } = trainingOf(opened.engine, preset, batch);
    const start = performance.now();
    await training.plan.compile();
    const compiled = performance.now() - start;
    let step = 0;
    const once = async () => {
      const cpu = process.cpuUsage(), from = performance.now();
      training.run(step++);
      await opened.engine.finished();
      const { user, system } = process.cpuUsage(cpu);
      return { ms: performance.now() - from, cpu: (user + system) / 1000 };
    };
    for (let i = 0; i < 3; i++) await once();
    return { ...opened, once, compiled };
  };
  const ours = await open([]);
  console.log(`${ours.info.description || ours.info.device} · ${preset}, batch ${batch} · ${rounds} rounds of a step under openEngine's own toggles and one with a toggle more`);
  for (const list of CANDIDATES) {
    const other = await open(list), ratios: { ms: number; cpu: number }[] = [];
    for (let round = 0; round < rounds; round++) {
      const a = await ours.once(), b = await other.once();
      ratios.push({ ms: b.ms / a.ms, cpu: b.cpu / a.cpu });
    }
    await other.close();
    const of = (key: 'ms' | 'cpu') => median(ratios.map((r) => r[key])).toFixed(3);
    console.log(`${(list.join(', ') || '(none: the noise)').padEnd(56)} time x ${of('ms')}   processor time x ${of('cpu')}   compiled in ${other.compiled.toFixed(0).padStart(5)} ms`);
  }
}
