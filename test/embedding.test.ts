// The engine inside another program: borrowed buffers and encoders, one kernel alone, an op from outside, cancelling; and what goes wrong leaves the owner's things usable.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { add, DdpmError, DeviceImages, Engine, engineRequirements, GaussianDiffusion, makeSchedule, mse, Parameters, readModel, Sampler, silu, STREAM, Tape, Tensor, Training, UNet } from '../src/index.ts';
import { USAGE } from '../src/gpu/constants.ts';
import { makeShapes } from '../src/data/shapes.ts';
import { type OpenedEngine, openEngine } from '../src/node.ts';
import { groupNorm } from './ref/group_norm.ts';
import { normals } from './ref/random.ts';
import { assertClose } from './helpers/close.ts';
import { assertError, openOptions } from './helpers/gpu.ts';
import { leakyRelu } from './examples/custom-op.ts';
import { normalise } from './examples/one-kernel.ts';

const embedding = suite('embedding');

/** A device of the owner's, with WebGPU's default limits and no features, and what it reports to its owner. */
async function withDevice(test: (device: GPUDevice, said: string[]) => Promise<void>): Promise<void> {
  const opened: OpenedEngine = await openEngine({ defaultLimits: true, without: ['subgroups'] });
  await opened.engine.destroy();
  const said: string[] = [];
  opened.device.addEventListener('uncapturederror', (e) => said.push((e as GPUUncapturedErrorEvent).error.message));
  try {
    await test(opened.device, said);
  } finally {
    opened.device.destroy();
    await opened.device.lost;
  }
}

const values = (count: number, id = 0): Float32Array => Float32Array.from(normals({ seed: 3, stream: STREAM.prior, step: 0, samples: [id], count }));
const make = (device: GPUDevice, data: Float32Array, usage: number = USAGE.STORAGE | USAGE.COPY_SRC | USAGE.COPY_DST): GPUBuffer => {
  const buffer = device.createBuffer({ size: Math.max(16, data.byteLength), usage });
  device.queue.writeBuffer(buffer, 0, data as Float32Array<ArrayBuffer>);
  return buffer;
};
/** Reads a buffer by WebGPU alone, as its owner would. */
async function readBack(device: GPUDevice, buffer: GPUBuffer): Promise<Float32Array> {
  const staging = device.createBuffer({ size: buffer.size, usage: USAGE.MAP_READ | USAGE.COPY_DST }), encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(buffer, 0, staging, 0, buffer.size);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(1);
  const data = new Float32Array(staging.getMappedRange().slice(0));
  staging.destroy();
  return data;
}
const siluOf = (x: Float32Array): Float64Array => Float64Array.from(x, (v) => v / (1 + Math.exp(-v)));

const CONFIG = {
  in_channels: 1, out_channels: 1, block_out_channels: [8], layers_per_block: 1, norm_num_groups: 4, norm_eps: 1e-6, attention_head_dim: null,
  down_block_types: ['DownBlock2D'], up_block_types: ['UpBlock2D'], freq_shift: 1, flip_sin_to_cos: false, downsample_padding: 0,
};

embedding('a borrowed buffer is read and written in place, out as { buffer, offset, size }, and outlives the engine', () =>
  withDevice(async (device, said) => {
    const data = values(192), mine = make(device, data), y = make(device, new Float32Array(64));
    const engine = new Engine(device);
    const x = engine.borrow(mine, [4, 16], { offset: 256 }), copy = engine.borrow(y, [4, 16]);
    assert.equal(x.gpu, { buffer: mine, offset: 256, size: 256 });
    {
      using out = silu(x);
      engine.copy(out.slice, copy.slice);
      assert.ok(engine.owns(out.slice) && !engine.owns(x.slice));
      x[Symbol.dispose](); // not ours: nothing happens
    }
    await engine.destroy();
    assertClose(await readBack(device, y), siluOf(data.subarray(64, 128)), { rtol: 1e-5, what: 'silu' });
    assert.equal(await readBack(device, mine), data);
    assert.equal(said, []);
  }));

