// Parametrisations and variances in float64: what a network is trained to give leads back to x_0 and eps, and names that do not exist are refused.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { noiseTable, PREDICTION_TYPES, PREDICTIONS, startTable, targetTable } from '../src/diffusion/prediction.ts';
import { makeSchedule, SCHEDULES } from '../src/diffusion/schedule.ts';
import { isLearned, logVarianceTable, VARIANCES } from '../src/diffusion/variance.ts';
import { DdpmError } from '../src/errors.ts';

const test = suite('parametrisations');

for (const name of SCHEDULES)
  for (const prediction of PREDICTIONS)
    test(`${name}, ${prediction}: the target gives x_0 and eps back, at every t`, () => {
      const s = makeSchedule({ name, T: 1000 }), target = targetTable(s, prediction), start = startTable(s, prediction), noise = noiseTable(s, prediction);
      const x0 = 0.7, eps = -1.3;
      for (let t = 0; t < 1000; t++) {
        const xt = s.sqrtAlphasCumprod[t]! * x0 + s.sqrtOneMinusAlphasCumprod[t]! * eps, output = target.start[t]! * x0 + target.noise[t]! * eps;
        // Rounding of both terms, which cancel where the signal is weak (x_0 from eps at large t) or the noise is (eps from x_0 at small t).
        for (const [what, { x, output: b }, want] of [['x_0', start, x0], ['eps', noise, eps]] as const)
          assert.ok(Math.abs(x[t]! * xt + b[t]! * output - want) <= 1e-12 * (1 + Math.abs(x[t]! * xt) + Math.abs(b[t]! * output)), `${what} at ${t}`);
      }
    });

test('the posterior mean is what mu predicts, and v turns x_0 and eps by an angle', () => {
  const s = makeSchedule({ name: 'linear', T: 1000 }), mu = targetTable(s, 'mu'), v = targetTable(s, 'v');
  for (const t of [0, 1, 500, 999]) {
    const [x0, eps] = [0.3, 2], xt = s.sqrtAlphasCumprod[t]! * x0 + s.sqrtOneMinusAlphasCumprod[t]! * eps;
    assert.ok(Math.abs(mu.start[t]! * x0 + mu.noise[t]! * eps - (s.posteriorMeanCoef1[t]! * x0 + s.posteriorMeanCoef2[t]! * xt)) < 1e-12);
    assert.ok(Math.abs(v.start[t]! ** 2 + v.noise[t]! ** 2 - 1) < 1e-12);
  }
  assert.equal([mu.start[0], mu.noise[0]].map((value) => Math.round(value! * 1e9) / 1e9), [1, 0], 'at t = 0 it is x_0 itself');
});

test('a learned variance goes from beta~ at v = -1 to beta at v = 1; at t = 0 the posterior of t = 1 stands in', () => {
  const s = makeSchedule({ name: 'cosine', T: 1000 }), range = logVarianceTable(s, 'learned_range');
  const small = logVarianceTable(s, 'fixed_small').at, large = logVarianceTable(s, 'fixed_large').at;
  for (const t of [0, 1, 2, 500, 999]) {
    const beta = Math.log(s.betas[t]!), posterior = Math.log(s.posteriorVariance[Math.max(t, 1)]!);
    for (const v of [-1, 0, 0.3, 1]) {
      const frac = (v + 1) / 2;
      assert.ok(Math.abs(range.at[t]! + range.slope[t]! * v - (frac * beta + (1 - frac) * posterior)) < 1e-12, `t ${t}, v ${v}`);
    }
    assert.is(small[t], posterior);
    assert.is(large[t], t === 0 ? posterior : beta);
  }
  const own = logVarianceTable(s, 'learned');
  assert.equal([own.at[7], own.slope[7]], [0, 1]);
  assert.equal(VARIANCES.map(isLearned), [false, false, true, true]);
});

test('names that do not exist are refused', () => {
  const s = makeSchedule([0.1, 0.2]);
  const rescaled = makeSchedule({ name: 'linear', T: 50, rescaleBetasZeroSnr: true });
  assert.throws(() => startTable(rescaled, 'eps'), (error: unknown) => error instanceof DdpmError && /at t = 49 this schedule leaves nothing of the image/.test(error.message));
  for (const f of [startTable, noiseTable, targetTable]) assert.throws(() => f(s, 'epsilon' as 'eps'), (error: unknown) => error instanceof DdpmError && /no prediction "epsilon".*eps, x0, v, mu/.test(error.message));
  assert.throws(() => logVarianceTable(s, 'small' as 'learned'), (error: unknown) => error instanceof DdpmError && /no variance "small"/.test(error.message));
  assert.equal(PREDICTION_TYPES, { eps: 'epsilon', x0: 'sample', v: 'v_prediction' });
});
test.run();
