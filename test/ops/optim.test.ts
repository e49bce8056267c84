// The optimizer's kernels against their float64 twins: the gradient norm over chunks, its check for NaN and infinity, and clip + AdamW + EMA in one pass.
import * as assert from 'uvu/assert';
import { pointwise } from '../../src/autograd.ts';
import type { Engine } from '../../src/gpu/engine.ts';
import type { Slice } from '../../src/gpu/kernel.ts';
import * as k from '../../src/gpu/kernels.gen.ts';
import { Tensor } from '../../src/tensor.ts';
import { DEFAULTS } from '../../src/variants.ts';
import { assertClose, bound } from '../helpers/close.ts';
import { clockAt, DIVIDE, gpuSuite, random, readWords, SQRT, ULP, upload } from '../helpers/gpu.ts';
import * as twin from '../ref/optim.ts';

const optim = gpuSuite('optimizer');
/** Invocations that sum a share: as on CPUs, and as on GPUs. */
const WORKGROUPS = [DEFAULTS['cpu-subgroups'].squares, DEFAULTS.gpu.squares];
const NONE = 0xffffffff, BAD_LOSS = 0xfffffffe, OVERFLOW = 0xfffffffd;

/** Partial sums of all chunks, `share` values each, one chunk after the other. */
function sumSquares(engine: Engine, chunks: readonly Float32Array[], share: number, WG: number = 64): { part: Tensor; count: number } {
  const groups = chunks.map((g) => Math.ceil(g.length / share)), count = groups.reduce((a, b) => a + b, 0), part = Tensor.empty(engine, [count, 2]);
  let first = 0, offset = 0;
  chunks.forEach((g, i) => {
    engine.run(k.sum_squares, [groups[i]], { g: upload(engine, [g.length], g).slice, part: part.slice, count: g.length, share, first, offset, WG });
    first += groups[i];
    offset += g.length;
  });
  return { part, count };
}

async function gradientNorm(engine: Engine, chunks: readonly Float32Array[], options: { share?: number; maxNorm?: number; loss?: number; step?: number; ring?: number; lossScale?: number; goodSteps?: number; growth?: number; done?: number; WG?: number } = {}) {
  const { share = 256, maxNorm = 1, loss = 0.5, step = 6, ring = 4, lossScale = 1, goodSteps = 0, growth = 0, done = 0, WG } = options, { part, count } = sumSquares(engine, chunks, share, WG);
  const state = upload(engine, [5], [NaN, NaN, NaN, NaN, done]), history = upload(engine, [ring, 5], new Uint32Array(5 * ring).fill(7)), scaling = upload(engine, [2], [lossScale, goodSteps]);
  engine.run(k.gradient_norm, [1], {
    clock: clockAt(engine, { seed: 0, step }).slice, part: part.slice, loss: upload(engine, [1], [loss]).slice, scaling: scaling.slice, state: state.slice, history: history.slice, count, ring, growth, max_norm: maxNorm, log_beta1: Math.log(settings.beta1), log_beta2: Math.log(settings.beta2),
  });
  const [scale, norm, correction1, correction2, good] = await state.read(), log = await readWords(history), row = log.slice(5 * (step % ring), 5 * (step % ring) + 5), [after, steps] = await scaling.read();
  assert.equal([...new Float32Array(row.buffer, 0, 1)], [Math.fround(loss)], 'the loss is logged');
  assert.is(row[1], new Uint32Array(Float32Array.of(norm).buffer)[0], 'the norm is logged');
  assert.is(row[3], step);
  assert.is(new Float32Array(row.buffer)[4], lossScale, 'the scale that the step had is logged');
  for (let i = 0; i < 5 * ring; i++) if (Math.floor(i / 5) !== step % ring) assert.is(log[i], 7, 'the other rows stay');
  return { scale, norm, bad: row[2], state: state.slice, scaling: { scale: after, steps }, corrections: [correction1, correction2], good };
}