embedding("ops and plans go into the caller's encoder, in its order, and nothing is submitted", () =>
  withDevice(async (device) => {
    await using engine = new Engine(device);
    const data = values(64), mine = make(device, data), x = engine.borrow(mine, [64]);
    const encoder = device.createCommandEncoder();
    encoder.clearBuffer(mine, 0, 128); // before the op: it sees zeros in the first half
    await using encoded = engine.encode(encoder, () => silu(silu(x)));
    encoder.clearBuffer(mine); // after it
    engine.write(Tensor.empty(engine, [64]).slice, data); // eager work in between is no matter
    device.queue.submit([encoder.finish()]);
    assertClose(await encoded.result.read(), siluOf(Float32Array.from(siluOf(data.map((v, i) => (i < 32 ? 0 : v))))), { rtol: 1e-5, atol: 1e-7, what: 'two ops' });
    assert.equal(await x.read(), new Float32Array(64));

    const plan = engine.capture(() => engine.copy(silu(x).slice, x.slice));
    engine.write(x.slice, data);
    for (let frame = 0; frame < 2; frame++) {
      const each = device.createCommandEncoder();
      plan.encode(each);
      device.queue.submit([each.finish()]);
    }
    assertClose(await readBack(device, mine), siluOf(Float32Array.from(siluOf(data))), { rtol: 1e-5, atol: 1e-7, what: 'two frames' });
  }));

embedding('one kernel alone, without an engine: group norm and SiLU against the twin', () =>
  withDevice(async (device, said) => {
    const [N, P, C, G] = [2, 35, 6, 3] as const;
    const [x, gamma, beta] = [values(N * P * C, 1), values(C, 2), values(C, 3)];
    const buffers = { x: make(device, x), gamma: make(device, gamma), beta: make(device, beta), y: make(device, new Float32Array(N * P * C)), stats: make(device, new Float32Array(2 * N * G)) };
    normalise(device, buffers, [N, P, C, G]);
    const want = groupNorm({ x, gamma, beta, N, P, C0: C, G, eps: 1e-5, silu: true }).y;
    assertClose(await readBack(device, buffers.y), want, { atol: 2e-5, what: 'group norm' });
    assert.equal(said, []);
  }));

embedding('an op from outside: its kernels, and its gradient through the tape', () =>
  withDevice(async (device) => {
    await using engine = new Engine(device);
    const data = values(100), x = Tensor.from(engine, [100], data), zero = Tensor.from(engine, [100], new Float32Array(100));
    x.requiresGrad = true;
    const tape = new Tape(engine), loss = tape.record(() => mse(leakyRelu(x), zero));
    tape.backward(loss);
    // d/dx mean(f(x)^2) = 2 f(x) f'(x) / n
    assertClose(await tape.gradient(x).read(), Float64Array.from(data, (v) => (2 * (v > 0 ? v : 0.04 * v)) / 100), { rtol: 1e-5, what: 'gradient' });
  }));

embedding('several engines on one device share nothing, and end one by one', () =>
  withDevice(async (device) => {
    const [a, b] = [new Engine(device), new Engine(device)], data = values(64);
    const xs = [a, b].map((engine) => Tensor.from(engine, [64], data));
    await a.destroy();
    assertClose(await silu(xs[1]!).read(), siluOf(data), { rtol: 1e-5, what: 'the other' });
    await b.destroy();
  }));

