// A model's parameters on a device: flat buffers of values, gradients, moments and averages, in chunks where a binding is limited.
import { DdpmError } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import type { Slice } from '../gpu/kernel.ts';
import { readsRounded } from '../ops/half.ts';
import { ParameterTensor } from '../tensor.ts';
import { initialise } from './init.ts';
import { type Module, type Parameter, parametersOf } from './parameter.ts';

/** The flat buffers: weights, gradients, AdamW's moments, the exponential moving average of the weights. */
export const BUFFERS = ['values', 'grads', 'm', 'v', 'ema'] as const;
/** What is kept for every weight: its value, AdamW's two moments, and its moving average. */
export type BufferName = (typeof BUFFERS)[number];

/** A part of the flat buffers, as large as the device binds: `count` weights, and where each buffer's part is. */
export interface Chunk {
  readonly count: number;
  readonly slices: Readonly<Record<BufferName, Slice>>;
}

interface Place {
  readonly parameter: Parameter;
  readonly chunk: number;
  /** In float32 elements; a multiple of 64, since a binding starts at a multiple of 256 bytes, and of 128 where tensor cores read a copy as float16. */
  readonly offset: number;
}

/** Tensors by name, in a file's layout. */
export type NamedTensors = ReadonlyMap<string, { readonly shape: readonly number[]; readonly data: ArrayLike<number> }>;

/**
 * All weights of a model, float32, in flat buffers for values, gradients, moments and averages. `read` and `write` speak the layout of files, by
 * name.
 */
export class Parameters {
  readonly engine: Engine;
  readonly chunks: readonly Chunk[];
  readonly #places: readonly Place[];
  #bound: 'values' | 'ema' = 'values';

  private constructor(engine: Engine, chunks: readonly Chunk[], places: readonly Place[]) {
    this.engine = engine;
    this.chunks = chunks;
    this.#places = places;
  }

  /**
   * Gives every parameter of the model its place on the device and its initial value from the seed.
   * With `training: false` there are values only, which get no gradient; with `initial: false` they are zeros, for weights that come from a file. Throws E-LIMIT where one parameter exceeds what the device binds.
   */
  static place(engine: Engine, model: Module, { seed = 0, training = true, initial = true, chunkBytes = engine.device.limits.maxStorageBufferBindingSize } = {}): Parameters {
    const unit = readsRounded(engine) ? 128 : 64;
    const most = Math.floor(Math.min(chunkBytes, engine.device.limits.maxStorageBufferBindingSize) / (4 * unit)) * unit;
    const counts = [0];
    const places = parametersOf(model).map((parameter): Place => {
      if (parameter.size > most) throw new DdpmError('E-LIMIT', `${parameter.name} has ${parameter.size} values; this device binds at most ${most}.`);
      const room = Math.ceil(parameter.size / unit) * unit;
      if (counts.at(-1)! + room > most) counts.push(0);
      const chunk = counts.length - 1, offset = counts[chunk]!;
      counts[chunk]! += room;
      return { parameter, chunk, offset };
    });
    const chunks = counts.map((count): Chunk => {
      const values = engine.allocate(4 * count);
      const slice = (name: BufferName) => (name === 'values' || !training ? values : engine.allocate(4 * count));
      return { count, slices: Object.fromEntries(BUFFERS.map((name) => [name, slice(name)])) as Record<BufferName, Slice> };
    });
    const parameters = new Parameters(engine, chunks, places);
    for (const { slices } of chunks) for (const slice of new Set(Object.values(slices))) engine.clear(slice);
    if (initial) places.forEach(({ parameter }, i) => parameters.#write('values', places[i]!, initialise(parameter.init, parameter.shape, seed, i)));
    if (training && initial) for (const chunk of chunks) engine.copy(chunk.slices.values, chunk.slices.ema);
    parameters.#bind('values');
    (model as { prepare?(engine: Engine): void }).prepare?.(engine);
    return parameters;
  }

  get names(): string[] {
    return this.#places.map((p) => p.parameter.name);
  }

  /** False after `training: false`: all buffers are then that of the values, and a gradient would be written over the weights. */
  get #trained(): boolean {
    return this.chunks.some(({ slices }) => slices.grads !== slices.values);
  }

