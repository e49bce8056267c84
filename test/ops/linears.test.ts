// Linear layers as one product, against the float64 twin of each and bit for bit where nothing is cut; parts of a result on the tape.
import * as assert from 'uvu/assert';
import { linears } from '../../src/ops/linears.ts';
import { linear } from '../../src/ops/conv2d.ts';
import { add } from '../../src/ops/pointwise.ts';
import { Tensor } from '../../src/tensor.ts';
import { abs, assertClose, bound } from '../helpers/close.ts';
import { assertError, differentiate, gpuSuite, random, upload } from '../helpers/gpu.ts';
import { linear as linearTwin, linearBackward } from '../ref/matmul.ts';

type Floats = ArrayLike<number>;
const suite = gpuSuite('linears');

/** (rows, columns) -> (columns, rows): the twin's weights are PyTorch's. */
const turn = (v: Floats, rows: number, columns: number) => Float64Array.from({ length: v.length }, (_, i) => v[(i % rows) * columns + Math.floor(i / rows)]!);

// Rows below and above one workgroup, channels that are multiples of four and not, enough rows for a split sum.
for (const [M, I, widths] of [[3, 5, [6, 6, 9]], [70, 8, [12, 12, 4]], [600, 16, [4, 4, 20]], [1, 4, [64, 64, 1]]] as const)
  suite(`${M} rows of ${I} to ${widths.join(', ')}`, async (engine) => {
    const x = random(M * I, 0), W = widths.map((O, j) => random(I * O, 1 + j)), B = widths.map((O, j) => random(O, 5 + j)), dy = random(M * widths[0], 9);
    const t = [upload(engine, [M, I], x), ...W.map((w, j) => upload(engine, [1, 1, I, widths[j]!], w)), ...B.map((b) => upload(engine, [b.length], b))];
    // The first two are used, one of them twice and one by an op that hands its gradient on; the third has no part in the loss.
    const third = Tensor.empty(engine, [M, widths[2]]);
    const { y, gradients } = await differentiate(t, () => {
      const [a, b, c] = linears(t[0]!, widths.map((_, j) => ({ w: t[1 + j]!, bias: t[4 + j]! }))) as [Tensor, Tensor, Tensor];
      engine.copy(c.slice, third.slice);
      return add(add(a, b), a);
    }, dy);
    const of = (f: (v: Floats) => Floats) => {
      const two = Float64Array.from(f(dy), (v) => 2 * v), w = W.map((v, j) => turn(f(v), I, widths[j]!));
      const forward = w.map((v, j) => linearTwin(f(x), v, f(B[j]!), M, I, widths[j]!));
      const back = [linearBackward(f(x), w[0]!, two, M, I, widths[0]), linearBackward(f(x), w[1]!, f(dy), M, I, widths[1])];
      return {
        y: forward[0]!.map((v, i) => 2 * v + forward[1]![i]!),
        gradients: [back[0]!.dx.map((v, i) => v + back[1]!.dx[i]!), turn(back[0]!.dw, widths[0], I), turn(back[1]!.dw, widths[1], I), null, back[0]!.dbias, back[1]!.dbias, null],
      };
    };
    const want = of((v) => v), size = of(abs);
    assertClose(y, want.y, { atol: bound(I + 3, size.y), what: 'y' });
    const c = linearTwin(x, turn(W[2]!, I, widths[2]), B[2]!, M, I, widths[2]), sizes = linearTwin(abs(x), turn(abs(W[2]!), I, widths[2]), abs(B[2]!), M, I, widths[2]);
    assertClose(await third.read(), c, { atol: bound(I + 1, sizes), what: 'the third result' });
    gradients.forEach((gradient, i) => {
      if (want.gradients[i]) assertClose(gradient, want.gradients[i]!, { atol: bound(Math.max(M, 2 * widths[0]) + 2, size.gradients[i]!), what: `gradient ${i}` });
      else assert.ok(gradient.every((v) => v === 0), `gradient ${i} of what nobody used is zero`);
    });
  });

suite('one at a time or together: the same bits', async (engine) => {
  const x = upload(engine, [20, 8], random(160, 0)), layers = [0, 1].map((j) => ({ w: upload(engine, [1, 1, 8, 16], random(128, 1 + j)), bias: upload(engine, [16], random(16, 3 + j)) }));
  const together = linears(x, layers);
  for (const [j, { w, bias }] of layers.entries()) assert.equal(await together[j]!.read(), await linear(x, w, bias).read());
});

suite('shapes that do not fit are refused', async (engine) => {
  const t = (...shape: number[]) => Tensor.empty(engine, shape);
  await assertError(() => linears(t(2, 8), [{ w: t(1, 1, 4, 8), bias: t(8) }]), 'E-SHAPE', /linears: the weight \(1, 1, 4, 8\) and the bias \(8\) do not fit the input \(2, 8\)/);
});
suite.run();
