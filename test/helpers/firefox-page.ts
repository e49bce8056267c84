// What test/firefox.test.ts has a page do in Firefox, part by part.
import { makeShapes } from '../../src/data/shapes.ts';
import { DdpmError } from '../../src/errors.ts';
import { Engine } from '../../src/gpu/engine.ts';
import * as kernels from '../../src/gpu/kernels.gen.ts';
import { engineRequirements } from '../../src/gpu/requirements.ts';
import { silu } from '../../src/ops/pointwise.ts';
import { Tensor } from '../../src/tensor.ts';
import { check, CHECKS, type CheckResult, LONG } from '../../src/web/site/checks.ts';
import { Run } from '../../src/web/site/run.ts';
import type { Calls, FromWorker } from '../../src/web/site/messages.ts';
import { decodeRun, type RunSettings, type TrainData } from '../../src/web/site/run-file.ts';
import { goldenDraw } from './golden-draw.ts';

export interface Device {
  readonly features: readonly string[];
  readonly info: Partial<GPUAdapterInfo>;
  readonly deviceClass: string;
  /** Milliseconds of each of some reads of a few bytes. */
  readonly reads: readonly number[];
}

/** The float16 forms of the kernels that are written out for GPUs: for these naga's word is enough. They differ from those in float32 by lines that shorter kernels have too, and the driver compiles each for 10 s. */
export const NOT_RUN: readonly string[] = Object.keys(CHECKS).filter((name) => LONG.has(name) && name.endsWith('f16'));

const SETTINGS: RunSettings = { model: 'mini', steps: 14, batchSize: 2, lr: 0.004, timesteps: 1000, predict: 'v', timeSampling: 'weighted', seed: 0, flip: true, labelDropout: 0.2, saveEvery: 5, previewEvery: 0, sampleEvery: 0 };

function shapes(): TrainData {
  const { name, height, width, channels, pixels, labels, classes, count } = makeShapes({ count: 100, size: 16 });
  return { name, count, height, width, channels, pixels: new Uint8Array(pixels), labels, classes };
}

/** The losses of a few steps on shapes, by class. */
export async function losses(engine: Engine): Promise<readonly number[]> {
  const run = await Run.open(engine, shapes(), SETTINGS);
  await run.train({ stop: { requested: false }, onMetrics: () => {}, onPreview: () => {}, onSamples: () => {}, onSave: async () => {}, onEvent: () => {} });
  await run.destroy();
  return run.losses;
}

export interface Trained {
  readonly losses: readonly number[];
  /** What the worker told meanwhile. */
  readonly notes: readonly string[];
}

/** The same by the worker of the pages, whose device is lost on the way. */
async function trained(): Promise<Trained> {
  const { Worker } = globalThis as unknown as { Worker: new (url: string, options: object) => { postMessage(message: unknown): void; terminate(): void; onmessage: unknown; onerror: unknown } };
  const worker = new Worker('/worker.js', { type: 'module' }), waiting = new Map<number, { done: (value: unknown) => void; fail: (error: Error) => void }>(), notes: string[] = [];
  const call = <K extends keyof Calls>(name: K, value: Calls[K]['in']): Promise<Calls[K]['out']> =>
    new Promise<unknown>((done, fail) => {
      waiting.set(waiting.size, { done, fail });
      worker.postMessage({ id: waiting.size - 1, call: name, value });
    }) as Promise<Calls[K]['out']>;
  let lost = false;
  worker.onerror = ({ message }: { message: string }) => waiting.forEach(({ fail }) => fail(new Error(`the worker: ${message}`)));
  worker.onmessage = ({ data }: { data: FromWorker }) => {
    if (!('event' in data)) {
      if ('error' in data) waiting.get(data.id)!.fail(new Error(`${data.error.code} ${data.error.message}`));
      else waiting.get(data.id)!.done(data.value);
    } else if (data.event === 'note') notes.push(data.value);
    else if (data.event === 'metrics' && !lost) {
      lost = true;
      void call('lose', null);
    }
  };
  await call('start', { data: shapes(), settings: SETTINGS });
  await call('train', null);
  const { losses } = decodeRun((await call('save', null)).bytes, 'the run');
  worker.terminate();
  return { losses, notes };
}

const codeOf = (work: Promise<unknown>): Promise<string> => work.then(() => 'none', (error: unknown) => (error instanceof DdpmError ? error.code : String(error)));

/** In the page alone; Node has no `part`. */
export async function main(part: (name: string, work: () => Promise<unknown>) => Promise<void>, say: (value: unknown) => unknown): Promise<void> {
  let engine!: Engine;
  await part('device', async (): Promise<Device> => {
    const adapter = await (globalThis as unknown as { navigator: { gpu?: GPU } }).navigator.gpu?.requestAdapter();
    if (!adapter) throw new Error('there is no WebGPU adapter');
    const device = await adapter.requestDevice(engineRequirements(adapter, { precision: 'f16' }));
    device.addEventListener('uncapturederror', (e) => void say((e as GPUUncapturedErrorEvent).error.message));
    engine = new Engine(device);
    const { vendor, architecture, device: name, description, isFallbackAdapter } = adapter.info;
    const x = Tensor.from(engine, [4], new Float32Array(4)), reads: number[] = [];
    for (let i = 0; i < 10; i++) {
      const start = performance.now();
      await x.read();
      reads.push(performance.now() - start);
    }
    return { reads, features: [...device.features], info: { vendor, architecture, device: name, description, isFallbackAdapter }, deviceClass: engine.deviceClass };
  });
  await part('kernels', async () => {
    const results: CheckResult[] = [];
    for (const name of Object.keys(CHECKS)) if (!NOT_RUN.includes(name)) results.push(await check(engine, name));
    return results;
  });
  await part('pipelines', async () => {
    const code = (name: string): string => kernels[name as keyof typeof kernels].wgsl;
    for (const name of NOT_RUN) await engine.device.createComputePipelineAsync({ layout: 'auto', compute: { module: engine.device.createShaderModule({ code: code(name) }) } });
    return NOT_RUN;
  });
  await part('trained', trained);
  await part('sample', async () => goldenDraw(engine, new Uint8Array(await (await fetch('/golden/unet-dev-gray28.safetensors')).arrayBuffer())));
  await part('lost', async () => {
    const x = Tensor.from(engine, [1 << 16], new Float32Array(1 << 16)), reading = engine.scope(() => silu(silu(x))).read();
    const codes: string[] = [];
    engine.device.addEventListener('uncapturederror', (e) => codes.push((e as GPUUncapturedErrorEvent).error.message)); // the owner's, of which there is none
    engine.device.destroy();
    // The second read is asked of a device that is gone and has not said so.
    for (const work of [reading, x.read()]) codes.push(await codeOf(work));
    codes.push(await codeOf(engine.finished()));
    return codes;
  });
}
