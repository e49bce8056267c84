// Activations stored as float16: the numbers on the host, every op of a U-Net against its float64 twin, what is refused, and the self-test before it.
import * as assert from 'uvu/assert';
import type { Engine } from '../../src/gpu/engine.ts';
import { narrowHalf, widenHalf } from '../../src/gpu/float16.ts';
import * as k from '../../src/gpu/kernels.gen.ts';
import { attention } from '../../src/ops/attention.ts';
import { cast } from '../../src/ops/cast.ts';
import { fold } from '../../src/folds.ts';
import { conv2d } from '../../src/ops/conv2d.ts';
import { groupNorm } from '../../src/ops/group_norm.ts';
import { add, dropout, silu, upsample } from '../../src/ops/pointwise.ts';
import { openEngine } from '../../src/node.ts';
import { usePrecision } from '../../src/ops/precision.ts';
import { Tensor } from '../../src/tensor.ts';
import { abs, assertClose, bound } from '../helpers/close.ts';
import { assertError, clockAt, differentiate, gpu, gpuSuite, openOptions, random, upload } from '../helpers/gpu.ts';
import { CORES, onCores } from '../helpers/subgroup_matrix.ts';
import { groupNormErrors } from '../ref/accuracy.ts';
import * as attend from '../ref/attention.ts';
import * as conv from '../ref/conv2d.ts';
import { type GroupNorm, groupNorm as norm, groupNormBackward } from '../ref/group_norm.ts';
import { half, roundedToHalf, roundToHalf } from '../ref/half.ts';
import * as point from '../ref/pointwise.ts';
import { words } from '../ref/random.ts';

type Floats = ArrayLike<number>;
const stored = gpuSuite('activations as float16', { precision: 'f16', as: 'gpu' });

// DDPM_TEST_TENSOR_CORES=1 npm test -- test/ops/storage: also the kernels for tensor cores, with their matrices emulated. llvmpipe takes a minute to compile them.
if (CORES.length < 2) console.log('  SKIPPED  emulated tensor cores: they take a minute to compile (DDPM_TEST_TENSOR_CORES=1)');

/** Numbers that float16 has, and a tensor of them. */
const halves = (n: number, id: number): Float32Array => half(random(n, id));
const put = (engine: Engine, shape: readonly number[], data: Float32Array): Tensor => Tensor.from(engine, shape, data, 'f16');
/** What float32 allows, and the rounding of a result of such a size as it is stored, `times` over. */
const also = (off: Floats, size: Floats, times = 1): Float64Array => roundedToHalf(size).map((v, i) => times * v + off[i]!);

stored('every float16 pattern is read as its number, and numbers are rounded to the nearest, ties to even', () => {
  const patterns = Uint16Array.from({ length: 65536 }, (_, i) => i), values = widenHalf(patterns), back = narrowHalf(values);
  const wrong = patterns.findIndex((bits, i) => (Number.isNaN(values[i]) ? (back[i] & 0x7fff) <= 0x7c00 : back[i] !== bits));
  assert.is(wrong, -1);
  const x = Float32Array.from([...random(3000, 0)].flatMap((v, i) => [v * 2 ** ((i % 42) - 26), (Math.trunc(2048 * v) + 0.5) * 2 ** ((i % 30) - 20)])), more = Float32Array.of(65519, 65520, -1e9, NaN, Infinity, -Infinity, 2 ** -25, 2 ** -24, 0.75 * 2 ** -24, -0);
  for (const list of [x, more]) assert.equal([...widenHalf(narrowHalf(list))].map(String), [...list].map(roundToHalf).map(String));
});

