// The engine: pool and scopes, capture and replay, what it refuses, errors of the device, several engines, and that nothing leaks.
import { USAGE } from '../src/gpu/constants.ts';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { pointwise, Tape, threads } from '../src/autograd.ts';
import { Engine } from '../src/gpu/engine.ts';
import { grid, type Kernel } from '../src/gpu/kernel.ts';
import * as k from '../src/gpu/kernels.gen.ts';
import { Pool, sizeClass } from '../src/gpu/pool.ts';
import { type OpenedEngine, openEngine } from '../src/node.ts';
import { conv2d } from '../src/ops/conv2d.ts';
import { groupNorm } from '../src/ops/group_norm.ts';
import { mse } from '../src/ops/loss.ts';
import { add, silu } from '../src/ops/pointwise.ts';
import { Tensor } from '../src/tensor.ts';
import { assertError, gpu, gpuSuite, openOptions, random, upload } from './helpers/gpu.ts';

/** For tests that break or close their engine. */
async function withOwn(test: (opened: OpenedEngine) => Promise<void>): Promise<void> {
  const opened = await openEngine(openOptions);
  try {
    await test(opened);
  } finally {
    await opened.close();
  }
}

// --------------------------------------------------------------------------------------------------------------------------------- pool
const pool = suite('pool');

pool('size classes are quarters of powers of two', () => {
  assert.equal([0, 1, 256, 257, 512, 1000, 1025, 1280, 1281, 2000, 5000].map(sizeClass), [256, 256, 256, 512, 512, 1024, 1280, 1280, 1536, 2048, 5120]);
  for (let bytes = 1; bytes < 1 << 22; bytes = Math.ceil(bytes * 1.13)) {
    const size = sizeClass(bytes);
    assert.ok(size >= bytes && size % 256 === 0 && size <= Math.max(bytes + 256, 1.25 * bytes), `${bytes} in ${size}`);
    assert.is(sizeClass(size), size, 'a class is its own class');
  }
});

pool('hands out again what was given back, of the same class only', async () => {
  const { device } = await gpu(), p = new Pool(device);
  const a = p.take(1000), b = p.take(1000);
  assert.ok(a !== b && p.owns(a) && p.isLive(a));
  assert.equal([p.liveBytes, p.peakBytes, p.totalBytes], [2048, 2048, 2048]);
  p.give(a);
  assert.ok(p.owns(a) && !p.isLive(a));
  assert.equal([p.liveBytes, p.peakBytes, p.totalBytes], [1024, 2048, 2048]);
  const c = p.take(2000);
  assert.ok(c !== a, 'another class');
  assert.ok(p.take(900) === a, 'nearly the same size');
  assert.equal([p.liveBytes, p.peakBytes, p.totalBytes], [4096, 4096, 4096]);
  p.destroy();
  assert.equal([p.liveBytes, p.totalBytes], [0, 0]);
  assert.not(p.owns(a));
});

pool('refuses a buffer that was freed before or is not its own', async () => {
  const { device } = await gpu(), p = new Pool(device), other = new Pool(device), a = p.take(4), b = other.take(4);
  p.give(a);
  await assertError(() => p.give(a), 'E-ENGINE', /freed twice/);
  await assertError(() => p.give(b), 'E-ENGINE', /does not own/);
  await assertError(() => p.take(device.limits.maxBufferSize + 1), 'E-LIMIT', /a tensor needs a buffer of \d+ bytes; this device allows \d+\. Use a smaller batch size/);
  p.destroy();
  other.destroy();
});
pool.run();

// ------------------------------------------------------------------------------------------------------------------------------- scopes
const scopes = gpuSuite('scopes and memory', { watched: false });

scopes('a scope frees what it made, except what it returns', async (engine) => {
  const live = engine.memory().live;
  const kept = engine.scope(() => {
    const a = upload(engine, [3], [1, 2, 3]);
    Tensor.empty(engine, [100]);
    return { list: [silu(a), a], shape: [3] };
  });
  assert.is(engine.memory().live, live + 2 * 256);
  assert.equal(await kept.list[1].read(), Float32Array.of(1, 2, 3));
  assert.throws(() => engine.scope(() => {
    Tensor.empty(engine, [100]);
    throw new Error('mine');
  }), /mine/);
  assert.is(engine.memory().live, live + 2 * 256, 'what a throwing scope made is freed');
  for (const t of kept.list) t.free();
  assert.is(engine.memory().live, live);
});

