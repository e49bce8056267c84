// Float64 twin of the rounding to float16, for products whose factors are rounded: the twin of such a product is that of the float32 one, with rounded factors.

type Floats = ArrayLike<number>;

/** Of a positive float32 number: e with 2^e <= v < 2^(e+1). */
const exponent = (v: number): number => (new Uint32Array(Float32Array.of(v).buffer)[0]! >>> 23) - 127;

/** A float32 number to the nearest float16, ties to even: 11 bits down to 2^-14, multiples of 2^-24 below, infinite from 65,520. */
export function roundToHalf(v: number): number {
  const size = Math.abs(v);
  if (!(size < 65520)) return v * Infinity; // NaN stays one
  const step = 2 ** (Math.max(-14, exponent(size)) - 10), steps = Math.floor(size / step), rest = size / step - steps;
  return Math.sign(v) * step * (steps + Number(rest > 0.5 || (rest === 0.5 && steps % 2 === 1)));
}

/** How far a number may be off once it was stored as float16: WGSL leaves open in which direction it is rounded, and that the smallest become zero. */
export const roundedToHalf = (v: Floats): Float64Array => Float64Array.from({ length: v.length }, (_, i) => 2 ** -10 * Math.abs(v[i]!) + 2 ** -14);

/** Every value rounded. */
export const half = (x: Floats): Float32Array => Float32Array.from({ length: x.length }, (_, i) => roundToHalf(x[i]!));
