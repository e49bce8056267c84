// Float64 twin of an embedding: rows of a table by number, and the gradient by the table.
import { unit } from '../../src/philox.ts';

type Floats = ArrayLike<number>;

/** table (K,C), ids (N) → (N,C); an id past the end means the last row. */
export function embedding(table: Floats, ids: ArrayLike<number>, K: number, C: number): Float64Array {
  const y = new Float64Array(ids.length * C);
  for (let n = 0; n < ids.length; n++) for (let c = 0; c < C; c++) y[n * C + c] = table[Math.min(ids[n], K - 1) * C + c];
  return y;
}

/** dy (N,C) → dtable (K,C) */
export function embeddingBackward(ids: ArrayLike<number>, dy: Floats, K: number, C: number): Float64Array {
  const dtable = new Float64Array(K * C);
  for (let n = 0; n < ids.length; n++) for (let c = 0; c < C; c++) dtable[Math.min(ids[n], K - 1) * C + c] += dy[n * C + c];
  return dtable;
}

/** labels[index[n]], or `none` where unit(word[n]) < p. */
export const dropLabels = (labels: ArrayLike<number>, index: ArrayLike<number>, words: ArrayLike<number>, p: number, none: number): Uint32Array =>
  Uint32Array.from(index, (i, n) => (unit(words[n]) < p ? none : labels[i]));