for (const [what, lengths, share] of [
  ['one value', [1], 256],
  ['an odd count', [1003], 256],
  ['a share that divides the count', [512], 128],
  ['chunks', [1003, 70, 2000], 100],
  ['more partial sums than a workgroup has lanes', [9001], 64],
] as const) for (const WG of WORKGROUPS)
  optim(`gradient norm of ${what}, by workgroups of ${WG}`, async (engine) => {
    const chunks = lengths.map((length, i) => random(length, i)), count = chunks.reduce((a, g) => a + g.length, 0), want = twin.globalNorm(...chunks);
    // Squares are positive: relative, the sum is off by bound(count), its root by half of that.
    const rtol = bound(count, [1])[0] / 2 + SQRT;
    const free = await gradientNorm(engine, chunks, { share, maxNorm: 0, WG });
    assertClose([free.norm], [want], { rtol, what: 'norm' });
    assert.is(free.scale, 1, 'no limit, no clip');
    assert.is(free.bad, NONE);
    for (const maxNorm of [want / 3, 10 * want]) {
      const { scale } = await gradientNorm(engine, chunks, { share, maxNorm, WG });
      assertClose([scale], [twin.clipScale(want, maxNorm)], { rtol: rtol + DIVIDE + ULP, what: `scale for a limit of ${maxNorm}` });
    }
  });

optim('a tiny norm is clipped with the 1e-6 that keeps the quotient finite', async (engine) => {
  const g = random(100, 0).map((v) => 1e-7 * v), want = twin.globalNorm(g), { norm, scale } = await gradientNorm(engine, [g], { maxNorm: 1e-6 });
  const rtol = bound(100, [1])[0] / 2 + SQRT;
  assertClose([norm], [want], { rtol, what: 'norm' });
  assertClose([scale], [twin.clipScale(want, 1e-6)], { rtol: rtol + DIVIDE + ULP, what: 'scale' });
  assert.is((await gradientNorm(engine, [new Float32Array(9)])).scale, 1, 'no gradient at all');
});

for (const WG of WORKGROUPS) optim(`partial sums, one chunk after the other, by workgroups of ${WG}`, async (engine) => {
  const chunks = [random(150, 0), random(70, 1)], { part, count } = sumSquares(engine, chunks, 64, WG), words = await readWords(part);
  assert.is(count, 5);
  const want = [chunks[0].subarray(0, 64), chunks[0].subarray(64, 128), chunks[0].subarray(128), chunks[1].subarray(0, 64), chunks[1].subarray(64)].map(twin.sumSquares);
  assertClose(new Float32Array(words.buffer).filter((_, i) => i % 2 === 0), want, { atol: bound(64, want), what: 'sums' });
  assert.equal([...words].filter((_, i) => i % 2), Array(5).fill(NONE));
});

for (const WG of WORKGROUPS) optim(`the first value that is not finite is found, over chunks, and stops the step, by workgroups of ${WG}`, async (engine) => {
  for (const bad of [NaN, Infinity, -Infinity])
    for (const places of [[0], [999], [1003], [1003 + 69], [1500, 1072, 1800], [3072]]) {
      const chunks = [random(1003, 0), random(70, 1), random(2000, 2)];
      for (const place of places) {
        const [chunk, offset] = place < 1003 ? [0, 0] : place < 1073 ? [1, 1003] : [2, 1073];
        chunks[chunk][place - offset] = bad;
      }
      const got = await gradientNorm(engine, chunks, { share: 100, WG });
      assert.is(got.bad, Math.min(...places), `${bad} at ${places.join(', ')}`);
      assert.is(got.scale, 0);
      assert.ok(Number.isFinite(got.norm), 'the norm of what is finite');
    }
});

optim('a loss that is not finite, and a sum that overflows, stop the step too', async (engine) => {
  const g = random(300, 0);
  for (const loss of [NaN, Infinity, -Infinity]) {
    const got = await gradientNorm(engine, [g], { loss });
    assert.is(got.bad, BAD_LOSS, `${loss}`);
    assert.is(got.scale, 0);
  }
  const huge = await gradientNorm(engine, [g.map((v) => 1e20 * v)]);
  assert.is(huge.bad, OVERFLOW);
  assert.is(huge.scale, 0);
  const both = g.slice();
  both[17] = NaN;
  assert.is((await gradientNorm(engine, [both], { loss: NaN })).bad, 17, 'the gradient is named first');
});

