// Matrix products in all transposes, softmax, and attention made of them, against their float64 twins.
import * as assert from 'uvu/assert';
import { isLanes } from '../../src/gpu/device-class.ts';
import type { Engine } from '../../src/gpu/engine.ts';
import { grid } from '../../src/gpu/kernel.ts';
import * as k from '../../src/gpu/kernels.gen.ts';
import { attention } from '../../src/ops/attention.ts';
import { matmul, MATMUL_TILES } from '../../src/ops/matmul.ts';
import { subgroupKernels } from '../../src/ops/subgroup_kernels.ts';
import { Tensor } from '../../src/tensor.ts';
import { abs, assertClose, bound } from '../helpers/close.ts';
import { assertError, destination, differentiate, DIVIDE, expUlps, gpuSuite, random, ULP, upload } from '../helpers/gpu.ts';
import * as twin from '../ref/attention.ts';
import { type Matmul, matmul as matmulTwin } from '../ref/matmul.ts';
import { softmax, softmaxBackward } from '../ref/softmax.ts';

type Floats = ArrayLike<number>;

// ------------------------------------------------------------------------------------------------------------------------------ matmul
const products = gpuSuite('matmul');

for (const [M, N, K] of [[1, 1, 1], [5, 3, 7], [33, 70, 17], [64, 32, 16]])
  products(`(${M}, ${K}) by (${K}, ${N}) in all transposes, batched, alone and on top`, async (engine) => {
    const batch = 3, alpha = 0.7, a = random(batch * M * K, 0), b = random(batch * K * N, 1), c = random(batch * M * N, 2);
    const [ta, tb] = [upload(engine, [a.length], a), upload(engine, [b.length], b)];
    for (const transA of [false, true])
      for (const transB of [false, true])
        for (const accumulate of [0, 1] as const) {
          const out = destination(engine, [c.length], accumulate ? c : null);
          const operand = (t: Tensor, ld: number, outer: number, transposed = false) => ({ slice: t.slice, ld, outer, inner: 0, transposed });
          matmul(engine, M, N, K, operand(ta, transA ? M : K, M * K, transA), operand(tb, transB ? K : N, K * N, transB), operand(out, N, M * N), { alpha, batch, accumulate });
          const compute = (f: (v: Floats) => Floats) => matmulTwin({ a: f(a), b: f(b), c: accumulate ? f(c) : undefined, M, N, K, alpha, batch, transA, transB });
          assertClose(await out.read(), compute((v) => v), { atol: bound(K + 1, compute(abs)), what: `transposed ${transA}, ${transB}, accumulate ${accumulate}` });
        }
  });

products('rows, images and heads with strides of their own; what lies between is left alone', async (engine) => {
  // Matrices as heads lie in (N, T, C): row stride C, head stride D; and squares (N, heads, T, T).
  const [images, T, C, heads] = [2, 19, 12, 3], D = C / heads, a = random(images * T * C, 0), b = random(images * T * C, 1), before = random(images * T * C, 2);
  const inside = { ld: C, outer: T * C, inner: D }, square = { ld: T, outer: heads * T * T, inner: T * T };
  const [ta, tb] = [upload(engine, [a.length], a), upload(engine, [b.length], b)], s = Tensor.empty(engine, [images * heads * T * T]);
  const batched = { batch: images * heads, inner: heads };
  matmul(engine, T, T, D, { slice: ta.slice, ...inside }, { slice: tb.slice, ...inside, transposed: true }, { slice: s.slice, ...square }, batched);
  const strides: Omit<Matmul, 'a' | 'b'> = { M: T, N: T, K: D, transB: true, batch: images, heads, lda: C, strideA: T * C, headStrideA: D, ldb: C, strideB: T * C, headStrideB: D };
  const scores = await s.read();
  assertClose(scores, matmulTwin({ a, b, ...strides }), { atol: bound(D, matmulTwin({ a: abs(a), b: abs(b), ...strides })), what: 'scores' });

  // Two of the three heads are written, on top.
  const out = upload(engine, [before.length], before), two = 2;
  const first = upload(engine, [images * two * T * T], scores.subarray(0, images * two * T * T));
  matmul(engine, T, D, T, { slice: first.slice, ld: T, outer: two * T * T, inner: T * T }, { slice: tb.slice, ...inside }, { slice: out.slice, ...inside }, { batch: images * two, inner: two, accumulate: 1 });
  const compute = (f: (v: Floats) => Floats) => {
    const got = matmulTwin({ a: f(scores), b: f(b), c: f(before), M: T, N: D, K: T, batch: images, heads: two, ldb: C, strideB: T * C, headStrideB: D, ldc: C, strideC: T * C, headStrideC: D });
    return Float64Array.from({ length: before.length }, (_, i) => got[i] ?? f(before)[i]);
  };
  const outside = (i: number): boolean => i % C >= two * D;
  assertClose(await out.read(), compute((v) => v), { atol: bound(T + 1, compute(abs)).map((v, i) => (outside(i) ? 0 : v)), what: 'two heads' });
});

