// Group norm against its float64 twin: scalar and vec4 kernels, workgroups of 8, 64 and 256, on one group and on several, one input and two, alone and with SiLU.
import * as assert from 'uvu/assert';
import { fold } from '../../src/folds.ts';
import type { Choice } from '../../src/gpu/choices.ts';
import type { DeviceClass } from '../../src/gpu/device-class.ts';
import { film } from '../../src/ops/film.ts';
import * as k from '../../src/gpu/kernels.gen.ts';
import { groupNorm, neighbours, normOverrides } from '../../src/ops/group_norm.ts';
import { add as addOp, dropout } from '../../src/ops/pointwise.ts';
import { Tensor } from '../../src/tensor.ts';
import { abs, assertClose, bound } from '../helpers/close.ts';
import { assertError, clockAt, destination, differentiate, gpuSuite, random, upload } from '../helpers/gpu.ts';
import * as filmTwin from '../ref/film.ts';
import { type GroupNorm, groupNorm as forwardTwin, groupNormBackward } from '../ref/group_norm.ts';
import { groupNormErrors } from '../ref/accuracy.ts';
import { add } from '../ref/pointwise.ts';

interface Case {
  what: string;
  N: number;
  P: number;
  C0: number;
  C1: number;
  G: number;
  /** Columns that a workgroup of 64 reads side by side, too, of one group or of several; where there are 65 pixels, one of 256 as well. */
  wide?: number;
  /** Added to every x: a mean that is large beside the deviation. */
  mean?: number;
}

const cases: Case[] = [
  { what: 'scalar, odd', N: 2, P: 15, C0: 6, C1: 0, G: 3, wide: 6 },
  { what: 'scalar, one group', N: 1, P: 70, C0: 5, C1: 0, G: 1 },
  { what: 'scalar, two inputs, a group across both', N: 2, P: 11, C0: 5, C1: 4, G: 3, wide: 8 },
  { what: 'vec4', N: 2, P: 35, C0: 16, C1: 0, G: 2 },
  { what: 'vec4, more pixels than three times the lanes of the largest workgroup, which take four at a time', N: 1, P: 421, C0: 16, C1: 0, G: 4, wide: 4 },
  { what: 'vec4, two inputs, a group across both', N: 2, P: 35, C0: 12, C1: 12, G: 3 },
  { what: 'vec4, two inputs of different width', N: 3, P: 9, C0: 8, C1: 4, G: 1, wide: 2 },
  { what: 'vec4, six groups, two at a time', N: 2, P: 70, C0: 24, C1: 0, G: 6, wide: 2 },
  { what: 'vec4, two inputs, two groups of three columns at a time, across both, as many pixels', N: 1, P: 141, C0: 32, C1: 16, G: 4, wide: 4 },
  { what: 'scalar, mean 1000 at deviation 1', N: 1, P: 20, C0: 6, C1: 0, G: 2, mean: 1000 },
  { what: 'vec4, mean 1000 at deviation 1', N: 1, P: 20, C0: 8, C1: 0, G: 2, wide: 2, mean: 1000 },
];

const inputsOf = ({ N, P, C0, C1, mean = 0 }: Case) => ({
  x: random(N * P * C0, 0).map((v) => v + mean),
  x2: random(N * P * C1, 1).map((v) => 2 * v + 0.5 + mean),
  gamma: random(C0 + C1, 2).map((v) => 1 + 0.3 * v),
  beta: random(C0 + C1, 3),
  dy: random(N * P * (C0 + C1), 4),
});

