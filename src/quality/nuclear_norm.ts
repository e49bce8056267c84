// Tr (S1 S2)^(1/2) for symmetric positive semi-definite S1 and S2, in float64, without ever taking the square root of a rounding error.
//
// With S1 = A A^T and S2 = B B^T the eigenvalues of S1 S2 are the squared singular values of A^T B, so the trace is the sum of these singular values. They
// come out with an absolute error of about 1e-16 of the largest. Square roots of the eigenvalues of S1 S2, the textbook way, are off by 1e-8 of it wherever the
// product is singular, as covariances are when there are fewer images than features. Where S1 = S2 the result is Tr S1 to the last digits.

/** Row-major, rows x columns. */
export interface Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly data: Float64Array;
}

const EPSILON = 2 ** -52;

/**
 * A = P L of a pivoted Cholesky decomposition, S = A A^T: (n, rank), rank as far as the numbers carry (Higham, 2002, section 10.3).
 *
 * @param s (n, n), symmetric; what lies below zero by rounding is taken as zero
 */
export function semidefiniteFactor(s: Matrix): Matrix {
  const n = s.rows;
  const left = Float64Array.from({ length: n }, (_, i) => s.data[i * n + i]!); // the diagonal of what is left of S
  const tolerance = n * EPSILON * left.reduce((a, b) => Math.max(a, b), 0);
  // Column r of L lies in row r here, so that every inner loop runs along memory.
  const columns: Float64Array[] = [];
  const done = new Uint8Array(n);
  for (let r = 0; r < n; r++) {
    let pivot = -1;
    for (let i = 0; i < n; i++) if (!done[i] && (pivot < 0 || left[i]! > left[pivot]!)) pivot = i;
    if (!(left[pivot]! > tolerance)) break;
    const root = Math.sqrt(left[pivot]!);
    const column = s.data.slice(pivot * n, (pivot + 1) * n);
    for (const earlier of columns) {
      const weight = earlier[pivot]!;
      if (weight !== 0) for (let i = 0; i < n; i++) column[i]! -= weight * earlier[i]!;
    }
    done[pivot] = 1;
    for (let i = 0; i < n; i++) {
      column[i] = i === pivot ? root : done[i] ? 0 : column[i]! / root;
      left[i]! -= column[i]! ** 2;
    }
    columns.push(column);
  }
  const rank = columns.length, data = new Float64Array(n * rank);
  columns.forEach((column, r) => column.forEach((value, i) => (data[i * rank + r] = value)));
  return { rows: n, columns: rank, data };
}

/** a^T b for a (n, p) and b (n, q). */
export function transposedProduct(a: Matrix, b: Matrix): Matrix {
  const n = a.rows, p = a.columns, q = b.columns;
  const c = new Float64Array(p * q);
  const zero = new Float64Array(Math.max(p, q));
  // Four rows at a time: c is read and written a quarter as often.
  for (let k = 0; k < n; k += 4) {
    const row = (m: Matrix, i: number): Float64Array => (k + i < n ? m.data.subarray((k + i) * m.columns, (k + i + 1) * m.columns) : zero);
    const a0 = row(a, 0), a1 = row(a, 1), a2 = row(a, 2), a3 = row(a, 3), b0 = row(b, 0), b1 = row(b, 1), b2 = row(b, 2), b3 = row(b, 3);
    for (let i = 0; i < p; i++) {
      const w0 = a0[i]!, w1 = a1[i]!, w2 = a2[i]!, w3 = a3[i]!;
      if (w0 === 0 && w1 === 0 && w2 === 0 && w3 === 0) continue; // a factor is half zeros
      const out = c.subarray(i * q, (i + 1) * q);
      for (let j = 0; j < q; j++) out[j]! += w0 * b0[j]! + w1 * b1[j]! + w2 * b2[j]! + w3 * b3[j]!;
    }
  }
  return { rows: p, columns: q, data: c };
}

/** The singular values of a matrix, in no order. */
export function singularValues(matrix: Matrix): Float64Array {
  const { diagonal, above } = bidiagonalise(matrix);
  // The symmetric matrix (0, B; B^T, 0), its rows and columns interleaved, is tridiagonal with a diagonal of zeros, and its eigenvalues are +-sigma
  // (Golub & Kahan, 1965): the eigenvalues of a symmetric matrix, as exact as its largest entry allows, and no squares.
  const n = diagonal.length;
  const off = new Float64Array(2 * n);
  for (let i = 0; i < n; i++) {
    off[2 * i] = diagonal[i]!;
    if (i < n - 1) off[2 * i + 1] = above[i]!;
  }
  const eigenvalues = tridiagonalEigenvalues(new Float64Array(2 * n), off);
  return eigenvalues.sort().subarray(n).map(Math.abs);
}

