// What each op refuses: shapes that do not go together are E-SHAPE, with the op's name and the shapes, before anything runs.
import * as assert from 'uvu/assert';
import { GaussianDiffusion } from '../../src/diffusion/gaussian.ts';
import { makeSchedule } from '../../src/diffusion/schedule.ts';
import type { Engine } from '../../src/gpu/engine.ts';
import * as ddpm from '../../src/index.ts';
import { embedding } from '../../src/ops/embedding.ts';
import { assertError, clockAt, gpuSuite } from '../helpers/gpu.ts';

const shapes = gpuSuite('shapes that do not go together');
type Make = (...shape: number[]) => ddpm.Tensor;

const REFUSED: Readonly<Record<string, readonly [call: (t: Make, engine: Engine) => unknown, message: RegExp]>> = {
  'mse: one size, two shapes': [(t) => ddpm.mse(t(2, 6), t(3, 4)), /squaredError takes .* one shape.*; it was given pred \(2, 6\), goal \(3, 4\)/],
  'mse: fewer images': [(t) => ddpm.mse(t(2, 4), t(1, 4)), /pred \(2, 4\), goal \(1, 4\)/],
  'squaredError: fewer channels than the goal': [(t) => ddpm.squaredError(t(2, 3, 3, 1), t(2, 3, 3, 2)), /or a prediction with more channels/],
  'smoothL1: another height': [(t) => ddpm.smoothL1(t(2, 4, 3, 1), t(2, 3, 3, 1), 1), /smoothL1 takes/],
  'variationalBound: fewer columns': [(t) => ddpm.variationalBound({ t: t(2), coef: t(2, 6), output: t(2, 3, 3, 1), x0: t(2, 3, 3, 1), xt: t(2, 3, 3, 1) }), /variationalBound takes t \(N\), coef \(N, 7 or more\)/],
  'variationalBound: three times the channels': [(t) => ddpm.variationalBound({ t: t(2), coef: t(2, 7), output: t(2, 3, 3, 3), x0: t(2, 3, 3, 1), xt: t(2, 3, 3, 1) }), /output \(2, 3, 3, 3\)/],
  'variationalBound: another x_t': [(t) => ddpm.variationalBound({ t: t(2), coef: t(2, 7), output: t(2, 3, 3, 2), x0: t(2, 3, 3, 1), xt: t(2, 3, 1, 3) }), /xt \(2, 3, 1, 3\)/],
  'variationalBound: fewer timesteps': [(t) => ddpm.variationalBound({ t: t(1), coef: t(1, 7), output: t(2, 3, 3, 2), x0: t(2, 3, 3, 1), xt: t(2, 3, 3, 1) }), /t \(1\)/],
  'objective: weights of another batch': [(t) => ddpm.objective(t(3), { weight: t(2) }), /objective takes terms and weights \(N\); it was given simple \(3\), weight \(2\)/],
  'objective: a second term of another batch': [(t) => ddpm.objective(t(3), { vlb: t(4), factors: { rows: t(3, 2), a: 0, b: 1 } }), /vlb \(4\)/],
  'objective: a column that is not there': [(t) => ddpm.objective(t(3), { factors: { rows: t(3, 2), a: 0, b: 2 } }), /factors \(N, K\) with the columns 0 and 2/],
  'attention: another value': [(t) => ddpm.attention(t(1, 4, 8), t(1, 4, 8), t(1, 5, 8), 2), /attention takes .* v \(1, 5, 8\)/],
  'attention: images': [(t) => ddpm.attention(t(1, 2, 2, 8), t(1, 2, 2, 8), t(1, 2, 2, 8), 2), /\(N, T, C\); it was given q \(1, 2, 2, 8\)/],
  'conv2d: a weight of three dimensions': [(t) => ddpm.conv2d(t(1, 4, 4, 8), t(3, 8, 4), null), /do not fit the weight \(3, 8, 4\)/],
  'conv2d: a window larger than the image': [(t) => ddpm.conv2d(t(1, 2, 2, 1), t(3, 3, 1, 1), null, { padding: [0, 0, 0, 0] }), /inputs \(1, 2, 2, 1\) do not fit the weight \(3, 3, 1, 1\)/],
  'conv2d: a bias of another width': [(t) => ddpm.conv2d(t(1, 4, 4, 1), t(3, 3, 1, 2), t(3)), /conv2d: bias \(3\) does not fit/],
  'linear: a 3 x 3 weight': [(t) => ddpm.linear(t(2, 4), t(3, 3, 4, 5), null), /linear: rows \(2, 4\) do not fit the weight \(3, 3, 4, 5\); it takes \(1, 1, 4, O\)/],
  'timestepEmbedding: frequencies of another size': [(t, e) => ddpm.timestepEmbedding(t(2), ddpm.placeFrequencies(e, { size: 8, flipSinToCos: true, freqShift: 0 }), { size: 16, flipSinToCos: true, freqShift: 0 }), /timestepEmbedding takes frequencies \(8, 2\)/],
  'embedding: a table of one dimension': [(t) => embedding(t(2), t(8)), /embedding takes a table \(K, C\)/],
  'gatherRows: a table of one dimension': [(t) => ddpm.gatherRows(t(8), t(2)), /gatherRows takes a table \(T, K\)/],
  'groupNorm: inputs of two sizes': [(t) => ddpm.groupNorm([t(1, 4, 4, 4), t(1, 2, 2, 4)], t(8), t(8), { groups: 2 }), /groupNorm takes two inputs/],
  'add: one size, two shapes': [(t) => ddpm.add(t(2, 3), t(3, 2)), /add: \(3, 2\) cannot be added to \(2, 3\)/],
  'upsample: rows': [(t) => ddpm.upsample(t(2, 3)), /upsample takes images \(N, H, W, C\); it was given x \(2, 3\)/],
  'DeviceImages: bytes that are missing': [(_, e) => new ddpm.DeviceImages(e, { count: 2, height: 2, width: 2, channels: 1, pixels: new Uint8Array(7) }, false), /2 images of 2 x 2 x 1 have 8 bytes; 7 were given/],
  'DeviceImages: labels that are missing': [(_, e) => new ddpm.DeviceImages(e, { count: 2, height: 2, width: 2, channels: 1, pixels: new Uint8Array(8), labels: [1] }, false), /and 1 labels/],
};