// -------------------------------------------------------------------------------------------------------------------- the kernels alone
const kernels = gpuSuite('group norm kernels');
for (const s of cases) {
  const { N, P, C0, C1, G } = s, C = C0 + C1, vec4 = s.what.startsWith('vec4');
  for (const silu of [false, true])
    kernels(`${s.what}${silu ? ', with SiLU' : ''}`, async (engine) => {
      const { x, x2, gamma, beta, dy } = inputsOf(s), eps = 1e-5;
      const a: GroupNorm = { x, x2: C1 ? x2 : undefined, gamma, beta, N, P, C0, C1, G, eps, silu };
      const want = { ...forwardTwin(a), ...groupNormBackward({ ...a, dy }) }, atol = groupNormErrors(a, dy);
      const before = { dx: random(x.length, 5), dx2: random(x2.length, 6), dgamma: random(C, 7), dbeta: random(C, 8) };
      const first = upload(engine, [x.length], x);
      const inputs = { x: first.slice, x2: C1 ? upload(engine, [x2.length], x2).slice : first.slice, gamma: upload(engine, [C], gamma).slice, beta: upload(engine, [C], beta).slice };
      const tdy = upload(engine, [dy.length], dy).slice;
      // A workgroup of 8 is what CPUs use, or of 16 for two groups where subgroups have as many lanes, 64 what GPUs use, and 256 where there are many pixels; each must do for any size.
      const results: Float32Array[][] = [], of = (WG: number, wide: number) => ({ WG, ...neighbours(G, C / G / (vec4 ? 4 : 1), wide) }), pair = G % 2 === 0;
      for (const { WG, groups, columns } of [of(8, 1), ...(pair ? [{ WG: 16, groups: 2, columns: 2 }] : []), ...(s.wide ? [of(64, s.wide)] : []), ...(s.wide && P >= 65 ? [of(256, s.wide)] : [])]) {
        const grid = [G / groups, N] as const, read: Float32Array[] = [];
        results.push(read);
        // With TWO the gradient takes a second pass: it may stand on without a second input.
        const dims = { N, P, C0, C1, G, silu: Number(silu), eps, accumulate: 0, accumulate2: 0, per_image: 0, WG, GROUPS: groups, COLS: columns, TWO: Number(C1 > 0 || (!!s.mean && WG > 16)), stream: 0, p: 0 };
        const y = Tensor.empty(engine, [N * P * C]), stats = Tensor.empty(engine, [4 * N * G]), part = Tensor.empty(engine, [2 * N * C]);
        engine.run(vec4 ? k.group_norm_forward_vec4 : k.group_norm_forward, grid, { ...dims, ...inputs, clock: first.slice, y: y.slice, stats: stats.slice });
        read.push(await y.read());
        assertClose(read[0]!, want.y, { atol: atol.y, what: `WG ${WG}, ${columns} columns: y` });
        for (const accumulate of [0, 1]) {
          const place = (name: keyof typeof before, on: number) => destination(engine, [Math.max(1, before[name].length)], on && before[name].length ? before[name] : null);
          // The inputs' flags are independent: the second one adds where the first does not.
          const accumulate2 = 1 - accumulate, dx = place('dx', accumulate), dx2 = place('dx2', accumulate2), dgamma = place('dgamma', accumulate), dbeta = place('dbeta', accumulate);
          engine.run(vec4 ? k.group_norm_backward_vec4 : k.group_norm_backward, grid, { ...dims, ...inputs, dy: tdy, stats: stats.slice, part: part.slice, dx: dx.slice, accumulate });
          if (dims.TWO) engine.run(vec4 ? k.group_norm_backward_input_vec4 : k.group_norm_backward_input, grid, { ...dims, ...inputs, dy: tdy, stats: stats.slice, dx: dx.slice, dx2: dx2.slice, accumulate, accumulate2 });
          const terms = Tensor.empty(engine, part.shape), sums = { accumulate: accumulate as 0 | 1, terms: N, step: 2 * C, size: C };
          engine.copy(part.slice, terms.slice);
          fold(engine, terms.slice, [{ ...sums, y: dgamma.slice, from: 0 }, { ...sums, y: dbeta.slice, from: C }]);
          for (const [name, got, on] of [['dx', dx, accumulate], ['dx2', dx2, accumulate2], ['dgamma', dgamma, accumulate], ['dbeta', dbeta, accumulate]] as const) {
            if (name === 'dx2' && !C1) continue;
            const sum = on ? add(want[name], before[name]) : want[name];
            read.push(await got.read());
            assertClose(read.at(-1)!, sum, { atol: on ? add(atol[name], bound(1, sum.map(Math.abs))) : atol[name], what: `WG ${WG}, ${columns} columns: ${name}${on ? ' on top' : ''}` });
          }
        }
      }
      if (pair) assert.equal(results[1], results[0], 'the same bits');
    });
}
kernels.run();

