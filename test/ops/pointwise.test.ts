// Ops without a sum against their float64 twins: SiLU, both additions, dropout, upsampling, fill and accumulate.
import * as assert from 'uvu/assert';
import { pointwise, threads } from '../../src/autograd.ts';
import * as k from '../../src/gpu/kernels.gen.ts';
import { sumRows } from '../../src/ops/sum.ts';
import { add, dropout, silu, upsample } from '../../src/ops/pointwise.ts';
import { STREAM } from '../../src/philox.ts';
import { Tensor } from '../../src/tensor.ts';
import { abs, assertClose, bound } from '../helpers/close.ts';
import { assertError, clockAt, destination, differentiate, DIVIDE, gpuSuite, random, sigmoidError, ULP, upload } from '../helpers/gpu.ts';
import { sumPixels } from '../ref/conv2d.ts';
import * as twin from '../ref/pointwise.ts';
import { words } from '../ref/random.ts';

const pointwiseOps = gpuSuite('pointwise');

/** Of s (1 + x (1 - s)), whose derivative by s is 1 + x (1 - 2 s). */
const siluGradientError = (x: number): number => {
  const s = 1 / (1 + Math.exp(-x));
  return s * sigmoidError(x) * Math.abs(1 + x * (1 - 2 * s)) + 2 * ULP * s * (1 + Math.abs(x));
};

for (const size of [1, 3, 255, 1030])
  pointwiseOps(`silu of ${size} values, forward and backward`, async (engine) => {
    const x = random(size, 0).map((v) => 4 * v), dy = random(size, 1);
    x.set([0, 30, -30, 80, -80, 200].slice(0, Math.max(0, size - 4)));
    const t = upload(engine, [size], x), { y, gradients } = await differentiate([t], () => silu(t), dy);
    const want = twin.silu(x), back = twin.siluBackward(x, dy);
    assertClose(y, want, { atol: want.map((v, i) => Math.abs(v) * (sigmoidError(x[i]) + ULP) + 2 ** -126), what: 'y' });
    assertClose(gradients[0], back, { atol: back.map((_, i) => Math.abs(dy[i]) * siluGradientError(x[i]) + ULP * Math.abs(back[i]) + 2 ** -126), what: 'dx' });
  });

pointwiseOps('silu far out: x itself, and 0 instead of a NaN', async (engine) => {
  const y = await silu(upload(engine, [4], [1e4, -1e4, 3e38, -3e38])).read();
  assert.equal(y.map(Math.abs), Float32Array.of(1e4, 0, 3e38, 0));
});

pointwiseOps('silu_backward on top of what is there', async (engine) => {
  const x = random(70, 0), dy = random(70, 1), before = random(70, 2), dx = destination(engine, [70], before);
  engine.run(k.silu_backward, pointwise(70), { x: upload(engine, [70], x).slice, dy: upload(engine, [70], dy).slice, dx: dx.slice, accumulate: 1 });
  const back = twin.siluBackward(x, dy), sum = twin.add(back, before);
  assertClose(await dx.read(), sum, { atol: sum.map((v, i) => Math.abs(dy[i]) * siluGradientError(x[i]) + ULP * (Math.abs(back[i]) + Math.abs(v))), what: 'dx' });
});

for (const [N, H, W, C] of [[1, 1, 1, 1], [2, 5, 3, 7], [3, 4, 4, 20]])
  pointwiseOps(`add to (${N}, ${H}, ${W}, ${C}): the same shape, and one value an image and channel`, async (engine) => {
    const size = N * H * W * C, a = random(size, 0), b = random(size, 1), c = random(N * C, 2), dy = random(size, 3);
    const [ta, tb, tc] = [upload(engine, [N, H, W, C], a), upload(engine, [N, H, W, C], b), upload(engine, [N, C], c)];
    const same = await differentiate([ta, tb], () => add(ta, tb), dy);
    assert.equal(same.y, a.map((v, i) => v + b[i])); // one rounding, and there is only one way to do it
    assert.equal(same.gradients, [dy, dy]);
    const image = await differentiate([ta, tc], () => add(ta, tc), dy);
    assert.equal(image.y, Float32Array.from(twin.addPerImage(a, c, N, H * W, C)));
    assert.equal(image.gradients[0], dy);
    assertClose(image.gradients[1], sumPixels(dy, N, H * W, C), { atol: bound(H * W, sumPixels(abs(dy), N, H * W, C)), what: 'db' });
  });