// Both sides of the threshold between the kernels: what the subgroup kernel, in all its tiles, and that of 64 x 64 take is computed by all. Sizes lie on both sides of a tile.
const fourLanes = gpuSuite('matmul in subgroups of four', { lanes: 4 });
for (const [kernels, tilings] of [[products, MATMUL_TILES], [fourLanes, [MATMUL_TILES[0], MATMUL_TILES.at(-1)!]]] as const) for (const [M, N, K] of [[4, 2, 4], [36, 20, 7], [33, 18, 52], [8, 49, 5], [70, 17, 12], [65, 67, 33]])
  kernels(`of aligned rows: (${M}, ${K}) by (${K}, ${N}) in all transposes, by each kernel, against the twin`, async (engine) => {
    const variants = (['tiled', 'tiled64', 'subgroup'] as const).filter((variant) => variant !== 'subgroup' || isLanes(engine.subgroupWidth)), { matmul: kernel, lanes } = subgroupKernels(engine);
    const batch = 2, up = (n: number) => 4 * Math.ceil(n / 4);
    for (const transA of [false, true])
      for (const transB of [false, true])
        for (const accumulate of [0, 1] as const) {
          const [lda, ldb, ldc] = [up(transA ? M : K), up(transB ? K : N), up(N)], [strideA, strideB, strideC] = [lda * (transA ? K : M), ldb * (transB ? N : K), ldc * M];
          const a = random(batch * strideA, 0), b = random(batch * strideB, 1), c = random(batch * strideC, 2);
          // What lies between the rows is no part of the product.
          const hide = (values: Float32Array, ld: number, used: number) => values.map((v, i) => (i % ld < used ? v : NaN));
          const ta = upload(engine, [a.length], hide(a, lda, transA ? M : K)), tb = upload(engine, [b.length], hide(b, ldb, transB ? K : N));
          const results = await Promise.all(variants.map(async (variant) => {
            const out = upload(engine, [c.length], c);
            const operand = (t: Tensor, ld: number, outer: number, transposed = false) => ({ slice: t.slice, ld, outer, inner: 0, transposed });
            matmul(engine, M, N, K, operand(ta, lda, strideA, transA), operand(tb, ldb, strideB, transB), operand(out, ldc, strideC), { batch, accumulate, variant });
            return out.read();
          }));
          const dims = { M, N, K, batch, inner: 1, accumulate, alpha: 1, lda, ldb, ldc, outer_a: strideA, outer_b: strideB, outer_c: strideC, inner_a: 0, inner_b: 0, inner_c: 0, TRANS_A: Number(transA), TRANS_B: Number(transB) };
          for (const { R, Q } of variants.includes('subgroup') ? tilings : []) {
            const out = upload(engine, [c.length], c);
            engine.run(kernel, grid(batch * Math.ceil(M / (lanes * R)) * Math.ceil(N / (4 * Q))), { a: ta.slice, b: tb.slice, c: out.slice, ...dims, R, Q });
            assert.equal((await out.read()).filter((_, i) => i % ldc < N), results[2]!.filter((_, i) => i % ldc < N), `tiles of ${lanes * R} x ${4 * Q} have the same bits`);
          }
          const compute = (f: (v: Floats) => Floats) => matmulTwin({ a: f(a), b: f(b), c: accumulate ? f(c) : undefined, M, N, K, batch, transA, transB, lda, ldb, ldc, strideA, strideB, strideC });
          const used = (values: Floats) => Float64Array.from(values).filter((_, i) => i % ldc < N);
          const want = used(compute((v) => v)), atol = used(bound(K + 1, compute(abs)));
          assert.equal(used(results[1]), used(results[0]), 'both kernels with workgroup memory add in the same order');
          assert.ok(results.slice(0, 2).every((got) => got.every((v, i) => i % ldc < N || v === c[i])), 'and leave alone what lies behind the last column');
          for (const [i, got] of results.entries()) assertClose(used(got), want, { atol, what: `${variants[i]}, transposed ${transA}, ${transB}, accumulate ${accumulate}` });
        }
  });
products.run();
fourLanes.run();

// ----------------------------------------------------------------------------------------------------------------------------- softmax
const rows = gpuSuite('softmax');

