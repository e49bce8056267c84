// The engine: runs typed WGSL kernels on a borrowed GPUDevice, eagerly or captured into a plan.
import { BindGroups, makeBindGroup } from './bind-groups.ts';
import { Choices, type ChoiceTable } from './choices.ts';
import { USAGE } from './constants.ts';
import { type DeviceClass, deviceClass, subgroupWidth } from './device-class.ts';
import { Dims } from './dims.ts';
import { DdpmError } from '../errors.ts';
import { HALF_NANS, widenHalf } from './float16.ts';
import { type Args, type ElementType, forTypes, type Grid, grid, type Kernel, type Slice } from './kernel.ts';
import { fill } from './kernels.gen.ts';
import { type Pipeline, Pipelines } from './pipelines.ts';
import { type Command, encode, Plan } from './plan.ts';
import { PlanPool } from './plan-pool.ts';
import { Pool } from './pool.ts';
import { type KernelTime, profile } from './profile.ts';
import { Queue, words } from './queue.ts';
import { LEAST, requireLimits } from './requirements.ts';
import { type Scope, Scopes } from './scopes.ts';
import { isRetired, requireApart, requireGrid, requireUsable, retire, setHome } from './usable.ts';
import { borrow, type Tensor } from '../tensor.ts';

/** Of each type a number that a NaN is made of: for float16 two in one word, which together are a finite float32. */
const POISON: Readonly<Record<ElementType, number>> = { f32: NaN, f16: HALF_NANS };

/** A kernel's arguments by name. */
type Given = Readonly<Record<string, number | Slice | undefined>>;

/** Eager commands are submitted in batches: a submit costs as much as ten dispatches. */
const EAGER_BATCH = 256;

/**
 * Runs typed WGSL kernels on a borrowed GPUDevice: eagerly (`run`; dispatches are submitted in batches, or when something is read), or captured into a plan (`capture`)
 * that is replayed. It allocates float32, 32-bit integers, or float16 for stored activations; memory is freed by scope or by hand.
 */
export class Engine {
  readonly device: GPUDevice;
  readonly pipelines: Pipelines;
  /** Lanes of a subgroup where the device has exactly one width and the feature is on; otherwise 0. */
  readonly subgroupWidth: number;
  /** The kind of device, which decides the choice of kernels where none was given. */
  readonly deviceClass: DeviceClass;
  /** How ops compute their shapes. */
  readonly choices: Choices;
  /** The kernels for float16 factors that passed their self-test on this device: none until `usePrecision(engine, 'f16')`. */
  readonly half = new Set<string>();
  /** How networks store their activations: `f16` after `usePrecision(engine, 'f16')` on a GPU whose kernels for it passed their self-test. */
  storage: ElementType = 'f32';
  readonly #pool: Pool;
  readonly #plans = new Set<Plan>();
  readonly #scopes = new Scopes((slice) => this.free(slice));
  readonly #dims: Dims;
  readonly #bindGroups: BindGroups;
  #pending: Command[] = [];
  /** Commands are made when the plan's buffers exist. */
  #capture: { commands: (() => Command)[]; pool: PlanPool } | null = null;
  /** Of what was captured: the buffers behind the stand-ins that its tensors were given. */
  readonly #built = new WeakMap<GPUBuffer, GPUBuffer>();
  readonly #queue: Queue;
  readonly #poison: boolean;

  /**
   * Borrows the device: it is never destroyed, nothing is requested from it, and no handler of its owner's is touched. Throws E-LIMIT with a list of what is missing
   * where its limits are below WebGPU's defaults; a tensor or a model that is too large for them throws E-LIMIT when it is made.
   * With `poison` every allocation is filled with NaN, so that reading what nobody wrote shows; for tests.
   * `choices` are variants of kernels by shape, such as another engine's `choices.table()`; what is not in them follows from the device's class.
   * `idle` is awaited over and over while the engine waits for the device: where waiting itself burns a core, it can sleep.
   */
  constructor(device: GPUDevice, { poison = false, idle, choices }: { poison?: boolean; idle?: () => Promise<void>; choices?: ChoiceTable } = {}) {
    requireLimits(device, LEAST, 'the engine');
    this.device = device;
    this.#poison = poison;
    this.#queue = new Queue(device, idle ?? null);
    this.pipelines = new Pipelines(device);
    this.subgroupWidth = subgroupWidth(device);
    this.deviceClass = deviceClass(device);
    this.choices = new Choices(choices);
    this.#pool = new Pool(device, (fn) => this.#queue.guard(fn));
    this.#dims = new Dims(device);
    this.#bindGroups = new BindGroups((pipeline, resources) => this.#queue.guard(() => makeBindGroup(device, pipeline, resources)));
  }

