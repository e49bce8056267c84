// Compute pipelines, cached by kernel and overrides: made lazily one by one, or ahead of time in parallel.
import { STAGE_COMPUTE } from './constants.ts';
import { DdpmError } from '../errors.ts';
import { type Kernel, requireOrder } from './kernel.ts';

/** A pipeline that is compiled when it is first needed, or before by `compile`. */
export interface Pipeline {
  /** Kernel and override values, e.g. `group_norm_forward(WG=64)`; also the label that Dawn's messages carry. */
  readonly label: string;
  readonly kernel: Kernel;
  readonly constants: Record<string, number>;
  readonly layout: GPUBindGroupLayout;
  compiled: GPUComputePipeline | null;
}

export class Pipelines {
  readonly #device: GPUDevice;
  readonly #byLabel = new Map<string, Pipeline>();
  /** The WGSL of each name: another text under a name that is there, as while somebody edits a kernel, is another kernel. */
  readonly #texts = new Map<string, string[]>();
  readonly #layouts = new Map<string, GPUBindGroupLayout>();
  readonly #modules = new Map<string, GPUShaderModule>();

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  get count(): number {
    return this.#byLabel.size;
  }

  get(kernel: Kernel, constants: Record<string, number>): Pipeline {
    const names = Object.keys(constants), name = this.#named(kernel);
    const label = names.length ? `${name}(${names.map((n) => `${n}=${constants[n]}`).join(', ')})` : name;
    let entry = this.#byLabel.get(label);
    if (!entry) {
      const missing = kernel.features.find((feature) => !this.#device.features.has(feature));
      if (missing) throw new DdpmError('E-LIMIT', `kernel ${kernel.name} needs the device feature "${missing}", which was not requested or does not exist on this adapter.`);
      const { workgroupBytes = 0 } = kernel, most = this.#device.limits.maxComputeWorkgroupStorageSize;
      if (workgroupBytes > most) throw new DdpmError('E-LIMIT', `kernel ${kernel.name} needs ${workgroupBytes} bytes of workgroup memory; this device was opened with ${most}. Where the adapter offers more, ask for it: adapter.requestDevice(engineRequirements(adapter)).`);
      entry = { label, kernel, constants, layout: this.#layout(kernel), compiled: null };
      this.#byLabel.set(label, entry);
    }
    return entry;
  }

  /** Compiles now, blocking; compilation errors come through the device's error event with the pipeline's label. */
  now(entry: Pipeline): GPUComputePipeline {
    return (entry.compiled ??= this.#device.createComputePipeline(this.#descriptor(entry)));
  }

  /** Compiles what is not compiled yet, in parallel, and awaits `use` of it. Throws E-KERNEL with the file, the override values and the compiler's line and column. */
  async ahead(entries: Iterable<Pipeline>, { use, progress }: { use?: ((entry: Pipeline) => Promise<unknown>) | undefined; progress?: ((done: number, total: number) => void) | undefined } = {}): Promise<void> {
    const todo = [...new Set(entries)].filter((e) => !e.compiled);
    let done = 0;
    await Promise.all(
      todo.map(async (entry) => {
        try {
          entry.compiled = await this.#device.createComputePipelineAsync(this.#descriptor(entry));
        } catch (error) {
          throw new DdpmError('E-KERNEL', await this.#explain(entry, error));
        }
        await use?.(entry);
        progress?.(++done, todo.length);
      }),
    );
  }

  async #explain(entry: Pipeline, error: unknown): Promise<string> {
    const info = await this.#module(entry.kernel).getCompilationInfo();
    const lines = entry.kernel.wgsl.split('\n');
    const found = info.messages.map((m) => `  line ${m.lineNum}:${m.linePos} ${m.type}: ${m.message}\n    ${lines[m.lineNum - 1]?.trim() ?? ''}`);
    // Where the text is right, such as for a pipeline with too much workgroup memory, the reason is with the pipeline alone.
    const reason = info.messages.some(({ type }) => type === 'error') ? '' : `${(error as Error).message}\n`;
    return `kernels/${entry.kernel.name}.wgsl did not compile as ${entry.label}\n${reason}${found.length ? `${found.join('\n')}\n(lines count after #import)` : ''}`.trimEnd();
  }

  #descriptor(entry: Pipeline): GPUComputePipelineDescriptor {
    return {
      label: entry.label,
      layout: this.#device.createPipelineLayout({ bindGroupLayouts: [entry.layout] }),
      compute: { module: this.#module(entry.kernel), entryPoint: 'main', constants: entry.constants },
    };
  }

  #named(kernel: Kernel): string {
    const { name, wgsl } = kernel;
    let texts = this.#texts.get(name);
    if (!texts) this.#texts.set(name, (texts = []));
    if (!texts.includes(wgsl)) {
      requireOrder(kernel);
      texts.push(wgsl);
    }
    return texts[0] === wgsl ? name : `${name}#${texts.indexOf(wgsl) + 1}`;
  }

  #module(kernel: Kernel): GPUShaderModule {
    let module = this.#modules.get(kernel.wgsl);
    if (!module) this.#modules.set(kernel.wgsl, (module = this.#device.createShaderModule({ label: kernel.name, code: kernel.wgsl })));
    return module;
  }

  /** Layouts are explicit and shared: 'auto' layouts drop unused bindings and cannot be shared between pipelines. */
  #layout(kernel: Kernel): GPUBindGroupLayout {
    const access = Object.values(kernel.bindings);
    const uniform = Object.keys(kernel.dims).length > 0;
    const key = `${access.join()}${uniform}`;
    let layout = this.#layouts.get(key);
    if (!layout) {
      const types: GPUBufferBindingType[] = access.map((a) => (a === 'read' ? 'read-only-storage' : 'storage'));
      if (uniform) types.push('uniform');
      layout = this.#device.createBindGroupLayout({ entries: types.map((type, binding) => ({ binding, visibility: STAGE_COMPUTE, buffer: { type } })) });
      this.#layouts.set(key, layout);
    }
    return layout;
  }
}
