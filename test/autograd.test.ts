// The tape: fan-out, gradients that are handed over, what is frozen or unused, parameters, a net against finite differences, memory, misuse.
import * as assert from 'uvu/assert';
import { record, noGrad, Tape } from '../src/autograd.ts';
import type { Engine } from '../src/gpu/engine.ts';
import { attention } from '../src/ops/attention.ts';
import { conv2d, linear } from '../src/ops/conv2d.ts';
import { groupNorm } from '../src/ops/group_norm.ts';
import { mse } from '../src/ops/loss.ts';
import { add, silu, upsample } from '../src/ops/pointwise.ts';
import { ParameterTensor, Tensor } from '../src/tensor.ts';
import { abs, assertClose, bound, relativeL2 } from './helpers/close.ts';
import { assertError, differentiate, given, gpuSuite, random, sigmoidError, ULP, upload } from './helpers/gpu.ts';
import * as attentionTwin from './ref/attention.ts';
import * as convTwin from './ref/conv2d.ts';
import { mse as mseTwin } from './ref/diffusion.ts';
import { groupNorm as groupNormTwin } from './ref/group_norm.ts';
import { linear as linearTwin } from './ref/matmul.ts';
import * as twin from './ref/pointwise.ts';

const tape = gpuSuite('tape', { watched: false });

/** A few roundings, and those of SiLU's derivative s (1 + x (1 - s)), of a gradient of about this size. */
const few = (x: ArrayLike<number>, dy: ArrayLike<number>, times = 1) =>
  Float64Array.from({ length: x.length }, (_, i) => times * Math.abs(dy[i]) * (1 + Math.abs(x[i])) * (sigmoidError(x[i]) + 6 * ULP));

tape('a tensor used several times gets the sum of its gradients', async (engine) => {
  const x = random(37, 0), dy = random(37, 1), t = upload(engine, [37], x);
  const op = () => {
    const s = silu(t);
    return add(add(add(s, t), s), silu(t)); // 3 silu(x) + x, of which two are one tensor
  };
  const { y, gradients } = await differentiate([t], op, dy), s = twin.silu(x), back = twin.siluBackward(x, dy);
  assertClose(y, s.map((v, i) => 3 * v + x[i]), { atol: few(x, x, 4), what: 'y' });
  assertClose(gradients[0], back.map((v, i) => 3 * v + dy[i]), { atol: few(x, dy, 4), what: 'dx' });
});

tape('a residual block hands dy over, and what else reaches its input is added', async (engine) => {
  const [N, H, W, C] = [1, 4, 5, 4], size = N * H * W * C, x = random(size, 0), w = random(9 * C * C, 1), dy = random(size, 2);
  const s = { N, H, W, C, O: C, KH: 3, KW: 3, stride: 1, pad: [1, 1] as const, OH: H, OW: W };
  const t = upload(engine, [N, H, W, C], x), tw = upload(engine, [3, 3, C, C], w);
  const { gradients } = await differentiate([t, tw], () => conv2d(t, tw, null, { residual: t }), dy);
  const want = (f: (v: ArrayLike<number>) => ArrayLike<number>) => twin.add(convTwin.conv2dBackwardInput({ ...s, dy: f(dy), w: f(w) }), f(dy));
  assertClose(gradients[0], want((v) => v), { atol: bound(9 * C + 1, want(abs)), what: 'dx' });
  assertClose(gradients[1], convTwin.conv2dBackwardWeight({ ...s, x, dy }), { atol: bound(H * W, convTwin.conv2dBackwardWeight({ ...s, x: abs(x), dy: abs(dy) })), what: 'dw' });

  // Handed over twice, through two additions: one buffer all the way, and the other branch is added to it.
  const chain = await differentiate([t], () => add(add(t, upload(engine, t.shape, w.slice(0, size))), silu(t)), dy);
  assertClose(chain.gradients[0], twin.siluBackward(x, dy).map((v, i) => v + dy[i]), { atol: few(x, dy, 2), what: 'dx of a chain' });
});

tape('what the loss does not depend on has no gradient, and costs nothing', async (engine) => {
  const t = upload(engine, [8], random(8, 0)), unused = upload(engine, [8], random(8, 1)), dy = random(8, 2), live = engine.memory().live;
  t.requiresGrad = unused.requiresGrad = true;
  const own = new Tape(engine), loss = own.record(() => {
    silu(silu(unused));
    silu(t); // recorded, and never used
    return given(add(t, t), dy);
  });
  own.backward(loss);
  assert.equal(await own.gradient(t).read(), dy.map((v) => 2 * v));
  await assertError(() => own.gradient(unused), 'E-ENGINE', /no gradient: .* or the loss does not depend on it/);
  own.gradient(t).free();
  loss.free();
  assert.is(engine.memory().live, live);
});