embedding('training is an async iterator: leaving it keeps what was learnt, aborting it says E-ABORTED, and both go on', () =>
  withDevice(async (device) => {
    const losses = async (drive: (training: Training) => Promise<number[]>): Promise<number[]> => {
      await using engine = new Engine(device);
      const unet = new UNet(CONFIG), parameters = Parameters.place(engine, unet), diffusion = new GaussianDiffusion(engine, makeSchedule({ name: 'linear', T: 100 }));
      const images = new DeviceImages(engine, makeShapes({ count: 32, size: 8 }), false);
      return await drive(new Training(unet, parameters, diffusion, images, { batchSize: 2, steps: 6, lr: 1e-3 }));
    };
    const whole = await losses(async (training) => {
      const seen: number[] = [];
      for await (const { step, loss } of training.loop()) assert.is(seen.push(loss) - 1, step);
      return seen;
    });
    assert.is(whole.length, 6);
    const broken = await losses(async (training) => {
      const seen: number[] = [];
      for await (const { step, loss } of training.loop()) if ((seen.push(loss), step === 1)) break;
      const stop = new AbortController();
      await assertError(async () => {
        for await (const { step, loss } of training.loop({ from: 2, signal: stop.signal })) if ((seen.push(loss), step === 3)) stop.abort();
      }, 'E-ABORTED', /training was aborted/);
      for await (const { loss } of training.loop({ from: 4, every: 2 })) seen.push(loss);
      return seen;
    });
    assert.equal(broken, whole, 'bit for bit');
    await assertError(() => losses(async (training) => { for await (const _ of training.loop({ every: 0 })); return []; }), 'E-USAGE', /0 steps at a time/);
  }));

embedding('an aborted sampler stops with E-ABORTED and its cause, and draws again', () =>
  withDevice(async (device) => {
    await using engine = new Engine(device);
    const unet = new UNet(CONFIG), parameters = Parameters.place(engine, unet, { training: false });
    assert.ok(parameters.count > 0);
    await using sampler = new Sampler((x, t) => unet.forward(x, t), new GaussianDiffusion(engine, makeSchedule({ name: 'linear', T: 100 })), [1, 8, 8, 1], { method: 'ddim', steps: 4 });
    const whole = await sampler.sample({ seed: 1 }), stop = new AbortController();
    let steps = 0, error: unknown;
    await sampler.sample({ seed: 1, signal: stop.signal, onStep: ({ done }) => void ((steps = done), done === 2 && stop.abort('enough')) }).catch((e: unknown) => (error = e));
    assert.ok(error instanceof DdpmError);
    assert.equal([error.code, error.cause, steps], ['E-ABORTED', 'enough', 2]);
    assert.equal(await sampler.sample({ seed: 1, signal: new AbortController().signal }), whole);
  }));

// -------------------------------------------------------------------------------------------------------------------- what goes wrong
embedding('bad buffers and shapes are refused before the device sees them', () =>
  withDevice(async (device, said) => {
    const engine = new Engine(device), mine = make(device, values(128));
    const uniform = device.createBuffer({ size: 256, usage: USAGE.UNIFORM | USAGE.COPY_DST });
    await assertError(() => engine.borrow(uniform, [4]), 'E-ENGINE', /without the usage STORAGE/);
    await assertError(() => engine.borrow(mine, [4], { offset: 4 }), 'E-ENGINE', /offset 4: this device binds storage at multiples of 256/);
    await assertError(() => engine.borrow(mine, [4], { offset: -256 }), 'E-ENGINE', /offset -256/);
    await assertError(() => engine.borrow(mine, [132]), 'E-SHAPE', /shape \(132\) at offset 0 needs 528 bytes; the borrowed buffer has 512\. Create/);
    await assertError(() => engine.borrow(mine, [65], { offset: 256 }), 'E-SHAPE', /needs 528 bytes, since kernels take four values at a time; the borrowed buffer has 512/);
    // The last 12 bytes of it are no vec4: kernels would leave them as they are, and read beyond its end.
    const odd = device.createBuffer({ size: 28, usage: USAGE.STORAGE });
    await assertError(() => engine.borrow(odd, [7]), 'E-SHAPE', /shape \(7\) at offset 0 needs 32 bytes, since/);
    assert.is(engine.borrow(odd, [4]).size, 4);
    await assertError(() => engine.borrow(mine, [2, -2]), 'E-SHAPE', /whole numbers from 1/);
    await assertError(() => add(engine.borrow(mine, [4]), engine.borrow(mine, [3], { offset: 256 })), 'E-SHAPE', /add: \(3\) cannot be added to \(4\)/);
    await assertError(() => readModel(new TextEncoder().encode('<!doctype html><title>404</title>'), 'model.safetensors'), 'E-FILE', /not a good safetensors file.*HTML/);
    assertClose(await silu(engine.borrow(mine, [128])).read(), siluOf(values(128)), { rtol: 1e-5, what: 'after all that' });
    await engine.destroy();
    assert.equal(said, []);
  }));

