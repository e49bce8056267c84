// Philox4x32-10 (Salmon et al., 2011), bit-equal to kernels/shared/philox.wgsl: randomness is a function of a counter, never a state.

/** Named streams keep the uses of one seed apart; the number is the second half of the key. */
export const STREAM = { init: 0, order: 1, flip: 2, time: 3, noise: 4, dropout: 5, sample: 6, prior: 7 } as const;

/** The four output words for a 128-bit counter and a 64-bit key. */
export function philox4x32(counter: readonly [number, number, number, number], key: readonly [number, number]): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter.map((v) => v >>> 0) as [number, number, number, number];
  let k0 = key[0] >>> 0, k1 = key[1] >>> 0;
  for (let round = 0; round < 10; round++) {
    const p0 = BigInt(c0) * 0xd2511f53n, p1 = BigInt(c2) * 0xcd9e8d57n;
    const hi0 = Number(p0 >> 32n), lo0 = Number(p0 & 0xffffffffn), hi1 = Number(p1 >> 32n), lo1 = Number(p1 & 0xffffffffn);
    [c0, c1, c2, c3] = [(hi1 ^ c1 ^ k0) >>> 0, lo1, (hi0 ^ c3 ^ k1) >>> 0, lo0];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** A word as a float in the open interval (0, 1): the 24 high bits, centred, so that log() never sees 0. */
export const unit = (word: number): number => ((word >>> 8) + 0.5) / 16777216;

/** Four standard normals from four words (Box-Muller, two pairs). */
export function normal4(words: readonly number[]): [number, number, number, number] {
  const [u0, u1, u2, u3] = words.map(unit) as [number, number, number, number];
  const r0 = Math.sqrt(-2 * Math.log(u0)), r1 = Math.sqrt(-2 * Math.log(u2));
  return [r0 * Math.cos(2 * Math.PI * u1), r0 * Math.sin(2 * Math.PI * u1), r1 * Math.cos(2 * Math.PI * u3), r1 * Math.sin(2 * Math.PI * u3)];
}