scopes('nest: what the inner one returns belongs to the outer one', (engine) => {
  const live = engine.memory().live;
  engine.scope(() => {
    const t = engine.scope(() => Tensor.empty(engine, [10]));
    assert.is(engine.memory().live, live + 256);
    const u = Tensor.empty(engine, [10]);
    u.free();
    assert.is(engine.memory().live, live + 256, 'freed by hand, and not a second time');
    assert.ok(t.size);
  });
  assert.is(engine.memory().live, live);
});

scopes('are closed in order', async (engine) => {
  const outer = engine.openScope(false), inner = engine.openScope(false);
  await assertError(() => engine.closeScope(outer), 'E-ENGINE', /reverse order/);
  void inner; // the error took it off
  engine.closeScope(outer);
});

scopes('every allocation of a poisoned engine is NaN, also a buffer that is used again', async (engine) => {
  const t = Tensor.empty(engine, [77]);
  assert.ok((await t.read()).every(Number.isNaN));
  engine.write(t.slice, random(77, 0));
  t.free();
  const again = Tensor.empty(engine, [77]);
  assert.ok(again.slice.buffer === t.slice.buffer);
  assert.ok((await again.read()).every(Number.isNaN));
});

scopes('write, read, copy and clear; bytes that are no whole words', async (engine) => {
  const a = upload(engine, [3], [1, 2, 3]), b = Tensor.empty(engine, [3]), bytes = engine.allocate(7);
  engine.copy(a.slice, b.slice);
  engine.clear(a.slice);
  assert.equal(await b.read(), Float32Array.of(1, 2, 3));
  assert.equal(await a.read(), new Float32Array(3));
  engine.write(bytes, Uint8Array.of(1, 2, 3, 4, 5, 6, 7).subarray(0, 4));
  assert.equal([...new Uint8Array(await engine.readBytes(bytes))].slice(0, 4), [1, 2, 3, 4]);
  assert.is((await engine.readBytes(bytes)).byteLength, 7);
  await assertError(() => engine.copy(a.slice, engine.allocate(16)), 'E-SHAPE', /copy of 12 bytes into 16 bytes/);
  await assertError(() => engine.write(a.slice, new Float32Array(4)), 'E-SHAPE', /write of 16 bytes into 12 bytes/);
  await assertError(() => Tensor.from(engine, [2, 2], new Float32Array(3)), 'E-SHAPE', /3 values for shape \(2, 2\)/);
  await assertError(() => a.view([4]), 'E-SHAPE', /shape \(4\) does not fit a slice of 12 bytes/);
});

scopes('write orders itself after what was recorded before it', async (engine) => {
  const x = upload(engine, [2], [1, 2]), y = silu(x), z = Tensor.empty(engine, [2]);
  engine.copy(x.slice, z.slice);
  engine.write(x.slice, Float32Array.of(5, 6));
  assert.equal(await z.read(), Float32Array.of(1, 2), 'the copy saw the old values');
  assert.ok(Math.abs((await y.read())[0] - 1 / (1 + Math.exp(-1))) < 1e-6);
});
scopes.run();

// ------------------------------------------------------------------------------------------------------------------ capture and replay
const capture = gpuSuite('capture and replay', { watched: false });

/** A step of training on a small net, and its gradients. */
function network(engine: Engine) {
  const shape = [2, 6, 6, 8] as const, size = 2 * 36 * 8;
  const x = upload(engine, shape, random(size, 0)), goal = upload(engine, shape, random(size, 1));
  const parameters = [upload(engine, [3, 3, 8, 8], random(576, 2).map((v) => 0.1 * v)), upload(engine, [8], random(8, 3)), upload(engine, [8], random(8, 4)), upload(engine, [8], random(8, 5))];
  for (const p of parameters) p.requiresGrad = true;
  const [w, b, gamma, beta] = parameters;
  const step = () => {
    const tape = new Tape(engine);
    const loss = tape.record(() => mse(add(x, conv2d(groupNorm(x, gamma, beta, { groups: 2, silu: true }), w, b)), goal));
    tape.backward(loss);
    return { loss, gradients: parameters.map((p) => tape.gradient(p)) };
  };
  return { x, step };
}

const readAll = async ({ loss, gradients }: ReturnType<ReturnType<typeof network>['step']>): Promise<Float32Array[]> => {
  const all: Float32Array[] = [];
  for (const t of [loss, ...gradients]) all.push(await t.read());
  return all;
};

