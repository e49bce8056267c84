// Float16 numbers on the host, as bits: not every JavaScript has a Float16Array.

/** Two NaNs of float16 in one word, read as a float32: what memory for float16 is filled with where reading it too early shall show. */
export const HALF_NANS = new Float32Array(Uint32Array.of(0x7e007e00).buffer)[0]!;

/** IEEE half to single: exact for every pattern, subnormals, infinities and NaN included. */
export function widenHalf(data: Uint16Array): Float32Array<ArrayBuffer> {
  const values = new Float32Array(data.length);
  for (let i = 0; i < data.length; i++) {
    const half = data[i]!, sign = half & 0x8000 ? -1 : 1, exponent = (half >> 10) & 31, fraction = half & 1023;
    if (exponent === 31) values[i] = fraction ? NaN : sign * Infinity;
    else values[i] = exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
  }
  return values;
}

/** Single to the nearest half, ties to even; infinite from 65,520. */
export function narrowHalf(data: ArrayLike<number>): Uint16Array<ArrayBuffer> {
  const values = Float32Array.from(data), words = new Uint32Array(values.buffer), halves = new Uint16Array(values.length);
  for (let i = 0; i < halves.length; i++) {
    const sign = (words[i]! >>> 16) & 0x8000, size = words[i]! & 0x7fffffff, below = size - 0x38000000;
    if (size > 0x7f800000) halves[i] = sign | 0x7e00;
    else if (size >= 0x477ff000) halves[i] = sign | 0x7c00;
    // The exponent counts from another bias and the fraction loses 13 bits; a carry goes into the exponent, as it should.
    else if (size >= 0x38800000) halves[i] = sign | ((below + 0xfff + ((below >> 13) & 1)) >> 13);
    // Multiples of 2^-24: a float64 of 2^52 has no digits behind the point.
    else halves[i] = sign | (Math.abs(values[i]!) * 2 ** 24 + 2 ** 52 - 2 ** 52);
  }
  return halves;
}