// ---------------------------------------------------------------------------------------------------------------------- through the tape
const ops = gpuSuite('group norm as an op');
for (const s of [cases[0], cases[2], cases[3], cases[4], cases[5]]) {
  ops(s.what, async (engine) => {
    const { N, P, C0, C1, G } = s, C = C0 + C1, { x, x2, gamma, beta, dy } = inputsOf(s), eps = 1e-3;
    const t = [upload(engine, [N, P, 1, C0], x), upload(engine, [C], gamma), upload(engine, [C], beta)];
    if (C1) t.push(upload(engine, [N, P, 1, C1], x2));
    const { y, gradients } = await differentiate(t, () => groupNorm(C1 ? [t[0], t[3]] : t[0], t[1], t[2], { groups: G, eps, silu: true }), dy);
    const a: GroupNorm = { x, x2: C1 ? x2 : undefined, gamma, beta, N, P, C0, C1, G, eps, silu: true }, want = groupNormBackward({ ...a, dy }), atol = groupNormErrors(a, dy);
    assertClose(y, forwardTwin(a).y, { atol: atol.y, what: 'y' });
    (['dx', 'dgamma', 'dbeta', ...(C1 ? ['dx2' as const] : [])] as const).forEach((name, i) => assertClose(gradients[i], want[name], { atol: atol[name], what: name }));
  });
}

// A scale and an offset for each image: the twin is called image by image.
for (const s of [cases[0], cases[2], cases[3], cases[5], cases[6]])
  ops(`${s.what}, with gamma and beta for each image`, async (engine) => {
    const { N, P, C0, C1, G } = s, C = C0 + C1, { x, x2, dy } = inputsOf(s), eps = 1e-3;
    const affine = random(2 * N * C, 9);
    const t = [upload(engine, [N, P, 1, C0], x), upload(engine, [N, 2, C], affine)];
    if (C1) t.push(upload(engine, [N, P, 1, C1], x2));
    const got = await differentiate(t, () => groupNorm(C1 ? [t[0], t[2]] : t[0], t[1], null, { groups: G, eps, silu: true }), dy);
    // Used twice, its gradient is added to.
    const twice = await differentiate(t, () => {
      const norm = () => groupNorm(C1 ? [t[0], t[2]] : t[0], t[1], null, { groups: G, eps, silu: true });
      return addOp(norm(), norm());
    }, dy);
    for (let n = 0; n < N; n++) {
      const image = (v: Float32Array, width: number) => v.subarray(n * P * width, (n + 1) * P * width), rows = affine.subarray(2 * n * C, 2 * (n + 1) * C);
      const a: GroupNorm = { x: image(x, C0), x2: C1 ? image(x2, C1) : undefined, gamma: rows.subarray(0, C), beta: rows.subarray(C), N: 1, P, C0, C1, G, eps, silu: true };
      const d = image(dy, C), want = groupNormBackward({ ...a, dy: d }), atol = groupNormErrors(a, d);
      const dAffine = [...want.dgamma, ...want.dbeta], atolAffine = Float64Array.from([...atol.dgamma, ...atol.dbeta]);
      assertClose(image(got.y, C), forwardTwin(a).y, { atol: atol.y, what: `y of image ${n}` });
      assertClose(image(got.gradients[0], C0), want.dx, { atol: atol.dx, what: `dx of image ${n}` });
      assertClose(got.gradients[1].subarray(2 * n * C, 2 * (n + 1) * C), dAffine, { atol: atolAffine, what: `dgamma and dbeta of image ${n}` });
      assertClose(twice.gradients[1].subarray(2 * n * C, 2 * (n + 1) * C), dAffine.map((v) => 2 * v), { atol: atolAffine.map((v, i) => 2 * v + bound(1, [2 * Math.abs(dAffine[i])])[0]), what: `used twice, of image ${n}` });
      if (C1) assertClose(image(got.gradients[2], C1), want.dx2, { atol: atol.dx2, what: `dx2 of image ${n}` });
    }
  });