tape('frozen inputs get no gradient, and nothing is recorded where none is wanted', async (engine) => {
  const shape = [1, 3, 3, 4], x = upload(engine, shape, random(36, 0)), w = upload(engine, [3, 3, 4, 4], random(144, 1)), goal = upload(engine, shape, random(36, 2));
  w.requiresGrad = true;
  const own = new Tape(engine), loss = own.record(() => {
    const h = silu(x); // nothing in it is trained
    assert.not(h.requiresGrad);
    assert.is(own.nodes.length, 0);
    return mse(conv2d(h, w, null), goal);
  });
  assert.is(own.nodes.length, 3); // the convolution, the error of each image, and their mean
  own.backward(loss);
  assert.ok((await own.gradient(w).read()).every(Number.isFinite));
  await assertError(() => own.gradient(x), 'E-ENGINE', /not marked requiresGrad/);
});

tape('outside a tape nothing is recorded or kept', (engine) => {
  const x = upload(engine, [1, 3, 4], random(12, 0)), live = engine.memory().live;
  x.requiresGrad = true;
  const y = attention(x, x, x, 2); // saves its weights where there is a tape
  assert.not(y.requiresGrad);
  y.free();
  assert.is(engine.memory().live, live);
});

/** A parameter as a model has it: values and gradient at places of flat buffers. */
function parameter(engine: Engine, shape: number[], data: Float32Array, name: string): ParameterTensor {
  const at = Tensor.empty(engine, [128]).slice, grad = Tensor.empty(engine, [128]).slice, bytes = data.byteLength;
  const slice = { buffer: at.buffer, offset: 256, bytes };
  engine.write(slice, data);
  return new ParameterTensor(engine, shape, slice, name, { buffer: grad.buffer, offset: 256, bytes });
}

tape('a parameter\'s gradient goes to its place: added up within a pass, written anew by the next', async (engine) => {
  const x = random(20, 0), w = random(16, 1), dy = random(20, 2), p = parameter(engine, [1, 1, 4, 4], w, 'w'), bias = parameter(engine, [4], random(4, 3), 'b');
  const t = upload(engine, [5, 4], x), s = { N: 5, H: 1, W: 1, C: 4, O: 4, KH: 1, KW: 1, stride: 1, pad: [0, 0] as const, OH: 1, OW: 1 };
  for (const times of [2, 1]) {
    const own = new Tape(engine), loss = own.record(() => given(times === 2 ? add(linear(t, p, bias), linear(t, p, bias)) : linear(t, p, bias), dy));
    own.backward(loss);
    const want = convTwin.conv2dBackwardWeight({ ...s, x, dy }), sizes = convTwin.conv2dBackwardWeight({ ...s, x: abs(x), dy: abs(dy) });
    assertClose(await engine.read(p.grad), want.map((v) => times * v), { atol: bound(5 * times, sizes.map((v) => times * v)), what: `dw, used ${times} times` });
    const db = convTwin.sumRows(dy, 5, 4);
    assertClose(await engine.read(bias.grad), db.map((v) => times * v), { atol: bound(5 * times, convTwin.sumRows(abs(dy), 5, 4).map((v) => times * v)), what: 'db' });
    assert.ok((await engine.read({ ...p.grad, offset: 0, bytes: 256 })).every(Number.isNaN), 'what lies before it is not touched');
    loss.free();
  }
});

tape('views are one tensor to the tape', async (engine) => {
  const x = random(24, 0), dy = random(24, 1), t = upload(engine, [2, 12], x);
  const { gradients } = await differentiate([t], () => add(silu(t.view([24])).view([4, 6]), t.view([4, 6])), dy);
  assertClose(gradients[0], twin.siluBackward(x, dy).map((v, i) => v + dy[i]), { atol: few(x, dy, 2), what: 'dx' });
});

tape('scopes inside a tape free nothing that backward needs', async (engine) => {
  const x = random(24, 0), dy = random(24, 1), t = upload(engine, [24], x);
  const { gradients } = await differentiate([t], () => engine.scope(() => silu(engine.scope(() => silu(t)))), dy);
  const inner = twin.silu(x), d = twin.siluBackward(inner, dy), near = few(inner, dy, 2);
  assertClose(gradients[0], twin.siluBackward(x, d), { atol: few(x, d).map((v, i) => v + near[i]), what: 'dx' }); // a derivative of SiLU is at most 1.1
});

