// The diffusion kernels against their float64 twins: schedule gather, q_sample, and the fused reverse steps of DDPM and DDIM.
import * as assert from 'uvu/assert';
import { threads } from '../../src/autograd.ts';
import type { Engine } from '../../src/gpu/engine.ts';
import * as k from '../../src/gpu/kernels.gen.ts';
import { STREAM } from '../../src/philox.ts';
import { Tensor } from '../../src/tensor.ts';
import { abs, assertClose, bound } from '../helpers/close.ts';
import { clockAt, DIVIDE, expUlps, gpuSuite, normalErrors, random, ULP, upload } from '../helpers/gpu.ts';
import * as twin from '../ref/diffusion.ts';
import { normals } from '../ref/random.ts';

type Floats = ArrayLike<number>;

const diffusion = gpuSuite('diffusion');
const T = 1000;
const betas = Float64Array.from({ length: T }, (_, t) => 1e-4 + ((0.02 - 1e-4) * t) / (T - 1));
const acp: number[] = [];
betas.forEach((beta, t) => acp.push((acp[t - 1] ?? 1) * (1 - beta)));

/** Timesteps of a batch, the last one and the first two among them; an image each. */
const steps = Uint32Array.of(0, 999, 1, 500, 0);
const N = steps.length, first = 12, seed = 77;

/** What the device would draw for these images: counters hold t, not the step, so that a sample is its own random stream. */
const noise = (size: number, stream: number, step: (n: number) => number) => {
  const z = new Float64Array(N * size), error = new Float64Array(N * size);
  for (let n = 0; n < N; n++) {
    const draw = { seed, stream, step: step(n), samples: [first + n], count: size };
    z.set(normals(draw), n * size);
    error.set(normalErrors(draw), n * size);
  }
  return { z, error };
};

for (const [K, count] of [[1, 3], [5, 70], [13, 9]])
  diffusion(`schedule_gather of ${K} columns for ${count} images`, async (engine) => {
    const table = random(20 * K, 0), t = Uint32Array.from({ length: count }, (_, n) => (n * 7) % 20), coef = Tensor.empty(engine, [count, K]);
    engine.run(k.schedule_gather, threads(coef.size), { table: upload(engine, [20, K], table).slice, t: upload(engine, [count], t).slice, coef: coef.slice, N: count, K, T: 20 });
    assert.equal(Float64Array.from(await coef.read()), twin.scheduleGather(table, t, K));
  });

diffusion('schedule_gather past the end takes the last row', async (engine) => {
  const coef = Tensor.empty(engine, [2, 2]), t = upload(engine, [2], Uint32Array.of(3, 0xffffffff));
  engine.run(k.schedule_gather, threads(4), { table: upload(engine, [3, 2], [1, 2, 3, 4, 5, 6]).slice, t: t.slice, coef: coef.slice, N: 2, K: 2, T: 3 });
  assert.equal([...(await coef.read())], [5, 6, 5, 6]);
});

/** Rows of `table(t)`, rounded to float32 as they lie on the device. */
const rows = (table: (t: number) => ArrayLike<number>): Float32Array => Float32Array.from([...steps].flatMap((t) => [...Float32Array.from(table(t))]));

/** Columns a and b of K, the way the twins take them. */
const columns = (coef: Float32Array, K: number, a: number, b: number) => Float64Array.from({ length: 2 * N }, (_, i) => coef[(i >> 1) * K + (i & 1 ? b : a)]);

