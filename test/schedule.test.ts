// Schedules against the float64 tables of the classic class, timesteps and whole DDIM trajectories against diffusers, and bad input.
import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { makeBetas, makeSchedule, SCHEDULES, TABLE_NAMES, type Schedule, type ScheduleName } from '../src/diffusion/schedule.ts';
import { ddimTable, timesteps, type Spacing } from '../src/diffusion/spacing.ts';
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
  const s = makeSchedule({ name: 'linear', T: 100 });
  refuses(() => ddimTable(s, [100]), 'Timestep 100', '0 to 99');
  refuses(() => ddimTable(s, [50], { eta: 1.5 }), 'eta is 1.5');
  refuses(() => ddimTable(s, [50], { eta: NaN }), 'eta is NaN');
});

/** The whole of DDIM in float64, with the golden file's closed-form model instead of a network. */
function ddim(schedule: Schedule, xT: Float64Array, steps: number, { clip, rederive }: { clip: boolean; rederive: boolean }): Float64Array[] {
  let x = xT;
  return ddimTable(schedule, timesteps(schedule.T, steps)).map((row) => {
    x = x.map((xt) => {
      let eps = 0.3 * xt + 0.1 * Math.sin(5 * xt) * (row.t / 1000);
      let x0 = row.sqrtRecipAcp * xt - row.sqrtRecipm1Acp * eps;
      if (clip) x0 = Math.min(1, Math.max(-1, x0));
      if (rederive) eps = (row.sqrtRecipAcp * xt - x0) / row.sqrtRecipm1Acp;
      return row.sqrtAcpPrev * x0 + row.dirCoef * eps;
    });
    return x;
  });
}

const worst = (a: Float64Array, b: Float64Array): number => a.reduce((m, v, i) => Math.max(m, Math.abs(v - b[i])), 0);

// diffusers' default clips x_0 and keeps the model's eps (use_clipped_model_output = false), which is how the golden file was made.
const TRAJECTORIES = [
  { name: 'ddim50-leading', schedule: 'linear', steps: 50, clip: true },
  { name: 'ddim20-noclip', schedule: 'linear', steps: 20, clip: false },
  { name: 'ddim50-cosine', schedule: 'cosine', steps: 50, clip: true },
] as const;
for (const { name, schedule, steps, clip } of TRAJECTORIES) {
  test(`DDIM follows diffusers' trajectory ${name}`, () => {
    const file = golden('samplers-diffusers.safetensors');
    const want = file(`${name}.trajectory`), xT = file('x_T');
    const got = ddim(makeSchedule({ name: schedule, T: 1000 }), xT, steps, { clip, rederive: false });
    for (let i = 0; i < steps; i++) {
      const state = want.subarray(i * xT.length, (i + 1) * xT.length);
      const size = Math.max(1, worst(state, new Float64Array(state.length)));
      const error = worst(got[i], state);
      assert.ok(error < 1e-4 && error < 3e-6 * size, `step ${i}: off by ${error}, values up to ${size}`);
    }
    // Without clipping, deriving eps again gives eps; with it, it is another sampler, and this file would tell.
    const other = ddim(makeSchedule({ name: schedule, T: 1000 }), xT, steps, { clip, rederive: true });
    const difference = worst(other[steps - 1], got[steps - 1]);
    assert.ok(clip ? difference > 0.01 : difference < 1e-9, `deriving eps again changes the end by ${difference}`);
  });
}

test('DDIM with eta 1 and every timestep is DDPM', () => {
  const s = makeSchedule({ name: 'linear', T: 1000 });
  for (const row of ddimTable(s, timesteps(1000, 1000), { eta: 1 })) {
    const { t } = row;
    assert.ok(Math.abs(row.sigma - Math.sqrt(s.posteriorVariance[t])) < 1e-9);
    // The same mean: coef1 x_0 + coef2 x_t with x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps.
    assert.ok(Math.abs(row.sqrtAcpPrev - (s.posteriorMeanCoef1[t] + s.posteriorMeanCoef2[t] * s.sqrtAlphasCumprod[t])) < 1e-9, `x_0 at ${t}`);
    assert.ok(Math.abs(row.dirCoef - s.posteriorMeanCoef2[t] * s.sqrtOneMinusAlphasCumprod[t]) < 1e-7, `eps at ${t}`);
  }
});

test('the last step of DDIM gives x_0 itself, or alphas_cumprod[0]', () => {
  const s = makeSchedule({ name: 'linear', T: 1000 });
  const last = ddimTable(s, timesteps(1000, 50), { eta: 1 }).at(-1)!;
  assert.equal([last.t, last.sqrtAcpPrev, last.dirCoef, last.sigma], [0, 1, 0, 0]);
  assert.is(ddimTable(s, timesteps(1000, 50), { setAlphaToOne: false }).at(-1)!.sqrtAcpPrev, Math.sqrt(s.alphasCumprod[0]));
});

test.run();
