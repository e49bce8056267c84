// The multiply-adds that a device's peak is measured by, and its loads and stores: what they compute, in float64.
import * as assert from 'uvu/assert';
import { readAndWrite } from '../bench/floor.ts';
import { chains, cores, fma } from '../bench/peak.ts';
import { openEngine } from '../src/node.ts';
import { assertClose, bound } from './helpers/close.ts';
import { gpuSuite, random, upload } from './helpers/gpu.ts';

const test = gpuSuite('bench: peak');

/** 512 turns for the invocation `id`. */
function twin(id: number): number[] {
  const k = [0.11, 0.23, 0.29, 0.31].map((value) => Math.fround(Math.fround(value) + Math.fround(id * Math.fround(1e-9))));
  let a = [1, 0.5, 2, 3], b = [0.3, 4, 0.7, 0.1];
  const sum = (x: number[], y: number[]) => k.map((start, i) => start + k[0]! * x[i]! + k[1]! * x[(i + 1) % 4]! + k[2]! * y[i]! + k[3]! * y[(i + 2) % 4]!);
  for (let turn = 0; turn < 512; turn++) [a, b] = [sum(a, b), sum(b, a)];
  return a.map((value, i) => value + b[i]!);
}

test('every product of the loop is computed', async (engine) => {
  const y = engine.allocate(16 * 64);
  engine.clear(y);
  engine.run(fma, [1], { y });
  const got = await engine.read(y);
  for (const id of [0, 63]) {
    const want = twin(id);
    // Four products and four sums round by half a unit each, and what a turn leaves the next ones multiply by the sum of k, 0.94.
    for (let i = 0; i < 4; i++) assert.ok(Math.abs(got[4 * id + i]! - want[i]!) <= (8 / 0.06) * 2 ** -24 * Math.abs(want[i]!), `${id}, ${i}: ${got[4 * id + i]} and ${want[i]}`);
  }
});

test('and of the loop of chains', async (engine) => {
  const y = engine.allocate(16 * 64);
  engine.clear(y);
  engine.run(chains, [1], { y });
  const got = await engine.read(y);
  for (const id of [0, 63]) {
    const k = Math.fround(Math.fround(0.999) + Math.fround(id * Math.fround(1e-9)));
    const want = [1, 2, 3].reduce((sum, start) => {
      let value = start;
      for (let turn = 0; turn < 1024; turn++) value = value * k + k;
      return sum + value;
    }, 0);
    // 1,024 products and sums of positive numbers, and two sums.
    for (let i = 0; i < 4; i++) assert.ok(Math.abs(got[4 * id + i]! - want) <= 2050 * 2 ** -24 * want, `${id}, ${i}: ${got[4 * id + i]} and ${want}`);
  }
});

test('what loads and stores alone are measured by reads every input and writes every output', async (engine) => {
  const [pixels, C, O] = [100, 12, 8], x = random(pixels * C, 0), y = upload(engine, [pixels, O], new Float32Array(pixels * O).fill(NaN));
  readAndWrite(engine, upload(engine, [pixels, C], x), y, pixels);
  // The sum over c of x[p, 4 c + i], times one more than the four that o is of.
  const sums = Float64Array.from({ length: pixels * O }, (_, at) => Array.from({ length: C / 4 }, (_, c) => x[Math.floor(at / O) * C + 4 * c + (at % 4)]!).reduce((a, b) => a + b) * (Math.floor((at % O) / 4) + 1));
  assertClose(await y.read(), sums, { atol: bound(C, sums.map(() => 2 * Math.max(...x.map(Math.abs)))), what: 'y' });
});

test('products on tensor cores are compiled, by a backend that computes nothing', async () => {
  const { engine, device } = await openEngine({ backend: 'null', precision: 'f16' });
  if (device.features.has('subgroups')) await engine.pipelines.ahead([engine.pipelines.get(cores, {})]); // not on default limits
  await engine.finished();
  device.destroy();
});

test.run();
