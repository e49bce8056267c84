// Mistakes of a program that uses the library: each is an error of the call that makes it, in words, nothing leaks, and the engine goes on.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { noGrad, pointwise, Tape } from '../src/autograd.ts';
import { Engine } from '../src/gpu/engine.ts';
import * as k from '../src/gpu/kernels.gen.ts';
import { openEngine } from '../src/node.ts';
import { mse } from '../src/ops/loss.ts';
import { add, silu } from '../src/ops/pointwise.ts';
import { Tensor } from '../src/tensor.ts';
import { assertError, gpuSuite, openOptions, upload } from './helpers/gpu.ts';

const mistakes = gpuSuite('mistakes', { watched: false });
const four = (engine: Engine): Tensor => upload(engine, [4], [1, 2, 3, 4]);

mistakes('a tensor that was freed is refused by all that takes one, also when its memory is another tensor\'s', async (engine) => {
  const live = engine.memory().live, x = four(engine), y = four(engine);
  x.free();
  const other = four(engine);
  assert.ok(other.slice.buffer === x.slice.buffer);
  for (const use of [
    () => silu(x), () => engine.copy(x.slice, y.slice), () => engine.copy(y.slice, x.slice), () => engine.clear(x.slice), () => engine.write(x.slice, new Float32Array(4)), () => x.read(), () => x.view([2, 2]).read(), () => x.gpu,
  ]) await assertError(use, 'E-ENGINE', /was freed before/);
  await assertError(() => x.free(), 'E-ENGINE', /freed twice/);
  x[Symbol.dispose]();
  assert.equal([...(await other.read())], [1, 2, 3, 4]);
  for (const each of [y, other]) each.free();
  await engine.finished();
  assert.ok(engine.memory().live <= live + 256, 'silu made its result before it was refused'); // freed with the test's scope
});

mistakes('a plan that was destroyed, and what lay in it', async (engine) => {
  const x = four(engine), plan = engine.capture(() => silu(x)), y = four(engine);
  plan.run();
  await plan.destroy();
  await plan.destroy();
  const encoder = engine.device.createCommandEncoder();
  for (const use of [() => plan.run(), () => plan.encode(encoder), () => plan.compile(), () => engine.profile(plan)]) await assertError(use, 'E-ENGINE', /the plan was destroyed/);
  for (const use of [() => plan.result.read(), () => silu(plan.result), () => engine.copy(y.slice, plan.result.slice), () => plan.result.gpu]) await assertError(use, 'E-ENGINE', /lay in a plan that was destroyed/);
  let lost: Tensor | null = null;
  assert.throws(() => engine.capture(() => {
    lost = silu(x);
    throw new Error('mine');
  }), /mine/);
  await assertError(() => silu(lost!), 'E-ENGINE', /whose capture failed/);
  await engine.finished();
});

mistakes('a plan is not run inside a capture, nor an async function captured', async (engine) => {
  const x = four(engine), plan = engine.capture(() => silu(x)), { plans } = engine.memory();
  await assertError(() => engine.capture(() => plan.run()), 'E-ENGINE', /a plan was run inside capture\(\)/);
  await assertError(() => engine.capture(async () => {
    await Promise.resolve();
    throw new Error('nobody hears of this');
  }), 'E-ENGINE', /returns a promise/);
  assert.is(engine.memory().plans, plans);
  plan.run();
  assert.ok((await plan.result.read()).every(Number.isFinite));
  await plan.destroy();
});

mistakes('sizes that are no whole numbers from 1, and values that are no typed array', async (engine) => {
  const live = engine.memory().live;
  for (const size of [0, -4, 2.5, NaN, Infinity]) await assertError(() => Tensor.empty(engine, [2, size]), 'E-SHAPE', new RegExp(`shape \\(2, ${size}\\): sizes are whole numbers from 1`));
  await assertError(() => Tensor.from(engine, [4], [1, 2, 3, 4] as never), 'E-USAGE', /Tensor\.from\(\) takes its values as a Float32Array or Uint32Array/);
  await assertError(() => engine.write(four(engine).slice, [1, 2, 3, 4] as never), 'E-USAGE', /write\(\) takes a typed array/);
  assert.is(engine.memory().live, live + 256);
});