capture('a replay equals eager execution bit for bit, and follows its inputs', async (engine) => {
  const net = network(engine), data = [random(576, 6), random(576, 7)];
  const plan = engine.capture(net.step);
  assert.ok(plan.dispatches > 10 && plan.commands.length >= plan.dispatches);
  const done: number[] = [];
  await plan.compile((n, total) => done.push(n / total));
  assert.ok(done.every((share, i) => share > (done[i - 1] ?? 0)) && (done.length === 0 || done.at(-1) === 1));
  const seen: Float32Array[][] = [];
  for (const x of [...data, data[0]]) {
    engine.write(net.x.slice, x);
    const eager = await readAll(net.step());
    plan.run();
    const replayed = await readAll(plan.result);
    assert.equal(replayed, eager);
    assert.ok(eager.every((t) => t.every(Number.isFinite)));
    seen.push(replayed);
  }
  assert.not.equal(seen[0], seen[1]);
  assert.equal(seen[0], seen[2]);
  await plan.destroy();
});

capture('compile() runs nothing, and has a CPU dispatch each pipeline over no workgroups, which is when its driver compiles', async (engine) => {
  const adding = (n: number) => ({
    name: `add_${n}`, wgsl: `@group(0) @binding(0) var<storage, read_write> y: array<f32>;\n@compute @workgroup_size(1)\nfn main() { y[0] += ${n}.0; }`,
    features: [], bindings: { y: 'read_write' }, overrides: {}, optional: {}, dims: {},
  }) as const satisfies Kernel;
  const y = upload(engine, [1], Float32Array.of(5)), kernels = [adding(1), adding(2), adding(3)] as const, { device } = engine, { createCommandEncoder } = device;
  const plan = engine.capture(() => [...kernels, kernels[0]].forEach((kernel) => engine.run(kernel, [4], { y: y.slice })));
  let encoders = 0;
  device.createCommandEncoder = function (...args) {
    encoders++;
    return createCommandEncoder.apply(this, args);
  };
  const done: number[] = [];
  try {
    for (let again = 0; again < 2; again++) await plan.compile((n, total) => done.push(n, total));
  } finally {
    Reflect.deleteProperty(device, 'createCommandEncoder');
  }
  assert.equal(done, [1, 3, 2, 3, 3, 3], 'each pipeline once');
  assert.is(encoders, engine.deviceClass === 'gpu' ? 0 : 3);
  assert.equal([...(await y.read())], [5]);
  plan.run();
  assert.not.equal([...(await y.read())], [5]);
  await plan.destroy();
});

capture('records without running, and keeps its buffers to itself', async (engine) => {
  const before = engine.memory(), x = upload(engine, [300], random(300, 0)), live = engine.memory().live;
  const plan = engine.scope(() => engine.capture(() => {
    assert.ok(engine.capturing);
    const a = silu(x), b = silu(a);
    a.free();
    return [b, silu(b)];
  }));
  assert.not(engine.capturing);
  assert.is(engine.memory().live, live, 'eager memory is as it was, and the scope around the capture freed nothing of the plan');
  assert.is(engine.memory().plans, before.plans + 2 * sizeClass(1200), 'three tensors in two buffers');
  plan.run();
  assert.ok((await plan.result[1].read()).every(Number.isFinite));
  await plan.destroy();
  assert.is(engine.memory().plans, before.plans);
});

capture('a plan encodes into an encoder of the caller', async (engine) => {
  const x = upload(engine, [4], [1, 2, 3, 4]), plan = engine.capture(() => silu(x)), encoder = engine.device.createCommandEncoder();
  plan.encode(encoder);
  engine.flush();
  engine.device.queue.submit([encoder.finish()]);
  assert.equal(await plan.result.read(), await silu(x).read());
  await plan.destroy();
});

