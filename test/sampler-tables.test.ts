// The samplers' tables in float64, without a device: whole trajectories of diffusers, known identities, orders of error, and the mistakes that other codebases made.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { PREDICTIONS, targetTable } from '../src/diffusion/prediction.ts';
import { respace, respacedTimesteps } from '../src/diffusion/respace.ts';
import { ddimInverseRows, ddimRows } from '../src/diffusion/samplers/ddim.ts';
import { dpmSolverRows } from '../src/diffusion/samplers/dpm_solver.ts';
import type { Chain, Row } from '../src/diffusion/samplers/row.ts';
import { SAMPLERS, samplerTable, type TableOptions } from '../src/diffusion/samplers/table.ts';
import { makeSchedule, type Schedule } from '../src/diffusion/schedule.ts';
import { karrasTimesteps, SAMPLER_SPACINGS, solverTimesteps, timesteps } from '../src/diffusion/spacing.ts';
import { DdpmError } from '../src/errors.ts';
import { relativeL2 } from './helpers/close.ts';
import { closedForm, tensors, TRAJECTORIES } from './helpers/trajectories.ts';
import { Gaussian, runTable } from './ref/sampler.ts';

const test = suite('sampler tables');

const file = (name: string): Float64Array => Float64Array.from(tensors.get(name)!.data as ArrayLike<number>, Number);

const linear = makeSchedule({ name: 'linear', T: 1000 }), cosine = makeSchedule({ name: 'cosine', T: 1000 });
const chain = (schedule: Schedule, list: readonly number[], final: -1 | 0 = -1): Chain => ({ schedule, prediction: 'eps', timesteps: list, final });
const near = (got: number, want: number, tolerance: number, what: string): void => assert.ok(Math.abs(got - want) <= tolerance, `${what}: ${got}, wanted ${want}`);

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

for (const [name, schedule, options] of TRAJECTORIES)
  test(`follows diffusers' trajectory ${name}`, () => {
    const want = file(`${name}.trajectory`), xT = file('x_T'), table = samplerTable(makeSchedule({ name: schedule, T: 1000 }), 'eps', options);
    assert.equal([...table.timesteps], [...file(`${name}.timesteps`)]);
    runTable(table.rows, xT, closedForm, { clip: options.clipDenoised as boolean }).forEach((x, i) => {
      const error = relativeL2(x, want.subarray(i * xT.length, (i + 1) * xT.length));
      assert.ok(error < 3e-6, `step ${i + 1}: relative error ${error}`);
    });
    // The file would tell samplers apart.
    const other: TableOptions = options.method === 'ddim' ? { ...options, rederive: true } : { ...options, method: options.method === 'dpm++1' ? 'dpm++2m' : 'dpm++1' };
    const end = runTable(samplerTable(makeSchedule({ name: schedule, T: 1000 }), 'eps', other).rows, xT, closedForm, { clip: options.clipDenoised as boolean }).at(-1)!;
    const apart = relativeL2(end, want.subarray(want.length - xT.length));
    assert.ok(name === 'ddim20-noclip' ? apart < 3e-6 : apart > 1e-3, `another sampler ends ${apart} away`);
  });

test('ddim with eta 1 and every timestep is ddpm, the mean and the noise', () => {
  for (const row of ddimRows(chain(linear, timesteps(1000, 1000)), { eta: 1 })) {
    const { t } = row;
    near(row.z, Math.sqrt(linear.posteriorVariance[t]!), 1e-9, `sigma at ${t}`);
    near(row.start, linear.posteriorMeanCoef1[t]!, 1e-7, `factor of x_0 at ${t}`);
    near(row.x, linear.posteriorMeanCoef2[t]!, 1e-7, `factor of x at ${t}`);
  }
  // And on any chain: the respaced one has this posterior.
  const list = [900, 700, 650, 120, 3], short = respace(linear, list);
  ddimRows(chain(linear, list), { eta: 1 }).forEach((row, i) => {
    const j = list.length - 1 - i;
    near(row.z ** 2, short.posteriorVariance[j]!, 1e-12, `variance of step ${i}`);
    near(row.start, short.posteriorMeanCoef1[j]!, 1e-12, `factor of x_0 of step ${i}`);
    near(row.x, short.posteriorMeanCoef2[j]!, 1e-12, `factor of x of step ${i}`);
  });
});

