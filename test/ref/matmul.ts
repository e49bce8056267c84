// Float64 twins of the matrix products: batched C = alpha op(A) op(B) + bias + C, and the linear layer.

type Floats = ArrayLike<number>;

export interface Matmul {
  a: Floats; // op(A) is (M,K): stored (M,K), or (K,M) if transA
  b: Floats; // op(B) is (K,N): stored (K,N), or (N,K) if transB
  bias?: Floats; // (N), one a column
  c?: Floats; // what C holds before; the product is added to it
  M: number;
  N: number;
  K: number;
  alpha?: number;
  transA?: boolean;
  transB?: boolean;
  /** Elements from one stored row to the next; dense if left out. */
  lda?: number;
  ldb?: number;
  ldc?: number;
  batch?: number;
  /** Elements from one matrix of the batch to the next; dense if left out, 0 to share one matrix. */
  strideA?: number;
  strideB?: number;
  strideC?: number;
  /** A second, inner batch dimension (heads of an attention): matrix (i, j) starts at i stride + j headStride. */
  heads?: number;
  headStrideA?: number;
  headStrideB?: number;
  headStrideC?: number;
}

/** → all of C, up to its last element; what lies between the rows is as in c, or 0. */
export function matmul(s: Matmul): Float64Array {
  const { a, b, bias, c, M, N, K, alpha = 1, transA = false, transB = false, batch = 1, heads = 1 } = s;
  const { lda = transA ? M : K, ldb = transB ? K : N, ldc = N } = s;
  const { headStrideA = M * K, headStrideB = K * N, headStrideC = M * N } = s;
  const { strideA = heads * M * K, strideB = heads * K * N, strideC = heads * M * N } = s;
  const out = new Float64Array((batch - 1) * strideC + (heads - 1) * headStrideC + (M - 1) * ldc + N);
  if (c) for (let i = 0; i < out.length; i++) out[i] = c[i];
  for (let i = 0; i < batch; i++)
    for (let j = 0; j < heads; j++) {
      const a0 = i * strideA + j * headStrideA, b0 = i * strideB + j * headStrideB, c0 = i * strideC + j * headStrideC;
      for (let m = 0; m < M; m++)
        for (let n = 0; n < N; n++) {
          let sum = 0;
          for (let k = 0; k < K; k++) sum += a[a0 + (transA ? k * lda + m : m * lda + k)] * b[b0 + (transB ? n * ldb + k : k * ldb + n)];
          out[c0 + m * ldc + n] += alpha * sum + (bias ? bias[n] : 0);
        }
    }
  return out;
}

/** x (M,I), w (O,I), bias (O) → y (M,O) */
export function linear(x: Floats, w: Floats, bias: Floats | undefined, M: number, I: number, O: number): Float64Array {
  const y = new Float64Array(M * O);
  for (let m = 0; m < M; m++)
    for (let o = 0; o < O; o++) {
      y[m * O + o] = bias ? bias[o] : 0;
      for (let i = 0; i < I; i++) y[m * O + o] += x[m * I + i] * w[o * I + i];
    }
  return y;
}

/** dy (M,O) → dx (M,I), dw (O,I), dbias (O) */
export function linearBackward(x: Floats, w: Floats, dy: Floats, M: number, I: number, O: number) {
  const dx = new Float64Array(M * I), dw = new Float64Array(O * I), dbias = new Float64Array(O);
  for (let m = 0; m < M; m++)
    for (let o = 0; o < O; o++) {
      dbias[o] += dy[m * O + o];
      for (let i = 0; i < I; i++) {
        dx[m * I + i] += dy[m * O + o] * w[o * I + i];
        dw[o * I + i] += dy[m * O + o] * x[m * I + i];
      }
    }
  return { dx, dw, dbias };
}
