// ReLU, pooling, resizing and concatenation against their float64 twins, on odd shapes.
import * as assert from 'uvu/assert';
import { averagePool, concatenate, maxPool, relu, resizeBilinear } from '../../src/ops/pool.ts';
import { abs, assertClose, bound } from '../helpers/close.ts';
import { assertError, gpuSuite, random, upload } from '../helpers/gpu.ts';
import { concatChannels } from '../ref/pointwise.ts';
import * as twin from '../ref/pool.ts';

const ops = gpuSuite('pooling and resizing');

ops('relu, for lengths that four does not divide', async (engine) => {
  for (const n of [1, 4, 515]) {
    const x = random(n, 0);
    assert.equal(await relu(upload(engine, [n], x)).read(), x.map((v) => Math.max(v, 0)));
  }
});

for (const [N, H, W, C, K, stride, pad] of [[1, 3, 3, 1, 3, 2, 0], [2, 7, 9, 5, 3, 2, 0], [1, 35, 35, 12, 3, 2, 0], [2, 5, 4, 8, 3, 1, 1], [3, 1, 2, 3, 3, 1, 1], [1, 8, 8, 4, 2, 2, 0], [1, 6, 5, 2, 5, 1, 2]])
  ops(`${K} x ${K}, stride ${stride}, padding ${pad}: ${N} x ${H} x ${W} x ${C}`, async (engine) => {
    // All below zero: padding that counted as zero would win every maximum.
    const x = random(N * H * W * C, 1).map((v) => -Math.abs(v) - 1), s = { N, H, W, C, K, stride, pad }, input = upload(engine, [N, H, W, C], x), options = { kernel: K, stride, padding: pad };
    const max = maxPool(input, options), average = averagePool(input, options);
    assert.equal(Float64Array.from(await max.read()), twin.maxPool(s, x));
    assertClose(await average.read(), twin.averagePool(s, x), { atol: bound(K * K + 6, abs(twin.averagePool(s, x))), what: 'average' });
    assert.equal(max.shape, average.shape);
  });

for (const [N, H, W, C, OH, OW] of [[1, 1, 1, 1, 3, 5], [2, 4, 5, 3, 11, 9], [1, 32, 32, 3, 61, 62], [2, 9, 7, 5, 3, 7], [1, 6, 6, 4, 6, 6]])
  ops(`resize ${H} x ${W} to ${OH} x ${OW}`, async (engine) => {
    const x = random(N * H * W * C, 2), y = resizeBilinear(upload(engine, [N, H, W, C], x), OH, OW);
    assert.equal(y.shape, [N, OH, OW, C]);
    // Three interpolations; mix(a, b, t) may be computed as a (1 - t) + b t. The share rounds once, and counts by the difference of two neighbours.
    assertClose(await y.read(), twin.resizeBilinear(x, N, H, W, C, OH, OW), { atol: bound(12, twin.resizeBilinear(abs(x), N, H, W, C, OH, OW).map((v) => v + 2)), what: 'y' });
    if (OH === H && OW === W) assert.equal(await y.read(), x, 'its own size');
  });

ops('concatenates channels, in order', async (engine) => {
  const M = 15, parts = [[3, 0], [8, 1], [1, 2]].map(([C, id]) => ({ C, x: random(M * C, id) }));
  const y = concatenate(parts.map(({ C, x }) => upload(engine, [1, 3, 5, C], x)));
  assert.equal(y.shape, [1, 3, 5, 12]);
  assert.equal(Float64Array.from(await y.read()), concatChannels(concatChannels(parts[0].x, parts[1].x, M, 3, 8), parts[2].x, M, 11, 1));
});

ops('refuses what does not fit', async (engine) => {
  const x = upload(engine, [1, 2, 4, 1], random(8, 0));
  await assertError(() => maxPool(x, { kernel: 3 }), 'E-SHAPE', /pooling by 3 x 3 with a padding of 0 does not fit images of 2 x 4/);
  await assertError(() => averagePool(x, { kernel: 2, padding: 2 }), 'E-SHAPE', /padding of 2/);
  await assertError(() => concatenate([x, upload(engine, [1, 4, 2, 1], random(8, 0))]), 'E-SHAPE', /differ in more than their channels/);
});
ops.run();