capture('refuses what a plan cannot hold, and the engine goes on', async (engine) => {
  const t = Tensor.empty(engine, [4]);
  await assertError(() => engine.capture(() => engine.write(t.slice, new Float32Array(4))), 'E-ENGINE', /write\(\) inside capture/);
  let inside: Promise<unknown> = Promise.resolve();
  await assertError(() => engine.capture(() => (inside = engine.read(t.slice))), 'E-ENGINE', /capture\(\) was given a function that returns a promise.*read the plan's result after run\(\)/);
  await assertError(() => inside, 'E-ENGINE', /read\(\) inside capture/);
  await assertError(() => engine.capture(() => engine.capture(() => 0)), 'E-ENGINE', /capture\(\) inside capture\(\)/);
  await assertError(() => engine.capture(() => t.free()), 'E-ENGINE', /from outside a capture cannot be freed inside it/);
  assert.not(engine.capturing);
  assert.is((await silu(upload(engine, [1], [0])).read())[0], 0);
});

capture('an error inside a tape inside a capture is the one that comes out', async (engine) => {
  const x = upload(engine, [4], [1, 2, 3, 4]), live = engine.memory().live;
  x.requiresGrad = true;
  await assertError(() => engine.capture(() => {
    const tape = new Tape(engine);
    tape.backward(tape.record(() => silu(x)));
  }), 'E-SHAPE', /backward\(\) starts from one value/);
  assert.not(engine.capturing);
  assert.is(engine.memory().live, live);
  await engine.finished();
  assert.ok((await silu(x).read()).every(Number.isFinite));
});
capture.run();

// ------------------------------------------------------------------------------------------------------------------------- what it refuses
const refusals = gpuSuite('what the engine refuses', { watched: false });

refusals('a tensor that was freed', async (engine) => {
  // Seen as long as nobody was given the buffer again.
  const x = upload(engine, [4], [1, 2, 3, 4]), y = Tensor.empty(engine, [4]);
  x.free();
  await assertError(() => engine.run(k.silu_forward, pointwise(4), { x: x.slice, y: y.slice }), 'E-ENGINE', /silu_forward: x was freed before/);
  await assertError(() => x.free(), 'E-ENGINE', /freed twice/);
});

refusals('a grid or a binding over the limits of the device', async (engine) => {
  const y = engine.allocate(16), most = engine.device.limits.maxComputeWorkgroupsPerDimension, bytes = engine.device.limits.maxStorageBufferBindingSize;
  await assertError(() => engine.run(k.fill, [most + 1], { y, value: 0 }), 'E-LIMIT', new RegExp(`fill: a grid of ${most + 1} x 1 x 1 workgroups; this device allows ${most} a dimension`));
  await assertError(() => engine.run(k.fill, [1, 1, most + 1], { y, value: 0 }), 'E-LIMIT', /fill: a grid of/);
  await assertError(() => engine.run(k.fill, [1], { y: { ...y, bytes: bytes + 4 }, value: 0 }), 'E-LIMIT', new RegExp(`fill: y is ${bytes + 4} bytes; this device binds at most ${bytes}`));
  engine.run(k.fill, [0], { y, value: 0 }); // nothing to do is no error
  assert.equal([grid(1), grid(65535), grid(65536), grid(200000)], [[1], [65535], [65535, 2], [65535, 4]]);
});

refusals('a binding or a number that is missing', async (engine) => {
  const y = engine.allocate(16);
  await assertError(() => engine.run(k.silu_forward, [1], { y } as never), 'E-KERNEL', /silu_forward: binding x is missing/);
  await assertError(() => engine.run(k.fill, [1], { y } as never), 'E-KERNEL', /fill: value must be a number/);
  await assertError(() => engine.run(k.fill, [1], { y, value: y } as never), 'E-KERNEL', /fill: value must be a number/);
});

/** y = 2 x, as somebody writes it by hand. */
const DOUBLE = {
  name: 'double', features: [], bindings: { x: 'read', y: 'read_write' }, overrides: {}, optional: {}, dims: {},
  wgsl: `
@group(0) @binding(0) var<storage, read> x: array<f32>;
@binding(1) @group(0) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(4) fn main(@builtin(global_invocation_id) id: vec3u) { y[id.x] = 2.0 * x[id.x]; }`,
} as const satisfies Kernel;

refusals('a kernel by hand whose bindings or dims are in another order than in its WGSL, and a tensor for a slice', async (engine) => {
  const x = upload(engine, [4], [1, 2, 3, 4]), y = Tensor.empty(engine, [4]), args = { x: x.slice, y: y.slice };
  const swapped = { ...DOUBLE, name: 'swapped', bindings: { y: 'read_write', x: 'read' } } as const;
  await assertError(() => engine.run(swapped, [1], args), 'E-KERNEL', /swapped lists y,x, and its WGSL has x,y: they must be the same, in one order/);
  const scaled = { ...DOUBLE, name: 'scaled', dims: { b: 'f32', a: 'f32' }, wgsl: `struct Dims { a: f32, /* not the last */ b: f32 } // c: f32\n@group(0) @binding(2) var<uniform> dims: Dims;${DOUBLE.wgsl.replace('2.0', '(dims.a + 10.0 * dims.b)')}` } as const;
  await assertError(() => engine.run(scaled, [1], { ...args, a: 1, b: 2 }), 'E-KERNEL', /scaled lists b:f32,a:f32, and its WGSL has a:f32,b:f32/);
  engine.run({ ...scaled, dims: { a: 'f32', b: 'f32' } }, [1], { ...args, a: 1, b: 2 });
  assert.equal(await y.read(), Float32Array.of(21, 42, 63, 84));
  await assertError(() => engine.run(DOUBLE, [1], { x, y } as never), 'E-KERNEL', /double: binding x is missing, or no slice\. Give x: tensor\.slice/);
});

refusals('not a second WGSL under one name: it is another kernel', async (engine) => {
  const x = upload(engine, [4], [1, 2, 3, 4]), y = Tensor.empty(engine, [4]), args = { x: x.slice, y: y.slice };
  const triple = { ...DOUBLE, wgsl: DOUBLE.wgsl.replace('2.0', '3.0') } as const;
  // With the same buffers at the same bindings, of which one is written now and was read before.
  const other = { ...DOUBLE, bindings: { y: 'read_write', x: 'read' }, wgsl: DOUBLE.wgsl.replace(/0(?=\) var<storage, read> )/, '1').replace('@binding(1) @group', '@binding(0) @group').replace('2.0', '4.0') } as const;
  for (const [kernel, factor] of [[DOUBLE, 2], [triple, 3], [other, 4], [DOUBLE, 2]] as const) {
    engine.run(kernel, [1], args);
    assert.equal(await y.read(), Float32Array.of(factor, 2 * factor, 3 * factor, 4 * factor), `${factor}`);
  }
});

