// Float64 twins of the draws of t by their losses. A history is (T,11): ten losses, and how many came, from 10 on their ring's place.
import { unit } from '../../src/philox.ts';
import { uniformInt } from './random.ts';

type Floats = ArrayLike<number>;

/** sqrt(mean of the squares of the ten losses) at every t, and the running sums of that. Every t must have its ten. */
export function importanceWeights(history: Floats, T: number): { w: Float64Array; sums: Float64Array } {
  const w = new Float64Array(T);
  for (let t = 0; t < T; t++) {
    for (let i = 0; i < 10; i++) w[t] += history[11 * t + i] ** 2 / 10;
    w[t] = Math.sqrt(w[t]);
  }
  let sum = 0;
  return { w, sums: w.map((v) => (sum += v)) };
}

/** t from three words an image: uniform with probability `share`, else the first whose sum is above a uniform number, of the image's own part where stratified; and 1 / (T p[t]). */
export function importanceDraw(words: Floats, w: Floats, sums: Floats, share: number, stratified = false): { t: Uint32Array; weight: Float64Array } {
  const T = w.length, N = words.length / 3, total = sums[T - 1], t = new Uint32Array(N);
  for (let n = 0; n < N; n++) {
    const u = unit(words[3 * n + 2]), goal = Math.fround((stratified ? Math.fround(Math.fround(n + u) * Math.fround(1 / N)) : u) * total);
    t[n] = unit(words[3 * n + 1]) < share ? uniformInt(words[3 * n], T) : Math.min(T - 1, Array.from(sums).filter((sum) => sum <= goal).length);
  }
  return { t, weight: Float64Array.from(t, (at) => 1 / (share + ((1 - share) * w[at] * T) / total)) };
}

/** What the losses `each` at t leave of a history. */
export function importanceUpdate(history: Floats, t: ArrayLike<number>, each: Floats): Float64Array {
  const after = Float64Array.from(history as ArrayLike<number>);
  for (let n = 0; n < t.length; n++) {
    const count = 11 * t[n] + 10;
    if (!Number.isFinite(each[n])) continue;
    after[11 * t[n] + (after[count] % 10)] = each[n];
    after[count] = after[count] === 19 ? 10 : after[count] + 1;
  }
  return after;
}