stored('tensors of an odd count are written, read, copied and cleared, in two bytes a value', async (engine) => {
  const data = random(7, 0), x = put(engine, [7], data), y = Tensor.empty(engine, [7], 'f16');
  assert.equal([x.type, x.slice.bytes, x.gpu.size, x.view([7, 1]).type], ['f16', 14, 16, 'f16'], 'bindings are whole words');
  engine.copy(x.slice, y.slice);
  assert.equal([...(await y.read())], [...half(data)]);
  engine.clear(y.slice);
  assert.equal([...(await y.read())], [0, 0, 0, 0, 0, 0, 0]);
  assert.ok((await Tensor.empty(engine, [3, 3], 'f16').read()).every(Number.isNaN), 'memory of tests is NaN until somebody writes');
  await assertError(() => new Tensor(engine, [14], x.slice), 'E-SHAPE', /shape \(14\) does not fit a slice of 14 bytes/);
});

stored('a kernel is given the types that it takes, or nothing runs', async (engine) => {
  const [x, h] = [upload(engine, [8], random(8, 0)), put(engine, [8], random(8, 1))], w = upload(engine, [4], random(4, 2));
  await assertError(() => engine.run(k.accumulate, [1], { x: x.slice, y: h.slice, copy: 0 }), 'E-KERNEL', /^accumulate_stored_f16: x is f16 there, and was given as f32\. Cast/);
  await assertError(() => engine.run(k.relu_forward, [1], { x: h.slice, y: x.slice }), 'E-KERNEL', /^relu_forward: x is f32 there, and was given as f16: relu_forward has no form for it/);
  await assertError(() => engine.run(k.conv2d_tiled, [1], { x: h.slice } as never), 'E-KERNEL', /^conv2d_tiled: x is f32 there/);
  await assertError(() => engine.copy(x.slice, put(engine, [16], random(16, 5)).slice), 'E-KERNEL', /^copy of f32 into f16.*Cast one/);
  await assertError(() => groupNorm(put(engine, [1, 2, 4], random(8, 3)), w, put(engine, [4], random(4, 4)), { groups: 1 }), 'E-KERNEL', /^group_norm_forward_vec4_stored_f16: beta is f32 there, and was given as f16/);
});

for (const n of [1, 7, 1030])
  stored(`casting ${n} values there and back, with their gradients, from two places`, async (engine) => {
    const x = random(n, 0), dy = halves(n, 1), t = upload(engine, [n], x);
    const there = await differentiate([t], () => add(cast(t, 'f16'), cast(t, 'f16')), dy);
    assertClose(there.y, half(x).map((v) => 2 * v), { rtol: 2 ** -10, atol: 2 ** -14, what: 'y' });
    assert.equal([...there.gradients[0]], [...dy].map((v) => 2 * v));
    const h = put(engine, [n], x), back = await differentiate([h], () => add(cast(h, 'f32'), cast(h, 'f32')), random(n, 2));
    assert.equal([...back.y], [...half(x)].map((v) => 2 * v));
    assertClose(back.gradients[0], random(n, 2).map((v) => 2 * v), { rtol: 2 ** -9, atol: 2 ** -13, what: 'dx' });
    assert.is(cast(h, 'f16'), h);
  });

for (const [from, step, size] of [[10, 330, 321], [12, 328, 320]] as const) stored(`sums of ${size} float32 terms, on top of what is there, are rounded once, as they are written`, async (engine) => {
  const values = random(1000, 0), before = halves(400, 1), y = put(engine, [400], before);
  fold(engine, upload(engine, [1000], values).slice, [{ y: y.slice, accumulate: 1, from, terms: 3, step, size, to: 64 }]);
  const mine = (i: number) => i >= 64 && i < 64 + size, sum = (f: (v: number) => number) => Float64Array.from(before, (v, i) => (mine(i) ? [0, 1, 2].reduce((total, s) => total + f(values[from + s * step + i - 64]), f(v)) : f(v)));
  assertClose(await y.read(), sum((v) => v), { atol: also(bound(4, sum(Math.abs)), sum(Math.abs)).map((v, i) => (mine(i) ? v : 0)), what: 'y' });
});