for (const [N, C] of [[1, 1], [3, 5], [5, 16], [2, 70]] as const)
  ops(`film: ${N} images, ${C} channels`, async (engine) => {
    const gamma = random(C, 0), beta = random(C, 1), scaleShift = random(2 * N * C, 2), dy = random(2 * N * C, 3), a = { gamma, beta, s: scaleShift, N, C };
    const t = [upload(engine, [C], gamma), upload(engine, [C], beta), upload(engine, [N, 2 * C], scaleShift)];
    const size = { ...a, gamma: abs(gamma), beta: abs(beta), s: abs(scaleShift) }, sizes = filmTwin.filmBackward({ ...size, dy: abs(dy) });
    const { y, gradients } = await differentiate(t, () => film(t[0], t[1], t[2]), dy);
    assertClose(y, filmTwin.film(a), { atol: bound(3, filmTwin.film(size)), what: 'y' });
    const want = filmTwin.filmBackward({ ...a, dy });
    (['dgamma', 'dbeta', 'ds'] as const).forEach((name, i) => assertClose(gradients[i], want[name], { atol: bound(2 * N + 1, sizes[name]), what: name }));
    // On top of what is there, and for one of the weights only.
    const { gradients: twice } = await differentiate(t, () => addOp(film(t[0], t[1], t[2]), film(t[0], t[1], t[2])), dy);
    (['dgamma', 'dbeta', 'ds'] as const).forEach((name, i) => assertClose(twice[i], want[name].map((v) => 2 * v), { atol: bound(2 * N + 2, sizes[name].map((v) => 2 * v)), what: `${name}, used twice` }));
    for (const wanted of [0, 1, 2]) {
      t.forEach((each) => (each.requiresGrad = false));
      const { gradients: alone } = await differentiate([t[wanted]], () => film(t[0], t[1], t[2]), dy);
      assert.equal(alone[0], gradients[wanted]);
    }
    await assertError(() => film(t[0], t[1], t[0]), 'E-SHAPE', /film: scales and shifts \(\d+\) do not fit/);
  });

