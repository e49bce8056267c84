// Float64 twins for the Fréchet distance: Jacobi's eigenvalues, and the trace of the root of a product as the textbooks have it.

type Floats = ArrayLike<number>;

export function transpose(a: Floats, rows: number, columns: number): Float64Array {
  return Float64Array.from({ length: rows * columns }, (_, i) => a[(i % rows) * columns + Math.floor(i / rows)]);
}

/** a (n, k) b (k, m) */
export function multiply(a: Floats, b: Floats, n: number, k: number, m: number): Float64Array {
  const c = new Float64Array(n * m);
  for (let i = 0; i < n; i++) for (let j = 0; j < m; j++) for (let l = 0; l < k; l++) c[i * m + j] += a[i * k + l] * b[l * m + j];
  return c;
}

/** Sweeps of rotations until nothing is left off the diagonal: eigenvalues in ascending order, with their vectors as columns in `vectors`. */
function jacobi(symmetric: Floats, n: number): { values: Float64Array; vectors: Float64Array } {
  const a = Float64Array.from(symmetric), v = new Float64Array(n * n);
  for (let i = 0; i < n; i++) v[i * n + i] = 1;
  for (let sweep = 0; sweep < 60; sweep++) {
    let off = 0;
    for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) off += a[i * n + j] ** 2;
    if (off === 0) break;
    for (let p = 0; p < n; p++)
      for (let q = p + 1; q < n; q++) {
        if (a[p * n + q] === 0) continue;
        const theta = (a[q * n + q] - a[p * n + p]) / (2 * a[p * n + q]);
        const t = (theta >= 0 ? 1 : -1) / (Math.abs(theta) + Math.hypot(theta, 1)), c = 1 / Math.hypot(t, 1), s = t * c;
        for (let k = 0; k < n; k++) [a[k * n + p], a[k * n + q]] = [c * a[k * n + p] - s * a[k * n + q], s * a[k * n + p] + c * a[k * n + q]];
        for (let k = 0; k < n; k++) [a[p * n + k], a[q * n + k]] = [c * a[p * n + k] - s * a[q * n + k], s * a[p * n + k] + c * a[q * n + k]];
        for (let k = 0; k < n; k++) [v[k * n + p], v[k * n + q]] = [c * v[k * n + p] - s * v[k * n + q], s * v[k * n + p] + c * v[k * n + q]];
      }
  }
  return { values: Float64Array.from({ length: n }, (_, i) => a[i * n + i]), vectors: v };
}

export const eigenvaluesByJacobi = (symmetric: Floats, n: number): Float64Array => jacobi(symmetric, n).values.sort();

/** Tr (S1 S2)^(1/2) = sum of the roots of the eigenvalues of S1^(1/2) S2 S1^(1/2). */
export function rootOfProductTrace(s1: Floats, s2: Floats, n: number): number {
  const { values, vectors } = jacobi(s1, n);
  const scaled = vectors.map((v, i) => v * Math.sqrt(Math.max(0, values[i % n])));
  const root = multiply(scaled, transpose(vectors, n, n), n, n, n);
  const inner = multiply(multiply(root, s2, n, n, n), root, n, n, n);
  return eigenvaluesByJacobi(inner, n).reduce((sum, v) => sum + Math.sqrt(Math.max(0, v)), 0);
}