pointwiseOps('add of a tensor to itself has the gradient 2 dy', async (engine) => {
  const x = random(37, 0), dy = random(37, 1), t = upload(engine, [37], x);
  const { y, gradients } = await differentiate([t], () => add(t, t), dy);
  assert.equal(y, x.map((v) => 2 * v));
  assert.equal(gradients[0], dy.map((v) => 2 * v));
});

pointwiseOps('add refuses shapes that do not fit', async (engine) => {
  const t = (...shape: number[]) => Tensor.empty(engine, shape);
  await assertError(() => add(t(2, 3, 4), t(3, 4)), 'E-SHAPE', /add: \(3, 4\) cannot be added to \(2, 3, 4\)/);
});

for (const [kernel, C, lanes] of [[k.sum_pixels, 30, 1], [k.sum_pixels_vec4, 36, 4]] as const)
  for (const [WG, COLUMNS] of [[8, 1], [256, 8], [64, 4]])
    pointwiseOps(`${kernel.name}, ${WG} invocations for ${COLUMNS} columns`, async (engine) => {
      const [N, P] = [3, 37], x = random(N * P * C, 0), before = random(N * C, 1), tx = upload(engine, [x.length], x);
      for (const accumulate of [0, 1] as const) {
        const y = destination(engine, [N * C], accumulate ? before : null);
        engine.run(kernel, [Math.ceil((N * C) / lanes / COLUMNS)], { x: tx.slice, y: y.slice, N, P, C, accumulate, WG, COLUMNS });
        const compute = (f: (v: ArrayLike<number>) => ArrayLike<number>) => (accumulate ? twin.add(sumPixels(f(x), N, P, C), f(before)) : sumPixels(f(x), N, P, C));
        assertClose(await y.read(), compute((v) => v), { atol: bound(P + 1, compute(abs)), what: `y, accumulate ${accumulate}` });
      }
    });

pointwiseOps('sumRows in one stage and in two', async (engine) => {
  const { deviceClass } = engine;
  // On a CPU there is no second stage; this one plays a GPU.
  for (const [rows, gpu] of [[5, false], [4096, true], [4100, false], [4100, true]] as const) {
    const C = 8, x = random(rows * C, rows), y = destination(engine, [C], null);
    Object.assign(engine, { deviceClass: gpu ? 'gpu' : 'cpu' });
    try {
      sumRows(engine, upload(engine, [x.length], x).slice, rows, C, { slice: y.slice, accumulate: 0 });
    } finally {
      Object.assign(engine, { deviceClass });
    }
    assertClose(await y.read(), sumPixels(x, 1, rows, C), { atol: bound(rows, sumPixels(abs(x), 1, rows, C)), what: `${rows} rows` });
  }
});

for (const [N, size, p] of [[3, 7, 0.1], [2, 128, 0.5], [5, 33, 0], [1, 1, 0.9]])
  pointwiseOps(`dropout of ${size} values of ${N} samples, p = ${p}`, async (engine) => {
    const clock = clockAt(engine, { seed: 5, step: 3, first: 10 }), x = random(N * size, 0).map((v) => v || 1), dy = random(N * size, 1);
    const t = upload(engine, [N, size], x), stream = STREAM.dropout + 256, { y, gradients } = await differentiate([t], () => dropout(t, p, clock, stream), dy);
    const bits = words({ seed: 5, stream, step: 3, samples: Array.from({ length: N }, (_, n) => 10 + n), count: size });
    const f32 = Math.fround(p); // the kernel knows p as float32
    assertClose(y, twin.dropout(x, bits, f32), { rtol: DIVIDE + ULP, what: 'y' });
    assertClose(gradients[0], twin.dropout(dy, bits, f32), { rtol: DIVIDE + ULP, what: 'dx' });
    assert.equal(y.map((v) => Number(v === 0)), gradients[0].map((v) => Number(v === 0)), 'one mask');

    const before = random(N * size, 2), out = destination(engine, [N, size], before);
    engine.run(k.dropout, threads(N * Math.ceil(size / 4)), { clock: clock.slice, x: t.slice, y: out.slice, N, size, stream, p, accumulate: 1 });
    const masked = twin.dropout(x, bits, f32);
    assertClose(await out.read(), twin.add(masked, before), { atol: masked.map((v, i) => (DIVIDE + ULP) * (Math.abs(v) + Math.abs(before[i]))), what: 'on top' });
  });

