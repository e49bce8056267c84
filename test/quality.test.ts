// Distances between sets of images: the Fréchet distance against closed forms and a textbook computation, and what it must not change under.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Features, frechetDistance, type Statistics, statistics } from '../src/quality/frechet.ts';
import { type Matrix, semidefiniteFactor, singularValues, traceOfRoot, transposedProduct, tridiagonalEigenvalues } from '../src/quality/nuclear_norm.ts';
import { precisionRecall } from '../src/quality/precision_recall.ts';
import { precisionRecallOnDevice } from '../src/quality/precision_recall_device.ts';
import { assertClose } from './helpers/close.ts';
import { assertError, gpuSuite } from './helpers/gpu.ts';
import { eigenvaluesByJacobi, multiply, rootOfProductTrace, transpose } from './ref/eigen.ts';
import { normals } from './ref/random.ts';

const draw = (count: number, id: number): Float64Array => Float64Array.from(normals({ seed: 5, stream: 7, step: 2, samples: [id], count }));
const matrix = (rows: number, columns: number, id: number): Matrix => ({ rows, columns, data: draw(rows * columns, id) });
/** A random covariance of some rank. */
const covariance = (n: number, rank: number, id: number): Matrix => {
  const a = matrix(n, rank, id);
  return { rows: n, columns: n, data: multiply(a.data, transpose(a.data, n, rank), n, rank, n) };
};
const near = (got: number, want: number, tolerance: number, what: string): void => assert.ok(Math.abs(got - want) <= tolerance, `${what}: ${got}, wanted ${want} within ${tolerance}`);
const features = (count: number, width: number, id: number, scale = 1, shift = 0): Features => ({ count, width, data: Float32Array.from(draw(count * width, id), (v) => scale * v + shift) });

const algebra = suite('singular values and eigenvalues');

algebra('of tridiagonal matrices, against Jacobi and the closed form of the second difference', () => {
  for (const n of [1, 2, 3, 9, 40]) {
    const d = draw(n, 0), e = draw(n, 1), full = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      full[i * n + i] = d[i];
      if (i < n - 1) full[i * n + i + 1] = full[(i + 1) * n + i] = e[i];
    }
    assertClose(tridiagonalEigenvalues(d, e).sort(), eigenvaluesByJacobi(full, n), { atol: 1e-13 * n, what: `${n}` });
    const want = Float64Array.from({ length: n }, (_, i) => 2 - 2 * Math.cos(((i + 1) * Math.PI) / (n + 1)));
    assertClose(tridiagonalEigenvalues(new Float64Array(n).fill(2), new Float64Array(n).fill(-1)).sort(), want, { atol: 1e-13, what: `second difference of ${n}` });
  }
});

algebra('singular values of tall, wide and singular matrices', () => {
  for (const [rows, columns] of [[1, 1], [5, 3], [3, 5], [17, 17], [30, 8]]) {
    const a = matrix(rows, columns, 3), n = Math.min(rows, columns);
    const gram = rows >= columns ? multiply(transpose(a.data, rows, columns), a.data, columns, rows, columns) : multiply(a.data, transpose(a.data, rows, columns), rows, columns, rows);
    const want = eigenvaluesByJacobi(gram, n).map((v) => Math.sqrt(Math.max(0, v)));
    assertClose(singularValues(a).sort(), want, { atol: 1e-13 * rows * want[n - 1] ** 2, what: `${rows} x ${columns}` });
  }
  const zeros = singularValues({ rows: 4, columns: 3, data: new Float64Array(12) });
  assert.equal([...zeros], [0, 0, 0]);
  const one = singularValues({ rows: 3, columns: 3, data: Float64Array.of(1, 2, 2, 2, 4, 4, 2, 4, 4) }).sort(); // (1, 2, 2) (1, 2, 2)^T
  assertClose(one, [0, 0, 9], { atol: 1e-14, what: 'rank 1' });
});

algebra('a semi-definite factor gives the matrix back, with the rank that it has', () => {
  for (const [n, rank] of [[1, 1], [6, 6], [20, 7], [33, 32]]) {
    const s = covariance(n, rank, 4), a = semidefiniteFactor(s);
    assert.is(a.columns, rank);
    assertClose(multiply(a.data, transpose(a.data, n, rank), n, rank, n), s.data, { atol: 1e-13 * n * n, what: `${n} of rank ${rank}` });
  }
  assert.is(semidefiniteFactor({ rows: 3, columns: 3, data: new Float64Array(9) }).columns, 0);
});