test('the last row leads to x_0 itself, or to the noise of t = 0', () => {
  const last = ddimRows(chain(linear, timesteps(1000, 50)), { eta: 1 }).at(-1)!;
  assert.equal([last.t, last.to, last.start, last.x, last.z], [0, -1, 1, 0, 0]);
  for (const method of ['ddim', 'dpm++1', 'dpm++2m', 'heun', 'langevin'] as const) {
    const { rows } = samplerTable(linear, 'eps', { method, steps: 10 }), end = rows.at(-1)!;
    assert.equal([end.to, end.start, end.x, end.last, end.kept, end.z], [-1, 1, 0, method === 'dpm++2m' ? -0 : 0, 0, 0], `${method} ends with the predicted x_0`);
  }
  const stop = ddimRows(chain(linear, [500, 20], 0)).at(-1)!;
  assert.is(stop.to, 0);
  near(stop.start + (stop.x * linear.sqrtAlphasCumprod[20]!), linear.sqrtAlphasCumprod[0]!, 1e-15, 'x_0 keeps the factor of t = 0');
});

// Codebases that go to t - T / steps lead somewhere else than the next row starts, where T is no multiple (diffusers' DDIM with linspace, or 7 trailing steps).
test('every row leads to the timestep at which the next one asks', () => {
  for (const spacing of SAMPLER_SPACINGS)
    for (const method of SAMPLERS) {
      const steps = 7, { rows } = samplerTable(linear, 'eps', { method, steps, spacing });
      rows.forEach((row, i) => assert.is(rows[i + 1]?.t ?? -1, row.to, `${method}, ${spacing}, row ${i}`));
      assert.is(rows.length, method === 'heun' ? 2 * steps - 1 : method === 'langevin' ? 7 * steps + 1 : steps, `${method} evaluates the network as often as it should`);
    }
  const seven = ddimRows(chain(linear, timesteps(1000, 7, 'trailing')));
  assert.equal(seven.map((r) => r.to), [856, 713, 570, 428, 285, 142, -1]);
});

test('what a network predicts makes no difference to the way', () => {
  const gaussian = new Gaussian(linear, 0.3, 0.4), x = Float64Array.of(-1.7, 0.2, 1.1);
  for (const options of [{ method: 'ddim', steps: 9, eta: 0 }, { method: 'ddim', steps: 9, rederive: false }, { method: 'dpm++2m', steps: 9 }, { method: 'heun', steps: 5 }, { method: 'langevin', steps: 4 }] as const) {
    const ends = PREDICTIONS.map((prediction) => {
      const target = targetTable(linear, prediction);
      // The same knowledge, said as eps, x_0, v or the posterior mean.
      const model = (at: Float64Array, t: number): Float64Array => {
        const eps = gaussian.model(at, t);
        return eps.map((e, i) => target.noise[t]! * e + target.start[t]! * ((at[i]! - linear.sqrtOneMinusAlphasCumprod[t]! * e) / linear.sqrtAlphasCumprod[t]!));
      };
      return runTable(samplerTable(linear, prediction, options).rows, x, model).at(-1)!;
    });
    for (const end of ends) assert.ok(relativeL2(end, ends[0]!) < 1e-9, `${JSON.stringify(options)}: ${relativeL2(end, ends[0]!)}`);
  }
});