  /** The precision of products' factors; sums are float32. */
  get precision(): 'f32' | 'f16' {
    return this.half.size ? 'f16' : 'f32';
  }

  /** Resolves when the device is lost. */
  get lost(): Promise<GPUDeviceLostInfo> {
    return this.device.lost;
  }

  /** Whether a capture is open: what is run now goes into its plan. */
  get capturing(): boolean {
    return this.#capture !== null;
  }

  /** Throws the first error that the device reported, such as E-DEVICE-LOST; from then on every call does. */
  check(): void {
    this.#queue.check();
  }

  // ---- memory

  /** A new buffer of at least `bytes`, of undefined content, freed with the innermost scope or by `free`. E-LIMIT where the device has none so large. */
  allocate(bytes: number, type: ElementType = 'f32'): Slice {
    this.#queue.requireOpen();
    const slice: Slice = { buffer: (this.#capture?.pool ?? this.#pool).take(bytes), offset: 0, bytes, type };
    setHome(slice.buffer, this);
    this.#scopes.add(slice);
    if (this.#poison) this.run(fill, grid(Math.ceil(bytes / 1024)), { y: { ...slice, type: 'f32' }, value: POISON[type] });
    return slice;
  }

  /**
   * A tensor over a buffer of the caller's, `offset` bytes into it, with no copy. It is never freed or destroyed here, and must outlive every plan that reads it.
   * Throws E-ENGINE without the usage STORAGE or where the offset is not aligned, E-SHAPE where the buffer ends before the shape does. Kernels take four values at a
   * time: a tensor reaches up to the next multiple of 16 bytes, and what is written into it is written up to there. For `read` and `copy` the buffer needs COPY_SRC
   * or COPY_DST as well.
   */
  borrow(buffer: GPUBuffer, shape: readonly number[], options: { offset?: number } = {}): Tensor {
    return borrow(this, buffer, shape, options);
  }

  /** Whether the slice is in memory of this engine that was not freed. */
  owns(slice: Slice): boolean {
    const { buffer } = slice;
    if (isRetired(slice)) return false;
    return this.#pool.isLive(buffer) || !!this.#capture?.pool.isLive(buffer) || [...this.#plans].some((plan) => plan.pool.isLive(buffer));
  }

  /** The buffer that holds a slice. What a capture allocates has none until the capture ends. E-ENGINE if the slice was freed, or its plan destroyed. */
  bufferOf(slice: Slice): GPUBuffer {
    this.#requireUsable(slice, 'a tensor');
    return this.#bufferOf(slice);
  }

  /** Gives memory back, for the next allocation of its size. E-ENGINE if it was freed before, is borrowed, or is from outside the open capture. After `destroy` it does nothing. */
  free(slice: Slice): void {
    if (this.#queue.closed) return;
    if (isRetired(slice)) throw new DdpmError('E-ENGINE', 'a buffer was freed twice');
    const pool = this.#capture?.pool.owns(slice.buffer) ? this.#capture.pool : this.#pool;
    if (this.#capture && pool === this.#pool) throw new DdpmError('E-ENGINE', 'a buffer from outside a capture cannot be freed inside it: the plan would use it after its end.');
    pool.give(slice.buffer);
    this.#scopes.forget(slice);
    retire(slice);
  }

  /** Only the first `bytes` of the slice have been used: a plan need not hold more for it. */
  trim(slice: Slice, bytes: number): void {
    if (!this.#poison) this.#capture?.pool.trim(slice.buffer, bytes);
  }

  /** Opens a scope, to which allocations belong until closeScope. `scope` does both around a function. */
  openScope(holds: boolean): Scope {
    return this.#scopes.open(holds);
  }

  /** Closes the innermost scope: frees what it allocated except `keep`, which passes to the scope around it. E-ENGINE if others are still open inside it, which closes them too. */
  closeScope(scope: Scope, keep: ReadonlySet<GPUBuffer> = new Set()): void {
    this.#scopes.close(scope, keep);
  }

  /**
   * Runs fn and frees every tensor it made except those it returns, alone or in arrays and plain objects. What an object holds that fn makes, such as a Sampler, is freed: make it
   * outside. Inside a tape nothing is freed early: backward needs it.
   */
  scope<T>(fn: () => T): T {
    return this.#scopes.holds ? fn() : this.enclose(fn);
  }

  /** Like `scope`, but frees inside a tape too. */
  enclose<T>(fn: () => T): T {
    return this.#scopes.enclose(fn);
  }

  /** Bytes by where they live; `peak` is the most that eager work and each plan ever held at once. */
  memory(): { live: number; peak: number; total: number; plans: number } {
    let plans = 0;
    for (const plan of this.#plans) plans += plan.pool.totalBytes;
    return { live: this.#pool.liveBytes, peak: this.#pool.peakBytes, total: this.#pool.totalBytes + plans, plans };
  }

  // ---- commands

  /**
   * kernel<<<grid>>>(args): records one dispatch. Names are those of the WGSL file; a missing or misspelt one is a type error. Throws E-LIMIT for a grid or a binding
   * beyond the device's limits, or subgroups that it has not; E-ENGINE for a slice that was freed. Given float16 activations it runs the kernel's form for them.
   */
  run<K extends Kernel>(kernel: K, grid: Grid, args: Args<K>): void {
    const given = args as unknown as Given;
    this.#dispatch(forTypes(kernel, given), grid, given);
  }

  #dispatch(kernel: Kernel, grid: Grid, given: Given): void {
    requireGrid(kernel, grid, this.device.limits.maxComputeWorkgroupsPerDimension);
    const [x, y = 1, z = 1] = grid;
    if (x * y * z === 0) return;
    const constants: Record<string, number> = {};
    for (const name in kernel.overrides) constants[name] = this.#number(kernel, name, given[name]);
    for (const name in kernel.optional) if (given[name] !== undefined) constants[name] = this.#number(kernel, name, given[name]);
    const pipeline = this.pipelines.get(kernel, constants);

    const resources = Object.keys(kernel.bindings).map((name) => this.#binding(kernel, name, given[name] as Slice));
    requireApart(kernel, resources);
    if (Object.keys(kernel.dims).length) resources.push(this.#dims.get(kernel, (name) => this.#number(kernel, name, given[name])));
    // A plan keeps its own bind groups, and is guarded as a whole.
    const bind = this.#capture ? () => makeBindGroup(this.device, pipeline, resources.map((r) => ({ ...r, buffer: this.#bufferOf(r) }))) : () => this.#bindGroups.get(pipeline, resources);
    this.#record(() => ({ kind: 'dispatch', pipeline, bindings: bind(), x, y, z }));
  }

  /** Copies a slice over another of as many bytes (E-SHAPE otherwise) and the same type (E-KERNEL). */
  copy(from: Slice, to: Slice): void {
    const [source, target] = [from.type ?? 'f32', to.type ?? 'f32'];
    if (source !== target) throw new DdpmError('E-KERNEL', `copy of ${source} into ${target}, which would be other numbers there. Cast one to the other first.`);
    if (from.bytes !== to.bytes) throw new DdpmError('E-SHAPE', `copy of ${from.bytes} bytes into ${to.bytes} bytes.`);
    this.#requireUsable(from, 'what is copied');
    this.#requireUsable(to, 'what is copied over');
    this.#record(() => ({ kind: 'copy', from: this.#placed(from), to: this.#placed(to) }));
  }

  /** Sets a slice to zero. */
  clear(slice: Slice): void {
    this.#requireUsable(slice, 'what is cleared');
    this.#record(() => ({ kind: 'clear', slice: this.#placed(slice) }));
  }

  /** Copies bytes from the host to the start of a slice, padded with zeros to a whole word, in the order of the calls. E-SHAPE if it holds fewer, E-ENGINE inside a capture. */
  write(to: Slice, data: Float32Array | Uint32Array | Int32Array | Uint16Array | Uint8Array): void {
    if (this.#capture) throw new DdpmError('E-ENGINE', 'write() inside capture(): a plan holds commands only. Write before or after, into a buffer that the plan reads.');
    if (!ArrayBuffer.isView(data)) throw new DdpmError('E-USAGE', 'write() takes a typed array, such as a Float32Array, and was given something else.');
    if (data.byteLength > to.bytes) throw new DdpmError('E-SHAPE', `write of ${data.byteLength} bytes into ${to.bytes} bytes.`);
    this.flush();
    let bytes = new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
    // WebGPU writes whole words.
    if (bytes.length % 4) {
      const whole = new Uint8Array(words(bytes.length));
      whole.set(bytes);
      bytes = whole;
    }
    this.#queue.write(this.bufferOf(to), to.offset, bytes);
  }

  /** The only await: brings a slice back as float32, which is exact for float16 too. Everything recorded before is submitted first. E-ENGINE inside a capture. */
  async read(from: Slice): Promise<Float32Array<ArrayBuffer>> {
    const bytes = await this.readBytes(from);
    return from.type === 'f16' ? widenHalf(new Uint16Array(bytes)) : new Float32Array(bytes);
  }

  /** Like `read`, but gives the bytes as they are. */
  async readBytes(from: Slice): Promise<ArrayBuffer> {
    if (this.#capture) throw new DdpmError('E-ENGINE', 'read() inside capture(): read the plan\'s result after run().');
    this.flush();
    return this.#queue.read(this.bufferOf(from), from.offset, from.bytes);
  }

  /** Submits what eager calls recorded. */
  flush(): void {
    if (this.#pending.length === 0) return;
    const commands = this.#pending;
    this.#pending = [];
    this.#queue.submit((encoder) => encode(this, commands, encoder));
  }

  /**
   * Records what fn does into the caller's encoder; nothing is submitted. What was recorded before outside of it runs first. The tensors that fn makes live in the
   * plan that is returned: destroy it when the encoder's work was submitted and its result is no longer needed. For every frame anew, capture once and
   * `plan.encode` each time.
   */
  encode<T>(encoder: GPUCommandEncoder, fn: () => T): Plan<T> {
    const plan = this.capture(fn);
    plan.encode(encoder);
    return plan;
  }

  /** Encodes commands of a plan into an encoder, or submits them by themselves. */
  encodeInto(encoder: GPUCommandEncoder, commands: readonly Command[]): void {
    encode(this, commands, encoder);
  }

  /** Submits commands of a plan, after what was recorded before. E-ENGINE inside a capture. */
  replay(commands: readonly Command[]): void {
    if (this.#capture) throw new DdpmError('E-ENGINE', 'a plan was run inside capture(): it would run at once, and not be part of what is captured. Run it before or after.');
    this.flush();
    this.#queue.submit((encoder) => encode(this, commands, encoder));
  }

  /**
   * Compiles pipelines in parallel; throws E-KERNEL where one does not compile. A CPU's driver leaves most of it for the first dispatch (llvmpipe: 29 of 31 seconds of a training step of `tiny`): there
   * each is dispatched with bindings that fit it, over no workgroups.
   */
  async compile(pipelines: ReadonlyMap<Pipeline, GPUBindGroup>, progress?: (done: number, total: number) => void): Promise<void> {
    const use = this.deviceClass === 'gpu' ? undefined : (entry: Pipeline) => this.#dispatchNone(entry, pipelines.get(entry)!);
    await this.settle(Promise.race([this.#queue.guard(() => this.pipelines.ahead(pipelines.keys(), { use, progress })), this.lost]));
    this.check();
  }

  /** Where a plan's time goes, by kernel. */
  profile(plan: Plan<unknown>): Promise<KernelTime[]> {
    return profile(this, plan);
  }

  /** Finishes and submits an encoder; what the device finds wrong with it is this engine's error. */
  submit(encoder: GPUCommandEncoder): void {
    this.#queue.submit(encoder);
  }

  /** Resolves when the device has finished everything submitted so far. */
  async finished(): Promise<void> {
    this.flush();
    await this.settle(this.device.queue.onSubmittedWorkDone());
    this.check();
  }

  /** Awaits what the device will resolve. */
  settle<T>(promise: Promise<T>): Promise<T> {
    return this.#queue.settle(promise);
  }

  // ---- capture

  /** Records what fn does without running it. Tensors that fn makes live in the plan's own pool. E-ENGINE inside another capture, for a `write` or `read` in fn, or where fn is async. */
  capture<T>(fn: () => T): Plan<T> {
    if (this.#capture) throw new DdpmError('E-ENGINE', 'capture() inside capture().');
    this.flush();
    const capture = (this.#capture = { commands: [] as (() => Command)[], pool: new PlanPool(this.device) });
    // A scope of its own keeps the plan's buffers out of scopes that are open around it.
    const scope = this.openScope(false), { depth } = this.#scopes;
    try {
      const result = this.#queue.guard(fn);
      requireNow(result);
      if (this.#scopes.depth !== depth) throw new DdpmError('E-ENGINE', 'capture() ended with a tape or scope still open inside it.');
      const commands = this.#queue.guard(() => {
        capture.pool.build((standIn, buffer) => this.#built.set(standIn, buffer));
        return capture.commands.map((make) => make());
      });
      const plan = new Plan(this, commands, capture.pool, result);
      scope.slices.clear();
      this.#plans.add(plan);
      return plan;
    } catch (error) {
      this.#scopes.cut(depth); // what fn left open goes with its buffers
      scope.slices.clear();
      capture.pool.destroy();
      throw error;
    } finally {
      this.closeScope(scope);
      this.#capture = null;
    }
  }

  /** Destroys a plan's buffers; called by plan.destroy() when the device is done with them. */
  release(plan: Plan<never> | Plan): void {
    this.#plans.delete(plan as Plan);
    plan.pool.destroy();
  }

  /** Destroys the engine's buffers and plans; the device stays with its owner. A plan that was encoded must have been submitted. What is asked of it from then on is E-ENGINE. */
  async destroy(): Promise<void> {
    if (!this.#queue.failed) this.flush(); // what was asked for is done, into borrowed buffers too
    await this.done();
    for (const plan of this.#plans) this.release(plan);
    this.#pool.destroy();
    this.#dims.destroy();
    this.#queue.close();
  }

  /** `await using engine = new Engine(device)`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.destroy();
  }

  /** Resolves when the device has done what it was given, or is lost: either way nothing needs its buffers any more. */
  done(): Promise<void> {
    return this.#queue.done();
  }

  /** Numbers that never change, as a slice that lives as long as the engine: the same numbers, the same slice. */
  constants(numbers: Uint32Array<ArrayBuffer>): Slice {
    return this.#dims.table(numbers);
  }

  // ---- private

  /** Resolves when the device has dispatched no workgroups. Their number stands in a buffer: of a plain 0 Dawn warns. */
  #dispatchNone(pipeline: Pipeline, bindings: GPUBindGroup): Promise<unknown> {
    const nowhere = this.device.createBuffer({ size: 12, usage: USAGE.INDIRECT });
    this.#queue.submit((encoder) => {
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline.compiled!);
      pass.setBindGroup(0, bindings);
      pass.dispatchWorkgroupsIndirect(nowhere, 0);
      pass.end();
    });
    nowhere.destroy();
    return this.device.queue.onSubmittedWorkDone();
  }

  #record(make: () => Command): void {
    this.#queue.requireOpen();
    if (this.#capture) this.#capture.commands.push(make);
    else if (this.#pending.push(make()) >= EAGER_BATCH) this.flush();
  }

  #placed(slice: Slice): Slice {
    return { ...slice, buffer: this.#bufferOf(slice), bytes: words(slice.bytes) };
  }

  #bufferOf({ buffer }: { readonly buffer: GPUBuffer }): GPUBuffer {
    return this.#built.get(buffer) ?? buffer;
  }

  #requireUsable(slice: Slice, what: string): void {
    requireUsable(this, slice, what);
    for (const pool of [this.#pool, this.#capture?.pool]) if (pool?.owns(slice.buffer) && !pool.isLive(slice.buffer)) throw new DdpmError('E-ENGINE', `${what} was freed before.`);
  }

  #number(kernel: Kernel, name: string, value: number | Slice | undefined): number {
    if (typeof value !== 'number' && typeof value !== 'boolean') throw new DdpmError('E-KERNEL', `${kernel.name}: ${name} must be a number.`);
    return Number(value);
  }

  #binding(kernel: Kernel, name: string, slice: Slice): GPUBufferBinding {
    if (!slice?.buffer) throw new DdpmError('E-KERNEL', `${kernel.name}: binding ${name} is missing, or no slice. Give ${name}: tensor.slice.`);
    const limit = this.device.limits.maxStorageBufferBindingSize;
    if (slice.bytes > limit)
      throw new DdpmError('E-LIMIT', `${kernel.name}: ${name} is ${slice.bytes} bytes; this device binds at most ${limit}. Use a smaller batch size, or request a larger maxStorageBufferBindingSize.`);
    this.#requireUsable(slice, `${kernel.name}: ${name}`);
    return { buffer: this.#bufferOf(slice), offset: slice.offset, size: Math.min(Math.ceil(slice.bytes / 16) * 16, slice.buffer.size - slice.offset) };
  }
}

/** Throws E-ENGINE where a result is still to come. */
function requireNow(result: unknown): void {
  if (typeof (result as { then?: unknown } | null)?.then !== 'function') return;
  Promise.resolve(result).catch(() => {}); // of its end nobody is told but by the error here
  throw new DdpmError('E-ENGINE', 'capture() was given a function that returns a promise, of which a plan would hold only what comes before its first await. Await before capture(), and read the plan\'s result after run().');
}