for (const [what, N, H, W, inputs, outputs, K, { stride = 1, residual = false } = {}] of [
  ['1 to 5 channels, padded', 2, 5, 7, [1], 5, 3], ['12 to 3, padded', 1, 6, 5, [12], 3, 3], ['two inputs of odd channels, one added to the other', 1, 5, 3, [3, 2], 5, 3], ['tiled, ragged', 2, 9, 7, [36], 68, 3],
  ['tiled, stride 2', 2, 9, 8, [8], 12, 3, { stride: 2 }], ['tiled, two inputs', 2, 5, 6, [12, 8], 20, 3, { residual: true }], ['a linear layer, split', 1, 24, 25, [8], 20, 1, { residual: true }],
  ['small images, whose sums tensor cores leave in parts', 3, 3, 4, [100], 68, 3, { residual: true }],
] as const satisfies readonly (readonly [string, number, number, number, readonly number[], number, number, { stride?: number; residual?: boolean }?])[])
  for (const cores of CORES) stored(`conv2d: ${what}${cores ? ', on tensor cores' : ''}`, (engine) => onCores(cores, engine, async () => {
    // Tensor cores take eights where others take fours.
    const wide = (channels: number) => (cores && channels % 4 === 0 ? 2 * channels : channels), C = inputs.map(wide), O = wide(outputs);
    const WC = C.reduce((a, b) => a + b, 0), pad = K === 3 && stride === 1 ? 1 : 0, OH = stride === 2 ? Math.floor((H - 2) / 2) + 1 : H, OW = stride === 2 ? Math.floor((W - 2) / 2) + 1 : W, P = OH * OW;
    const xs = C.map((c, i) => halves(N * H * W * c, i)), w = random(K * K * WC * O, 3), bias = random(O, 4), perImage = random(N * O, 5), dy = halves(N * P * O, 6), added = halves(dy.length, 7);
    const tx = xs.map((x, i) => put(engine, [N, H, W, C[i]], x)), rest = [upload(engine, [K, K, WC, O], w), upload(engine, [O], bias), upload(engine, [N, O], perImage)], tr = residual ? [put(engine, [N, OH, OW, O], added)] : [];
    const { y, gradients: [...got] } = await differentiate([...tx, ...rest, ...tr], () =>
      conv2d(tx.length === 2 ? [tx[0], tx[1]] : tx[0], rest[0], rest[1], { stride, perImage: rest[2], residual: tr[0] ?? null, ...(stride === 2 && { padding: [0, 1, 0, 1] as const }) }), dy);

    const factor = half(w);
    const shape = (i: number) => ({ N, H, W, C: C[i], O, KH: K, KW: K, stride, pad: [pad, pad] as const, OH, OW, wC: WC, c0: i ? C[0] : 0 });
    const sum = (f: (v: Floats) => Floats, count = C.length) => xs.slice(0, count).map((x, i) => conv.conv2d({ ...shape(i), x: f(x), w: f(factor), ...(i === 0 && { bias: f(bias), perImage: f(perImage), ...(residual && { residual: f(added) }) }) })).reduce(point.add);
    const same = (v: Floats): Floats => v, want = sum(same);
    assertClose(y, want, { atol: also(bound(K * K * WC + 3, sum(abs)), C.length === 2 && what.includes('odd') ? sum(same, 1).map((v, i) => Math.abs(v) + Math.abs(want[i])) : want, what.includes('odd') ? 2 : 1), what: 'y' });
    xs.forEach((x, i) => {
      const dx = (f: (v: Floats) => Floats) => conv.conv2dBackwardInput({ ...shape(i), dy: f(dy), w: f(factor) });
      assertClose(got[i], dx(same), { atol: also(bound(K * K * O, dx(abs)), dx(same)), what: `dx ${i}` });
      const dw = (f: (v: Floats) => Floats) => conv.conv2dBackwardWeight({ ...shape(i), x: f(x), dy: f(dy) }), size = dw(abs);
      const its = Float64Array.from(dw(same), (v, j) => (size[j] ? v : NaN)), mine = got[C.length].map((v, j) => (size[j] ? v : NaN));
      const of = (v: Floats) => Array.from(v).filter((_, j) => size[j] > 0);
      assertClose(of(mine), of(its), { atol: of(bound(N * P, size)), what: `dw ${i}` });
    });
    const [db, dPerImage, dResidual] = got.slice(C.length + 1);
    assertClose(db, conv.sumRows(dy, N * P, O), { atol: bound(N * P, conv.sumRows(abs(dy), N * P, O)), what: 'db' });
    assertClose(dPerImage, conv.sumPixels(dy, N, P, O), { atol: bound(P, conv.sumPixels(abs(dy), N, P, O)), what: 'the gradient by the embedding' });
    if (residual) assert.equal([...dResidual], [...dy], 'handed over');
  }));

