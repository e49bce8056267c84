// The losses and their gradients against float64 twins: squared, absolute and Huber error, the variational bound, and their weighted mean.
import * as assert from 'uvu/assert';
import { Tape, threads } from '../../src/autograd.ts';
import type { Engine } from '../../src/gpu/engine.ts';
import * as k from '../../src/gpu/kernels.gen.ts';
import { mse, objective, smoothL1, squaredError, variationalBound } from '../../src/ops/loss.ts';
import { Tensor } from '../../src/tensor.ts';
import { assertClose, bound } from '../helpers/close.ts';
import { destination, differentiate, gpuSuite, logError, random, ULP, upload } from '../helpers/gpu.ts';
import { boundError, boundSlope, boundValue } from '../ref/accuracy.ts';
import * as diffusion from '../ref/diffusion.ts';
import * as twin from '../ref/losses.ts';

// ------------------------------------------------------------------------------------------------------------------------ simple errors
const simple = gpuSuite('squared, absolute and Huber error', { watched: false });

/** (N, P, M) and the goals (N, P, C); some differences are zero, some lie on either side of any delta. */
function pair(N: number, P: number, C: number, M: number) {
  const pred = random(N * P * M, 0), goal = random(N * P * C, 1).map((v) => 0.9 * v + 0.1);
  for (let i = 0; i < N * P; i += 3) goal[i * C] = pred[i * M];
  return { pred, goal, d: Float64Array.from(goal, (g, i) => pred[Math.floor(i / C) * M + (i % C)] - g) };
}

for (const [N, P, C, M] of [[1, 1, 1, 1], [3, 7, 1, 1], [5, 13, 3, 6], [70, 65, 1, 2], [2, 131, 2, 2], [65_537, 1, 1, 1]])
  for (const [name, op, value, derivative] of [
    ['mse', squaredError, (d: number) => d * d, (d: number) => 2 * d],
    ['l1', (p: Tensor, g: Tensor) => smoothL1(p, g, 0), Math.abs, Math.sign],
    ['huber', (p: Tensor, g: Tensor) => smoothL1(p, g, 0.7), (d: number) => twin.smoothL1(d, 0.7), (d: number) => twin.smoothL1Derivative(d, 0.7)],
  ] as const)
    simple(`${name} of ${N} images of ${P} pixels, ${C} of ${M} channels`, async (engine) => {
      const { pred, goal, d } = pair(N, P, C, M), size = P * C, deach = random(N, 2);
      const tpred = upload(engine, [N, P, M], pred), tgoal = upload(engine, [N, P, C], goal);
      const { y, gradients } = await differentiate([tpred], () => op(tpred, tgoal), deach);
      // A difference rounds by half a unit of itself, so its square by three halves; nothing cancels in the sum.
      const each = Float64Array.from({ length: N }, (_, n) => d.subarray(n * size, (n + 1) * size).reduce((s, v) => s + value(v), 0) / size);
      assertClose(y, each, { atol: bound(size + 3, each), what: 'each image' });
      const want = Float64Array.from(pred, (_, i) => {
        const p = Math.floor(i / M), c = i % M;
        return c < C ? (deach[Math.floor(p / P)] * derivative(d[p * C + c])) / size : 0;
      });
      assertClose(gradients[0], want, { atol: bound(5, want.map(Math.abs)), what: 'dpred' });
    });

simple('the gradients add where asked, and an invocation takes several pixels, and images, where workgroups are few', async (engine) => {
  const [N, P, C, M] = [2, 133, 1, 2], { pred, goal, d } = pair(N, P, C, M), before = random(N * P * M, 5), deach = Float32Array.of(3, -2);
  const inputs = { pred: upload(engine, [N, P, M], pred).slice, goal: upload(engine, [N, P, C], goal).slice, deach: upload(engine, [N], deach).slice };
  const dims = { N, P, C, M, accumulate: 1 };
  for (const name of ['mse', 'huber']) {
    const out = destination(engine, [N, P, M], before);
    if (name === 'mse') engine.run(k.mse_backward, [1, 1], { ...inputs, dpred: out.slice, ...dims });
    else engine.run(k.smooth_l1_backward, [1, 1], { ...inputs, dpred: out.slice, ...dims, delta: 0.7 });
    const added = before.map((_, i) => (i % M ? 0 : (deach[Math.floor(i / M / P)] * (name === 'mse' ? 2 * d[i / M] : twin.smoothL1Derivative(d[i / M], 0.7))) / P));
    assertClose(await out.read(), before.map((v, i) => v + added[i]), { atol: bound(5, before.map((v, i) => Math.abs(v) + Math.abs(added[i]))), what: name });
  }
});