algebra('a^T b, for numbers of rows that four does not divide', () => {
  for (const n of [1, 4, 7]) {
    const a = matrix(n, 3, 5), b = matrix(n, 5, 6);
    assertClose(transposedProduct(a, b).data, multiply(transpose(a.data, n, 3), b.data, 3, n, 5), { atol: 1e-14, what: `${n} rows` });
  }
});

algebra('the trace of the root: of matrices of any rank against the textbook, of rank one exactly', () => {
  for (const [n, r1, r2] of [[1, 1, 1], [8, 8, 8], [12, 5, 12], [12, 5, 9], [30, 30, 4]]) {
    const s1 = covariance(n, r1, 7), s2 = covariance(n, r2, 8), want = rootOfProductTrace(s1.data, s2.data, n);
    // The textbook's square roots are off by 1e-8 where the product is singular; ours are not.
    near(traceOfRoot(s1, s2), want, (r1 === n && r2 === n ? 1e-11 : 1e-6) * want, `${n}, ranks ${r1} and ${r2}`);
  }
  const v = draw(50, 9), w = draw(50, 10), outer = (x: Float64Array): Matrix => ({ rows: 50, columns: 50, data: Float64Array.from({ length: 2500 }, (_, i) => x[Math.floor(i / 50)] * x[i % 50]) });
  const dot = v.reduce((sum, x, i) => sum + x * w[i], 0);
  near(traceOfRoot(outer(v), outer(w)), Math.abs(dot), 1e-13 * 50, '|v . w|');
});
algebra.run();

const frechet = suite('Fréchet distance');

frechet('statistics are the mean and the unbiased covariance', () => {
  for (const count of [2, 5, 9]) {
    const { data, width } = features(count, 3, 11), { mu, sigma } = statistics({ data, width, count });
    for (let i = 0; i < 3; i++) {
      const column = (k: number): number[] => Array.from({ length: count }, (_, n) => data[n * 3 + k]), mean = (x: number[]): number => x.reduce((a, b) => a + b) / count;
      near(mu[i], mean(column(i)), 1e-15, 'mu');
      for (let j = 0; j < 3; j++) {
        const [x, y] = [column(i), column(j)], want = x.reduce((sum, v, n) => sum + (v - mean(x)) * (y[n] - mean(y)), 0) / (count - 1);
        near(sigma[i * 3 + j], want, 1e-14, 'sigma');
      }
    }
  }
});

const gaussian = (mu: number[], sigma: number[]): Statistics => ({ width: mu.length, mu: Float64Array.from(mu), sigma: Float64Array.from(sigma) });

frechet('closed forms', () => {
  // One dimension: (m1 - m2)^2 + (s1 - s2)^2.
  near(frechetDistance(gaussian([1], [4]), gaussian([3], [9])), 5, 1e-14, 'one dimension');
  // Covariances that commute.
  near(frechetDistance(gaussian([0, 0], [1, 0, 0, 16]), gaussian([1, 2], [4, 0, 0, 9])), 5 + 1 + 1, 1e-14, 'diagonal');
  // 2 x 2: Tr (AB)^(1/2) = sqrt(Tr AB + 2 sqrt(det A det B)).
  const a = [2, 1, 1, 3], b = [5, -2, -2, 1];
  const traceAb = a[0] * b[0] + 2 * a[1] * b[1] + a[3] * b[3], det = (m: number[]): number => m[0] * m[3] - m[1] * m[2];
  near(frechetDistance(gaussian([0, 0], a), gaussian([0, 0], b)), 5 + 6 - 2 * Math.sqrt(traceAb + 2 * Math.sqrt(det(a) * det(b))), 1e-14, '2 x 2');
  // A point mass has no covariance at all.
  near(frechetDistance(gaussian([1, 1], [0, 0, 0, 0]), gaussian([0, 0], a)), 2 + 5, 1e-14, 'a point');
});