for (const [what, N, P, C0, C1, G, p] of [['scalar', 2, 15, 6, 0, 3, 0], ['scalar, two inputs', 2, 11, 5, 4, 3, 0], ['vec4, two inputs, dropout', 2, 35, 12, 12, 3, 0.3], ['vec4', 1, 300, 8, 0, 2, 0]] as const)
  stored(`group norm with SiLU: ${what}`, async (engine) => {
    const C = C0 + C1, x = halves(N * P * C0, 0), x2 = half(random(N * P * C1, 1).map((v) => 2 * v + 0.5)), gamma = random(C, 2).map((v) => 1 + 0.3 * v), beta = random(C, 3), dy = halves(N * P * C, 4), eps = 1e-5;
    const t = [put(engine, [N, P, 1, C0], x), ...(C1 ? [put(engine, [N, P, 1, C1], x2)] : []), upload(engine, [C], gamma), upload(engine, [C], beta)], [tg, tb] = t.slice(-2), tick = { seed: 5, step: 9, first: 4 };
    const { y, gradients } = await differentiate(t, () => groupNorm(C1 ? [t[0], t[1]] : t[0], tg, tb, { groups: G, eps, silu: true, dropout: p ? { p, clock: clockAt(engine, tick), stream: 77 } : null }), dy);
    const masked = (v: Float64Array | Float32Array): Float64Array => (p ? point.dropout(v, words({ seed: 5, step: 9, stream: 77, samples: [4, 5], count: P * C }), Math.fround(p)) : Float64Array.from(v));
    const a: GroupNorm = { x, x2: C1 ? x2 : undefined, gamma, beta, N, P, C0, C1, G, eps, silu: true }, dropped = masked(dy), off = groupNormErrors(a, dropped), want = groupNormBackward({ ...a, dy: dropped }), wanted = masked(norm(a).y);
    assertClose(y, wanted, { atol: also(off.y.map((v) => 2 * v), wanted), what: 'y' });
    assertClose(gradients[0], want.dx, { atol: also(off.dx, want.dx), what: 'dx' });
    if (C1) assertClose(gradients[1], want.dx2, { atol: also(off.dx2, want.dx2), what: 'dx2' });
    (['dgamma', 'dbeta'] as const).forEach((name, i) => assertClose(gradients.at(i - 2)!, want[name], { atol: off[name], what: name }));
  });

