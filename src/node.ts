// `ddpm.wgsl/node`: opens a device through Dawn (the only importer of the package 'webgpu'), and what else needs Node: data sets, checkpoints, pictures.
import { readFileSync } from 'node:fs';
import { DdpmError } from './errors.ts';
import type { ChoiceTable } from './gpu/choices.ts';
import { isSoftware } from './gpu/device-class.ts';
import { Engine } from './gpu/engine.ts';
import { engineRequirements, SUBGROUP_MATRIX } from './gpu/requirements.ts';
import { type Precision, usePrecision } from './ops/precision.ts';

export type { CifarLabels } from './data/cifar.ts';
export { type Dataset, loadDataset, type LoadOptions } from './data/dataset.ts';
export { makeShapes, type ShapesOptions } from './data/shapes.ts';
export { type CheckpointContent, loadCheckpoint, loadModelFolder, type ModelFolder, saveCheckpoint, type TrainingState } from './io/checkpoint.ts';
export type { SchedulerFields } from './io/scheduler.ts';
export { type GridOptions, imageGrid, type Picture } from './io/picture.ts';
export { encodePng } from './io/png.ts';

/** Which adapter openEngine() opens, and with what. */
export interface OpenOptions {
  /** Part of an adapter's name, or its number in listAdapters(); default is a hardware adapter if there is one. */
  readonly gpu?: string;
  /** 'null' compiles every kernel and computes nothing; for tests only. */
  readonly backend?: 'vulkan' | 'metal' | 'd3d12' | 'null';
  /** Features to leave out, to try the paths of lesser devices. */
  readonly without?: readonly GPUFeatureName[];
  /** Ask for WebGPU's default limits only. */
  readonly defaultLimits?: boolean;
  /** Ask for timestamp-query, with which `engine.profile` measures. */
  readonly timestamps?: boolean;
  /** What products take their factors in; `f16` is turned on after its self-test (`usePrecision`), whose warnings are in the result. */
  readonly precision?: Precision;
  /** Keep WebGPU's check of every index in a shader, as on any device that is not opened here. */
  readonly robust?: boolean;
  /** Fill every allocation with NaN; for tests. */
  readonly poison?: boolean;
  /** Dawn toggles on top of those set here, a minus before what is to be off: to measure what they bring (`npm run bench -- toggles`). Dawn ignores names that it does not know. */
  readonly toggles?: readonly string[];
  /** Variants of kernels by shape, given the adapter: what the Engine's `choices` are. */
  readonly choices?: (info: GPUAdapterInfo) => ChoiceTable;
}

/** An engine on a device of its own; `close` destroys both. */
export interface OpenedEngine {
  readonly engine: Engine;
  readonly device: GPUDevice;
  readonly info: GPUAdapterInfo;
  /** A CPU that plays a GPU (llvmpipe, SwiftShader). */
  readonly software: boolean;
  /** Kernels that are not right on this device, and what is done instead. */
  readonly warnings: readonly string[];
  close(): Promise<void>;
  /** `await using opened = await openEngine()`. */
  [Symbol.asyncDispose](): Promise<void>;
}

// Dawn crashes the process when the object that create() returned is collected while a device lives. One instance a process serves all.
const held: { instances: Map<string, GPU> } = ((globalThis as { ddpmDawn?: { instances: Map<string, GPU> } }).ddpmDawn ??= { instances: new Map() });

/**
 * llvmpipe computes with vectors of eight numbers even where the processor has sixteen (AVX-512), unless it is told so before it opens its first device: a training step then takes 0.9 of the time on a
 * Zen 5, with the same bits (bench/results/2026-11-28-llvmpipe-avx512.md). LP_NATIVE_VECTOR_WIDTH=256 in the environment leaves it at eight. Other drivers do not read this.
 */
function widenLlvmpipe(): void {
  if (process.platform !== 'linux' || process.env['LP_NATIVE_VECTOR_WIDTH']) return;
  try {
    const flags = new Set(/^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1]!.split(' '));
    if (['avx512f', 'avx512bw', 'avx512dq', 'avx512vl'].every((flag) => flags.has(flag))) process.env['LP_NATIVE_VECTOR_WIDTH'] = '512';
  } catch {
    // It stays at eight where the processor's features cannot be read.
  }
}

async function loadDawn(): Promise<typeof import('webgpu')> {
  widenLlvmpipe();
  try {
    return await import('webgpu');
  } catch (error) {
    throw new DdpmError('E-NO-ADAPTER', `the package "webgpu" (Dawn for Node) could not be loaded on ${process.platform}-${process.arch}: ${(error as Error).message}. Run npm install webgpu.`);
  }
}

/** An adapter as Dawn lists it. */
export interface AdapterName {
  readonly backend: string;
  readonly name: string;
}

/** The adapters that `gpu` chooses from, hardware and software. */
export async function listAdapters(): Promise<AdapterName[]> {
  const dawn = await loadDawn();
  // Dawn for Node has no call for this; what it says when a name fits none is the list.
  let said = '';
  const gpu = held.instances.get('list') ?? dawn.create(['adapter=no adapter is called this']);
  held.instances.set('list', gpu);
  try {
    await gpu.requestAdapter();
  } catch (error) {
    said = (error as Error).message;
  }
  return [...said.matchAll(/backend: '(.*?)', name: '(.*)'/g)].map(([, backend, name]) => ({ backend: backend!, name: name! }));
}