frechet('is zero for equal sets, symmetric, and zero covers sets with fewer images than features', () => {
  for (const [count, width] of [[100, 7], [9, 20]]) {
    const a = statistics(features(count, width, 12)), b = statistics(features(count, width, 13, 2, 0.5));
    const size = a.sigma.reduce((sum, v, i) => sum + (i % (width + 1) ? 0 : v), 0);
    near(frechetDistance(a, a), 0, 1e-13 * size, 'equal');
    assert.ok(frechetDistance(a, b) > 1);
    near(frechetDistance(a, b), frechetDistance(b, a), 1e-11 * size, 'symmetric');
  }
});

frechet('does not change under shifts and rotations, and grows with the square of a scale', () => {
  const width = 6, a = features(40, width, 14), b = features(50, width, 15, 1.5, 1), want = frechetDistance(statistics(a), statistics(b));
  const each = (set: Features, f: (row: Float32Array) => number[]): Statistics =>
    statistics({ ...set, data: Float32Array.from(Array.from({ length: set.count }, (_, n) => f(set.data.subarray(n * width, (n + 1) * width))).flat()) });
  const both = (f: (row: Float32Array) => number[]): number => frechetDistance(each(a, f), each(b, f));
  near(both((row) => [...row].map((v) => v + 3)), want, 1e-5 * want, 'shift');
  near(both((row) => [...row].map((v) => 4 * v)), 16 * want, 1e-12 * want, 'scale');
  near(both((row) => [row[1], -row[0], row[5], row[2], row[3], row[4]]), want, 1e-12 * want, 'a quarter turn');
  const [c, s] = [Math.cos(0.7), Math.sin(0.7)];
  near(both(([x, y, ...rest]) => [c * x - s * y, s * x + c * y, ...rest]), want, 1e-5 * want, 'a rotation, rounded to float32');
});

frechet('refuses what cannot be compared', async () => {
  await assertError(() => frechetDistance(gaussian([0], [1]), gaussian([0, 0], [1, 0, 0, 1])), 'E-SHAPE', /1 and of 2 features/);
  await assertError(() => statistics(features(1, 3, 0)), 'E-USAGE', /two images at least/);
  await assertError(() => statistics({ count: 2, width: 1, data: Float32Array.of(1, NaN) }), 'E-NONFINITE', /not finite/);
});
frechet.run();

const manifolds = suite('precision and recall');

/** As the definition has it: sorted lists of distances. */
function byDefinition(generated: Features, real: Features, k: number): { precision: number; recall: number } {
  const row = ({ data, width }: Features, i: number): Float32Array => data.subarray(i * width, (i + 1) * width);
  const distance = (a: Float32Array, b: Float32Array): number => Math.sqrt(a.reduce((sum, v, c) => sum + (v - b[c]) ** 2, 0));
  const reach = (set: Features, i: number): number => Array.from({ length: set.count }, (_, j) => distance(row(set, i), row(set, j))).toSpliced(i, 1).sort((a, b) => a - b)[k - 1];
  const covered = (points: Features, by: Features): number => {
    const reaches = Array.from({ length: by.count }, (_, j) => reach(by, j));
    return Array.from({ length: points.count }, (_, i) => i).filter((i) => reaches.some((r, j) => distance(row(points, i), row(by, j)) <= r * (1 + 1e-12))).length / points.count;
  };
  return { precision: covered(generated, real), recall: covered(real, generated) };
}

manifolds('against the definition, for numbers that no block divides', () => {
  for (const [a, b, width, k] of [[5, 4, 1, 3], [70, 130, 3, 3], [130, 70, 6, 1], [66, 65, 9, 5]]) {
    const generated = features(a, width, 20, 1.3, 0.2), real = features(b, width, 21), got = precisionRecall(generated, real, k), want = byDefinition(generated, real, k);
    assert.equal(got, want, `${a} and ${b} of ${width}, k = ${k}`);
    if (a > 60) assert.ok(got.precision > 0 && got.recall > 0 && got.precision < 1);
  }
});

const line = (...x: number[]): Features => ({ count: x.length, width: 1, data: Float32Array.from(x) });