stored('upsampling, SiLU, dropout and addition, of odd counts; gradients of two uses are added', async (engine) => {
  const [N, H, W, C] = [3, 3, 5, 3], n = N * H * W * C, x = halves(n, 0), dy = halves(4 * n, 1), near = halves(n, 2), t = put(engine, [N, H, W, C], x);
  const up = await differentiate([t], () => upsample(t), dy), back = point.upsampleNearest2xBackward(dy, N, H, W, C);
  assert.equal([...up.y], [...point.upsampleNearest2x(x, N, H, W, C)]);
  assertClose(up.gradients[0], back, { atol: also(bound(4, point.upsampleNearest2xBackward(abs(dy), N, H, W, C)), back), what: 'dx of upsampling' });
  // y = silu(x) + x, whose second gradient is handed over and the first added to it.
  const both = await differentiate([t], () => add(silu(t), t), near), wantY = point.add(point.silu(x), x), wantD = point.add(point.siluBackward(x, near), near);
  assertClose(both.y, wantY, { atol: also(bound(8, abs(wantY)), point.add(abs(point.silu(x)), abs(wantY))).map((v) => 2 * v), what: 'silu(x) + x' });
  assertClose(both.gradients[0], wantD, { atol: also(bound(8, abs(near).map((v) => 3 * v)), point.add(abs(near), abs(wantD))), what: 'its gradient' });
  const tick = { seed: 5, step: 9, first: 4 }, p = 0.3, mask = (v: Floats) => point.dropout(v, words({ seed: 5, step: 9, stream: 77, samples: [4, 5, 6], count: n / N }), Math.fround(p));
  const dropped = await differentiate([t], () => dropout(t, p, clockAt(engine, tick), 77), near);
  assertClose(dropped.y, mask(x), { atol: also(bound(4, abs(mask(x))), mask(x)), what: 'dropout' });
  assertClose(dropped.gradients[0], mask(near), { atol: also(bound(4, abs(mask(near))), mask(near)), what: 'its gradient' });
  await assertError(() => add(t, upload(engine, [N, C], random(N * C, 3))), 'E-KERNEL', /^add_forward_stored_f16: b is f16 there, and was given as f32/);
});

/**
 * Each of these is stored: scores, weights p, their gradients. With u = 2^-10, an error u |s| of a score makes the weights of its row off by 2 u max |s|, relative, and storing them by u more; the gradient
 * by the scores is p (dp - sum dp p), so that it is off by the errors of p and dp times p (|dp| + sum |dp| p), twice. What is below 2^-14 counts as zero, T times.
 */
function attentionErrors({ q, k: key, v, N, T, C, heads }: attend.Attention, dy: Floats) {
  const D = C / heads, alpha = 1 / Math.sqrt(D), u = 2 ** -10, zeros = () => new Float64Array(N * T * C), o = zeros(), dq = zeros(), dk = zeros(), dv = zeros(), { p } = attend.attention({ q, k: key, v, N, T, C, heads });
  const at = (n: number, t: number, h: number, d: number) => (n * T + t) * C + h * D + d, dot = (a: Floats, i: number, b: Floats, j: number, f: (v: number) => number) => Array.from({ length: D }, (_, d) => f(a[i + d] * b[j + d])).reduce((x, y) => x + y, 0);
  for (let n = 0; n < N; n++) for (let h = 0; h < heads; h++) for (let i = 0; i < T; i++) {
    const top = Math.max(...Array.from({ length: T }, (_, j) => Math.abs(alpha * dot(q, at(n, i, h, 0), key, at(n, j, h, 0), (x) => x)))), r = 2 * u * top + 2 * u;
    const weight = (j: number) => p[((n * heads + h) * T + i) * T + j], dp = (j: number) => dot(dy, at(n, i, h, 0), v, at(n, j, h, 0), Math.abs);
    const mean = Array.from({ length: T }, (_, j) => weight(j) * dp(j)).reduce((x, y) => x + y, 0);
    for (let j = 0; j < T; j++) {
      const weightError = r * weight(j) + 2 ** -24, scoreError = 2 * (r + u) * weight(j) * (dp(j) + mean) + 2 ** -14 / T;
      for (let d = 0; d < D; d++) {
        o[at(n, i, h, d)] += weightError * Math.abs(v[at(n, j, h, d)]);
        dv[at(n, j, h, d)] += weightError * Math.abs(dy[at(n, i, h, d)]);
        dq[at(n, i, h, d)] += alpha * scoreError * Math.abs(key[at(n, j, h, d)]);
        dk[at(n, j, h, d)] += alpha * scoreError * Math.abs(q[at(n, i, h, d)]);
      }
    }
  }
  return { o, dq, dk, dv };
}