// ------------------------------------------------------------------------------------------------------------------------ a whole net
const [N, S, C, G, heads] = [2, 4, 8, 2, 2];
const P = S * S;
const shapes = {
  x: [N, S, S, C], temb: [N, C], gamma: [C], beta: [C], w1: [3, 3, C, 12], b1: [12], wt: [1, 1, C, 12], bt: [12], gamma2: [20], beta2: [20], w2: [3, 3, 20, C], b2: [C],
  wd: [3, 3, C, C], bd: [C], wq: [1, 1, C, C], wk: [1, 1, C, C], wv: [1, 1, C, C], wo: [1, 1, C, C], bo: [C],
} as const;
type Name = keyof typeof shapes;
const names = Object.keys(shapes) as Name[];
const values = Object.fromEntries(names.map((name, id) => {
  const shape: readonly number[] = shapes[name], fan = shape.length === 4 ? shape[0] * shape[1] * shape[2] : 1;
  return [name, random(shape.reduce((a, b) => a * b, 1), id).map((v) => (name.startsWith('gamma') ? 1 + 0.2 * v : name === 'x' ? v : v / Math.sqrt(fan)))];
})) as Record<Name, Float32Array>;
const goal = random(N * P * C, 99);

/** A residual block with time embedding and a skip connection, down, attention, up: what a U-Net is made of. */
function net(engine: Engine, t: Record<Name, Tensor>): Tensor {
  const temb = linear(silu(t.temb), t.wt, t.bt);
  const h = conv2d(groupNorm(t.x, t.gamma, t.beta, { groups: G, silu: true }), t.w1, t.b1, { perImage: temb });
  const block = conv2d(groupNorm([h, t.x], t.gamma2, t.beta2, { groups: 5, silu: true }), t.w2, t.b2, { residual: t.x });
  const down = conv2d(block, t.wd, t.bd, { stride: 2, padding: [0, 1, 0, 1] }).view([N, P / 4, C]);
  const mixed = linear(attention(linear(down, t.wq, null), linear(down, t.wk, null), linear(down, t.wv, null), heads), t.wo, t.bo, { residual: down });
  return mse(add(upsample(mixed.view([N, S / 2, S / 2, C])), block), upload(engine, [N, S, S, C], goal));
}

/** The same in float64, from the twins. */
function netTwin(v: Record<Name, ArrayLike<number>>): number {
  const conv = { N, H: S, W: S, KH: 3, KW: 3, stride: 1, pad: [1, 1] as const, OH: S, OW: S };
  const turned = (w: ArrayLike<number>, O: number) => twin.hwioToOihw(w, O, C, 1);
  const temb = linearTwin(twin.silu(v.temb), turned(v.wt, 12), v.bt, N, C, 12);
  const norm = { N, P, eps: 1e-5, silu: true };
  const h = convTwin.conv2d({ ...conv, C, O: 12, x: groupNormTwin({ ...norm, x: v.x, gamma: v.gamma, beta: v.beta, C0: C, G }).y, w: v.w1, bias: v.b1, perImage: temb });
  const joined = groupNormTwin({ ...norm, x: h, x2: v.x, gamma: v.gamma2, beta: v.beta2, C0: 12, C1: C, G: 5 }).y;
  const block = convTwin.conv2d({ ...conv, C: 20, O: C, x: joined, w: v.w2, bias: v.b2, residual: v.x });
  const down = convTwin.conv2d({ ...conv, C, O: C, stride: 2, pad: [0, 0], OH: S / 2, OW: S / 2, x: block, w: v.wd, bias: v.bd });
  const M = (N * P) / 4, project = (x: ArrayLike<number>, w: ArrayLike<number>, b?: ArrayLike<number>) => linearTwin(x, turned(w, C), b, M, C, C);
  const { o } = attentionTwin.attention({ q: project(down, v.wq), k: project(down, v.wk), v: project(down, v.wv), N, T: P / 4, C, heads });
  const mixed = twin.add(project(o, v.wo, v.bo), down);
  return mseTwin(twin.add(twin.upsampleNearest2x(mixed, N, S / 2, S / 2, C), block), goal);
}

tape('a net of all ops has the gradients that finite differences of its float64 twin give', async (engine) => {
  const t = Object.fromEntries(names.map((name) => [name, upload(engine, shapes[name], values[name])])) as Record<Name, Tensor>;
  for (const name of names) t[name].requiresGrad = true;
  const own = new Tape(engine), loss = own.record(() => net(engine, t));
  own.backward(loss);
  const want = netTwin(values);
  assertClose(await loss.read(), [want], { rtol: 1e-6, what: 'loss' });
  for (const name of names) {
    const got = await own.gradient(t[name]).read(), count = Math.min(12, got.length);
    const picked = Array.from({ length: count }, (_, i) => Math.floor((i * got.length) / count));
    const numeric = picked.map((at) => {
      // Central differences of fourth order: at this width they are off by about 1e-10.
      const shifted = (d: number) => netTwin({ ...values, [name]: Float64Array.from(values[name], (v, j) => (j === at ? v + d : v)) }), d = 2e-3;
      return (8 * (shifted(d) - shifted(-d)) - (shifted(2 * d) - shifted(-2 * d))) / (12 * d);
    });
    const error = relativeL2(picked.map((at) => got[at]), numeric);
    // The roundings of some twenty ops in a row; PyTorch's float32 is held to 5e-5 in the same way.
    assert.ok(error < 1e-5, `${name}: off by ${error}`);
  }
});