refusals('a kernel that needs subgroups where there are none', () =>
  (async () => {
    const opened = await openEngine({ ...openOptions, without: ['subgroups'] });
    assert.is(opened.engine.subgroupWidth, 0);
    await assertError(() => opened.engine.pipelines.get(k.conv2d_subgroup, {}), 'E-LIMIT', /kernel conv2d_subgroup needs the device feature "subgroups"/);
    await opened.close();
  })());
refusals.run();

// -------------------------------------------------------------------------------------------------------------------- errors of the device
const device = suite('errors of the device, and several engines');

/** Dawn reports an error when the event loop comes round. */
const later = () => new Promise((resolve) => setTimeout(resolve, 20));

device('an error that nobody caught stops everything after it', () =>
  withOwn(async ({ engine, device: d }) => {
    const x = upload(engine, [4], [1, 2, 3, 4]);
    // A buffer of the caller's without the usage that a kernel needs.
    const borrowed = d.createBuffer({ size: 256, usage: USAGE.COPY_DST | USAGE.COPY_SRC });
    engine.run(k.silu_forward, pointwise(4), { x: x.slice, y: { buffer: borrowed, offset: 0, bytes: 16 } });
    const message = /Binding usage .* doesn't match expected usage \(BufferUsage::Storage\)/;
    await later();
    await assertError(() => engine.flush(), 'E-ENGINE', message);
    await assertError(() => engine.check(), 'E-ENGINE', message);
    await assertError(async () => {
      silu(x);
      engine.flush();
    }, 'E-ENGINE', message);
    await assertError(() => engine.read(x.slice), 'E-ENGINE', message);
    await assertError(() => engine.finished(), 'E-ENGINE', message);
    const plan = engine.capture(() => silu(x));
    await assertError(() => plan.run(), 'E-ENGINE', message);
    borrowed.destroy();
  }));

// Dawn's null backend holds half a gibibyte: four of these.
const LARGE = 3.2e7;
for (const [where, use] of [
  ['eagerly', (engine: Engine) => void silu(Tensor.empty(engine, [LARGE]))],
  ['in a plan', (engine: Engine) => void engine.capture(() => silu(silu(Tensor.empty(engine, [LARGE]))))],
] as const)
  device(`memory that the device has not, asked for ${where}, is said to be the reason, not what follows from it`, async () => {
    const opened = await openEngine({ backend: 'null' }), { engine } = opened;
    try {
      for (let held = 0; held < 3; held++) Tensor.empty(engine, [LARGE]);
      await engine.finished();
      await assertError(async () => {
        use(engine);
        await engine.finished();
        await later();
        engine.check();
      }, 'E-MEMORY', /no memory left.* smaller batch size.*--micro-batch/);
    } finally {
      await opened.close();
    }
  });

device('a device that is lost says so', async () => {
  const { engine, device: d } = await openEngine(openOptions), x = upload(engine, [4], [1, 2, 3, 4]);
  await engine.finished();
  d.destroy();
  assert.is((await engine.lost).reason, 'destroyed');
  await later();
  await assertError(() => engine.read(x.slice), 'E-DEVICE-LOST', /the GPU device was lost \(destroyed\)/);
});