test('dpm++1 is ddim without noise; 2m falls back to it where it must', () => {
  const list = timesteps(1000, 12, 'linspace'), same = (a: readonly Row[], b: readonly Row[]): void => a.forEach((row, i) => {
    near(row.x, b[i]!.x, 1e-12, `factor of x, row ${i}`);
    near(row.start, b[i]!.start, 1e-12, `factor of x_0, row ${i}`);
  });
  for (const final of [-1, 0] as const) same(dpmSolverRows(chain(linear, list, final), { order: 1 }), ddimRows(chain(linear, list, final)));
  const twos = dpmSolverRows(chain(linear, list.slice(0, -1), 0), { order: 2 }).map((r) => r.last !== 0);
  assert.equal(twos, [false, ...Array<boolean>(9).fill(true), false], 'first and, of fewer than 15, last of order 1');
  const many = dpmSolverRows(chain(linear, timesteps(1000, 20, 'linspace').slice(0, -1), 0), { order: 2 });
  assert.ok(many.at(-1)!.last !== 0, 'the last of 15 or more has order 2');
  assert.ok(dpmSolverRows(chain(linear, timesteps(1000, 20)), { order: 2 }).at(-1)!.last === 0, 'to x_0 itself there is no midpoint');
});

test('the solvers do not start where a cosine schedule cannot be inverted', () => {
  const lambda = (s: Schedule, t: number): number => 0.5 * Math.log(s.alphasCumprod[t]! / (1 - s.alphasCumprod[t]!));
  for (const list of [solverTimesteps(cosine, 20), karrasTimesteps(cosine, 20)]) {
    assert.ok(lambda(cosine, list[0]!) >= -5.1 && lambda(cosine, list[0]! + 1) < -5.1, `starts at ${list[0]}`);
  }
  assert.ok(lambda(cosine, 999) < -9.8);
  for (const list of [solverTimesteps(linear, 20), karrasTimesteps(linear, 20)]) assert.is(list[0], 999, 'linear loses nothing');
  assert.is(solverTimesteps(cosine, 20, 'linspace', { lambdaMin: -Infinity })[0], 999);
  assert.equal(solverTimesteps(linear, 4, 'leading'), [800, 600, 400, 200]);
  assert.equal(solverTimesteps(linear, 4, 'trailing'), [999, 749, 499, 249]);
  // As many steps as timesteps: two of them would be 500.
  const all = solverTimesteps(linear, 1000);
  assert.equal([all.length, new Set(all).size, all[0], all.at(-1)], [999, 999, 999, 1]);
});

test('by default no sampler takes more timesteps than it has, whatever the schedule and the spacing', () => {
  for (const schedule of [2, 3, 10, 21, 50].map((T) => makeSchedule({ name: 'cosine', T })))
    for (const method of SAMPLERS) for (const spacing of [undefined, ...SAMPLER_SPACINGS]) {
      const { timesteps: list } = samplerTable(schedule, 'v', { method, ...(spacing && { spacing }) });
      assert.ok(list.length >= 1 && list.length <= schedule.T, `${method}, ${spacing}, of ${schedule.T}`);
    }
});

test('geometric levels fall by one factor, as near as the timesteps allow', () => {
  const { timesteps: list } = samplerTable(linear, 'eps', { method: 'langevin', steps: 11 }), log = (t: number): number => 0.5 * Math.log(1 / linear.alphasCumprod[t]! - 1);
  assert.equal([list[0], list.at(-1)], [999, 0]);
  list.forEach((t, i) => {
    const wanted = log(999) + (i / 10) * (log(0) - log(999));
    for (const other of [t - 1, t + 1]) if (other >= 0 && other < 1000) assert.ok(Math.abs(log(t) - wanted) <= Math.abs(log(other) - wanted), `level ${i}: t = ${t}`);
  });
});