for (const size of [1, 7, 130]) {
  diffusion(`q_sample of ${size} values, with the noise that it draws`, async (engine) => {
    const x0 = random(N * size, 0), coef = rows((t) => [9, Math.sqrt(acp[t]), 9, Math.sqrt(1 - acp[t])]); // K = 4, columns 1 and 3
    const xt = Tensor.empty(engine, [N, size]), eps = Tensor.empty(engine, [N, size]), stream = STREAM.noise;
    engine.run(k.q_sample, threads(N * Math.ceil(size / 4)), {
      clock: clockAt(engine, { seed, step: 31, first }).slice, x0: upload(engine, [N, size], x0).slice, coef: upload(engine, [N, 4], coef).slice, xt: xt.slice, eps: eps.slice, N, size, K: 4, a: 1, b: 3, stream,
    });
    const { z, error } = noise(size, stream, () => 31), drawn = await eps.read();
    assertClose(drawn, z, { atol: error, what: 'eps' });
    // x_t belongs to the eps that was written, to the last digits.
    const pair = columns(coef, 4, 1, 3);
    assertClose(await xt.read(), twin.qSample(x0, drawn, pair), { atol: bound(2, twin.qSample(abs(x0), abs(drawn), pair)), what: 'x_t' });
  });

  diffusion(`combine of ${size} values: q_sample with given noise, x_0 from eps`, async (engine) => {
    const u = random(N * size, 0), v = random(N * size, 1);
    for (const [sign, coef] of [[1, rows((t) => [Math.sqrt(acp[t]), 9, Math.sqrt(1 - acp[t])])], [-1, rows((t) => [Math.sqrt(1 / acp[t]), 9, Math.sqrt(1 / acp[t] - 1)])]] as const) {
      const y = Tensor.empty(engine, [N, size]), pair = columns(coef, 3, 0, 2);
      engine.run(k.combine, threads(N * size), { u: upload(engine, [N, size], u).slice, v: upload(engine, [N, size], v).slice, coef: upload(engine, [N, 3], coef).slice, y: y.slice, N, size, K: 3, a: 0, b: 2, sign });
      const want = sign > 0 ? twin.qSample(u, v, pair) : twin.predictStart(u, v, pair);
      assertClose(await y.read(), want, { atol: bound(2, twin.qSample(abs(u), abs(v), pair)), what: `sign ${sign}` });
    }
  });
}

/** x_0 and its tolerance: where it is clipped it is exact, and near the edge a clip makes no error larger. */
function startOf(x: Floats, eps: Floats, coef: Float32Array, K: number, clip: boolean) {
  const pair = columns(coef, K, 0, 1);
  return { x0: twin.predictStart(x, eps, pair, clip), error: bound(2, twin.qSample(abs(x), abs(eps), pair)) };
}

const coefAt = (coef: Float32Array, K: number, size: number) => (i: number, column: number): number => coef[Math.floor(i / size) * K + column];

async function step(engine: Engine, kernel: 'posterior_step' | 'ddim_step', size: number, x: Float32Array, eps: Float32Array, z: Float32Array | null, coef: Float32Array, K: number, options: { clip: boolean; rederive?: boolean }) {
  const tx = upload(engine, [N, size], x), x0 = Tensor.empty(engine, [N, size]), teps = upload(engine, [N, size], eps);
  const args = {
    clock: clockAt(engine, { seed, step: 5, first }).slice, t: upload(engine, [N], steps).slice, coef: upload(engine, [N, K], coef).slice, eps: teps.slice, x: tx.slice, x0: x0.slice,
    N, size, K, clip: Number(options.clip), stream: STREAM.sample,
  };
  const grid = threads(N * Math.ceil(size / 4));
  if (kernel === 'posterior_step') engine.run(k.posterior_step, grid, { ...args, z: (z ? upload(engine, [N, size], z) : teps).slice, given: Number(!!z) });
  else engine.run(k.ddim_step, grid, { ...args, rederive: Number(options.rederive) });
  return { prev: await tx.read(), x0: await x0.read() };
}

for (const size of [1, 7, 130])
  for (const variance of ['fixed_small', 'fixed_large'] as const)
    for (const clip of [true, false])
      diffusion(`posterior_step of ${size} values, ${variance}, ${clip ? 'clipped' : 'not clipped'}`, async (engine) => {
        const table = twin.posteriorTable(betas, variance), K = 6; // a column more than the kernel reads
        const coef = rows((t) => [...table.subarray(5 * t, 5 * t + 5), 9]), five = Float64Array.from({ length: 5 * N }, (_, i) => coef[Math.floor(i / 5) * K + (i % 5)]);
        const x = random(N * size, 0), eps = random(N * size, 1), last = Array.from(steps, (t) => Number(t === 0)), at = coefAt(coef, K, size);
        const drawn = noise(size, STREAM.sample, (n) => steps[n]), own = random(N * size, 2);
        for (const [what, z, zError] of [['given', own, new Float64Array(N * size)], ['drawn', drawn.z, drawn.error]] as const) {
          const got = await step(engine, 'posterior_step', size, x, eps, what === 'given' ? own : null, coef, K, { clip });
          const want = twin.posteriorStep({ xt: x, eps, z, coef: five, clip, last }), start = startOf(x, eps, coef, K, clip);
          assertClose(got.x0, want.x0, { atol: start.error, what: 'x_0' });
          const atol = want.prev.map((_, i) => {
            const [mean1, mean2, log] = [2, 3, 4].map((c) => at(i, c)), sigma = last[Math.floor(i / size)] ? 0 : Math.exp(log / 2);
            const sum = bound(3, [mean1 * Math.abs(want.x0[i]) + mean2 * Math.abs(x[i]) + sigma * Math.abs(z[i])])[0];
            return mean1 * start.error[i] + sum + sigma * (zError[i] + ULP * expUlps(log / 2) * Math.abs(z[i]));
          });
          assertClose(got.prev, want.prev, { atol, what: `x_(t-1), noise ${what}` });
        }
        // No noise at t = 0, whatever is given.
        const silent = await step(engine, 'posterior_step', size, x, eps, own.map(() => 1e9), coef, K, { clip });
        for (let i = 0; i < N * size; i++) assert.is(Math.abs(silent.prev[i]) < 1e4, last[Math.floor(i / size)] === 1, `value ${i}`);
      });

