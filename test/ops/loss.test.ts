// Mean squared error and its gradient against their float64 twins.
import * as k from '../../src/gpu/kernels.gen.ts';
import { pointwise, Tape } from '../../src/autograd.ts';
import { mse } from '../../src/ops/loss.ts';
import { Tensor } from '../../src/tensor.ts';
import { assertClose, bound } from '../helpers/close.ts';
import { destination, gpuSuite, random, upload } from '../helpers/gpu.ts';
import * as twin from '../ref/diffusion.ts';

const loss = gpuSuite('mean squared error');

for (const [N, size] of [[1, 1], [3, 7], [70, 65], [2, 784]])
  loss(`${N} images of ${size}`, async (engine) => {
    const pred = random(N * size, 0), goal = random(N * size, 1).map((v) => 0.9 * v + 0.1), each = Tensor.empty(engine, [N]);
    const t = upload(engine, [N, size], pred), tg = upload(engine, [N, size], goal), tape = new Tape(engine);
    t.requiresGrad = true;
    const y = tape.record(() => mse(t, tg, each));
    tape.backward(y);
    // A difference rounds by half a unit of itself, so its square by three halves; nothing cancels in the sum.
    const row = (v: Float32Array, n: number) => v.subarray(n * size, (n + 1) * size), want = Float64Array.from({ length: N }, (_, n) => twin.mse(row(pred, n), row(goal, n)));
    assertClose(await each.read(), want, { atol: bound(size + 2, want), what: 'each image' });
    const mean = twin.mse(pred, goal);
    assertClose(await y.read(), [mean], { atol: bound(N * size + 2, [mean]), what: 'loss' });
    const dpred = twin.mseGrad(pred, goal);
    assertClose(await tape.gradient(t).read(), dpred, { atol: bound(4, dpred.map(Math.abs)), what: 'dpred' });
  });

loss('the backward scales by dloss and adds where asked', async (engine) => {
  const size = 13, pred = random(size, 0), goal = random(size, 1), before = random(size, 2), dloss = Float32Array.of(3);
  const out = destination(engine, [size], before);
  engine.run(k.mse_backward, pointwise(size), {
    pred: upload(engine, [size], pred).slice, goal: upload(engine, [size], goal).slice, dloss: upload(engine, [1], dloss).slice, dpred: out.slice, size, accumulate: 1,
  });
  const d = twin.mseGrad(pred, goal, 3);
  assertClose(await out.read(), d.map((v, i) => v + before[i]), { atol: bound(5, d.map((v, i) => Math.abs(v) + Math.abs(before[i]))), what: 'dpred' });
});
loss.run();
