// Schedules against the float64 tables of the classic class, timesteps against diffusers, and bad input.
import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { makeBetas, makeSchedule, rescaleZeroSnr, SCHEDULES, TABLE_NAMES, type ScheduleName } from '../src/diffusion/schedule.ts';
import { timesteps, type Spacing } from '../src/diffusion/spacing.ts';
import { DdpmError } from '../src/errors.ts';
import { readSafetensors } from '../src/io/safetensors.ts';

const test = suite('schedule');

const golden = (name: string): ((tensor: string) => Float64Array) => {
  const { tensors } = readSafetensors(readFileSync(new URL(`golden/${name}`, import.meta.url)), name);
  return (tensor) => Float64Array.from(tensors.get(tensor)!.data as ArrayLike<number>, Number);
};

/** Runs f, which must throw E-USAGE with all these words in its message. */
function refuses(f: () => unknown, ...words: string[]): void {
  try {
    f();
  } catch (error) {
    assert.instance(error, DdpmError);
    assert.is((error as DdpmError).code, 'E-USAGE');
    for (const word of words) assert.ok((error as Error).message.includes(word), `"${(error as Error).message}" should say "${word}"`);
    return;
  }
  assert.unreachable(`should have refused: ${words.join(' ')}`);
}

const tables = golden('gaussian-diffusion-T1000.safetensors');
for (const name of SCHEDULES) {
  test(`${name}: the thirteen tables equal those of the classic class`, () => {
    const schedule = makeSchedule({ name, T: 1000 });
    assert.is(Object.keys(TABLE_NAMES).length, 13);
    for (const [key, snake] of Object.entries(TABLE_NAMES) as [keyof typeof TABLE_NAMES, string][]) {
      const got = schedule[key], want = tables(`${name}.${snake}`);
      assert.is(got.length, 1000);
      for (let t = 0; t < 1000; t++) {
        // 1 - alpha_bar cancels at small t, so even float64 keeps only 11 digits there; float32 has 7.
        const error = Math.abs(got[t] - want[t]), size = Math.abs(want[t]);
        assert.ok(error <= 1e-11 * size, `${name}.${snake}[${t}] is ${got[t]}, wanted ${want[t]}`);
      }
    }
  });
}

test('the edges of the tables are what the reverse process needs', () => {
  for (const name of SCHEDULES) {
    const s = makeSchedule({ name, T: 1000 });
    assert.is(s.alphasCumprodPrev[0], 1);
    assert.is(s.posteriorVariance[0], 0);
    assert.is(s.posteriorMeanCoef2[0], 0);
    assert.ok(Math.abs(s.posteriorMeanCoef1[0] - 1) < 1e-11, 'at t = 0 the mean is x_0 itself');
    assert.is(s.posteriorLogVarianceClipped[0], Math.log(1e-20));
    assert.is(s.fixedLargeLogVariance[0], Math.log(s.posteriorVariance[1]));
    assert.is(s.fixedLargeLogVariance[500], Math.log(s.betas[500]));
  }
  const linear = makeSchedule({ name: 'linear', T: 1000 });
  assert.ok(Math.abs(linear.posteriorVariance[1] - 5.4532e-5) < 1e-9);
  assert.ok(Math.abs(linear.alphasCumprod[999] - 4.0358e-5) < 1e-9);
  assert.is(makeBetas('cosine', 1000)[999], 0.999);
});

test('cosine betas end at 0.999, and are not cut off anywhere else', () => {
  const betas = makeBetas('cosine', 1000), s = makeSchedule(betas);
  assert.ok(Math.abs(betas[0] - 4.13e-5) < 1e-7, `${betas[0]}: a lower limit of 1e-4 would have raised the first ones`);
  assert.equal([betas[997], betas[998], betas[999]].map((b) => Number(b.toFixed(4))), [0.5556, 0.75, 0.999]);
  // Without clipping x_0 an error of eps counts twenty thousandfold at the noisiest t.
  assert.ok(Math.abs(s.sqrtRecipAlphasCumprod[999] - 20291) < 1);
});

test('t = 0 is one step of noise and not the image, and T - 1 the last of T steps', () => {
  for (const name of SCHEDULES) {
    const s = makeSchedule({ name, T: 1000 });
    assert.ok(Math.abs(s.sqrtOneMinusAlphasCumprod[0] ** 2 - s.betas[0]) < 1e-12 && s.betas[0] > 0);
    assert.ok(Math.abs(s.alphasCumprod[999] / s.alphas.reduce((a, b) => a * b, 1) - 1) < 1e-12);
  }
});

test('linear betas scale with T, so that x_T is noise for every T', () => {
  for (const T of [21, 50, 200, 300, 1000, 4000]) assert.ok(makeSchedule({ name: 'linear', T }).alphasCumprod[T - 1] < 5e-5, `T = ${T}`);
  assert.ok(Math.abs(makeSchedule({ name: 'linear', T: 200, scale: false }).alphasCumprod[199] - 0.132) < 1e-3);
  assert.ok(Math.abs(makeBetas('linear', 500, { betaStart: 1e-3, betaEnd: 1e-2 })[499] - 0.02) < 1e-15);
});

test('any betas make a schedule, and it keeps its own copy', () => {
  const betas = [0.1, 0.2, 0.3];
  const s = makeSchedule(betas);
  betas[0] = 9;
  assert.equal([...s.betas], [0.1, 0.2, 0.3]);
  assert.ok(Math.abs(s.alphasCumprod[2] - 0.9 * 0.8 * 0.7) < 1e-15);
  assert.is(makeSchedule(Float64Array.from([0.5, 0.5])).T, 2);
});

