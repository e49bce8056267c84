// Labels, global average pooling and cross-entropy against their float64 twins, forward and backward.
import * as assert from 'uvu/assert';
import * as k from '../../src/gpu/kernels.gen.ts';
import { Tape, threads } from '../../src/autograd.ts';
import { crossEntropy, gatherIntegers, meanPixels } from '../../src/ops/classification.ts';
import { assertClose, bound } from '../helpers/close.ts';
import { assertError, destination, differentiate, DIVIDE, expUlps, gpuSuite, logError, random, readWords, ULP, upload } from '../helpers/gpu.ts';
import * as twin from '../ref/classification.ts';
import { softmax } from '../ref/softmax.ts';

const ops = gpuSuite('classification');

ops('gathers labels, whichever and however many', async (engine) => {
  const table = Uint32Array.from({ length: 300 }, (_, i) => (i * 7919) % 1000), index = Uint32Array.from({ length: 130 }, (_, i) => (i * 37) % 300);
  const y = gatherIntegers(upload(engine, [300], table), upload(engine, [130], index));
  assert.equal([...(await readWords(y))], [...index].map((i) => table[i]));
});

for (const [N, H, W, C] of [[1, 1, 1, 1], [3, 7, 5, 3], [2, 9, 9, 68]])
  ops(`mean of ${N} x ${H} x ${W} x ${C}`, async (engine) => {
    const P = H * W, x = random(N * P * C, 0), dy = random(N * C, 1), input = upload(engine, [N, H, W, C], x);
    const { y, gradients } = await differentiate([input], () => meanPixels(input), dy);
    assertClose(y, twin.meanPixels(x, N, P, C), { atol: bound(P + 4, twin.meanPixels(x.map(Math.abs), N, P, C)), what: 'y' });
    const dx = twin.meanPixelsBackward(dy, N, P, C);
    assertClose(gradients[0], dx, { rtol: DIVIDE, what: 'dx' });
    const before = random(x.length, 2), out = destination(engine, [x.length], before);
    engine.run(k.mean_pixels_backward, threads(x.length), { dy: upload(engine, [N * C], dy).slice, dx: out.slice, N, P, C, accumulate: 1 });
    assertClose(await out.read(), dx.map((v, i) => v + before[i]), { atol: dx.map((v, i) => DIVIDE * Math.abs(v) + ULP * (Math.abs(v) + Math.abs(before[i]))), what: 'dx on top' });
  });

for (const [N, C, scale] of [[1, 1, 1], [5, 3, 1], [70, 10, 3], [3, 101, 30]])
  ops(`cross-entropy of ${N} images and ${C} classes, logits of ${scale}`, async (engine) => {
    const x = random(N * C, 3).map((v) => scale * v), label = Uint32Array.from({ length: N }, (_, n) => (n * 13 + 1) % C);
    const tape = new Tape(engine), logits = upload(engine, [N, C], x);
    logits.requiresGrad = true;
    const loss = tape.record(() => crossEntropy(logits, upload(engine, [N], label)));
    tape.backward(loss);
    // Row by row: the exponents are rounded differences, their sum adds C roundings, then comes the logarithm.
    const top = (n: number): number => Math.max(...x.subarray(n * C, (n + 1) * C)), spread = (i: number): number => top(Math.floor(i / C)) - x[i];
    const p = softmax(x, N, C);
    const sumError = (n: number): number => p.subarray(n * C, (n + 1) * C).reduce((sum, v, c) => sum + v * ULP * (expUlps(spread(n * C + c)) + spread(n * C + c)), 0) + C * ULP;
    const want = twin.crossEntropy(x, label, N, C);
    let error = 0;
    for (let n = 0; n < N; n++) {
      const own = spread(n * C + label[n]);
      error += (sumError(n) + logError(Math.exp(0) / p[n * C + x.subarray(n * C, (n + 1) * C).indexOf(top(n))]) + 2 * ULP * own) / N;
    }
    assertClose(await loss.read(), [want], { atol: error + N * ULP * want, what: 'loss' });

    const atol = (dloss: number) => Float64Array.from(p, (v, i) => (dloss / N) * (v * (ULP * (expUlps(spread(i)) + spread(i)) + sumError(Math.floor(i / C)) + DIVIDE) + ULP + DIVIDE * Math.abs(v - Number(i % C === label[Math.floor(i / C)]))));
    assertClose(await tape.gradient(logits).read(), twin.crossEntropyBackward(x, label, N, C), { atol: atol(1), what: 'dx' });

    const before = random(N * C, 4), out = destination(engine, [N * C], before);
    engine.run(k.cross_entropy_backward, threads(N), {
      x: logits.slice, label: upload(engine, [N], label).slice, dloss: upload(engine, [1], Float32Array.of(3)).slice, dx: out.slice, N, C, accumulate: 1,
    });
    const added = twin.crossEntropyBackward(x, label, N, C, 3).map((v, i) => v + before[i]);
    assertClose(await out.read(), added, { atol: atol(3).map((v, i) => v + ULP * (Math.abs(before[i]) + 3)), what: 'dx on top' });
  });

ops('the twin of the gradient is that of the twin, by finite differences', () => {
  const N = 4, C = 5, x = Float64Array.from(random(N * C, 5)), label = [0, 4, 2, 2], h = 1e-5;
  const numeric = x.map((_, i) => {
    const at = (d: number): number => twin.crossEntropy(x.map((v, j) => (j === i ? v + d : v)), label, N, C);
    return (at(h) - at(-h)) / (2 * h);
  });
  assertClose(twin.crossEntropyBackward(x, label, N, C), numeric, { atol: 1e-9, what: 'dx' });
});

ops('shapes that do not fit are refused', async (engine) => {
  const logits = upload(engine, [2, 3], random(6, 0));
  await assertError(() => crossEntropy(logits, upload(engine, [3], Uint32Array.of(0, 1, 2))), 'E-SHAPE', /crossEntropy: logits \(2, 3\) and 3 labels/);
});
ops.run();