/** The adapter's name that a number or a part of a name, in whatever case, stands for. */
async function findAdapter(gpu: string): Promise<string> {
  const adapters = await listAdapters();
  const found = /^\d+$/.test(gpu) ? adapters[Number(gpu)] : adapters.find(({ name }) => name.toLowerCase().includes(gpu.toLowerCase()));
  if (found) return found.name;
  const list = adapters.map(({ backend, name }, i) => `\n  ${i}  ${name} (${backend})`).join('');
  throw new DdpmError('E-NO-ADAPTER', adapters.length ? `there is no adapter "${gpu}". There ${adapters.length === 1 ? 'is' : 'are'}:${list}` : `there is no adapter "${gpu}", nor any other.`);
}

/** Dawn hides float16 on NVIDIA, some of whose drivers failed its tests; the self-test of `usePrecision` stands in for that. Subgroup matrices need Vulkan's memory model. */
const HALF = ['vulkan_enable_f16_on_nvidia', 'use_vulkan_memory_model'];

async function instance(options: OpenOptions): Promise<GPU> {
  const on = ['allow_unsafe_apis', ...(options.precision === 'f16' ? HALF : [])];
  // Every index that our kernels use is inside its binding (test/helpers/gpu.ts watches the memory around each); checking it again took 40 % of a step on llvmpipe.
  if (!options.robust) on.push('disable_robustness');
  // 65 microsecond steps would hide most kernels; WGSL is validated by Tint already.
  const off = ['timestamp_quantization', 'enable_spirv_validation'];
  for (const toggle of options.toggles ?? []) (toggle.startsWith('-') ? off : on).push(toggle.replace(/^-/, ''));
  const flags = [
    `enable-dawn-features=${on.join()}`,
    `disable-dawn-features=${off.join()}`,
    ...(options.backend ? [`backend=${options.backend}`] : []),
    ...(options.gpu ? [`adapter=${await findAdapter(options.gpu)}`] : []),
  ];
  const key = flags.join(' ');
  let gpu = held.instances.get(key);
  if (!gpu) {
    const dawn = await loadDawn();
    held.instances.set(key, (gpu = dawn.create(flags)));
  }
  return gpu;
}

const napping = new Int32Array(new SharedArrayBuffer(4));

/**
 * While a promise of Dawn's is pending, Node's loop polls it without a pause: a whole core, which a software adapter needs for the kernels.
 * Sleeping between polls gave a training step on two cores 300 ms instead of 500.
 */
const nap = (): Promise<void> => {
  Atomics.wait(napping, 0, 0, 2);
  return new Promise((resolve) => setImmediate(resolve));
};

/**
 * Opens the best adapter and a device with all that the engine can use. Throws E-NO-ADAPTER where there is none. On Linux, where the processor has AVX-512 and the environment does not set
 * LP_NATIVE_VECTOR_WIDTH, it is set to 512, so that llvmpipe uses it.
 */
export async function openEngine(options: OpenOptions = {}): Promise<OpenedEngine> {
  let adapter: GPUAdapter | null = null;
  let reason = '';
  try {
    // The first request on Vulkan has Dawn print two warnings of limits that it lowers, straight to stderr: no toggle, and no callback of this package, reaches them.
    adapter = await (await instance(options)).requestAdapter({ powerPreference: 'high-performance' });
  } catch (error) {
    if (error instanceof DdpmError) throw error;
    reason = ` Dawn says: ${(error as Error).message}`;
  }
  if (!adapter)
    throw new DdpmError(
      'E-NO-ADAPTER',
      `no WebGPU adapter was found.${reason} Linux needs a Vulkan loader (libvulkan1) and a driver: the vendor's for a GPU (in a container NVIDIA_DRIVER_CAPABILITIES must include "graphics"), ` +
        'or mesa-vulkan-drivers >= 24 for the CPU. In a clone of the repository npm run train sets up the latter on Debian and Ubuntu.',
    );
  const { precision = 'f32' } = options, half = precision === 'f16';
  if (half && !adapter.features.has('shader-f16')) throw new DdpmError('E-LIMIT', `${adapter.info.description || adapter.info.device} has no float16 in shaders (the WebGPU feature shader-f16): use --precision f32.`);
  const { requiredLimits, requiredFeatures } = engineRequirements(adapter, { precision });
  const device = await adapter.requestDevice({
    requiredFeatures: [...requiredFeatures, ...(half && options.backend === 'null' ? [SUBGROUP_MATRIX] : []), ...(options.timestamps && adapter.features.has('timestamp-query') ? (['timestamp-query'] as const) : [])].filter((f) => !options.without?.includes(f)),
    requiredLimits: options.defaultLimits ? {} : requiredLimits,
  });
  const software = isSoftware(adapter.info);
  let engine: Engine, warnings: readonly string[] = [];
  try {
    engine = new Engine(device, { poison: options.poison ?? false, ...(software && { idle: nap }), ...(options.choices && { choices: options.choices(adapter.info) }) });
    // The null backend computes nothing that could be right.
    if (options.backend !== 'null') warnings = await usePrecision(engine, precision);
  } catch (error) {
    device.destroy();
    await device.lost;
    throw error;
  }
  const close = async (): Promise<void> => {
    await engine.destroy();
    device.destroy();
    await device.lost;
  };
  return { engine, device, info: adapter.info, software, warnings, close, [Symbol.asyncDispose]: close };
}
