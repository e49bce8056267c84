// Philox4x32-10 on the host: the published known-answer vectors of Random123, exact products, and the distributions made from its words.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { normal4, philox4x32, STREAM, unit } from '../src/philox.ts';

const philox = suite('philox');
type Four = [number, number, number, number];
const hex = (words: readonly number[]): string => words.map((w) => w.toString(16).padStart(8, '0')).join(' ');

philox('gives the known answers of Random123', () => {
  assert.is(hex(philox4x32([0, 0, 0, 0], [0, 0])), '6627e8d5 e169c58d bc57ac4c 9b00dbd8');
  const ones = 0xffffffff;
  assert.is(hex(philox4x32([ones, ones, ones, ones], [ones, ones])), '408f276d 41c83b0e a20bc7c6 6d5451fd');
  assert.is(
    hex(philox4x32([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0])),
    'd16cfe09 94fdcceb 5001e420 24126ea1',
  );
});

philox('equals the definition in exact integers for 2,000 counters and keys', () => {
  const exact = (counter: Four, key: [number, number]): Four => {
    let [c0, c1, c2, c3] = counter.map(BigInt) as [bigint, bigint, bigint, bigint];
    let [k0, k1] = key.map(BigInt) as [bigint, bigint];
    for (let round = 0; round < 10; round++) {
      const p0 = 0xd2511f53n * c0, p1 = 0xcd9e8d57n * c2;
      [c0, c1, c2, c3] = [(p1 >> 32n) ^ c1 ^ k0, p1 & 0xffffffffn, (p0 >> 32n) ^ c3 ^ k1, p0 & 0xffffffffn];
      k0 = (k0 + 0x9e3779b9n) & 0xffffffffn;
      k1 = (k1 + 0xbb67ae85n) & 0xffffffffn;
    }
    return [c0, c1, c2, c3].map(Number) as Four;
  };
  let counter: Four = [1, 2, 3, 4];
  for (let i = 0; i < 2000; i++) {
    const key: [number, number] = [counter[3], i];
    const next = philox4x32(counter, key);
    if (hex(next) !== hex(exact(counter, key))) assert.is(hex(next), hex(exact(counter, key)), `counter ${hex(counter)}, key ${hex(key)}`);
    counter = next;
  }
});

philox('takes negative and oversized words modulo 2^32', () => {
  assert.equal(philox4x32([-1, 2 ** 32, 0, 0], [-1, 0]), philox4x32([0xffffffff, 0, 0, 0], [0xffffffff, 0]));
});

philox('unit stays inside (0, 1) at both ends', () => {
  assert.is(unit(0), 0.5 / 8388608);
  assert.is(unit(0xffffffff), (8388607 + 0.5) / 8388608);
  assert.ok(Number.isFinite(Math.log(unit(0))) && unit(0xffffffff) < 1);
});

philox('normal4 has the moments of a standard normal', () => {
  let count = 0, sum = 0, square = 0, fourth = 0;
  for (let i = 0; i < 50_000; i++) {
    for (const x of normal4(philox4x32([i, 0, 0, 0], [7, STREAM.noise]))) {
      count++;
      sum += x;
      square += x * x;
      fourth += x ** 4;
    }
  }
  // Four standard deviations of each estimate at 200,000 values.
  assert.ok(Math.abs(sum / count) < 0.009, `mean ${sum / count}`);
  assert.ok(Math.abs(square / count - 1) < 0.0127, `variance ${square / count}`);
  assert.ok(Math.abs(fourth / count - 3) < 0.09, `fourth moment ${fourth / count}`);
});

philox('streams of one seed differ', () => {
  const seen = new Set(Object.values(STREAM).map((stream) => hex(philox4x32([0, 0, 0, 0], [0, stream]))));
  assert.is(seen.size, Object.keys(STREAM).length);
});

philox.run();