test("Karras' levels are those of the paper, as near as the timesteps allow", () => {
  const sigma = (t: number): number => Math.sqrt(1 / linear.alphasCumprod[t]! - 1);
  for (const steps of [1, 2, 5, 18, 300, 1000]) {
    const list = karrasTimesteps(linear, steps);
    assert.is(list.length, steps);
    assert.ok(list.every((t, i) => t >= 0 && t < 1000 && (i === 0 || t < list[i - 1]!)), `${steps} fall`);
    assert.is(list[0], 999);
    if (steps > 1) assert.is(list.at(-1), 0);
  }
  const list = karrasTimesteps(linear, 5), [high, low] = [sigma(999), sigma(0)];
  list.forEach((t, i) => {
    const wanted = (high ** (1 / 7) + (i / 4) * (low ** (1 / 7) - high ** (1 / 7))) ** 7;
    for (const other of [t - 1, t + 1]) if (other >= 0 && other < 1000) assert.ok(Math.abs(Math.log(sigma(t) / wanted)) <= Math.abs(Math.log(sigma(other) / wanted)), `level ${i}: t = ${t}`);
  });
});

// ------------------------------------------------------------------------------------------------------------------------- respacing
test('a respaced chain has the same q(x_t | x_0), and with every timestep the same bits', () => {
  for (const schedule of [linear, cosine]) {
    const full = respace(schedule, timesteps(1000, 1000));
    for (const key of Object.keys(full) as (keyof Schedule)[]) if (key !== 'T') assert.equal(full[key], schedule[key], key);
    const kept = [999, 500, 499, 30, 7, 0], short = respace(schedule, kept);
    assert.is(short.T, 6);
    kept.toReversed().forEach((t, i) => near(short.alphasCumprod[i]! / schedule.alphasCumprod[t]!, 1, 1e-8, `alpha_bar at ${t}`));
  }
  refuses(() => respace(linear, [5]), 'at least 2', 'ddim');
  refuses(() => respace(linear, [5, 5]), 'twice');
  refuses(() => respace(linear, [5, 1000]), '0 to 999');
});

test("improved-diffusion's respacings", () => {
  assert.equal(respacedTimesteps(1000, 'ddim50').toReversed().slice(0, 3), [0, 20, 40]);
  assert.equal(respacedTimesteps(10, 'ddim4').toReversed(), [0, 3, 6, 9]);
  assert.equal(respacedTimesteps(1000, '5').toReversed(), [0, 250, 500, 749, 999]); // 749.25; 499.5 goes to the even 500, 249.75 up
  // 300 timesteps: [10, 15, 20] keeps 10 of the first 100, 15 of the second, 20 of the third.
  const list = respacedTimesteps(300, '10,15,20').toReversed();
  assert.equal(list.slice(0, 10), [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]);
  assert.equal([list[10], list[24], list[25], list[44], list.length], [100, 199, 200, 299, 45]);
  assert.equal(respacedTimesteps(10, '3,2').toReversed(), [0, 2, 4, 5, 9]);
  assert.equal(respacedTimesteps(11, '1,1').toReversed(), [0, 6], 'the first sections take what is left over');
  refuses(() => respacedTimesteps(1000, 'ddim300'), 'no whole stride leaves 300');
  refuses(() => respacedTimesteps(10, '3,6'), 'section 2, which has 5');
  refuses(() => respacedTimesteps(10, '3,0'), 'wants 0');
  refuses(() => respacedTimesteps(10, 'every2'), 'ddim50', '10,20,30');
});

// --------------------------------------------------------------------------------------------------------------------- order of error
// So many timesteps that a step is never a timestep, and a schedule as smooth.
const fine = makeSchedule(Float64Array.from({ length: 32_000 }, (_, t) => (1e-4 + (0.02 - 1e-4) * (t / 32_000)) / 32));
const gaussian = new Gaussian(fine, 0.3, 0.5);