embedding("what the engine does wrong does not reach the owner's handler, nor the owner's errors the engine; device and buffers stay usable", () =>
  withDevice(async (device, said) => {
    const data = values(64), mine = make(device, data), engine = new Engine(device);
    device.createBuffer({ size: 16, usage: USAGE.MAP_READ | USAGE.STORAGE }); // the owner's own mistake
    await device.queue.onSubmittedWorkDone();
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.is(said.length, 1);
    assertClose(await silu(engine.borrow(mine, [64])).read(), siluOf(data), { rtol: 1e-5, what: "after the owner's error" });

    const gone = make(device, data), x = engine.borrow(gone, [64]);
    gone.destroy(); // the owner takes back what it lent
    await assertError(() => silu(x).read(), 'E-ENGINE', /destroyed/);
    await assertError(() => engine.finished(), 'E-ENGINE', /destroyed/);
    assert.is(said.length, 1);
    await using another = new Engine(device);
    assertClose(await silu(another.borrow(mine, [64])).read(), siluOf(data), { rtol: 1e-5, what: 'another engine' });
    assert.equal(await readBack(device, mine), data);
    await engine.destroy();
  }));

embedding('a device that is lost in the middle of a frame is E-DEVICE-LOST, and everything can still be closed', async () => {
  const { engine, device, close } = await openEngine(openOptions);
  const x = Tensor.from(engine, [64], values(64)), plan = engine.capture(() => silu(x));
  const encoder = device.createCommandEncoder();
  plan.encode(encoder);
  device.destroy(); // as far as the engine can tell
  device.queue.submit([encoder.finish()]); // WebGPU says nothing here
  assert.is((await engine.lost).reason, 'destroyed');
  await new Promise((resolve) => setTimeout(resolve, 5));
  await assertError(() => plan.encode(device.createCommandEncoder()), 'E-DEVICE-LOST', /was lost/);
  await assertError(() => plan.run(), 'E-DEVICE-LOST', /was lost/);
  await assertError(() => plan.result.read(), 'E-DEVICE-LOST', /was lost/);
  await plan.destroy();
  await close();
});

embedding('limits: what is missing is a list, default limits are enough, requirements fit the adapter', () =>
  withDevice(async (device) => {
    const less = Object.create(device, { limits: { value: { ...Object.fromEntries(['maxUniformBuffersPerShaderStage', 'maxBindingsPerBindGroup', 'maxComputeWorkgroupSizeX'].map((n) => [n, 1000])), maxStorageBuffersPerShaderStage: 4, maxComputeInvocationsPerWorkgroup: 128, maxComputeWorkgroupStorageSize: 16384 } } }) as GPUDevice;
    await assertError(() => new Engine(less), 'E-LIMIT', /maxStorageBuffersPerShaderStage: 8 needed, the device has 4\n.*maxComputeInvocationsPerWorkgroup: 256 needed, the device has 128\n.*engineRequirements/);
    await using engine = new Engine(device);
    const most = device.limits.maxBufferSize;
    await assertError(() => Tensor.empty(engine, [most / 4 + 64]), 'E-LIMIT', /request a larger maxBufferSize/);
    const { requiredLimits, requiredFeatures } = engineRequirements({ limits: device.limits, features: new Set(['subgroups', 'shader-f16']) } as unknown as GPUAdapter);
    assert.is(requiredLimits['maxBufferSize'], most);
    assert.equal(requiredFeatures, ['subgroups']);
    assert.equal(engineRequirements({ limits: device.limits, features: new Set(['subgroups', 'shader-f16']) } as unknown as GPUAdapter, { precision: 'f16' }).requiredFeatures, ['subgroups', 'shader-f16']);
  }));

embedding.run();