simple('mse is the mean over everything', async (engine) => {
  const pred = random(3 * 35, 0), goal = random(3 * 35, 1), t = upload(engine, [3, 5, 7, 1], pred), tape = new Tape(engine);
  t.requiresGrad = true;
  const loss = tape.record(() => mse(t, upload(engine, [3, 5, 7, 1], goal)));
  tape.backward(loss);
  const want = diffusion.mse(pred, goal), dpred = diffusion.mseGrad(pred, goal);
  assertClose(await loss.read(), [want], { atol: bound(107, [want]), what: 'loss' });
  assertClose(await tape.gradient(t).read(), dpred, { atol: bound(5, dpred.map(Math.abs)), what: 'dpred' });
  const { live } = engine.memory();
  mse(t, upload(engine, [3, 5, 7, 1], goal));
  assert.ok(engine.memory().live - live <= 2 * 512, 'without a tape only the result is left');
});
simple.run();

// ---------------------------------------------------------------------------------------------------------------------- weighted mean
const total = gpuSuite('objective');

for (const N of [1, 5, 130])
  for (const [what, two, scaled, weighted] of [['one term', 0, 0, 0], ['one scaled term', 0, 1, 0], ['one weighted term', 0, 0, 1], ['two terms', 1, 1, 0], ['two weighted terms', 1, 1, 1]] as const)
    total(`${what} of ${N} images`, async (engine) => {
      const x = random(N, 0), v = random(N, 1), rows = random(4 * N, 2), w = random(N, 3).map(Math.abs);
      const [a, b] = [upload(engine, [N], x), upload(engine, [N], v)], tape = new Tape(engine);
      a.requiresGrad = b.requiresGrad = true;
      const options = { vlb: two ? b : null, factors: scaled ? { rows: upload(engine, [N, 4], rows), a: 1, b: 3 } : null, weight: weighted ? upload(engine, [N], w) : null };
      const { loss, each } = tape.record(() => objective(a, options));
      tape.backward(loss, each);
      const factor = (n: number, column: number) => (scaled ? rows[4 * n + column] : 1), weight = (n: number) => (weighted ? w[n] : 1);
      const want = Float64Array.from(x, (value, n) => factor(n, 1) * value + (two ? factor(n, 3) * v[n] : 0));
      const sizes = Float64Array.from(x, (value, n) => Math.abs(factor(n, 1) * value) + (two ? Math.abs(factor(n, 3) * v[n]) : 0));
      assertClose(await each.read(), want, { atol: bound(3, sizes), what: 'each' });
      const sum = (values: Float64Array) => values.reduce((s, value, n) => s + weight(n) * value, 0) / N;
      assertClose(await loss.read(), [sum(want)], { atol: bound(N + 4, [sum(sizes)]), what: 'loss' });
      for (const [tensor, column] of two ? ([[a, 1], [b, 3]] as const) : ([[a, 1]] as const))
        assertClose(await tape.gradient(tensor).read(), x.map((_, n) => (weight(n) * factor(n, column)) / N), { rtol: 4 * 2 ** -24 + 2.5 * ULP, what: `gradient ${column}` });
    });
total.run();

// ------------------------------------------------------------------------------------------------------------------- variational bound
const vlb = gpuSuite('variational bound');
const T = 1000, betas = Float64Array.from({ length: T }, (_, t) => 1e-4 + ((0.02 - 1e-4) * t) / (T - 1));
const acp: number[] = [];
betas.forEach((beta, t) => acp.push((acp[t - 1] ?? 1) * (1 - beta)));

/**
 * Levels of 256, black and white among them, diffused to each t; what a network could give, off by a tenth of what it should; v on both sides of its range.
 * At t = 0 some means lie far away, where probabilities are cut off.
 */
function makeCase(t: readonly number[], P: number, C: number, prediction: diffusion.Prediction, variance: diffusion.Variance): twin.BoundCase {
  const N = t.length, size = P * C, learned = variance.startsWith('learned'), M = learned ? 2 * C : C;
  const x0 = random(N * size, 0).map((v, i) => (i % 5 === 0 ? -1 : i % 7 === 0 ? 1 : Math.round((Math.tanh(v) + 1) * 127.5) / 127.5 - 1));
  const eps = random(N * size, 1), off = random(N * size, 2), v = random(N * size, 3);
  const at = (i: number) => acp[t[Math.floor(i / size)]];
  const xt = x0.map((x, i) => Math.sqrt(at(i)) * x + Math.sqrt(1 - at(i)) * eps[i]);
  const table = diffusion.posteriorTable(betas, variance, prediction);
  const output = new Float32Array(N * P * M);
  for (let i = 0; i < N * size; i++) {
    const row = 6 * t[Math.floor(i / size)], start = x0[i] + (t[Math.floor(i / size)] === 0 && i % 4 ? 0.004 : 0.1) * off[i];
    output[Math.floor(i / C) * M + (i % C)] = (start - table[row] * xt[i]) / table[row + 1];
    if (learned) output[Math.floor(i / C) * M + C + (i % C)] = variance === 'learned' ? Math.log(betas[t[Math.floor(i / size)]]) + v[i] : v[i];
  }
  return { betas, prediction, variance, t, output, x0, xt, C };
}