  /** Throws E-USAGE after `training: false`. */
  requireTrained(what: string): void {
    if (!this.#trained) throw new DdpmError('E-USAGE', `${what} needs more than the weights, and the model was placed with training: false. Leave that out.`);
  }

  /** How many numbers are learnt. */
  get count(): number {
    return this.#places.reduce((sum, p) => sum + p.parameter.size, 0);
  }

  /**
   * Runs fn with the model reading other weights, such as the averaged ones, until fn returns. `new Sampler`, pSampleLoop, `edit` and the other uses of a model capture
   * the network before they wait for anything, so they can be called in fn. In an async function of your own only what comes before its first await reads these weights.
   */
  use<T>(weights: 'values' | 'ema', fn: () => T): T {
    const before = this.#bound;
    this.#bind(weights);
    try {
      return fn();
    } finally {
      this.#bind(before);
    }
  }

  /** The name of the parameter that holds element `index` of the flat buffers, counted over all chunks. */
  nameAt(index: number): string {
    let base = 0;
    for (const [c, chunk] of this.chunks.entries()) {
      if (index < base + chunk.count) return this.#places.findLast((p) => p.chunk === c && p.offset <= index - base)?.parameter.name ?? `element ${index}`;
      base += chunk.count;
    }
    return `element ${index}`;
  }

  /** Reads one flat buffer back, as tensors by name in a file's layout. E-USAGE for any but the values after `training: false`. */
  async read(buffer: BufferName): Promise<Map<string, { shape: readonly number[]; data: Float32Array<ArrayBuffer> }>> {
    if (buffer !== 'values') this.requireTrained(buffer);
    const chunks = await Promise.all(this.chunks.map((chunk) => this.engine.read(chunk.slices[buffer])));
    return new Map(this.#places.map(({ parameter: p, chunk, offset }) => [p.name, { shape: p.shape, data: p.toFile(chunks[chunk]!.subarray(offset, offset + p.size)) }]));
  }

  /** Writes one flat buffer; E-USAGE as `read`. Throws E-MODEL with the first three tensors that are missing, unknown or of another shape; then nothing is written. */
  write(buffer: BufferName, tensors: NamedTensors, source: string): void {
    if (buffer !== 'values') this.requireTrained(buffer);
    const wrong: string[] = [];
    const known = new Set(this.names);
    for (const { parameter: p } of this.#places) {
      const there = tensors.get(p.name);
      if (!there) wrong.push(`${p.name}: missing, the model has (${p.shape.join(', ')})`);
      else if (there.shape.join() !== p.shape.join()) wrong.push(`${p.name}: (${there.shape.join(', ')}) there, (${p.shape.join(', ')}) in the model`);
    }
    for (const [name, { shape }] of tensors) if (!known.has(name)) wrong.push(`${name}: (${shape.join(', ')}) there, not in the model`);
    if (wrong.length)
      throw new DdpmError('E-MODEL', `${source} is of another model: ${wrong.length} tensors differ.\n  ${wrong.slice(0, 3).join('\n  ')}${wrong.length > 3 ? `\n  and ${wrong.length - 3} more` : ''}`);
    for (const place of this.#places) this.#write(buffer, place, tensors.get(place.parameter.name)!.data);
  }

  #write(buffer: BufferName, { parameter, chunk, offset }: Place, data: ArrayLike<number>): void {
    const values = new Float32Array(parameter.size);
    parameter.toDevice(data, values);
    this.engine.write(this.#slice(buffer, { parameter, chunk, offset }), values);
  }

  #slice(buffer: BufferName, { parameter, chunk, offset }: Place): Slice {
    const flat = this.chunks[chunk]!.slices[buffer];
    return { buffer: flat.buffer, offset: flat.offset + 4 * offset, bytes: 4 * parameter.size };
  }

  #bind(weights: 'values' | 'ema'): void {
    this.#bound = weights;
    for (const place of this.#places) {
      const { parameter } = place;
      const tensor = new ParameterTensor(this.engine, parameter.deviceShape, this.#slice(weights, place), parameter.name, this.#slice('grads', place));
      tensor.requiresGrad = this.#trained;
      parameter.tensor = tensor;
    }
  }
}