/** Relative: both exponentials and their sum, and the quotient. A subtraction rounds by half a unit of the larger number, which exp makes relative. */
function softmaxError(x: Floats, size: number): Float64Array {
  return Float64Array.from({ length: x.length }, (_, i) => {
    const row = Array.from(x as Float32Array).slice(Math.floor(i / size) * size, (Math.floor(i / size) + 1) * size), top = Math.max(...row), deepest = top - Math.min(...row);
    return 2 * ULP * (expUlps(deepest) + deepest / 2) + 4 * Math.sqrt(size) * ULP + DIVIDE;
  });
}

for (const [count, size, spread] of [[3, 1, 1], [70, 7, 1], [5, 65, 3], [2, 256, 10]])
  rows(`${count} rows of ${size}`, async (engine) => {
    const x = random(count * size, 0).map((v) => spread * v + 100), dy = random(count * size, 1);
    const tx = upload(engine, [x.length], x).slice, tdy = upload(engine, [dy.length], dy).slice;
    // One invocation a row, as on CPUs, and several, as on GPUs: for rows shorter and longer than these are, and a last workgroup with rows to spare.
    for (const [WG, LANES] of [[64, 1], [64, 8], [256, 32]]) {
      const y = Tensor.empty(engine, [x.length]), dx = Tensor.empty(engine, [x.length]), launch = { WG, LANES, rows: count, size, ld: size }, workgroups = [Math.ceil(count / (WG / LANES))] as const;
      engine.run(k.softmax_forward, workgroups, { x: tx, y: y.slice, ...launch });
      const want = softmax(x, count, size), error = softmaxError(x, size), got = await y.read();
      // The last term is for what underflows: exp of less than -87.
      assertClose(got, want, { atol: want.map((v, i) => v * error[i] + 2 ** -126), what: `y, ${LANES} lanes` });
      engine.run(k.softmax_backward, workgroups, { y: y.slice, dy: tdy, dx: dx.slice, ...launch });
      // The twin starts from the kernel's own y, so that only the backward's roundings count: those of y (|dy| + sum |dy| y).
      const sizes = got.map((v, i) => {
        const start = Math.floor(i / size) * size;
        let dot = 0;
        for (let j = start; j < start + size; j++) dot += Math.abs(dy[j]) * got[j];
        return v * (Math.abs(dy[i]) + dot);
      });
      assertClose(await dx.read(), softmaxBackward(got, dy, count, size), { atol: bound(size + 2, sizes), what: `dx, ${LANES} lanes` });
    }
  });

rows('rows that would overflow without their maximum taken off', async (engine) => {
  const x = [1000, 999, -1000, 88, 89, 90, 0, 200, 199, -3, 150, -150], y = Tensor.empty(engine, [12]); // the largest in every column
  engine.run(k.softmax_forward, [1], { x: upload(engine, [12], x).slice, y: y.slice, rows: 4, size: 3, ld: 3 });
  assertClose(await y.read(), softmax(x, 4, 3), { atol: 2 ** -126, rtol: 2 * ULP * (expUlps(2) + 1) + 8 * ULP, what: 'y' });
});
rows.run();

// --------------------------------------------------------------------------------------------------------------------------- attention
const heads_ = gpuSuite('attention');

/**
 * Tolerances from the sizes of what is summed. An error e of the scores makes the weights p off by 2 e, relative; r collects that, exp's and the division's,
 * and the sums'. The gradient by the scores is p (dp - sum dp p), so it is off by at most 2 r p (|dp| + sum |dp| p) with dp the sum of |dy| |v|.
 */
