// C[b,i,j] = alpha sum_k op(A)[b,i,k] op(B)[b,k,j] (+ C[b,i,j]); op transposes if TRANS_A, TRANS_B are set
// One 8-wide subgroup computes 32 rows x 16 columns of one matrix, four k a turn. A reaches the FMAs by broadcast; a lane holds two columns of B and C.
// For CPUs, like conv2d_subgroup. Rows of A are read as vec4s, those of B and C as vec2s: lda and A's offsets are multiples of 4, ldb, ldc and theirs of 2.
// If N is odd, one more column is written, which must be padding.
enable subgroups;
#import index
override TRANS_A: bool = false;
override TRANS_B: bool = false;
struct Dims {
  M: u32, N: u32, K: u32, batch: u32, inner: u32, accumulate: u32, alpha: f32,
  lda: u32, ldb: u32, ldc: u32, outer_a: u32, outer_b: u32, outer_c: u32, inner_a: u32, inner_b: u32, inner_c: u32,
}
@group(0) @binding(0) var<storage, read> a: array<vec4f>;       // (batch, M, K), or (batch, K, M) where TRANS_A
@group(0) @binding(1) var<storage, read> b: array<vec2f>;       // (batch, K, N), or (batch, N, K) where TRANS_B
@group(0) @binding(2) var<storage, read_write> c: array<vec2f>; // (batch, M, N)
@group(0) @binding(3) var<uniform> dims: Dims;

fn multiply(a: vec4f, b0: vec2f, b1: vec2f, b2: vec2f, b3: vec2f, c: vec2f) -> vec2f {
  return fma(vec2f(a.x), b0, fma(vec2f(a.y), b1, fma(vec2f(a.z), b2, fma(vec2f(a.w), b3, c))));
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) lane: u32) {
  let column_tiles = (dims.N + 15u) / 16u;
  let row_tiles = (dims.M + 31u) / 32u;
  let tile = workgroup_index(workgroup, count);
  let row = tile / column_tiles % row_tiles * 32u;
  let column = tile % column_tiles * 16u + 2u * lane;
  let batch = tile / (column_tiles * row_tiles);
  if (batch >= dims.batch) { return; }
  let image = batch / dims.inner;
  let head = batch % dims.inner;
  let a0 = (image * dims.outer_a + head * dims.inner_a) / 4u;
  let b0 = (image * dims.outer_b + head * dims.inner_b) / 2u;
  let c0 = (image * dims.outer_c + head * dims.inner_c) / 2u;
  let lda = dims.lda / 4u;
  let ldb = dims.ldb / 2u;
  let last = dims.K - 1u;

  // Where the lane reads: rows of A eight apart, or four neighbouring rows; two columns of B, or two rows of k.
  let rows = min(vec4u(row + lane) + vec4u(0u, 8u, 16u, 24u), vec4u(dims.M - 1u)) * lda + vec4u(a0);
  let side = a0 + min(row / 4u + lane, (dims.M - 1u) / 4u);
  let pair = b0 + min(column, dims.N - 1u) / 2u;
  let two = vec2u(b0) + min(vec2u(column, column + 1u), vec2u(dims.N - 1u)) * ldb;

  var acc: array<vec2f, 32>;
  for (var k = 0u; k < dims.K; k += 4u) {
    let known = vec4u(k) + vec4u(0u, 1u, 2u, 3u) < vec4u(dims.K);
    let at = min(vec4u(k) + vec4u(0u, 1u, 2u, 3u), vec4u(last));
    var w: mat4x2f;
    if (TRANS_B) {
      let here = k / 2u;
      let next = min(here + 1u, last / 2u);
      let u = vec4f(b[two.x + here], b[two.x + next]);
      let v = vec4f(b[two.y + here], b[two.y + next]);
      w = mat4x2f(u.x, v.x, u.y, v.y, u.z, v.z, u.w, v.w);
    } else {
      w = mat4x2f(b[at.x * ldb + pair], b[at.y * ldb + pair], b[at.z * ldb + pair], b[at.w * ldb + pair]);
    }
    // Zeros past the end of k.
    w = mat4x2f(select(vec2f(0.0), w[0], known.x), select(vec2f(0.0), w[1], known.y), select(vec2f(0.0), w[2], known.z), select(vec2f(0.0), w[3], known.w));
    if (TRANS_A) {
      let s0 = a[side + at.x * lda];
      let s1 = a[side + at.y * lda];
      let s2 = a[side + at.z * lda];
      let s3 = a[side + at.w * lda];
      for (var j = 0u; j < 8u; j++) {
        let t = transpose(mat4x4f(subgroupShuffle(s0, j), subgroupShuffle(s1, j), subgroupShuffle(s2, j), subgroupShuffle(s3, j)));
        for (var i = 0u; i < 4u; i++) { acc[4u * j + i] = multiply(t[i], w[0], w[1], w[2], w[3], acc[4u * j + i]); }
      }
    } else {
      let r0 = select(vec4f(0.0), a[rows.x + k / 4u], known);
      let r1 = select(vec4f(0.0), a[rows.y + k / 4u], known);
      let r2 = select(vec4f(0.0), a[rows.z + k / 4u], known);
      let r3 = select(vec4f(0.0), a[rows.w + k / 4u], known);
      for (var r = 0u; r < 8u; r++) {
        acc[r] = multiply(subgroupShuffle(r0, r), w[0], w[1], w[2], w[3], acc[r]);
        acc[r + 8u] = multiply(subgroupShuffle(r1, r), w[0], w[1], w[2], w[3], acc[r + 8u]);
        acc[r + 16u] = multiply(subgroupShuffle(r2, r), w[0], w[1], w[2], w[3], acc[r + 16u]);
        acc[r + 24u] = multiply(subgroupShuffle(r3, r), w[0], w[1], w[2], w[3], acc[r + 24u]);
      }
    }
  }

  if (column >= dims.N) { return; }
  for (var r = 0u; r < 32u && row + r < dims.M; r++) {
    let i = c0 + (row + r) * (dims.ldc / 2u) + column / 2u;
    var sum = dims.alpha * acc[r];
    if (dims.accumulate != 0u) { sum += c[i]; }
    c[i] = sum;
  }
}
