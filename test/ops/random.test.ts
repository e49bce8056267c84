// Draws on the device against their twins: normals, integers, the shuffled order, and the batches that it picks.
import * as assert from 'uvu/assert';
import { threads } from '../../src/autograd.ts';
import type { Engine } from '../../src/gpu/engine.ts';
import * as k from '../../src/gpu/kernels.gen.ts';
import { DeviceImages, randomIntegers, randomNormal, shuffleIndices } from '../../src/ops/random.ts';
import { STREAM, unit } from '../../src/philox.ts';
import { Tensor } from '../../src/tensor.ts';
import { assertClose } from '../helpers/close.ts';
import { assertError, clockAt, gpuSuite, normalErrors, readWords, ULP, upload } from '../helpers/gpu.ts';
import { batchGather } from '../ref/diffusion.ts';
import { coins, normals, permute, uniformInts, words } from '../ref/random.ts';

const draws = gpuSuite('random');

const ids = (N: number, first: number): number[] => Array.from({ length: N }, (_, n) => first + n);

for (const [N, size] of [[1, 1], [3, 7], [2, 64], [70, 5]])
  draws(`normals (${N}, ${size})`, async (engine) => {
    const draw = { seed: 0xdeadbeef, stream: STREAM.noise, step: 41, samples: ids(N, 1000), count: size };
    const z = await randomNormal([N, size], clockAt(engine, { seed: draw.seed, step: 41, first: 1000 }), STREAM.noise).read();
    assertClose(z, normals(draw), { atol: normalErrors(draw), what: 'z' });
  });

draws('normals have the moments of a normal', async (engine) => {
  const n = 200000, z = await randomNormal([4, n / 4], clockAt(engine, { seed: 3 }), STREAM.init).read();
  const moment = (p: number): number => z.reduce((sum, v) => sum + v ** p, 0) / n;
  // E z^p = 0, 1, 0, 3, and the variance of z^p is E z^2p - (E z^p)^2 = 1, 2, 15, 96; four deviations.
  [[1, 0, 1], [2, 1, 2], [3, 0, 15], [4, 3, 96]].forEach(([p, mean, variance]) =>
    assert.ok(Math.abs(moment(p) - mean) < 4 * Math.sqrt(variance / n), `moment ${p} is ${moment(p)}`));
  const largest = z.reduce((a, v) => Math.max(a, Math.abs(v)), 0);
  assert.ok(largest > 3.9 && largest < 5.9, `${largest}`); // 2^-24 of the mass lies beyond 5.4
});

draws('labels of a batch, some dropped, by the image\'s own counter', async (engine) => {
  const labels = Uint8Array.from({ length: 50 }, (_, i) => i % 7), N = 300, index = Uint32Array.from({ length: N }, (_, n) => (n * 13) % 50);
  const images = new DeviceImages(engine, { count: 50, height: 1, width: 1, channels: 1, pixels: new Uint8Array(50), labels }, false);
  const at = upload(engine, [N], index), clock = clockAt(engine, { seed: 9, step: 4, first: 20 });
  const words_ = words({ seed: 9, stream: STREAM.label, step: 4, samples: ids(N, 20), count: 1 });
  for (const dropout of [0, 0.1, 1]) {
    const got = [...(await readWords(images.gatherLabels(at, clock, { none: 7, dropout })))];
    assert.equal(got, Array.from(index, (i, n) => (unit(words_[n]!) < Math.fround(dropout) ? 7 : labels[i]!)), `dropout ${dropout}`);
    const none = got.filter((label) => label === 7).length;
    assert.ok(Math.abs(none - N * dropout) <= 4 * Math.sqrt(N * dropout * (1 - dropout)), `${none} of ${N}`);
  }
  const without = new DeviceImages(engine, { count: 2, height: 1, width: 1, channels: 1, pixels: new Uint8Array(2) }, false);
  await assertError(() => without.gatherLabels(at, clock, { none: 7, dropout: 0 }), 'E-DATA', /no labels/);
});

draws('a sample is the same whatever the batch, and the streams, steps and seeds differ', async (engine) => {
  const draw = (N: number, tick: { seed: number; step?: number; first?: number }, stream: number = STREAM.sample) => randomNormal([N, 10], clockAt(engine, tick), stream).read();
  const all = await draw(4, { seed: 7, first: 0 });
  assert.equal(await draw(2, { seed: 7, first: 1 }), all.slice(10, 30));
  for (const other of [draw(4, { seed: 8 }), draw(4, { seed: 7, step: 1 }), draw(4, { seed: 7 }, STREAM.noise)]) assert.not.equal(await other, all);
});

for (const [N, high] of [[1, 1], [200, 1000], [65, 60000], [50, 0xffffffff]])
  draws(`${N} integers below ${high}`, async (engine) => {
    const got = await readWords(randomIntegers(N, high, clockAt(engine, { seed: 9, step: 2, first: 5 }), STREAM.time));
    assert.equal(got, uniformInts({ seed: 9, stream: STREAM.time, step: 2, samples: ids(N, 5), count: 1 }, high));
  });

