// A preset's model, data and training step as the benchmarks need them, and the kernel shapes that its step is made of.
import { modelConfig, PRESETS, type PresetName } from '../src/cli/presets.ts';
import { makeShapes } from '../src/data/shapes.ts';
import { GaussianDiffusion } from '../src/diffusion/gaussian.ts';
import { makeSchedule } from '../src/diffusion/schedule.ts';
import { Training } from '../src/diffusion/training.ts';
import type { Engine } from '../src/gpu/engine.ts';
import { forTypes, type Slice } from '../src/gpu/kernel.ts';
import { Parameters } from '../src/nn/parameters.ts';
import { UNet } from '../src/nn/unet.ts';
import { DeviceImages } from '../src/ops/random.ts';

export const imageOf = (preset: PresetName) => (preset === 'ddpm-cifar10' ? { size: 32, channels: 3 as const } : { size: 28, channels: 1 as const });

/** What differs from a preset's own model and images. */
export interface Changes {
  /** Unless set, the weights keep whatever the memory holds. */
  readonly initial?: boolean;
  /** Backward runs each block again. */
  readonly checkpointBlocks?: boolean;
  /** Pixels of a side. */
  readonly size?: number;
  /** A factor of all channels between the first convolution and the last. */
  readonly width?: number;
}

export function place(engine: Engine, preset: PresetName, { initial = true, checkpointBlocks = false, size = imageOf(preset).size, width = 1 }: Changes = {}) {
  const { channels } = imageOf(preset), config = modelConfig(preset, { channels, height: size, width: size });
  const unet = new UNet({ ...config, block_out_channels: config.block_out_channels.map((C) => width * C) }, { dropout: PRESETS[preset].dropout, checkpointBlocks });
  return { unet, parameters: Parameters.place(engine, unet, { initial }), diffusion: new GaussianDiffusion(engine, makeSchedule({ name: 'linear', T: 1000 })), size, channels };
}

/** The training step of a preset on synthetic images: the same dispatches as on any others. */
export function trainingOf(engine: Engine, preset: PresetName, batchSize: number, changes: Changes = {}) {
  const model = place(engine, preset, changes);
  const images = new DeviceImages(engine, makeShapes({ count: 2048, size: model.size, channels: model.channels }), false);
  const { lr, ema, gradClip } = PRESETS[preset];
  const training = new Training(model.unet, model.parameters, model.diffusion, images, { batchSize, steps: 1000, lr, ema, gradClip });
  return { ...model, images, training };
}

export type Shape = Readonly<Record<string, number>>;

/** Calls `each` for every dispatch that `capture` records: the kernel's name, its numbers and the slices it binds. */
export function watch(engine: Engine, capture: () => unknown, each: (kernel: string, numbers: Shape, slices: readonly Slice[]) => void): void {
  const { run } = engine;
  engine.run = ((general, grid, args) => {
    const given = args as unknown as Readonly<Record<string, number | Slice>>, kernel = forTypes(general, given);
    const numbers = Object.fromEntries(Object.entries(given).filter(([, v]) => typeof v === 'number')) as Shape;
    each(kernel.name, numbers, Object.keys(kernel.bindings).map((name) => given[name] as Slice));
    run.call(engine, general, grid, args);
  }) as Engine['run'];
  try {
    capture();
  } finally {
    engine.run = run;
  }
}

/** The distinct shapes of every kernel in a plan-making function, with how often each occurs. */
export function shapesIn(engine: Engine, capture: () => unknown): Map<string, { readonly args: Shape; calls: number }[]> {
  const found = new Map<string, Map<string, { readonly args: Shape; calls: number }>>();
  watch(engine, capture, (kernel, args) => {
    const shapes = found.get(kernel) ?? new Map<string, { readonly args: Shape; calls: number }>(), key = JSON.stringify(args);
    const shape = shapes.get(key) ?? { args, calls: 0 };
    shape.calls++;
    found.set(kernel, shapes.set(key, shape));
  });
  return new Map([...found].map(([kernel, shapes]) => [kernel, [...shapes.values()]]));
}