function tolerances({ q, k: key, v, N, T, C, heads }: twin.Attention, dy: Floats, p: Floats) {
  const D = C / heads, alpha = 1 / Math.sqrt(D), zeros = () => new Float64Array(N * T * C), o = zeros(), dq = zeros(), dk = zeros(), dv = zeros();
  const at = (n: number, t: number, h: number, d: number) => (n * T + t) * C + h * D + d;
  const sum = (count: number, f: (i: number) => number): number => {
    let total = 0;
    for (let i = 0; i < count; i++) total += f(i);
    return total;
  };
  for (let n = 0; n < N; n++)
    for (let h = 0; h < heads; h++)
      for (let i = 0; i < T; i++) {
        const weight = (j: number) => p[((n * heads + h) * T + i) * T + j];
        const products = Array.from({ length: T }, (_, j) => Array.from({ length: D }, (_, d) => alpha * q[at(n, i, h, d)] * key[at(n, j, h, d)]));
        const scores = products.map((r) => sum(D, (d) => r[d])), deepest = Math.max(...scores) - Math.min(...scores);
        const scoreError = Math.max(...bound(D + 1, products.map((r) => sum(D, (d) => Math.abs(r[d])))));
        const r = 2 * scoreError + 2 * ULP * (expUlps(deepest) + deepest / 2) + 8 * Math.sqrt(T + D) * ULP + DIVIDE;
        const dp = Array.from({ length: T }, (_, j) => sum(D, (d) => Math.abs(dy[at(n, i, h, d)] * v[at(n, j, h, d)])));
        const mean = sum(T, (j) => dp[j] * weight(j));
        for (let j = 0; j < T; j++)
          for (let d = 0; d < D; d++) {
            const ds = 2 * r * weight(j) * (dp[j] + mean);
            o[at(n, i, h, d)] += r * weight(j) * Math.abs(v[at(n, j, h, d)]);
            dv[at(n, j, h, d)] += r * weight(j) * Math.abs(dy[at(n, i, h, d)]);
            dq[at(n, i, h, d)] += alpha * ds * Math.abs(key[at(n, j, h, d)]);
            dk[at(n, j, h, d)] += alpha * ds * Math.abs(q[at(n, i, h, d)]);
          }
      }
  return { o, dq, dk, dv };
}

async function check(engine: Engine, N: number, T: number, C: number, heads: number): Promise<void> {
  const [q, key, v, dy] = [0, 1, 2, 3].map((id) => random(N * T * C, id)), a = { q, k: key, v, N, T, C, heads };
  const t = [q, key, v].map((data) => upload(engine, [N, T, C], data));
  const { y, gradients } = await differentiate(t, () => attention(t[0], t[1], t[2], heads), dy);
  const want = twin.attention(a), back = twin.attentionBackward({ ...a, dy }), atol = tolerances(a, dy, want.p);
  assertClose(y, want.o, { atol: atol.o, what: 'o' });
  (['dq', 'dk', 'dv'] as const).forEach((name, i) => assertClose(gradients[i], back[name], { atol: atol[name], what: name }));
}

for (const [N, T, C, heads] of [[2, 5, 3, 1], [1, 49, 8, 2], [3, 16, 36, 3], [1, 70, 40, 1]])
  heads_(`(${N}, ${T}, ${C}) with heads = ${heads}`, (engine) => check(engine, N, T, C, heads));

// With the kernels that GPUs take: 64 x 64 a workgroup, and several invocations a row of softmax.
const onGpu = gpuSuite('attention as on GPUs', { as: 'gpu' });
for (const [N, T, C, heads] of [[1, 70, 40, 1], [2, 37, 80, 2]])
  onGpu(`(${N}, ${T}, ${C}) with heads = ${heads}`, (engine) => check(engine, N, T, C, heads));

heads_('one tensor as query, key and value: the gradients add up', async (engine) => {
  const [N, T, C, heads] = [2, 9, 8, 2], x = random(N * T * C, 0), dy = random(N * T * C, 1), a = { q: x, k: x, v: x, N, T, C, heads };
  const t = upload(engine, [N, T, C], x), { gradients } = await differentiate([t], () => attention(t, t, t, heads), dy);
  const { dq, dk, dv } = twin.attentionBackward({ ...a, dy }), atol = tolerances(a, dy, twin.attention(a).p);
  const sum = dq.map((v, i) => v + dk[i] + dv[i]), roundings = bound(2, dq.map((v, i) => Math.abs(v) + Math.abs(dk[i]) + Math.abs(dv[i])));
  assertClose(gradients[0], sum, { atol: sum.map((_, i) => atol.dq[i] + atol.dk[i] + atol.dv[i] + roundings[i]), what: 'dx' });
});

heads_('only what is wanted: the value alone, the key alone', async (engine) => {
  const [N, T, C] = [1, 6, 4], [q, key, v, dy] = [0, 1, 2, 3].map((id) => random(N * T * C, id)), a = { q, k: key, v, N, T, C, heads: 1 };
  const back = twin.attentionBackward({ ...a, dy }), atol = tolerances(a, dy, twin.attention(a).p);
  for (const [i, name] of [[2, 'dv'], [1, 'dk']] as const) {
    const t = [q, key, v].map((data) => upload(engine, [N, T, C], data));
    const { gradients } = await differentiate([t[i]], () => attention(t[0], t[1], t[2], 1), dy);
    assertClose(gradients[0], back[name], { atol: atol[name], what: name });
  }
});

heads_('heads that do not divide the channels are refused', async (engine) => {
  const x = Tensor.empty(engine, [1, 4, 6]);
  await assertError(() => attention(x, x, x, 4), 'E-SHAPE', /attention: 6 channels do not divide into 4 heads/);
});
heads_.run();
onGpu.run();