mistakes('grids that are no whole numbers, and a buffer that is read and written at once', async (engine) => {
  const x = four(engine), y = four(engine);
  for (const count of [NaN, 1.5, -1]) await assertError(() => engine.run(k.silu_forward, [count], { x: x.slice, y: y.slice }), 'E-KERNEL', new RegExp(`silu_forward: a grid of ${count} x 1 x 1 workgroups`));
  await assertError(() => engine.run(k.silu_forward, pointwise(4), { x: x.slice, y: x.view([4]).slice }), 'E-KERNEL', /silu_forward: y, which is written, lies in the buffer of x\. .*write into another tensor/);
  await assertError(() => engine.capture(() => {
    const z = silu(x);
    engine.run(k.silu_forward, pointwise(4), { x: z.slice, y: z.slice });
  }), 'E-KERNEL', /silu_forward: y, which is written/);
  await engine.finished();
});

mistakes('an error of the caller comes out of scopes and tapes as it is, and all that they made is freed', async (engine) => {
  const x = four(engine), { live } = engine.memory(), mine = () => {
    throw new Error('mine');
  };
  x.requiresGrad = true;
  const leaveOpen = () => {
    const tape = new Tape(engine);
    tape.record(() => silu(x));
    return mine();
  };
  for (const around of [engine.scope, engine.capture, (fn: () => void) => noGrad(engine, fn)]) assert.throws(() => around.call(engine, leaveOpen), /^mine$/);
  assert.is(engine.memory().live, live);
  await assertError(() => engine.scope(() => new Tape(engine).record(() => silu(x))), 'E-ENGINE', /scopes must be closed in the reverse order.*from record\(\) to backward\(\)/);
  const tape = new Tape(engine);
  assert.throws(() => tape.record(() => mse(silu(x), silu(x)) && mine()), /^mine$/);
  const loss = tape.record(() => mse(silu(x), four(engine)));
  tape.backward(loss);
  assert.ok((await tape.gradient(x).read()).every((v) => v !== 0 && Number.isFinite(v)), 'the tape records anew');
  tape.gradient(x).free();
  loss.free();
});

mistakes('memory from outside a capture that is freed inside it belongs to its scope all the same', async (engine) => {
  const { live } = engine.memory();
  await assertError(() => engine.scope(() => {
    const x = four(engine);
    engine.capture(() => x.free());
  }), 'E-ENGINE', /from outside a capture/);
  assert.is(engine.memory().live, live);
});
mistakes.run();

const others = suite('engines of others');

others('a tensor of another device is refused; one of another engine on this device is computed first', async () => {
  const [first, second] = [await openEngine(openOptions), await openEngine(openOptions)], there = four(second.engine), here = four(first.engine), beside = new Engine(first.device);
  for (const use of [() => add(here, there), () => first.engine.read(there.slice), () => first.engine.copy(there.slice, here.slice), () => first.engine.write(there.slice, new Float32Array(4))]) await assertError(use, 'E-ENGINE', /is on another device than this engine.*Tensor\.from/);
  const sum = add(here, silu(four(beside)));
  assert.equal([...(await sum.read())].map((v, i) => v > 1.7 * (i + 1)), [true, true, true, true], 'the other engine had held back its silu');
  await beside.destroy();
  for (const { close } of [first, second]) await close();
});

others('an engine that was destroyed, while work is pending too, says so; what is left of it can be put away', async () => {
  const { device, close } = await openEngine(openOptions), engine = new Engine(device), x = four(engine), plan = engine.capture(() => silu(x));
  const pending = silu(x).read(), destroyed = engine.destroy();
  assert.is((await pending).length, 4);
  await destroyed;
  for (const use of [() => silu(x), () => four(engine), () => x.read(), () => engine.write(x.slice, new Float32Array(4)), () => engine.finished(), () => engine.capture(() => silu(x)), () => engine.check()]) await assertError(use, 'E-ENGINE', /the engine was destroyed/);
  await assertError(() => plan.run(), 'E-ENGINE', /the plan was destroyed, or its engine/);
  x.free();
  await plan.destroy();
  await engine.destroy();
  assert.is(engine.memory().total, 0);
  await close();
});
others.run();
