// What tests on a device share: one engine a process, every allocation of which is filled with NaN, and gradients through a tape.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { pointwise, record, Tape } from '../../src/autograd.ts';
import { Clock, type Tick } from '../../src/clock.ts';
import { DdpmError, type ErrorCode } from '../../src/errors.ts';
import { MAP_READ, USAGE } from '../../src/gpu/constants.ts';
import { type DeviceClass, subgroupWidth } from '../../src/gpu/device-class.ts';
import type { Engine } from '../../src/gpu/engine.ts';
import { HALF_NANS } from '../../src/gpu/float16.ts';
import type { Slice } from '../../src/gpu/kernel.ts';
import * as k from '../../src/gpu/kernels.gen.ts';
import { type Precision, usePrecision } from '../../src/ops/precision.ts';
import { type OpenedEngine, type OpenOptions, openEngine } from '../../src/node.ts';
import { STREAM } from '../../src/philox.ts';
import { Tensor } from '../../src/tensor.ts';
import { normals } from '../ref/random.ts';

export { DIVIDE, expUlps, logError, normalError, normalErrors, sigmoidError, SQRT, ULP } from '../ref/accuracy.ts';

type Floats = ArrayLike<number>;

export const openOptions: OpenOptions = { poison: true };

/** DDPM_TEST_SUITES: names, with commas between; the other suites of `gpuSuite` are left out. */
const SUITES = process.env['DDPM_TEST_SUITES']?.split(',');

const opened = new Map<string, Promise<OpenedEngine>>();
/** Which engine: with `as` it chooses kernels as one on a device of another class does, with `lanes` as where subgroups have so many: four of eight or of sixteen do the work of four. */
type Which = { readonly precision?: Precision; readonly as?: DeviceClass | null; readonly lanes?: 4 | null };
const keyOf = ({ precision = 'f32', as = null, lanes = null }: Which): string => `${precision} ${as} ${lanes}`;

/** The engine of this process, one for each precision, class and number of lanes. It is opened by the first test that asks, and never closed: test/run.ts ends the process. */
export function gpu(precision: Precision = 'f32', as: DeviceClass | null = null, lanes: 4 | null = null): Promise<OpenedEngine> {
  const key = keyOf({ precision, as, lanes });
  if (!opened.has(key)) opened.set(key, as || lanes ? openAs(precision, as, lanes) : openEngine({ ...openOptions, precision }));
  return opened.get(key)!;
}

async function openAs(precision: Precision, deviceClass: DeviceClass | null, lanes: 4 | null): Promise<OpenedEngine> {
  const there = await openEngine({ ...openOptions, precision });
  Object.assign(there.engine, { ...(deviceClass && { deviceClass }), ...(lanes && there.engine.subgroupWidth > lanes && { subgroupWidth: lanes }) });
  return { ...there, warnings: await usePrecision(there.engine, precision) };
}

// openEngine turns Dawn's bounds checks off. In their place, tests have every allocation lie between two stretches of NaN: a kernel that reads there computes NaN,
// and one that writes there is found at the end of its test.
const AROUND = 256;

/** Until the returned function is called, allocations get their surroundings; it throws where something has been written there. */
function watch(engine: Engine): () => Promise<void> {
  const { allocate } = engine, slices = new Map<GPUBuffer, Slice>();
  engine.allocate = (bytes, type = 'f32') => {
    if (engine.capturing) return allocate.call(engine, bytes, type); // a plan that has not run has filled nothing
    const { buffer } = allocate.call(engine, 2 * AROUND + 16 * Math.ceil(bytes / 16), type); // bindings are whole vec4s
    const slice = { buffer, offset: AROUND, bytes, type };
    slices.set(buffer, slice);
    return slice;
  };
  return () => {
    engine.allocate = allocate;
    return assertInside(engine, [...slices.values()]);
  };
}

async function assertInside(engine: Engine, slices: readonly Slice[]): Promise<void> {
  if (slices.length === 0) return;
  const staging = engine.device.createBuffer({ size: 2 * AROUND * slices.length, usage: USAGE.COPY_DST | USAGE.MAP_READ });
  try {
    const encoder = engine.device.createCommandEncoder();
    slices.forEach(({ buffer, offset, bytes }, i) => {
      encoder.copyBufferToBuffer(buffer, offset - AROUND, staging, 2 * AROUND * i, AROUND);
      encoder.copyBufferToBuffer(buffer, offset + 16 * Math.ceil(bytes / 16), staging, 2 * AROUND * i + AROUND, AROUND);
    });
    engine.submit(encoder);
    await engine.settle(staging.mapAsync(MAP_READ));
    const floats = new Float32Array(staging.getMappedRange());
    slices.forEach(({ bytes, type }, i) => {
      const at = floats.subarray((2 * AROUND * i) / 4, (2 * AROUND * (i + 1)) / 4).findIndex((v) => (type === 'f16' ? v !== HALF_NANS : !Number.isNaN(v)));
      if (at >= 0) assert.unreachable(`a kernel wrote ${at < AROUND / 4 ? `${AROUND - 4 * at} bytes before` : `${4 * at - AROUND} bytes after`} a tensor of ${bytes} bytes`);
    });
  } finally {
    staging.destroy();
  }
}