for (const [method, order] of [['ddim', 1], ['dpm++1', 1], ['dpm++2m', 2], ['heun', 2]] as const)
  test(`${method} has an error of order ${order} on data whose flow is known`, () => {
    const first = 30_000, end = 6_000, errors: number[] = [];
    for (const steps of [10, 20, 40, 80, 160]) {
      // Even steps in log(alpha / sigma), which is where the solvers are smooth.
      const lambda = (t: number): number => 0.5 * Math.log(fine.alphasCumprod[t]! / (1 - fine.alphasCumprod[t]!));
      const list = Array.from({ length: steps + 1 }, (_, i) => {
        const wanted = lambda(first) + (i / steps) * (lambda(end) - lambda(first));
        return fine.alphasCumprod.findIndex((_, t) => lambda(t) <= wanted);
      });
      const { rows } = samplerTable(fine, 'eps', { method, timesteps: list }), x0 = Float64Array.of(-1.5, 0.4, 2);
      // Up to the row that arrives at the last timestep; the one after it goes to x_0.
      const arrived = rows.findLastIndex((row) => row.to === list[steps]), got = runTable(rows, x0, gaussian.model)[arrived]!;
      errors.push(Math.max(...got.map((v, i) => Math.abs(v - gaussian.flow(x0[i]!, list[0]!, list[steps]!)))));
    }
    const slopes = errors.slice(1).map((e, i) => Math.log2(errors[i]! / e));
    console.log(`  ${method}: errors ${errors.map((e) => e.toExponential(1)).join(', ')}; orders ${slopes.map((s) => s.toFixed(2)).join(', ')}`);
    near(slopes.at(-1)!, order, 0.1, `order between 80 and 160 steps`);
  });

test('ddim inversion goes up the same flow, and down again to where it started', () => {
  const errors = [20, 40, 80].map((steps) => {
    const list = timesteps(32_000, steps).map((t) => t + 200), c: Chain = { schedule: fine, prediction: 'eps', timesteps: list, final: -1 }, x0 = Float64Array.of(-0.9, 0.1, 0.8);
    const up = ddimInverseRows(c);
    assert.equal(up.map((r) => r.to), list.toReversed(), 'up through the same timesteps');
    const latent = runTable(up, x0, gaussian.model).at(-1)!, back = runTable(ddimRows(c), latent, gaussian.model).at(-1)!;
    return [Math.max(...latent.map((v, i) => Math.abs(v - gaussian.flow(x0[i]!, -1, list[0]!)))), Math.max(...back.map((v, i) => Math.abs(v - x0[i]!)))] as const;
  });
  console.log(`  latents off by ${errors.map(([e]) => e.toExponential(1)).join(', ')}; reconstructions by ${errors.map(([, e]) => e.toExponential(1)).join(', ')}`);
  for (const i of [0, 1]) for (const k of [0, 1]) assert.ok(errors[i]![k]! / errors[i + 1]![k]! > 1.6, `error ${k} halves as the steps do`);
});

test('what it cannot do is refused', () => {
  const make = (options: object) => () => samplerTable(linear, 'eps', options as TableOptions);
  refuses(make({ method: 'euler' }), 'no sampler "euler"', 'ddpm, ddim, dpm++1, dpm++2m, heun, langevin');
  refuses(make({ method: 'heun', eta: 0.5 }), 'eta belongs to the ddim sampler; heun');
  refuses(make({ method: 'ddim', snr: 0.1 }), 'snr belongs to the langevin sampler');
  refuses(make({ method: 'ddim', eta: 1.5 }), 'eta is 1.5');
  refuses(make({ method: 'ddim', eta: NaN, steps: 3 }), 'eta is NaN');
  refuses(make({ method: 'ddim', timesteps: [] }), 'empty');
  refuses(make({ method: 'ddim', timesteps: [3, 5] }), 'must fall', '3 is followed by 5');
  refuses(make({ method: 'ddim', timesteps: [1000, 5] }), '0 to 999');
  refuses(make({ method: 'ddim', timesteps: [50, 5], steps: 3 }), '3 steps and a list of 2');
  refuses(make({ method: 'ddim', spacing: 'cosine' }), 'no timestep spacing "cosine"', 'karras');
  refuses(make({ method: 'heun', steps: 1001 }), '1001 steps');
  refuses(make({ method: 'heun', rho: 0 }), 'rho is 0');
  refuses(make({ method: 'langevin', snr: 1 }), 'between 0 and 1');
  refuses(make({ method: 'langevin', innerSteps: 0.5 }), 'whole number');
  refuses(() => solverTimesteps(linear, 1000, 'leading'), 'leading', 'linspace');
});
test.run();