// --------------------------------------------------------------------------------------------------------------------------- memory, misuse
tape('backward leaves the loss, what is to be kept and the gradients, and nothing else', async (engine) => {
  const x = upload(engine, [2, 4, 4, 8], values.x), w = upload(engine, [3, 3, 8, 8], random(576, 1)), other = upload(engine, [2, 4, 4, 8], goal), live = engine.memory().live;
  w.requiresGrad = true;
  for (let i = 0; i < 3; i++) {
    const own = new Tape(engine), { y, loss } = own.record(() => {
      const y = conv2d(silu(conv2d(x, w, null)), w, null);
      return { y, loss: mse(y, other) };
    });
    own.backward(loss, { y });
    assert.is(engine.memory().live, live + 256 + 1024 + 2560, 'loss, y, dw');
    assert.ok((await y.read()).every(Number.isFinite));
    for (const t of [y, loss, own.gradient(w)]) t.free();
    assert.is(engine.memory().live, live);
  }
});

tape('noGrad records nothing, frees what it made, and leaves the tape as it was', async (engine) => {
  const x = upload(engine, [2, 4, 4, 8], values.x), w = upload(engine, [3, 3, 8, 8], random(576, 1)), other = upload(engine, [2, 4, 4, 8], goal);
  const outside = conv2d(silu(conv2d(x, w, null)), w, null);
  w.requiresGrad = true;
  const gradient = async (inside: boolean): Promise<Float32Array> => {
    const own = new Tape(engine), loss = own.record(() => {
      const { live } = engine.memory(), nodes = own.nodes.length;
      const start = inside ? noGrad(engine, () => conv2d(silu(conv2d(x, w, null)), w, null)) : outside;
      if (inside) assert.equal([own.nodes.length, engine.memory().live - live, start.requiresGrad], [nodes, 1024, false], 'its result alone is left');
      return mse(add(conv2d(x, w, null), start), other);
    });
    own.backward(loss);
    return own.gradient(w).read();
  };
  assert.equal(await gradient(true), await gradient(false), 'the gradient of what lies outside');
  assert.throws(() => new Tape(engine).record(() => noGrad(engine, () => { throw new Error('mine'); })), /mine/);
});

tape('what throws while it is recorded, or walked back, leaves nothing behind', async (engine) => {
  const x = upload(engine, [8], random(8, 0)), live = engine.memory().live;
  x.requiresGrad = true;
  const first = new Tape(engine);
  assert.throws(() => first.record(() => {
    silu(silu(x));
    throw new Error('mine');
  }), /mine/);
  assert.is(engine.memory().live, live);

  const second = new Tape(engine), loss = second.record(() => record(Tensor.empty(engine, [1]), [silu(x)], () => {
    throw new Error('in backward');
  }));
  assert.throws(() => second.backward(loss), /in backward/);
  assert.is(engine.memory().live, live);
  await engine.finished();
});

tape('is used once, one at a time, and in order', async (engine) => {
  const x = upload(engine, [8], random(8, 0)), goal_ = upload(engine, [8], random(8, 1)), live = engine.memory().live;
  x.requiresGrad = true;
  const own = new Tape(engine);
  await assertError(() => own.backward(x), 'E-ENGINE', /backward\(\) without record\(\)/);
  const loss = own.record(() => {
    const other = new Tape(engine);
    assert.throws(() => other.record(() => 0), /one at a time/);
    assert.throws(() => own.record(() => 0), /one at a time/);
    return mse(silu(x), goal_);
  });
  await assertError(() => own.record(() => 0), 'E-ENGINE', /a tape records once/);
  await assertError(() => own.gradient(x), 'E-ENGINE', /no gradient/);
  own.backward(loss);
  await assertError(() => own.backward(loss), 'E-ENGINE', /without record/);
  own.gradient(x).free();
  loss.free();

  const many = new Tape(engine), y = many.record(() => silu(x));
  await assertError(() => many.backward(y), 'E-SHAPE', /backward\(\) starts from one value, not from shape \(8\)/);
  assert.is(engine.memory().live, live);
});

tape('a parameter cannot take dy over', async (engine) => {
  const p = parameter(engine, [8], random(8, 0), 'norm.weight'), own = new Tape(engine);
  const loss = own.record(() => given(add(p, upload(engine, [8], random(8, 1))), random(8, 2)));
  await assertError(() => own.backward(loss), 'E-ENGINE', /norm\.weight: a parameter cannot take dy over/);
});
tape.run();
