// Comparing a kernel's float32 output with its float64 twin: relative L2, element by element, and the tolerance that rounding allows.
import * as assert from 'uvu/assert';

export { abs, bound } from '../ref/accuracy.ts';

type Floats = ArrayLike<number>;

/** ‖got - want‖ / ‖want‖; the plain norm of got where want is all zero. */
export function relativeL2(got: Floats, want: Floats): number {
  assert.is(got.length, want.length, `relativeL2: ${got.length} elements, wanted ${want.length}`);
  let difference = 0, size = 0;
  for (let i = 0; i < want.length; i++) {
    difference += (got[i] - want[i]) ** 2;
    size += want[i] ** 2;
  }
  return Math.sqrt(difference) / (Math.sqrt(size) || 1);
}

/** A NaN that no arithmetic makes. Outputs are filled with it before a kernel runs, so that an element nobody wrote is seen. */
export const POISON = 0x7fc0dead;

export const poisoned = (length: number): Float32Array => new Float32Array(new Uint32Array(length).fill(POISON).buffer);

export interface Tolerance {
  /** One number, or one for each element, such as bound() gives. */
  atol?: number | Floats;
  /** Relative to |want|, element by element. */
  rtol?: number;
  /** What is compared; the first words of the message. */
  what: string;
}

/** Throws unless every element is written, no NaN, and within atol + rtol |want|. The message names the worst element. */
export function assertClose(got: Floats, want: Floats, { atol = 0, rtol = 0, what }: Tolerance): void {
  if (got.length !== want.length) fail(what, `${got.length} elements, wanted ${want.length}`);
  if (typeof atol !== 'number' && atol.length !== want.length) fail(what, `${atol.length} tolerances for ${want.length} elements`);
  const bits = got instanceof Float32Array ? new Uint32Array(got.buffer, got.byteOffset, got.length) : undefined;
  let worst = -1, worstShare = 0, bad = 0;
  for (let i = 0; i < want.length; i++) {
    if (bits?.[i] === POISON) fail(what, `element ${i} of ${got.length} was never written`);
    if (Number.isNaN(got[i])) fail(what, `element ${i} of ${got.length} is NaN, wanted ${want[i]}`);
    if (got[i] === want[i]) continue; // also equal infinities, whose difference is NaN
    const tolerance = (typeof atol === 'number' ? atol : atol[i]) + rtol * Math.abs(want[i]);
    const quotient = Math.abs(got[i] - want[i]) / tolerance;
    const share = Number.isNaN(quotient) ? Infinity : quotient; // a NaN in want or in the tolerance must not pass
    if (!(share <= 1)) bad++;
    if (share > worstShare) [worst, worstShare] = [i, share];
  }
  if (bad > 0) {
    const percent = Number.isFinite(worstShare) ? `${(100 * worstShare).toPrecision(4)} % of the tolerance` : 'no tolerance at all';
    fail(what, `${bad} of ${got.length} elements too far off; worst is element ${worst}: got ${got[worst]}, wanted ${want[worst]}, ${percent}`);
  }
}

function fail(what: string, message: string): never {
  throw new assert.Assertion({ message: `${what}: ${message}`, operator: 'assertClose', expects: '', actual: '' });
}