test('rescaled betas leave nothing of the image at the end, and the beginning as it was (Lin et al. 2023, algorithm 1)', () => {
  for (const name of SCHEDULES) {
    const spec = { name, T: 1000 }, plain = makeSchedule(spec), s = makeSchedule({ ...spec, rescaleBetasZeroSnr: true }), root = plain.sqrtAlphasCumprod, end = root[999]!;
    assert.equal([s.betas[999], s.alphasCumprod[999], s.sqrtOneMinusAlphasCumprod[999]], [1, 0, 1]);
    assert.ok(Math.abs(s.betas[0]! / plain.betas[0]! - 1) < 1e-9);
    for (let t = 0; t < 999; t++) {
      const want = (root[t]! - end) * (root[0]! / (root[0]! - end));
      assert.ok(Math.abs(s.sqrtAlphasCumprod[t]! / want - 1) < 1e-9, `${name} at ${t}: ${s.sqrtAlphasCumprod[t]}, wanted ${want}`);
    }
    assert.equal(s.betas, rescaleZeroSnr(plain.betas));
    assert.equal(rescaleZeroSnr(s.betas), s.betas, 'once is as good as twice, to the bit');
    // What samplers and losses read is finite, but for x_0 from eps.
    for (const each of ['posteriorVariance', 'posteriorLogVarianceClipped', 'posteriorMeanCoef1', 'posteriorMeanCoef2', 'fixedLargeLogVariance'] as const) assert.ok(s[each].every(Number.isFinite), each);
  }
  assert.is(makeSchedule([0.5, 1]).alphasCumprod[1], 0);
  refuses(() => rescaleZeroSnr([0.5, 2]), 'betas[1]');
});

test('refuses what is not a schedule', () => {
  refuses(() => makeBetas('sqrt' as ScheduleName, 1000), '"sqrt"', 'linear, quadratic, cosine, sigmoid', 'Did you mean sigmoid?');
  refuses(() => makeBetas('cosin' as ScheduleName, 1000), 'Did you mean cosine?');
  refuses(() => makeBetas('scaled_linear' as ScheduleName, 1000), 'Did you mean quadratic?');
  refuses(() => makeBetas(undefined as unknown as ScheduleName, 1000), 'linear, quadratic, cosine, sigmoid');
  refuses(() => makeBetas('linear', 20), '20 timesteps', 'more than 20', 'cosine');
  for (const T of [0, 1, -5, 2.5, NaN, Infinity]) refuses(() => makeSchedule({ name: 'cosine', T }), `${T}`);
  refuses(() => makeSchedule([0.1, 0.2, 1, 2]), 'betas[2]', 'is 1');
  refuses(() => makeSchedule([0.1, NaN, 0.1]), 'betas[1]', 'NaN');
  refuses(() => makeSchedule([0, 0.1]), 'betas[0]');
  refuses(() => makeSchedule([0.1]), 'at least 2');
  refuses(() => makeBetas('linear', 1000, { betaStart: -1 }), 'betas[0]');
});

test('timesteps are those of diffusers', () => {
  const samplers = golden('samplers-diffusers.safetensors');
  assert.equal(timesteps(1000, 50), [...samplers('ddim50-leading.timesteps')]);
  assert.equal(timesteps(1000, 20, 'leading'), [...samplers('ddim20-noclip.timesteps')]);
  assert.equal(timesteps(1000, 4, 'leading', { stepsOffset: 1 }), [751, 501, 251, 1]);
  assert.equal(timesteps(1000, 5, 'trailing'), [999, 799, 599, 399, 199]);
  assert.equal(timesteps(1000, 7, 'trailing'), [999, 856, 713, 570, 428, 285, 142]);
  assert.equal(timesteps(1000, 5, 'linspace'), [999, 749, 500, 250, 0]); // 749.25, and 499.5 goes to the even 500
  assert.equal(timesteps(1000, 1, 'linspace'), [0]);
  // Ties of numpy.arange(1000, 0, -1000 / 48) fall as its own rounding has it: 937.5 is a little less there, and becomes 937.
  assert.equal(timesteps(1000, 48, 'trailing').slice(0, 10), [999, 978, 957, 936, 916, 895, 874, 853, 832, 811]);
  for (const spacing of ['leading', 'trailing', 'linspace'] as const) {
    for (const T of [10, 97, 1000]) {
      assert.equal(timesteps(T, T, spacing), Array.from({ length: T }, (_, i) => T - 1 - i));
      for (let n = 1; n <= T; n += 7) {
        const list = timesteps(T, n, spacing);
        assert.is(list.length, n);
        assert.ok(list.every((t, i) => Number.isInteger(t) && t >= 0 && t < T && (i === 0 || t < list[i - 1])), `${spacing} ${n} of ${T}`);
      }
    }
  }
});

test('refuses timesteps that do not exist', () => {
  for (const steps of [0, 1001, 2.5, NaN, -1]) refuses(() => timesteps(1000, steps), `${steps} steps`, '1 to 1000');
  refuses(() => timesteps(1000, 50, 'karras' as Spacing), 'karras', 'leading, trailing, linspace');
  refuses(() => timesteps(1000, 1000, 'leading', { stepsOffset: 1 }), 'offset of 1');
  refuses(() => timesteps(1000, 10, 'leading', { stepsOffset: -1 }), 'offset of -1');
});

test.run();
