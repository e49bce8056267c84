// Precision and recall with the products on the device: |a|^2 + |b|^2 - 2 ab in float32 decides wherever its error allows, and the differences in float64 where it does not.

import type { Engine } from '../gpu/engine.ts';
import { matmul } from '../ops/matmul.ts';
import { Tensor } from '../tensor.ts';
import type { Features } from './frechet.ts';
import { checkSets, insert, type PrecisionRecall, share, squaredDistance } from './precision_recall.ts';

/** Relative error of a float32 operation: WGSL rounds to either neighbour. */
const U = 2 ** -23;
/** What a product that is smaller than every normal number may lose. */
const FLUSHED = 2 ** -126;
/** Rows of a block of products, and the memory of the columns that are multiplied with them at a time. */
const ROWS = 256, COLUMN_BYTES = 2 ** 26;

/** Features less the centre of both sets, rows padded to whole vec4s: with the centre in them |a|^2 and 2 ab would be large and alike, and their difference lost. */
interface Centred {
  readonly features: Features;
  readonly pitch: number;
  readonly data: Float32Array;
  /** |a|^2 and |a| of every row. */
  readonly squares: Float64Array;
  readonly norms: Float64Array;
}

/**
 * The figures of precisionRecall, to the last bit: the products are float32's and every decision that they leave open is taken again by the differences
 * in float64. `recomputed` is the share of pairs where that was so.
 *
 * @throws DdpmError as precisionRecall does
 */
export async function precisionRecallOnDevice(engine: Engine, generated: Features, real: Features, k = 3, onProgress?: (done: number) => void): Promise<PrecisionRecall & { readonly recomputed: number }> {
  checkSets(generated, real, k);
  const centre = centreOf([generated, real]), a = centred(generated, centre), b = centred(real, centre), counts = [b.squares.length, a.squares.length, a.squares.length];
  const total = counts.reduce((x, y) => x + y);
  let done = 0, recomputed = 0;
  const exact = (x: Centred, i: number, y: Centred, j: number): number => {
    recomputed++;
    return squaredDistance(x.features.data, i * generated.width, y.features.data, j * generated.width, generated.width);
  };
  const step = (): void => onProgress?.(++done / total);

  /** The squared distance of every point to its k-th nearest neighbour. */
  const reach = async (set: Centred): Promise<Float64Array> => {
    const N = set.squares.length, out = new Float64Array(N), low = new Float64Array(N), nearest = new Float64Array(k);
    await eachRow(engine, set, set, (i, distance, error) => {
      // No point can be among the nearest whose distance is at least more than k others have at most.
      nearest.fill(Infinity);
      for (let j = 0; j < N; j++) {
        const d = distance(j), e = error(j);
        low[j] = d - e;
        if (j !== i) insert(nearest, 0, k, d + e);
      }
      const limit = nearest[k - 1]!;
      nearest.fill(Infinity);
      // Written so that what is no number is looked at.
      for (let j = 0; j < N; j++) if (j !== i && !(low[j]! > limit)) insert(nearest, 0, k, exact(set, i, set, j));
      out[i] = nearest[k - 1]!;
      step();
    });
    return out;
  };

  const reachReal = await reach(b), reachGenerated = await reach(a);
  const insideReal = new Uint8Array(generated.count), insideGenerated = new Uint8Array(real.count);
  await eachRow(engine, a, b, (i, distance, error) => {
    const own = reachGenerated[i]!;
    for (let j = 0; j < real.count; j++) {
      if (insideReal[i] && insideGenerated[j]) continue;
      const d = distance(j), e = error(j), other = reachReal[j]!;
      if (d - e > other && d - e > own) continue;
      const known = (d + e <= other || d - e > other) && (d + e <= own || d - e > own), squared = known ? d : exact(a, i, b, j);
      if (squared <= other) insideReal[i] = 1;
      if (squared <= own) insideGenerated[j] = 1;
    }
    step();
  });
  return { precision: share(insideReal), recall: share(insideGenerated), recomputed: recomputed / (real.count ** 2 + generated.count ** 2 + real.count * generated.count) };
}

function centreOf(sets: readonly Features[]): Float64Array {
  const { width } = sets[0]!, sum = new Float64Array(width), count = sets.reduce((n, set) => n + set.count, 0);
  for (const { data } of sets) for (let i = 0, c = 0; i < data.length; i++, c = c + 1 === width ? 0 : c + 1) sum[c]! += data[i]! / count;
  return sum.map(Math.fround);
}

function centred(features: Features, centre: Float64Array): Centred {
  const { count, width, data: from } = features, pitch = 4 * Math.ceil(width / 4), data = new Float32Array(count * pitch), squares = new Float64Array(count);
  for (let i = 0; i < count; i++)
    for (let c = 0; c < width; c++) {
      const v = (data[i * pitch + c] = from[i * width + c]! - centre[c]!);
      squares[i]! += Math.fround(v) ** 2;
    }
  return { features, pitch, data, squares, norms: squares.map(Math.sqrt) };
}

/**
 * Calls f for every row i of a with the squared distances to the rows of b and the bounds of their errors, in order.
 *
 * With K products in a sum of any order the product of two rows is off by at most g |a| |b|, g = (K + 2) U / (1 - (K + 2) U); the rounding of a - centre
 * and b - centre moves the distance by at most U (|a| + |b|), so its square by 2 U (|a| + |b|)^2, U being twice what the host's rounding takes.
 */
async function eachRow(engine: Engine, a: Centred, b: Centred, f: (i: number, distance: (j: number) => number, error: (j: number) => number) => void): Promise<void> {
  const { pitch } = a, M = a.squares.length, N = b.squares.length, K = a.features.width, g = ((K + 2) * U) / (1 - (K + 2) * U);
  const wide = Math.min(N, Math.max(1, Math.floor(COLUMN_BYTES / (4 * pitch)))), ld = 4 * Math.ceil(wide / 4);
  const columns = Array.from({ length: Math.ceil(N / wide) }, (_, c) => Tensor.from(engine, [Math.min(wide, N - c * wide), pitch], b.data.subarray(c * wide * pitch, Math.min(N, (c + 1) * wide) * pitch)));
  const rows = Tensor.empty(engine, [Math.min(ROWS, M), pitch]), products = Tensor.empty(engine, [Math.min(ROWS, M), ld]), dots = new Float64Array(N);
  try {
    for (let first = 0; first < M; first += ROWS) {
      const count = Math.min(ROWS, M - first), parts: Float32Array[] = [];
      engine.write(rows.slice, a.data.subarray(first * pitch, (first + count) * pitch));
      for (const part of columns) {
        const operand = (slice: Tensor['slice'], each: number) => ({ slice, ld: each, outer: 0, inner: 0 });
        matmul(engine, count, part.shape[0]!, K, operand(rows.slice, pitch), { ...operand(part.slice, pitch), transposed: true }, operand(products.slice, ld));
        parts.push(await products.read());
      }
      for (let r = 0; r < count; r++) {
        const i = first + r, own = a.squares[i]!, norm = a.norms[i]!;
        parts.forEach((part, c) => dots.set(part.subarray(r * ld, r * ld + columns[c]!.shape[0]!), c * wide));
        f(i, (j) => own + b.squares[j]! - 2 * dots[j]!, (j) => 2 * g * norm * b.norms[j]! + 2 * U * (norm + b.norms[j]!) ** 2 + 4 * K * FLUSHED);
      }
    }
  } finally {
    for (const tensor of [...columns, rows, products]) tensor.free();
  }
}