for (const size of [1, 7, 130])
  for (const eta of [0, 0.7])
    for (const [clip, rederive] of [[true, true], [true, false], [false, false]])
      diffusion(`ddim_step of ${size} values, eta ${eta}${clip ? ', clipped' : ''}${rederive ? ', eps derived again' : ''}`, async (engine) => {
        const K = 5, coef = rows((t) => twin.ddimCoef(acp[t], acp[t - 20] ?? 1, eta)), at = coefAt(coef, K, size);
        const x = random(N * size, 0), eps = random(N * size, 1), { z, error } = noise(size, STREAM.sample, (n) => steps[n]);
        const got = await step(engine, 'ddim_step', size, x, eps, null, coef, K, { clip, rederive });
        const want = twin.ddimStep({ xt: x, eps, z, coef: Float64Array.from(coef), clip, useClippedModelOutput: rederive }), start = startOf(x, eps, coef, K, clip);
        assertClose(got.x0, want.x0, { atol: start.error, what: 'x_0' });
        const atol = want.prev.map((_, i) => {
          const [c0, c1, a, b, sigma] = [0, 1, 2, 3, 4].map((c) => at(i, c)), clipped = rederive && Math.abs(want.x0[i]) > 1 - start.error[i];
          // eps' is a difference over c1: the roundings of its terms grow by 1 / c1. Where nothing was clipped it is eps itself.
          const direction = clipped ? (Math.abs(c0 * x[i]) + Math.abs(want.x0[i])) / c1 : Math.abs(eps[i]);
          const directionError = clipped ? bound(2, [direction])[0] + DIVIDE * direction : 0;
          return a * start.error[i] + b * directionError + sigma * error[i] + bound(3, [a * Math.abs(want.x0[i]) + b * direction + sigma * Math.abs(z[i])])[0];
        });
        assertClose(got.prev, want.prev, { atol, what: 'x_prev' });
        if (clip && size === 130) assert.ok(want.x0.some((v) => v === 1) && want.x0.some((v) => Math.abs(v) < 1), 'some are clipped, some are not');
      });

diffusion('a sample is the same whatever the batch', async (engine) => {
  const size = 10, x = random(N * size, 0), eps = random(N * size, 1), table = twin.posteriorTable(betas, 'fixed_small'), coef = rows((t) => table.subarray(5 * t, 5 * t + 5));
  const whole = await step(engine, 'posterior_step', size, x, eps, null, coef, 5, { clip: true });
  const tx = upload(engine, [2, size], x.subarray(2 * size, 4 * size)), x0 = Tensor.empty(engine, [2, size]), teps = upload(engine, [2, size], eps.subarray(2 * size, 4 * size));
  engine.run(k.posterior_step, threads(6), {
    clock: clockAt(engine, { seed, step: 0, first: first + 2 }).slice, t: upload(engine, [2], steps.slice(2, 4)).slice, coef: upload(engine, [2, 5], coef.subarray(10, 20)).slice,
    eps: teps.slice, z: teps.slice, x: tx.slice, x0: x0.slice, N: 2, size, K: 5, clip: 1, given: 0, stream: STREAM.sample,
  });
  assert.equal(await tx.read(), whole.prev.slice(2 * size, 4 * size));
});
diffusion.run();