for (const [N, T, C, heads] of [[2, 7, 8, 2], [1, 33, 12, 1]] as const)
  for (const cores of CORES) stored(`attention over ${T} pixels, ${heads} head${heads > 1 ? 's' : ''}${cores ? ', on tensor cores' : ''}`, (engine) => onCores(cores, engine, async () => {
    const [q, key, v, dy] = [0, 1, 2, 3].map((id) => halves(N * T * C, id)), t = [q, key, v].map((data) => put(engine, [N, T, C], data)), a = { q, k: key, v, N, T, C, heads };
    const { y, gradients } = await differentiate(t, () => attention(t[0], t[1], t[2], heads), dy), want = attend.attentionBackward({ ...a, dy }), { o } = attend.attention(a), off = attentionErrors(a, dy);
    assertClose(y, o, { atol: also(off.o, o), what: 'o' });
    (['dq', 'dk', 'dv'] as const).forEach((name, i) => assertClose(gradients[i], want[name], { atol: also(off[name], want[name]), what: name }));
    // A tenth more or less of any result would be found.
    const size = Math.sqrt(o.reduce((sum, x) => sum + x * x, 0) / o.length);
    assert.ok(off.o.every((x) => x < 0.1 * size), 'the tolerance is one of roundings');
  }));

stored('a kernel that does not compile is named, and float32 activations go on', async () => {
  const { engine, close } = await openEngine({ ...openOptions, precision: 'f16' }), right = k.cast_f16.wgsl;
  Object.assign(engine, { deviceClass: 'gpu' });
  Object.assign(k.cast_f16, { wgsl: right.replace('fn main', 'fn other') });
  try {
    const warnings = await usePrecision(engine, 'f16');
    assert.is(warnings.length, 1, warnings.join('\n'));
    assert.match(warnings[0], /^activations stay float32 on this device: kernels\/cast_f16\.wgsl did not compile/);
    assert.equal([...(await cast(put(engine, [3], Float32Array.of(1, 2, 3)), 'f32').read())], [1, 2, 3], 'the engine is whole');
  } finally {
    Object.assign(k.cast_f16, { wgsl: right });
    await close();
  }
});

stored('it is used on a GPU alone, after a self-test that finds a kernel that is wrong', async (engine) => {
  assert.is(engine.storage, 'f16');
  const cpu = (await gpu('f16')).engine;
  if (cpu.deviceClass !== 'gpu') assert.is(cpu.storage, 'f32');
  const { run } = engine;
  for (const [kernel, damage, message] of [
    [k.group_norm_backward_vec4, (args: object) => ({ ...args, eps: 1, G: 2 }), /gradient|result/],
    // Another mask than forward's, where there is one.
    ...[k.group_norm_backward, k.group_norm_backward_vec4].map((kernel) => [kernel, (args: object) => ({ ...args, stream: 1 }), /: group norm with dropout/] as const),
    [k.softmax_forward, (args: object) => ({ ...args, size: 32 }), /^activations stay float32 on this device: softmax on float16 is not right \(value \d+ of 2211 in the result is \S+, and \S+ in float32\)$/],
    [k.cast_f16, (args: object) => ({ ...args, accumulate: 1 }), /: casting and adding|too large for float16/],
  ] as const) {
    // Wrong on float16 alone: the kernel's own float32 form stays right.
    engine.run = ((which, grid, args) => run.call(engine, which, grid, which.name === kernel.name && Object.values(args).some((v) => (v as { type?: string }).type === 'f16') ? (damage(args) as never) : args)) as typeof run;
    try {
      const warnings = await usePrecision(engine, 'f16');
      assert.is(warnings.length, 1, warnings.join('\n'));
      assert.match(warnings[0], message);
      assert.equal([engine.storage, engine.half.size], ['f32', 3]);
    } finally {
      engine.run = run;
    }
  }
  assert.equal(await usePrecision(engine, 'f32'), []);
  assert.is(engine.storage, 'f32');
  assert.equal(await usePrecision(engine, 'f16'), []);
  assert.is(engine.storage, 'f16');
});
stored.run();