optim('a loss scale is divided out of norm and clip, and changes no digit', async (engine) => {
  const g = random(1003, 0);
  for (const maxNorm of [0, 3, 1e4]) {
    const plain = await gradientNorm(engine, [g], { maxNorm });
    for (const lossScale of [1, 2, 65536, 2 ** 40]) {
      const scaled = await gradientNorm(engine, [g.map((v) => v * lossScale)], { maxNorm, lossScale });
      assert.equal([scaled.norm, scaled.scale * lossScale, scaled.bad], [plain.norm, plain.scale, NONE], `${lossScale}, at most ${maxNorm}`);
      assert.equal(scaled.scaling, { scale: lossScale, steps: 0 }, 'without growth it stays');
    }
  }
});

optim('the loss scale doubles after enough good steps, halves at a bad one, and stays between 1 and 2^100', async (engine) => {
  const g = random(70, 0), bad = g.slice();
  bad[3] = Infinity;
  for (const [lossScale, goodSteps] of [[65536, 0], [65536, 1998], [65536, 1999], [1, 5], [2, 1999], [2 ** 100, 1999]])
    for (const [grads, loss, good] of [[g, 0.5, true], [bad, 0.5, false], [g, NaN, false]] as const) {
      const { scaling, scale } = await gradientNorm(engine, [grads], { lossScale, goodSteps, growth: 2000, loss });
      assert.equal(scaling, twin.gradScaler({ scale: lossScale, steps: goodSteps }, good, 2000), `${lossScale} after ${goodSteps}, good ${good}`);
      assert.is(scale > 0, good);
    }
});

const settings = { beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1, lr: 3e-2, emaDecay: 0.75 };
const f = Math.fround;
const rounded = { beta1: f(0.9), beta2: f(0.99), eps: f(1e-8), weightDecay: f(0.1), lr: f(3e-2), emaDecay: 0.75 };

type State = Record<'param' | 'm' | 'v' | 'ema', Float32Array>;

/** What gradient_norm leaves for AdamW's good step `step`, from 1; of the rest it reads nothing. */
const stateOf = (scale: number, step: number): number[] => [scale, NaN, twin.correction(settings.beta1, step), twin.correction(settings.beta2, step), NaN];

/** One step on the device. */
async function adamw(engine: Engine, before: State, grad: Float32Array, state: Slice): Promise<State> {
  const n = grad.length, w = upload(engine, [n], before.param), m = upload(engine, [n], before.m), v = upload(engine, [n], before.v), e = upload(engine, [n], before.ema);
  const clock = clockAt(engine, { seed: 0, step: 77, lr: settings.lr, emaDecay: settings.emaDecay });
  engine.run(k.adamw, pointwise(n), {
    clock: clock.slice, state, g: upload(engine, [n], grad).slice, w: w.slice, m: m.slice, v: v.slice, e: e.slice,
    beta1: settings.beta1, beta2: settings.beta2, eps: settings.eps, weight_decay: settings.weightDecay,
  });
  return { param: await w.read(), m: await m.read(), v: await v.read(), ema: await e.read() };
}

/** The twin with the device's own scale, so that the norm's roundings do not count twice, and a tolerance for each number. */
function expected(before: State, grad: Float32Array, scale: number, step: number) {
  const { beta1, beta2, eps, lr, weightDecay, emaDecay } = rounded, g = Float64Array.from(grad, (v) => scale * v);
  const want = twin.adamw({ ...before, grad: g, step, ...rounded });
  const mError = bound(3, g.map((v, i) => beta1 * Math.abs(before.m[i]) + (1 - beta1) * Math.abs(v)));
  const vError = bound(4, g.map((v, i) => beta2 * before.v[i] + (1 - beta2) * v * v));
  const wError = g.map((_, i) => {
    const c1 = 1 - beta1 ** step, c2 = 1 - beta2 ** step, root = Math.sqrt(want.v[i] / c2) + eps, update = (lr * Math.abs(want.m[i])) / c1 / root;
    // The host rounds the corrections once; a division and a root each have their error, and one of v counts by half.
    const relative = 2 * DIVIDE + SQRT + 4 * ULP + vError[i] / (2 * want.v[i] || 1);
    return ((lr / c1) * mError[i]) / root + update * relative + bound(2, [Math.abs(before.param[i]) * (1 + lr * weightDecay) + update])[0];
  });
  const eError = g.map((_, i) => (1 - emaDecay) * wError[i] + bound(2, [emaDecay * Math.abs(before.ema[i]) + (1 - emaDecay) * Math.abs(want.param[i])])[0]);
  return { want, atol: { param: wError, m: mError, v: vError, ema: eError } };
}

