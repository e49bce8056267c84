// A short benchmark for comparing devices: a copy, a matrix product, a convolution and a training step, by the clock on the wall.
import { threads } from '../../autograd.ts';
import { makeShapes } from '../../data/shapes.ts';
import type { Engine } from '../../gpu/engine.ts';
import * as k from '../../gpu/kernels.gen.ts';
import { conv2d } from '../../ops/conv2d.ts';
import { matmul } from '../../ops/matmul.ts';
import { Tensor } from '../../tensor.ts';
import { Run } from './run.ts';

export interface BenchLine {
  readonly name: string;
  /** Milliseconds, the median. */
  readonly ms: number;
  readonly rate: string;
}

/** Time spent on each line, at least one run and one to warm up. */
const BUDGET_MS = 400;

async function median(engine: Engine, run: () => void): Promise<number> {
  run();
  await engine.finished();
  const times: number[] = [], end = performance.now() + BUDGET_MS;
  do {
    const start = performance.now();
    run();
    await engine.finished();
    times.push(performance.now() - start);
  } while (performance.now() < end && times.length < 50);
  return times.sort((a, b) => a - b)[Math.floor(times.length / 2)]!;
}

/** Times `run` on zeros of these shapes, and frees all of it. No scope is open while it waits: what others allocate meanwhile is theirs. */
async function line(engine: Engine, name: string, work: number, unit: string, shapes: readonly (readonly number[])[], run: (...tensors: Tensor[]) => void): Promise<BenchLine> {
  const tensors = shapes.map((shape) => Tensor.empty(engine, shape));
  for (const { slice } of tensors) engine.clear(slice);
  try {
    const ms = await median(engine, () => engine.scope(() => run(...tensors)));
    return { name, ms, rate: `${Number((work / 1e6 / ms).toPrecision(3))} ${unit}` };
  } finally {
    for (const tensor of tensors) tensor.free();
  }
}

export async function measure(engine: Engine): Promise<BenchLine[]> {
  const values = 1 << 22, M = 512, N = 4, H = 28, C = 64;
  const operand = ({ slice }: Tensor) => ({ slice, ld: M, outer: 0, inner: 0 });
  const lines = [
    await line(engine, 'add, 4 M values', 12 * values, 'GB/s', [[values], [values], [values]], (a, b, y) =>
      engine.run(k.add_forward, threads(values), { a: a!.slice, b: b!.slice, y: y!.slice, N: 1, P: values, C: 1, per_image: 0 })),
    await line(engine, `matmul ${M} × ${M} × ${M}`, 2 * M ** 3, 'GFLOP/s', [[M, M], [M, M], [M, M]], (a, b, c) => matmul(engine, M, M, M, operand(a!), operand(b!), operand(c!))),
    await line(engine, `conv2d 3 × 3, ${N} × ${H} × ${H}, ${C} channels`, 2 * N * H * H * C * C * 9, 'GFLOP/s', [[N, H, H, C], [3, 3, C, C]], (x, w) => void conv2d(x!, w!, null)),
  ];
  const { pixels, count, height, width, channels } = makeShapes({ count: 64 }), steps = 8, batchSize = 8;
  const data = { name: 'shapes', count, height, width, channels, pixels: new Uint8Array(pixels), labels: null, classes: null };
  const run = await Run.open(engine, data, { model: 'tiny', steps, batchSize, lr: 1e-3, timesteps: 1000, predict: 'v', timeSampling: 'weighted', seed: 0, flip: false, labelDropout: null, saveEvery: 0, previewEvery: 0, sampleEvery: 0 });
  const times: number[] = [];
  try {
    await run.train({ stop: { requested: false }, onMetrics: ({ ms }) => times.push(ms as number), onPreview: () => {}, onSamples: () => {}, onSave: async () => {}, onEvent: () => {} });
  } finally {
    await run.destroy();
  }
  const ms = times.slice(3).sort((a, b) => a - b)[Math.floor((times.length - 3) / 2)]!;
  return [...lines, { name: `training step of tiny, batch ${batchSize}`, ms, rate: `${Number(((1000 * batchSize) / ms).toPrecision(3))} images/s` }];
}