/** Householder reflections from both sides to an upper bidiagonal matrix of the same singular values (Golub & Van Loan, algorithm 5.4.2). */
function bidiagonalise(matrix: Matrix): { diagonal: Float64Array; above: Float64Array } {
  const tall = matrix.rows >= matrix.columns ? matrix : transposed(matrix);
  const m = tall.rows, n = tall.columns, a = tall.data.slice();
  const diagonal = new Float64Array(n), above = new Float64Array(Math.max(0, n - 1));
  const v = new Float64Array(m), w = new Float64Array(n), u = new Float64Array(n);
  for (let k = 0; k < n; k++) {
    // From the left: column k becomes (.., d_k, 0, ..).
    for (let i = k; i < m; i++) v[i] = a[i * n + k]!;
    const left = reflector(v, k, m);
    diagonal[k] = left.value;
    w.fill(0, k + 1);
    if (left.scale !== 0) {
      for (let i = k; i < m; i++) {
        const weight = left.scale * v[i]!, row = i * n;
        for (let j = k + 1; j < n; j++) w[j]! += weight * a[row + j]!;
      }
    }
    if (k === n - 1) break;
    // From the right: row k becomes (.., d_k, e_k, 0, ..). Row k is finished first, since the reflector comes from it; then each row gets both in one go.
    for (let j = k + 1; j < n; j++) u[j] = a[k * n + j]! - v[k]! * w[j]!;
    const right = reflector(u, k + 1, n);
    above[k] = right.value;
    for (let i = k + 1; i < m; i++) {
      const weight = v[i]!, row = i * n;
      let sum = 0;
      for (let j = k + 1; j < n; j++) {
        const value = a[row + j]! - weight * w[j]!;
        a[row + j] = value;
        sum += value * u[j]!;
      }
      sum *= right.scale;
      if (sum !== 0) for (let j = k + 1; j < n; j++) a[row + j]! -= sum * u[j]!;
    }
  }
  return { diagonal, above };
}

/** Turns x[from..to) into v with (I - scale v v^T) x = (value, 0, ..). */
function reflector(x: Float64Array, from: number, to: number): { value: number; scale: number } {
  let largest = 0;
  for (let i = from; i < to; i++) largest = Math.max(largest, Math.abs(x[i]!));
  if (largest === 0) return { value: 0, scale: 0 };
  let sum = 0;
  for (let i = from; i < to; i++) sum += (x[i]! / largest) ** 2;
  const norm = largest * Math.sqrt(sum), head = x[from]!;
  const value = head > 0 ? -norm : norm;
  // v = x - value e_1 scaled to v_1 = 1, so that nothing overflows; no cancellation, for the signs differ.
  const first = head - value;
  for (let i = from + 1; i < to; i++) x[i]! /= first;
  x[from] = 1;
  return { value, scale: -first / value };
}

function transposed({ rows, columns, data }: Matrix): Matrix {
  const out = new Float64Array(data.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[j * rows + i] = data[i * columns + j]!;
  return { rows: columns, columns: rows, data: out };
}

/**
 * Eigenvalues of a symmetric tridiagonal matrix by implicit QL steps with Wilkinson's shift (Golub & Van Loan, section 8.3), in no order.
 *
 * @param diagonal (n)
 * @param off (n - 1) or more: off[i] couples i and i + 1
 */
export function tridiagonalEigenvalues(diagonal: ArrayLike<number>, off: ArrayLike<number>): Float64Array {
  const n = diagonal.length;
  const d = Float64Array.from(diagonal), e = new Float64Array(n);
  let size = 0;
  for (let i = 0; i < n; i++) {
    if (i < n - 1) e[i] = off[i]!;
    size = Math.max(size, Math.abs(d[i]!) + Math.abs(e[i]!));
  }
  // An off-diagonal entry below the rounding of the largest entry is zero: relative to its neighbours alone, zeros on the diagonal would never let go.
  const small = EPSILON * size;
  for (let l = 0; l < n; l++) {
    for (let iteration = 0; ; iteration++) {
      let m = l;
      while (m < n - 1 && Math.abs(e[m]!) > small) m++;
      if (m === l) break;
      if (iteration > 60) throw new Error('the QL iteration did not converge: the matrix holds values that are not finite');
      let g = (d[l + 1]! - d[l]!) / (2 * e[l]!);
      let r = Math.hypot(g, 1);
      g = d[m]! - d[l]! + e[l]! / (g + (g >= 0 ? r : -r));
      let s = 1, c = 1, p = 0, i = m - 1;
      for (; i >= l; i--) {
        const f = s * e[i]!, b = c * e[i]!;
        r = Math.hypot(f, g);
        e[i + 1] = r;
        if (r === 0) {
          d[i + 1]! -= p;
          e[m] = 0;
          break;
        }
        s = f / r;
        c = g / r;
        g = d[i + 1]! - p;
        r = (d[i]! - g) * s + 2 * c * b;
        p = s * r;
        d[i + 1] = g + p;
        g = c * r - b;
      }
      if (i >= l) continue;
      d[l]! -= p;
      e[l] = g;
      e[m] = 0;
    }
  }
  return d;
}

/** Tr (S1 S2)^(1/2): the nuclear norm of A^T B. */
export function traceOfRoot(s1: Matrix, s2: Matrix): number {
  const product = transposedProduct(semidefiniteFactor(s1), semidefiniteFactor(s2));
  if (product.rows === 0 || product.columns === 0) return 0;
  return singularValues(product).sort().reduce((sum, sigma) => sum + sigma, 0);
}