const fresh = (n: number, id: number): State => {
  const param = random(n, id);
  return { param, m: new Float32Array(n), v: new Float32Array(n), ema: param.slice() };
};

for (const n of [1, 6, 259, 1030])
  optim(`AdamW and EMA of ${n} parameters`, async (engine) => {
    let state = fresh(n, 0);
    for (const [step, scale] of [[1, 1], [2, 0.3], [3, 1], [1000, 0.5]]) {
      const grad = random(n, step);
      if (step === 3) grad[0] = 0;
      const got = await adamw(engine, state, grad, upload(engine, [5], stateOf(scale, step)).slice), { want, atol } = expected(state, grad, f(scale), step);
      for (const name of ['param', 'm', 'v', 'ema'] as const) assertClose(got[name], want[name], { atol: atol[name], what: `step ${step}: ${name}` });
      state = got;
    }
  });

optim('a parameter without any gradient only decays', async (engine) => {
  const before = fresh(5, 0), got = await adamw(engine, before, new Float32Array(5), upload(engine, [5], stateOf(1, 1)).slice);
  assertClose(got.param, before.param.map((v) => v * (1 - rounded.lr * rounded.weightDecay)), { rtol: 2 * ULP, what: 'param' });
  assert.equal([...got.m, ...got.v], Array(10).fill(0));
});

optim('norm, clip and update over two chunks, three steps', async (engine) => {
  let chunks = [fresh(301, 0), fresh(70, 1)];
  for (const step of [1, 2, 3]) {
    const grads = chunks.map((s, i) => random(s.param.length, 10 * step + i)), maxNorm = 5, { scale, norm, state } = await gradientNorm(engine, grads, { maxNorm, step: step + 3, done: step - 1 });
    const wanted = twin.clipScale(twin.globalNorm(...grads), maxNorm);
    assert.ok(scale < 0.5 && Math.abs(scale - wanted) < 1e-6 * wanted, `clipped from ${norm}`);
    const after: State[] = [];
    for (const [i, before] of chunks.entries()) {
      const got = await adamw(engine, before, grads[i], state), { want, atol } = expected(before, grads[i], scale, step);
      for (const name of ['param', 'm', 'v', 'ema'] as const) assertClose(got[name], want[name], { atol: atol[name], what: `step ${step}, chunk ${i}: ${name}` });
      after.push(got);
    }
    chunks = after;
  }
});

optim('a step that is not finite leaves parameters, moments and EMA as they are, bit for bit', async (engine) => {
  const n = 130, before: State = { param: random(n, 0), m: random(n, 1), v: random(n, 2).map(Math.abs), ema: random(n, 3) };
  for (const bad of [NaN, Infinity]) {
    const grad = random(n, 4);
    grad[77] = bad;
    const { state } = await gradientNorm(engine, [grad]);
    assert.equal(await adamw(engine, before, grad, state), before, `${bad}`);
  }
  const { state } = await gradientNorm(engine, [random(n, 4)]);
  assert.not.equal((await adamw(engine, before, random(n, 4), state)).param, before.param);
});

optim('the corrections are those of the steps that were good, and a bad one is not counted', async (engine) => {
  const g = random(70, 0), bad = g.slice();
  bad[3] = NaN;
  for (const done of [0, 1, 4, 49, 50, 51, 999, 20_000, 1e6]) {
    const { corrections, good } = await gradientNorm(engine, [g], { done, step: 5 });
    // The logarithm and its product round once each. Where the series ends, exp(-1/2) is off by four units of 0.61, in 1 - 0.61.
    assertClose(corrections, [settings.beta1, settings.beta2].map((beta) => twin.correction(beta, done + 1)), { rtol: 8 * ULP, what: `after ${done}` });
    assert.is(good, done + 1);
    assert.is((await gradientNorm(engine, [bad], { done, step: 5 })).good, done);
  }
  const first = await gradientNorm(engine, [g], { done: -1, step: 5 });
  assert.equal([first.good, first.corrections], [6, (await gradientNorm(engine, [g], { done: 5, step: 5 })).corrections], 'before its first step all were good');
  assert.is((await gradientNorm(engine, [bad], { done: -1, step: 5 })).good, 5);
});
optim.run();