// With dropout inside: what groupNorm and dropout, one after the other, give and get.
for (const s of [cases[0], cases[2], cases[3], cases[4], cases[5]])
  for (const perImage of [false, true])
    ops(`${s.what}, with dropout${perImage ? ' and gamma and beta for each image' : ''}`, async (engine) => {
      const { N, P, C0, C1, G } = s, C = C0 + C1, { x, x2, gamma, beta, dy } = inputsOf(s), options = { groups: G, silu: true };
      const t = [upload(engine, [N, P, 1, C0], x), ...(perImage ? [upload(engine, [N, 2, C], random(2 * N * C, 9))] : [upload(engine, [C], gamma), upload(engine, [C], beta)])];
      if (C1) t.push(upload(engine, [N, P, 1, C1], x2));
      const input = C1 ? ([t[0], t.at(-1)!] as const) : t[0], clock = clockAt(engine, { seed: 7, step: 3, first: 5 }), drop = { p: 0.3, clock, stream: 270 };
      const fused = await differentiate(t, () => groupNorm(input, t[1], perImage ? null : t[2], { ...options, dropout: drop }), dy);
      const apart = await differentiate(t, () => dropout(groupNorm(input, t[1], perImage ? null : t[2], options), drop.p, clock, drop.stream), dy);
      assert.ok(fused.y.some((v) => v === 0) && fused.y.some((v) => v !== 0));
      // Each is off by its bound, which the mask scales by 1 / 0.7.
      const a: GroupNorm = { x, x2: C1 ? x2 : undefined, gamma, beta, N, P, C0, C1, G, eps: 1e-5, silu: true }, atol = groupNormErrors(a, dy);
      fused.y.forEach((v, i) => assert.is(v === 0, apart.y[i] === 0, `the mask at ${i}`));
      assertClose(fused.y, Float64Array.from(apart.y), { rtol: 1e-6, atol: atol.y.map((v) => 3 * v), what: 'y' });
      (perImage ? [] : (['dx', 'dgamma', 'dbeta', ...(C1 ? ['dx2' as const] : [])] as const)).forEach((name, i) => assertClose(fused.gradients[i], Float64Array.from(apart.gradients[i]), { rtol: 1e-6, atol: atol[name].map((v) => 3 * v), what: name }));
      if (perImage) fused.gradients.forEach((got, i) => assert.equal(got, apart.gradients[i], `gradient ${i}`));
    });

// What GPUs launch, through the tape, against what CPUs do, with one mask of dropout: the same sums in another order.
for (const s of [cases[0], cases[7], cases[8]])
  ops(`${s.what}, columns side by side`, async (engine) => {
    const { N, P, C0, C1, G } = s, C = C0 + C1, { x, x2, gamma, beta, dy } = inputsOf(s), dropout = { p: 0.3, clock: clockAt(engine, { seed: 7, step: 3, first: 5 }), stream: 270 };
    const t = [upload(engine, [N, P, 1, C0], x), upload(engine, [C], gamma), upload(engine, [C], beta), ...(C1 ? [upload(engine, [N, P, 1, C1], x2)] : [])];
    const atol = groupNormErrors({ x, x2: C1 ? x2 : undefined, gamma, beta, N, P, C0, C1, G, eps: 1e-5, silu: true }, dy);
    const compute = (choice: Choice) => {
      for (const op of ['group_norm_forward', 'group_norm_backward']) engine.choices.force(op, { P, C0, C1, G }, choice);
      return differentiate(t, () => groupNorm(C1 ? [t[0], t[3]] : t[0], t[1], t[2], { groups: G, silu: true, dropout }), dy);
    };
    const wide = await compute({ workgroup: 64, columns: s.wide! }), usual = await compute({ workgroup: 8 });
    // Each is off by its bound, which the mask scales by 1 / 0.7.
    const close = (got: Float32Array, want: Float32Array, name: keyof typeof atol) => assertClose(got, Float64Array.from(want), { atol: atol[name].map((v) => 3 * v), what: name });
    close(wide.y, usual.y, 'y');
    assert.ok(wide.y.some((v) => v === 0) && wide.y.some((v) => v !== 0));
    (['dx', 'dgamma', 'dbeta', ...(C1 ? ['dx2' as const] : [])] as const).forEach((name, i) => close(wide.gradients[i], usual.gradients[i], name));
  });

ops('neighbouring groups: as many columns as asked for, or the next number that divides the groups', () => {
  assert.equal([[32, 1, 1], [32, 1, 4], [32, 3, 4], [32, 4, 4], [32, 9, 4], [6, 1, 4], [3, 2, 8], [1, 5, 8]].map(([G, size, columns]) => Object.values(neighbours(G, size, columns))),
    [[1, 1], [4, 4], [2, 6], [1, 4], [1, 4], [3, 3], [3, 6], [1, 5]]);
});