for (const count of [1, 2, 7, 60, 257])
  draws(`the order of ${count} images: every one once an epoch`, async (engine) => {
    const N = count === 60 ? 16 : count > 60 ? 100 : 3, epochs = 3, order: number[] = []; // batches that cross the end of an epoch
    for (let step = 0; order.length < epochs * count; step++) order.push(...(await readWords(shuffleIndices(N, count, clockAt(engine, { seed: 5, step })))));
    const want = order.map((_, i) => permute(i % count, count, { seed: 5, epoch: Math.floor(i / count) }));
    assert.equal(order, want);
    for (let e = 0; e < epochs; e++) assert.is(new Set(order.slice(e * count, (e + 1) * count)).size, count);
  });

draws('the order of 60,000 images', async (engine) => {
  const got = await readWords(shuffleIndices(60000, 60000, clockAt(engine, { seed: 1, step: 2 })));
  assert.is(new Set(got).size, 60000);
  for (const i of [0, 1, 777, 59999]) assert.is(got[i], permute(i, 60000, { seed: 1, epoch: 2 }));
});

const images = (count: number, height: number, width: number, channels: number) => {
  const pixels = new Uint8Array(count * height * width * channels);
  const bits = words({ seed: 1, stream: STREAM.prior, step: 0, samples: [0], count: pixels.length });
  pixels.forEach((_, i) => (pixels[i] = bits[i] & 255));
  pixels.set([0, 255].slice(0, pixels.length));
  return { count, height, width, channels, pixels };
};

/** u / 127.5 - 1 is rounded twice, and a quotient may be off by 2.5 units of a number below 2. */
const gathered = { atol: 5 * ULP + ULP, what: 'x' };

for (const [count, H, W, C] of [[5, 3, 5, 1], [7, 4, 3, 3], [1, 1, 1, 1], [300, 2, 2, 1]])
  for (const flip of [false, true])
    draws(`${count} images of (${H}, ${W}, ${C}) on the device${flip ? ', flipped at random' : ''}`, async (engine) => {
      const N = 70, data = images(count, H, W, C), index = Uint32Array.from({ length: N }, (_, n) => (n * 37) % count);
      const batch = await new DeviceImages(engine, data, flip).gather(upload(engine, [N], index), clockAt(engine, { seed: 2, step: 6, first: 3 })).read();
      const flips = flip ? coins({ seed: 2, stream: STREAM.flip, step: 6, samples: ids(N, 3), count: 1 }) : new Uint32Array(N);
      if (flip) assert.ok(flips.includes(0) && flips.includes(1));
      assertClose(batch, batchGather(data.pixels, index, flips, H, W, C), gathered);
    });

/** The engine, on a device that binds at most so many bytes. */
const limited = (engine: Engine, bytes: number): Engine =>
  new Proxy(engine, {
    get: (target, name) => {
      if (name === 'device') return { limits: { maxStorageBufferBindingSize: bytes } };
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });

draws('images over two bindings, and too many even for those', async (engine) => {
  const [H, W, C, N] = [3, 3, 1, 11], data = images(11, H, W, C), index = Uint32Array.from({ length: N }, (_, n) => N - 1 - n), clock = clockAt(engine, { seed: 2 });
  const want = batchGather(data.pixels, index, new Uint8Array(N), H, W, C);
  for (const bytes of [9 * 4, 9 * 8 + 5, 9 * 11, 9 * 12]) {
    const whole = Math.floor(bytes / 9 / 4) * 4; // images a binding
    if (2 * whole >= data.count) assertClose(await new DeviceImages(limited(engine, bytes), data, false).gather(upload(engine, [N], index), clock).read(), want, gathered);
    else await assertError(() => new DeviceImages(limited(engine, bytes), data, false), 'E-LIMIT', /11 images of 9 bytes need more than two bindings of 36 bytes on this device\. Use --limit 8\./);
  }
  await assertError(() => new DeviceImages(limited(engine, 35), data, false), 'E-LIMIT', /four images of 9 bytes are more than one binding of 35 bytes on this device\. Use smaller images \(--image-size\)\./);
  // The kernel alone, split where images do not end on words.
  for (const split of [1, 3, 10]) {
    const part = (from: number, to: number): Tensor => {
      const bytes = new Uint8Array(Math.ceil((9 * (to - from)) / 4) * 4);
      bytes.set(data.pixels.subarray(9 * from, 9 * to));
      return upload(engine, [bytes.length / 4], new Uint32Array(bytes.buffer));
    };
    const x = Tensor.empty(engine, [N, H, W, C]);
    engine.run(k.gather_batch, threads(x.size), {
      clock: clock.slice, index: upload(engine, [N], index).slice, data: part(0, split).slice, data_rest: part(split, 11).slice, x: x.slice, N, H, W, C, split, flip: 0, stream: STREAM.flip,
    });
    assertClose(await x.read(), want, gathered);
  }
});
draws.run();
