// Sums folded many in one dispatch, against their float64 twin; and those that wait for the end of backward, bit for bit those that do not.
import * as assert from 'uvu/assert';
import { Tape } from '../src/autograd.ts';
import { fold, type Sum } from '../src/folds.ts';
import type { Engine } from '../src/gpu/engine.ts';
import { conv2d } from '../src/ops/conv2d.ts';
import { groupNorm } from '../src/ops/group_norm.ts';
import { ParameterTensor, Tensor } from '../src/tensor.ts';
import { assertClose, bound } from './helpers/close.ts';
import { given, gpuSuite, random, upload } from './helpers/gpu.ts';

const folds = gpuSuite('folds');

for (const accumulate of [0, 1] as const) for (const unit of [1, 4] as const)
  folds(`sums of different lengths in one dispatch${unit === 4 ? ', of fours' : ''}${accumulate ? ', on top of what is there' : ''}`, async (engine) => {
    const values = random(2000 * unit, 0), before = random(400 * unit, 1), y = upload(engine, [400 * unit], before);
    const at = (first: number, count: number) => ({ buffer: y.slice.buffer, offset: y.slice.offset + 4 * first, bytes: 4 * count });
    // One value, more than half of a workgroup, and rows of five in every seven, of which two stay as they were; or four of each.
    const shapes = [
      { first: 0, count: 1, from: 3, terms: 29, step: 2, size: 1 },
      { first: 64, count: 130, from: 20, terms: 9, step: 131, size: 130 },
      { first: 256, count: 144, from: 1500, terms: 3, step: 100, size: 85, row: 5, stride: 7, to: 2 },
    ].map(({ terms, ...lengths }) => ({ terms, ...(Object.fromEntries(Object.entries(lengths).map(([name, n]) => [name, unit * n])) as typeof lengths) }));
    const want = Float64Array.from(before), size = Float64Array.from(before, Math.abs);
    for (const { first, from, terms, step, size: count, row = count, stride = 0, to = 0 } of shapes)
      for (let i = 0; i < count; i++) {
        const j = first + to + Math.floor(i / row) * stride + (i % row), parts = Array.from({ length: terms }, (_, s) => values[from + s * step + i]!);
        want[j] = (accumulate ? before[j]! : 0) + parts.reduce((a, b) => a + b, 0);
        size[j] = Math.abs(before[j]!) + parts.reduce((a, b) => a + Math.abs(b), 0);
      }
    const { deviceClass } = engine, results: Float32Array[] = [];
    for (const as of [deviceClass, 'gpu'] as const) {
      engine.write(y.slice, before);
      Object.assign(engine, { deviceClass: as });
      try {
        fold(engine, upload(engine, [values.length], values).slice, shapes.map(({ first, count, ...sum }): Sum => ({ ...sum, y: at(first, count), accumulate })));
      } finally {
        Object.assign(engine, { deviceClass });
      }
      results.push(await y.read());
      assertClose(results.at(-1)!, want, { atol: bound(30, size), what: `y, as on ${as}` });
    }
    assert.equal(results[0], results[1], 'in the same order');
  });

/** Gradients of conv(conv(norm(x))), the same convolution twice: of parameters, whose sums wait, or of plain tensors, whose do not. */
async function gradients(engine: Engine, C: number, late: boolean): Promise<Float32Array[]> {
  const shapes = [[3, 3, C, C], [C], [C], [C]], total = shapes.map((s) => Math.ceil(s.reduce((a, b) => a * b) / 64) * 64);
  const flat = upload(engine, [total.reduce((a, b) => a + b)], random(total.reduce((a, b) => a + b), 9));
  let first = 0;
  const weights = shapes.map((shape, i) => {
    const values = upload(engine, shape, random(shape.reduce((a, b) => a * b), i)), grad = { buffer: flat.slice.buffer, offset: flat.slice.offset + 4 * first, bytes: values.slice.bytes };
    first += total[i]!;
    if (!late) values.requiresGrad = true;
    return late ? new ParameterTensor(engine, shape, values.slice, `p${i}`, grad) : values;
  });
  const [w, b, gamma, beta] = weights as [Tensor, Tensor, Tensor, Tensor];
  const x = upload(engine, [2, 12, 24, C], random(2 * 12 * 24 * C, 5)), tape = new Tape(engine);
  const loss = tape.record(() => given(conv2d(conv2d(groupNorm(x, gamma, beta, { groups: 2 }), w, b), w, b), random(x.size, 6)));
  tape.backward(loss);
  return Promise.all(weights.map((p) => (late ? engine.read((p as ParameterTensor).grad) : tape.gradient(p).read())));
}

for (const C of [6, 16])
  folds(`gradients that wait for the end of backward are the same bits, ${C} channels`, async (engine) => {
    const now = await gradients(engine, C, false), later = await gradients(engine, C, true);
    now.forEach((gradient, i) => {
      assert.ok(gradient.some((v) => v !== 0));
      assert.equal(later[i], gradient, `weight ${i}`);
    });
  });
folds.run();