for (const [what, [call, message]] of Object.entries(REFUSED))
  shapes(what, (engine) => assertError(() => call((...shape) => ddpm.Tensor.empty(engine, shape), engine), 'E-SHAPE', message));

shapes('diffusion: timesteps, noise and outputs that do not go with the images', async (engine) => {
  const diffusion = new GaussianDiffusion(engine, makeSchedule({ name: 'cosine', T: 10 })), t: Make = (...shape) => ddpm.Tensor.empty(engine, shape);
  const x = t(2, 3, 3, 1), clock = clockAt(engine, { seed: 1, step: 1 }), one = /one timestep for each image; it was given x \(2, 3, 3, 1\), t \(1\)/;
  await assertError(() => diffusion.qSampleTarget(x, t(1), clock), 'E-SHAPE', one);
  await assertError(() => diffusion.pSample(() => x, x, t(1), { clock }), 'E-SHAPE', one);
  await assertError(() => diffusion.selfCondition(x, x, t(1), clock), 'E-SHAPE', one);
  await assertError(() => diffusion.posteriorStep(x, x, t(2), t(2, 9), { clock }), 'E-SHAPE', /predXstart \(2, 9\)/);
  await assertError(() => diffusion.pSample(() => x, x, t(2), { noise: t(1, 3, 3, 1) }), 'E-SHAPE', /noise \(1, 3, 3, 1\)/);
  await assertError(() => diffusion.qSample(x, t(2), t(2, 3, 3, 2)), 'E-SHAPE', /do not go together/);
});

shapes('what goes together is taken', (engine) => {
  const t: Make = (...shape) => ddpm.Tensor.empty(engine, shape);
  assert.equal(ddpm.add(t(2, 3, 3, 4), t(2, 4)).shape, [2, 3, 3, 4]);
  assert.equal(ddpm.squaredError(t(2, 3, 3, 2), t(2, 3, 3, 1)).shape, [2]);
  assert.equal(ddpm.linear(t(2, 5, 4), t(1, 1, 4, 3), null).shape, [2, 5, 3]);
});

shapes.run();