device('two engines on one device, side by side', () =>
  withOwn(async ({ engine, device: d }) => {
    const other = new Engine(d), [a, b] = [engine, other].map((e) => upload(e, [300], random(300, 0)));
    const [ya, yb] = [silu(a), silu(b)];
    assert.equal(await ya.read(), await yb.read());
    await assertError(() => other.free(a.slice), 'E-ENGINE', /does not own/);
    // One reads the other's tensors: it is one device.
    const z = Tensor.empty(other, [300]);
    other.run(k.silu_forward, pointwise(300), { x: a.slice, y: z.slice });
    assert.equal(await z.read(), await ya.read());
    await other.destroy();
    assert.equal(await silu(a).read(), await ya.read());
  }));

device('two devices, side by side', () =>
  withOwn(async (first) => withOwn(async (second) => {
    const [a, b] = [first, second].map(({ engine }) => silu(upload(engine, [300], random(300, 0))));
    const [ya, yb] = await Promise.all([a.read(), b.read()]);
    assert.equal(ya, yb);
  })));

device('destroy leaves a borrowed device to its owner', () =>
  withOwn(async ({ device: d }) => {
    const engine = new Engine(d), x = upload(engine, [300], random(300, 0)), plan = engine.capture(() => silu(x));
    plan.run();
    await engine.destroy();
    assert.equal(engine.memory(), { ...engine.memory(), live: 0, total: 0, plans: 0 });
    const after = new Engine(d);
    assert.equal(await silu(upload(after, [1], [0])).read(), new Float32Array(1));
    await after.destroy();
  }));
device.run();

// --------------------------------------------------------------------------------------------------------------------------------- leaks
const leaks = gpuSuite('nothing leaks', { watched: false });

leaks('over 50 eager steps', async (engine) => {
  const net = network(engine);
  const step = async () => {
    const { loss, gradients } = net.step();
    await loss.read();
    for (const t of [loss, ...gradients]) t.free();
  };
  await step();
  const { live, total } = engine.memory(), pipelines = engine.pipelines.count;
  for (let i = 0; i < 50; i++) await step();
  assert.equal(engine.memory(), { ...engine.memory(), live, total });
  assert.is(engine.pipelines.count, pipelines);
});

leaks('nor is a driver run out of bind groups by 80,000 eager calls without an await', async (engine) => {
  // Each bind group takes a memory mapping of llvmpipe's, and a process has 65,530 of them.
  const [a, b] = [upload(engine, [4], [1, 2, 3, 4]), upload(engine, [4], [0, 0, 0, 0])];
  for (let i = 0; i < 40_000; i++) {
    const y = engine.scope(() => silu(a));
    engine.run(k.accumulate, [1], { x: a.slice, y: b.slice, copy: 0 });
    y.free();
  }
  assert.equal(await b.read(), new Float32Array([40_000, 80_000, 120_000, 160_000]));
});

leaks('over 200 replays', async (engine) => {
  const net = network(engine), plan = engine.capture(net.step), before = engine.memory();
  for (let i = 0; i < 200; i++) plan.run();
  await engine.finished();
  assert.equal(engine.memory(), before);
  assert.ok(Number.isFinite((await plan.result.loss.read())[0]));
  await plan.destroy();
});

leaks('sets of dims share an arena, each set once, and a full one is followed by another', () =>
  withOwn(async ({ engine, device: d }) => {
    let arenas = 0;
    const create = d.createBuffer.bind(d);
    d.createBuffer = (descriptor) => {
      if (descriptor.label === 'dims') arenas++;
      return create(descriptor);
    };
    // 65,536 bytes hold 256 sets where uniforms are aligned to 256 bytes.
    const count = 600, ys = engine.allocate(256 * count), place = (i: number) => ({ buffer: ys.buffer, offset: 256 * i, bytes: 16 });
    for (let round = 0; round < 3; round++) for (let i = 0; i < count; i++) engine.run(k.fill, threads(1), { y: place(i), value: i + 0.5 });
    const got = await engine.read(ys);
    for (let i = 0; i < count; i++) assert.is(got[64 * i], i + 0.5);
    const perArena = 65536 / Math.max(16, d.limits.minUniformBufferOffsetAlignment);
    assert.is(arenas, Math.ceil((count + 1) / perArena)); // one more: the poison's
  }));
leaks.run();