pointwiseOps('dropout of a sample is the same in every batch, and another one at every step', async (engine) => {
  const ones = (N: number) => upload(engine, [N, 20], new Float32Array(20 * N).fill(1));
  const all = await dropout(ones(4), 0.5, clockAt(engine, { seed: 1, step: 2, first: 0 }), 5).read();
  assert.equal(await dropout(ones(2), 0.5, clockAt(engine, { seed: 1, step: 2, first: 2 }), 5).read(), all.slice(40));
  assert.not.equal(await dropout(ones(4), 0.5, clockAt(engine, { seed: 1, step: 3, first: 0 }), 5).read(), all);
});

for (const [N, H, W, C] of [[1, 1, 1, 1], [2, 3, 5, 7], [3, 4, 2, 16]])
  pointwiseOps(`upsample (${N}, ${H}, ${W}, ${C})`, async (engine) => {
    const x = random(N * H * W * C, 0), dy = random(4 * x.length, 1), t = upload(engine, [N, H, W, C], x);
    const { y, gradients } = await differentiate([t], () => upsample(t), dy);
    assert.equal(y, Float32Array.from(twin.upsampleNearest2x(x, N, H, W, C)));
    const back = (v: ArrayLike<number>) => twin.upsampleNearest2xBackward(v, N, H, W, C);
    assertClose(gradients[0], back(dy), { atol: bound(4, back(abs(dy))), what: 'dx' });

    const before = random(x.length, 2), dx = destination(engine, [x.length], before);
    engine.run(k.upsample_backward, threads(x.length), { dy: upload(engine, [dy.length], dy).slice, dx: dx.slice, N, H, W, C, accumulate: 1 });
    assertClose(await dx.read(), twin.add(back(dy), before), { atol: bound(5, twin.add(back(abs(dy)), abs(before))), what: 'dx on top' });
  });

pointwiseOps('fill and accumulate, over the 65,535 workgroups of a dimension too', async (engine) => {
  for (const size of [1, 5, 64 * 4 * 65535 + 9]) { // 67 MB: more vec4s than one row of workgroups holds
    const y = engine.allocate(4 * size), tail = Math.min(size, 20);
    const last = { buffer: y.buffer, offset: y.offset + 4 * size - 4 * tail, bytes: 4 * tail };
    engine.run(k.fill, pointwise(size), { y, value: 1.5 });
    assert.equal(await engine.read(last), new Float32Array(tail).fill(1.5));
    assert.equal((await engine.read({ ...y, bytes: 4 }))[0], 1.5);
    if (size > 5) continue;
    const x = random(size, 0), t = upload(engine, [size], x);
    engine.run(k.accumulate, pointwise(size), { x: t.slice, y, copy: 0 });
    assert.equal(await engine.read(y), x.map((v) => v + 1.5));
    engine.run(k.accumulate, pointwise(size), { x: t.slice, y, copy: 1 });
    assert.equal(await engine.read(y), x);
  }
});

pointwiseOps('accumulate with copy does not read what was there', async (engine) => {
  const x = random(9, 0), y = destination(engine, [9], null);
  engine.run(k.accumulate, pointwise(9), { x: upload(engine, [9], x).slice, y: y.slice, copy: 1 });
  assert.equal(await y.read(), x);
});
pointwiseOps.run();