ops('of subgroups of sixteen lanes a workgroup takes two groups, where there are two and nothing else was chosen', () => {
  const of = (deviceClass: DeviceClass, subgroupWidth: number, G: number, choice: { workgroup: number; columns?: number }) => Object.values(normOverrides({ deviceClass, subgroupWidth }, choice, G, 2));
  const eight = { workgroup: 8 };
  assert.equal(of('cpu-subgroups', 16, 4, eight), [16, 2, 2]);
  for (const [device, width, G, choice] of [['cpu-subgroups', 8, 4, eight], ['cpu-subgroups', 4, 4, eight], ['cpu', 16, 4, eight], ['gpu', 16, 4, eight], ['cpu-subgroups', 16, 3, eight], ['cpu-subgroups', 16, 4, { workgroup: 16 }]] as const)
    assert.equal(of(device, width, G, choice), [choice.workgroup, 1, 1], `${device} ${width} ${G}`);
  assert.equal(of('cpu-subgroups', 16, 4, { workgroup: 8, columns: 4 }), [8, 2, 4]);
});

ops('the gradient by one of two inputs only', async (engine) => {
  const { N, P, C0, C1, G } = cases[2], { x, x2, gamma, beta, dy } = inputsOf(cases[2]), C = C0 + C1;
  const [tx, tx2, tg, tb] = [upload(engine, [N, P, C0], x), upload(engine, [N, P, C1], x2), upload(engine, [C], gamma), upload(engine, [C], beta)];
  const a = { x, x2, gamma, beta, N, P, C0, C1, G, eps: 1e-5 }, want = groupNormBackward({ ...a, dy }), atol = groupNormErrors(a, dy);
  for (const [wanted, name] of [[tx, 'dx'], [tx2, 'dx2']] as const) {
    [tx, tx2].forEach((t) => (t.requiresGrad = false));
    const { gradients } = await differentiate([wanted], () => groupNorm([tx, tx2], tg, tb, { groups: G }), dy);
    assertClose(gradients[0], want[name], { atol: atol[name], what: name });
  }
});

ops('the gradient by gamma or beta only', async (engine) => {
  const { N, P, C0, G } = cases[0], { x, gamma, beta, dy } = inputsOf(cases[0]);
  const [tx, tg, tb] = [upload(engine, [N, P, C0], x), upload(engine, [C0], gamma), upload(engine, [C0], beta)];
  const a = { x, gamma, beta, N, P, C0, G, eps: 1e-5 }, want = groupNormBackward({ ...a, dy }), atol = groupNormErrors(a, dy);
  for (const [wanted, name] of [[tg, 'dgamma'], [tb, 'dbeta']] as const) {
    [tg, tb].forEach((t) => (t.requiresGrad = false));
    const { gradients } = await differentiate([wanted], () => groupNorm(tx, tg, tb, { groups: G }), dy);
    assertClose(gradients[0], want[name], { atol: atol[name], what: name });
  }
});

ops('a constant group is normalised to beta, and its rstd stays finite', async (engine) => {
  const x = upload(engine, [1, 4, 8], new Float32Array(32).fill(3)), gamma = upload(engine, [8], random(8, 0)), beta = random(8, 1);
  const y = groupNorm(x, gamma, upload(engine, [8], beta), { groups: 2 });
  assert.equal(await y.read(), Float32Array.from({ length: 32 }, (_, i) => beta[i % 8]));
});

ops('shapes that do not fit are refused', async (engine) => {
  const t = (...shape: number[]) => Tensor.empty(engine, shape), message = /groupNorm: 8 channels, \d groups and \d weights do not go together/;
  await assertError(() => groupNorm(t(1, 4, 8), t(8), t(8), { groups: 3 }), 'E-SHAPE', message);
  await assertError(() => groupNorm(t(1, 4, 8), t(4), t(4), { groups: 2 }), 'E-SHAPE', message);
  await assertError(() => groupNorm([t(1, 4, 4), t(1, 4, 4)], t(8), t(4), { groups: 2 }), 'E-SHAPE', message);
});
ops.run();