function succeeds(fn: () => void): boolean {
  try {
    fn();
    return true;
  } catch {
    return false;
  }
}

/** An error of the device is final: the tests after it get another engine. */
function replaceBroken(engine: Engine, which: Which): void {
  if (!succeeds(() => engine.check())) opened.delete(keyOf(which));
}

/**
 * A suite whose tests get the shared engine, and whose tensors are freed after each test. Any error that the device reports fails the test, and so does a kernel that
 * writes outside a tensor, unless `watched` is false: for tests that count bytes.
 */
export function gpuSuite(name: string, { watched = true, precision = 'f32', as = null, lanes = null }: Which & { watched?: boolean } = {}): { (what: string, test: (engine: Engine) => void | Promise<void>): void; run(): void } {
  const tests = suite(name);
  const add = (what: string, test: (engine: Engine) => void | Promise<void>): void =>
    tests(what, async () => {
      const { engine } = await gpu(precision, as, lanes);
      if (lanes && subgroupWidth(engine.device) <= lanes) return; // they are those of the suite without
      const scope = engine.openScope(false);
      const close = () => engine.closeScope(scope);
      const inside = watched ? watch(engine) : async () => {};
      try {
        await test(engine);
        await engine.finished();
        await inside();
      } catch (error) {
        void inside().catch(() => {});
        replaceBroken(engine, { precision, as, lanes });
        // The test may have left scopes of its own open; they go first, or every later test would fail too.
        for (let tries = 10, closed = false; !closed && tries > 0; tries--) closed = succeeds(close);
        throw error;
      }
      close();
    });
  return Object.assign(add, { run: () => void ((SUITES?.includes(name) ?? true) && tests.run()) });
}

/** Standard normals that are float32 numbers, so that a kernel and its twin start from the same: sample `id` of a stream for tests. */
export const random = (n: number, id: number): Float32Array =>
  Float32Array.from(normals({ seed: 11, stream: STREAM.prior, step: 1, samples: [id], count: n }));

/** A tensor on the device; integers (Uint32Array) stay integers. */
export const upload = (engine: Engine, shape: readonly number[], data: Floats): Tensor =>
  Tensor.from(engine, shape, data instanceof Float32Array || data instanceof Uint32Array ? data : Float32Array.from(data));

export function clockAt(engine: Engine, tick: Tick): Clock {
  const clock = new Clock(engine);
  clock.set(tick);
  return clock;
}

export const readWords = async (tensor: Tensor): Promise<Uint32Array> => new Uint32Array(await tensor.engine.readBytes(tensor.slice));

/** A loss whose gradient by y is dy: sum(dy y), of which only the backward is ever computed. */
export function given(y: Tensor, dy: Floats): Tensor {
  const { engine } = y, gradient = Tensor.from(engine, y.shape, Float32Array.from(dy), y.type);
  return record(Tensor.empty(engine, [1]), [y], (_, [d]) => {
    if (d) engine.run(k.accumulate, pointwise(y.size), { x: gradient.slice, y: d.slice, copy: 1 - d.accumulate });
  });
}

/** The op's result, and the gradients by `inputs` of a loss whose gradient by the result is dy. */
export async function differentiate(inputs: readonly Tensor[], op: () => Tensor, dy: Floats): Promise<{ y: Float32Array; gradients: Float32Array[] }> {
  const { engine } = inputs[0], tape = new Tape(engine);
  for (const x of inputs) x.requiresGrad = true;
  const [loss, y] = tape.record(() => {
    const result = op();
    return [given(result, dy), result];
  });
  tape.backward(loss, y);
  const gradients: Float32Array[] = [];
  for (const x of inputs) gradients.push(await tape.gradient(x).read());
  return { y: await y.read(), gradients };
}

/** A tensor that holds `data` already, to see that a kernel adds to it; or one that holds NaN. */
export const destination = (engine: Engine, shape: readonly number[], data: Floats | null): Tensor =>
  data ? upload(engine, shape, data) : Tensor.empty(engine, shape);

/** Throws unless fn throws, or rejects with, a DdpmError of this code whose message matches. */
export async function assertError(fn: () => unknown, code: ErrorCode, message: RegExp): Promise<void> {
  let error: unknown;
  try {
    await fn();
  } catch (thrown) {
    error = thrown;
  }
  if (error === undefined) assert.unreachable(`nothing was thrown; wanted ${code}: ${message}`);
  if (!(error instanceof DdpmError)) throw error;
  assert.is(error.code, code, error.message);
  assert.match(error.message, message);
}