function tensorsOf(engine: Engine, a: twin.BoundCase) {
  const N = a.t.length, size = a.x0.length / N, M = (a.C * a.output.length) / a.x0.length;
  const table = diffusion.posteriorTable(betas, a.variance, a.prediction), small = diffusion.posteriorTable(betas, 'fixed_small');
  // A column more than the kernel reads.
  const coef = Float32Array.from(a.t.flatMap((t) => [...table.subarray(6 * t, 6 * t + 6), small[6 * t + 4], 9]));
  return {
    t: upload(engine, [N], Uint32Array.from(a.t)), coef: upload(engine, [N, 8], coef), output: upload(engine, [N, size / a.C, M], a.output as Float32Array),
    x0: upload(engine, [N, size / a.C, a.C], a.x0 as Float32Array), xt: upload(engine, [N, size / a.C, a.C], a.xt as Float32Array),
  };
}

const CASES: readonly [readonly number[], number, number, diffusion.Prediction, diffusion.Variance][] = [
  [[0, 1, 2, 10, 999], 7, 1, 'eps', 'fixed_small'],
  [[500, 0, 3], 65, 3, 'eps', 'learned_range'],
  [[0, 40, 0], 130, 1, 'v', 'learned_range'],
  [[999, 0, 1], 11, 2, 'x0', 'fixed_large'],
  [[0, 7, 100, 800], 33, 1, 'mu', 'learned'],
];
vlb('with dynamic thresholding it leaves nothing more behind than without', (engine) => {
  const inputs = tensorsOf(engine, makeCase([0, 3], 65, 3, 'eps', 'fixed_small'));
  const left = [true, { ratio: 0.9, max: 2 }].map((clip) => {
    const { live } = engine.memory();
    variationalBound(inputs, { clip });
    return engine.memory().live - live;
  });
  assert.is(left[1], left[0]);
});

for (const [t, P, C, prediction, variance] of CASES) {
  const what = `${prediction}, ${variance}, t = ${t.join(', ')}, ${P} pixels of ${C}`;
  vlb(`${what}: the bound`, async (engine) => {
    for (const clip of [false, true]) {
      const a = { ...makeCase(t, P, C, prediction, variance), clip }, size = P * C;
      const got = await variationalBound(tensorsOf(engine, a), { clip }).read();
      const atol = new Float64Array(t.length);
      for (const e of twin.boundElements(a)) atol[e.n] += (boundError(e, boundValue(e), 1 + Math.abs(e.nats)) + (e.t ? 0 : logError(Math.exp(-e.nats)))) / size / Math.LN2;
      const want = twin.bound(a);
      assertClose(got, want, { atol: atol.map((v, n) => v + bound(size, [want[n]])[0]), what: `bits a dimension${clip ? ', clipped' : ''}` });
      if (variance === 'fixed_small') assert.ok(want.every((bits) => bits > 0));
    }
  });

  for (const fixedMean of [false, true])
    vlb(`${what}: its gradient${fixedMean ? ' with the mean held fixed' : ''}`, async (engine) => {
      const a = makeCase(t, P, C, prediction, variance), inputs = tensorsOf(engine, a), size = P * C, N = t.length, M = (C * a.output.length) / a.x0.length;
      const dvlb = random(N, 4), { gradients } = await differentiate([inputs.output], () => variationalBound(inputs, { fixedMean }), dvlb);
      const want = twin.boundGradient(a, dvlb, fixedMean), atol = new Float64Array(want.length);
      let cut = 0;
      for (const e of twin.boundElements(a)) {
        const scale = Math.abs(dvlb[e.n]) / size / Math.LN2;
        // The terms of a derivative cancel; where they are large is where exp(-log variance) is.
        const terms = e.t ? 1 + Math.exp(e.trueLog - e.log) + (e.mean - e.trueMean) ** 2 * Math.exp(-e.log) : 10 + e.nats ** 2;
        if (!fixedMean) atol[e.at] = scale * Math.abs(e.c1 * e.b) * boundError(e, boundSlope(e, 0), terms * Math.exp(-e.log / 2)) + 4 * ULP * Math.abs(want[e.at]);
        if (M > C) atol[e.at + C] = scale * Math.abs(e.d) * boundError(e, boundSlope(e, 1), terms) + 4 * ULP * Math.abs(want[e.at + C]);
        if (!e.t && e.nats > 27.63) cut++;
      }
      assertClose(gradients[0], want, { atol, what: 'doutput' });
      if (t.includes(0) && P > 30) assert.ok(cut > 0, 'some probabilities are cut off');
      // Added to what is there.
      const before = random(want.length, 6), out = destination(engine, [want.length], before);
      engine.run(k.vlb_backward, threads(N * size), {
        t: inputs.t.slice, coef: inputs.coef.slice, output: inputs.output.slice, x0: inputs.x0.slice, xt: inputs.xt.slice, dvlb: upload(engine, [N], dvlb).slice,
        doutput: out.slice, N, size, K: 8, C, M, fixed: Number(fixedMean), accumulate: 1,
      });
      assertClose(await out.read(), want.map((v, i) => v + before[i]), { atol: atol.map((v, i) => v + ULP * Math.abs(before[i]) + ULP * Math.abs(want[i])), what: 'doutput, added' });
    });
}
vlb.run();
