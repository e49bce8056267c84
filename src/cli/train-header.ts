// What train says before it begins: model, training and memory in a line each, and a warning where a CPU plays the GPU.

import type { OpenedEngine } from '../node.ts';
import type { BufferName, Parameters } from '../nn/parameters.ts';
import type { UNet } from '../nn/unet.ts';
import { mebibytes } from './command.ts';
import type { ResolvedSettings } from './settings.ts';

export function modelLine(s: ResolvedSettings, { config }: UNet, { source, classes, count }: { source: string; classes: number; count: number }): string {
  const { block_out_channels, layers_per_block } = config, blocks = `${layers_per_block} ${layers_per_block === 1 ? 'block' : 'blocks'}`;
  const more = `${classes ? `  ${classes} classes` : ''}${s.selfCondition ? '  conditioned on itself' : ''}`;
  return `${source}  channels ${block_out_channels.join(', ')} × ${blocks}  dropout ${s.dropout}${more}  ${count} parameters`;
}

export function softwareWarning({ info }: OpenedEngine, { preset }: ResolvedSettings): string {
  const name = info.description.split(':')[0] || info.device;
  const slow = `preset ${preset} is made for a GPU and takes days here; --preset tiny takes minutes`;
  return `${name} is a CPU that plays a GPU: ${preset === 'tiny' ? 'expect ten to twenty steps a second, and its last pictures after some ten minutes' : slow}`;
}

export function trainLine(s: ResolvedSettings, images: number): string {
  const times = (s.steps * s.batchSize) / images, epochs = times < 1000 ? times.toPrecision(3) : Math.round(times);
  const rate = `lr ${s.lr} (warm-up ${s.warmup}, ${s.lrSchedule})`;
  return `batch ${s.batchSize}, ${rate}, clip ${s.gradClip || 'off'}, ema ${s.ema}, seed ${s.seed}, ${s.steps} ${s.steps === 1 ? 'step' : 'steps'} = ${epochs} epochs`;
}

/** What a run that goes on was trained for and is not any longer, or nothing. */
export function changedAims(before: Readonly<Record<string, unknown>>, now: ResolvedSettings): string {
  const changed = (['predict', 'schedule', 'timesteps'] as const).filter((name) => (before[name] ?? null) !== null && before[name] !== now[name]);
  return changed.map((name) => `--${name} was ${before[name]} and is ${now[name]}`).join(', ');
}

/** Bytes on the device by what they hold. */
export function memoryParts(parameters: Parameters, activations: number, data: number): Record<string, number> {
  const bytes = (name: BufferName): number => parameters.chunks.reduce((sum, chunk) => sum + chunk.slices[name].bytes, 0);
  return { weights: bytes('values'), grads: bytes('grads'), Adam: bytes('m') + bytes('v'), EMA: bytes('ema'), activations, data };
}

export function memoryLine(parts: Record<string, number>): string {
  const sum = Object.values(parts).reduce((a, b) => a + b, 0);
  return `${Object.entries(parts).map(([name, part]) => `${name} ${mebibytes(part)}`).join(' + ')} = ${mebibytes(sum)} MiB`;
}
