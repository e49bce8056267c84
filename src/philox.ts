// Philox4x32-10 (Salmon et al., 2011), bit-equal to kernels/shared/philox.wgsl: randomness is a function of a counter, never a state.

/** Named streams keep the uses of one seed apart; the number is the second half of the key. */
export const STREAM = { init: 0, order: 1, flip: 2, time: 3, noise: 4, dropout: 5, sample: 6, prior: 7, label: 8, self: 9, encode: 16, known: 17, jump: 18, visit: 19 } as const;

/**
 * The four output words for a 128-bit counter and a 64-bit key, ten rounds, as unsigned 32-bit numbers.
 * Each round needs two 32 x 32 -> 64 bit products. A JavaScript number holds 53 bits and BigInt is ten times slower, so the high word is put together
 * from four products of 16-bit halves, none of which, carries included, reaches 2^32.
 */
export function philox4x32(counter: readonly [number, number, number, number], key: readonly [number, number]): [number, number, number, number] {
  let c0 = counter[0] >>> 0, c1 = counter[1] >>> 0, c2 = counter[2] >>> 0, c3 = counter[3] >>> 0;
  let k0 = key[0] >>> 0, k1 = key[1] >>> 0;
  for (let round = 0; round < 10; round++) {
    const hi0 = mulHigh(0xd251, 0x1f53, c0), lo0 = Math.imul(0xd2511f53, c0) >>> 0;
    const hi1 = mulHigh(0xcd9e, 0x8d57, c2), lo1 = Math.imul(0xcd9e8d57, c2) >>> 0;
    c0 = (hi1 ^ c1 ^ k0) >>> 0;
    c1 = lo1;
    c2 = (hi0 ^ c3 ^ k1) >>> 0;
    c3 = lo0;
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** The high 32 bits of (aHigh 2^16 + aLow) b. */
function mulHigh(aHigh: number, aLow: number, b: number): number {
  const bHigh = b >>> 16, bLow = b & 0xffff;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const cross = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + (middle >>> 16) + (cross >>> 16)) >>> 0;
}

/** A word as a float in the open interval (0, 1): the 23 high bits, centred: exact in float32, and log() never sees 0. */
export const unit = (word: number): number => ((word >>> 9) + 0.5) / 8388608;

/** Four standard normals from four words (Box-Muller, two pairs). */
export function normal4(words: readonly number[]): [number, number, number, number] {
  const [u0, u1, u2, u3] = words.map(unit) as [number, number, number, number];
  const r0 = Math.sqrt(-2 * Math.log(u0)), r1 = Math.sqrt(-2 * Math.log(u2));
  return [r0 * Math.cos(2 * Math.PI * u1), r0 * Math.sin(2 * Math.PI * u1), r1 * Math.cos(2 * Math.PI * u3), r1 * Math.sin(2 * Math.PI * u3)];
}
