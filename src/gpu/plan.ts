// A captured sequence of commands: recorded once, replayed for two or three microseconds a dispatch.
import { DdpmError } from '../errors.ts';
import type { Engine } from './engine.ts';
import type { Slice } from './kernel.ts';
import type { Pipeline } from './pipelines.ts';
import type { PlanPool } from './plan-pool.ts';

/** What a plan is made of: a dispatch of workgroups, a copy or a clearing of bytes. */
export type Command =
  | { readonly kind: 'dispatch'; readonly pipeline: Pipeline; readonly bindings: GPUBindGroup; readonly x: number; readonly y: number; readonly z: number }
  | { readonly kind: 'copy'; readonly from: Slice; readonly to: Slice }
  | { readonly kind: 'clear'; readonly slice: Slice };

/** Encodes commands into as few passes as copies and clears allow. */
export function encode(engine: Engine, commands: readonly Command[], encoder: GPUCommandEncoder): void {
  let pass: GPUComputePassEncoder | null = null;
  let last: Pipeline | null = null;
  for (const c of commands) {
    if (c.kind === 'dispatch') {
      if (!pass) [pass, last] = [encoder.beginComputePass(), null];
      if (c.pipeline !== last) pass.setPipeline(engine.pipelines.now((last = c.pipeline)));
      pass.setBindGroup(0, c.bindings);
      pass.dispatchWorkgroups(c.x, c.y, c.z);
      continue;
    }
    pass?.end();
    pass = null;
    if (c.kind === 'copy') encoder.copyBufferToBuffer(c.from.buffer, c.from.offset, c.to.buffer, c.to.offset, c.from.bytes);
    else encoder.clearBuffer(c.slice.buffer, c.slice.offset, c.slice.bytes);
  }
  pass?.end();
}

/** What `engine.capture` returns: the commands, the private pool that they allocated from, and what the captured function returned. */
export class Plan<T = unknown> {
  readonly engine: Engine;
  readonly commands: readonly Command[];
  readonly pool: PlanPool;
  /** The captured function's result; its tensors live as long as the plan. */
  readonly result: T;

  constructor(engine: Engine, commands: readonly Command[], pool: PlanPool, result: T) {
    this.engine = engine;
    this.commands = commands;
    this.pool = pool;
    this.result = result;
  }

  get dispatches(): number {
    return this.commands.filter((c) => c.kind === 'dispatch').length;
  }

  /** Compiles every pipeline of the plan in parallel; nothing is run. */
  async compile(progress?: (done: number, total: number) => void): Promise<void> {
    this.#requireWhole();
    await this.engine.compile(new Map(this.commands.flatMap((c) => (c.kind === 'dispatch' ? [[c.pipeline, c.bindings] as const] : []))), progress);
  }

  /** One encoder, one submit. E-ENGINE once the plan was destroyed, or inside a capture. */
  run(): void {
    this.#requireWhole();
    this.engine.replay(this.commands);
  }

  /**
   * Records the plan into the caller's encoder; nothing is submitted. What the engine was given before runs before it. Throws E-DEVICE-LOST on a lost device, which
   * WebGPU itself would not say.
   */
  encode(encoder: GPUCommandEncoder): void {
    this.#requireWhole();
    this.engine.flush();
    this.engine.check();
    encode(this.engine, this.commands, encoder);
  }

  /** Frees the plan's buffers once the device is done with them. */
  async destroy(): Promise<void> {
    await this.engine.done();
    this.engine.release(this);
  }

  #requireWhole(): void {
    if (this.pool.destroyed) throw new DdpmError('E-ENGINE', 'the plan was destroyed, or its engine: capture another.');
  }

  /** `await using plan = engine.capture(…)`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.destroy();
  }
}