manifolds('hand-made sets', () => {
  // k = 1: every point reaches its neighbour.
  assert.equal(precisionRecall(line(0.5, 11), line(0, 1, 2), 1), { precision: 0.5, recall: 1 }); // 11 and 0.5 reach 10.5 far
  assert.equal(precisionRecall(line(0.2, 0.3), line(0, 1, 2, 3), 1), { precision: 1, recall: 0 }); // one mode of many
  assert.equal(precisionRecall(line(100, 101), line(0, 1), 1), { precision: 0, recall: 0 });
  // On the edge is inside.
  assert.equal(precisionRecall(line(3, 4), line(0, 2), 1), { precision: 1, recall: 0.5 });
  // Points that coincide reach nothing but themselves.
  assert.equal(precisionRecall(line(0, 0, 1), line(0, 0, 5), 1), { precision: 1, recall: 2 / 3 });
});

manifolds('equal sets give 1, exchanging the sets exchanges the figures, shifts and scales change nothing', () => {
  const a = features(60, 5, 22), b = features(50, 5, 23, 1.2, 0.3);
  assert.equal(precisionRecall(a, a), { precision: 1, recall: 1 });
  const { precision, recall } = precisionRecall(a, b);
  assert.equal(precisionRecall(b, a), { precision: recall, recall: precision });
  const scaled = (set: Features): Features => ({ ...set, data: set.data.map((v) => 4 * v) });
  assert.equal(precisionRecall(scaled(a), scaled(b)), { precision, recall });
});

manifolds('refuses what it cannot measure', async () => {
  await assertError(() => precisionRecall(features(3, 2, 0), features(9, 2, 0)), 'E-USAGE', /only 3 images/);
  await assertError(() => precisionRecall(features(9, 2, 0), features(9, 3, 0)), 'E-SHAPE', /2 and of 3/);
});
manifolds.run();

const device = gpuSuite('precision and recall on the device');

device('the figures are those of float64, and few decisions need it, whatever the sizes and wherever the centre', async (engine) => {
  for (const [a, b, width, k, shift] of [[5, 4, 1, 3, 0], [70, 130, 3, 3, 0], [261, 66, 50, 1, 1000], [40, 90, 9, 5, -3e4]]) {
    const generated = features(a, width, 20, 1.3, 0.2 + shift), real = features(b, width, 21, 1, shift), { recomputed, ...got } = await precisionRecallOnDevice(engine, generated, real, k);
    assert.equal(got, precisionRecall(generated, real, k), `${a} and ${b} of ${width}, k = ${k}`);
    // Besides the k nearest themselves, which are always measured again.
    assert.ok(recomputed < (k * (a + b)) / (a * a + b * b + a * b) + 0.02, `${recomputed} of ${a} and ${b}`);
  }
});

device('what cannot be decided in float32 is decided by the differences', async (engine) => {
  const far = 2 ** 20, off = (set: Features, by: number): Features => ({ ...set, data: set.data.map((v) => v + by) });
  for (const [a, b, k] of [
    [line(3, 4), line(0, 2), 1], [line(0, 0, 1), line(0, 0, 5), 1], [line(100, 101), line(0, 1), 1],
    // Neighbours a 2^20th of the spread apart, in a cloud far from zero.
    [off(line(0, 0.125, 0.375, far), far), off(line(0.25, 0.5, 1, far + 0.125), far), 1],
    // Squares that are too small, and too large, for float32.
    [{ ...features(9, 3, 1), data: features(9, 3, 1).data.map((v) => v * 1e-25) }, { ...features(8, 3, 2), data: features(8, 3, 2).data.map((v) => v * 1e-25) }, 3],
    [{ ...features(9, 3, 1), data: features(9, 3, 1).data.map((v) => v * 1e30) }, { ...features(8, 3, 2), data: features(8, 3, 2).data.map((v) => v * 1e30) }, 3],
  ] as [Features, Features, number][]) {
    const { recomputed: _, ...got } = await precisionRecallOnDevice(engine, a, b, k);
    assert.equal(got, precisionRecall(a, b, k));
  }
  const before = engine.memory().live;
  await precisionRecallOnDevice(engine, line(1, 2, 3), line(2, 3, 4), 1);
  assert.is(engine.memory().live, before);
  await assertError(() => precisionRecallOnDevice(engine, features(9, 2, 0), features(9, 3, 0)), 'E-SHAPE', /2 and of 3/);
});
device.run();
