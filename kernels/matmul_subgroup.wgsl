// C[b,i,j] = alpha sum_k op(A)[b,i,k] op(B)[b,k,j] (+ C[b,i,j]); op transposes if TRANS_A, TRANS_B are set
// One subgroup of LANES, eight, four (_lanes4) or sixteen (_lanes16), computes LANES R rows x 4 Q columns of one matrix, four k a turn, lane = R rows. The factors out of B reach the multiply-adds by broadcast.
// For CPUs, as conv2d_subgroup: loads are what takes time, so that a tile has as many rows for each column, and columns for each row, as registers and first cache hold.
// Rows of A, B and C are read and written as vec4s: leading dimensions and offsets are multiples of 4. If N is not, up to three more columns are written, which must be padding.
enable subgroups;
#import index
#import subgroup_8
#import column_of
override R: u32 = 8u;
override Q: u32 = 16u;
override TRANS_A: bool = false;
override TRANS_B: bool = false;
struct Dims {
  M: u32, N: u32, K: u32, batch: u32, inner: u32, accumulate: u32, alpha: f32,
  lda: u32, ldb: u32, ldc: u32, outer_a: u32, outer_b: u32, outer_c: u32, inner_a: u32, inner_b: u32, inner_c: u32,
}
@group(0) @binding(0) var<storage, read> a: array<vec4f>;       // (batch, M, K), or (batch, K, M) where TRANS_A
@group(0) @binding(1) var<storage, read> b: array<vec4f>;       // (batch, K, N), or (batch, N, K) where TRANS_B
@group(0) @binding(2) var<storage, read_write> c: array<vec4f>; // (batch, M, N)
@group(0) @binding(3) var<uniform> dims: Dims;

// The sums: of the lane's row r and column j of the tile the one at 64 r + j.
alias Sums = array<f32, 512>;
// Four k of the lane's rows.
alias Rows = array<vec4f, 8>;

// One column after another, so that its four factors wait in registers for all rows. All is written out, as llvmpipe unrolls no loop as long as this.
fn meet_column(acc: ptr<function, Sums>, j: u32, s: ptr<function, Rows>, w: vec4f) {
  (*acc)[j] += dot((*s)[0], w);
  (*acc)[64u + j] += dot((*s)[1], w);
  (*acc)[128u + j] += dot((*s)[2], w);
  (*acc)[192u + j] += dot((*s)[3], w);
  if (R > 4u) {
    (*acc)[256u + j] += dot((*s)[4], w);
    (*acc)[320u + j] += dot((*s)[5], w);
    (*acc)[384u + j] += dot((*s)[6], w);
    (*acc)[448u + j] += dot((*s)[7], w);
  }
}
fn meet_four(acc: ptr<function, Sums>, j: u32, s: ptr<function, Rows>, v: Sixteen, q: u32) {
  meet_column(acc, j, s, column_of(v, TRANS_B, q, 0u));
  meet_column(acc, j + 1u, s, column_of(v, TRANS_B, q, 1u));
  meet_column(acc, j + 2u, s, column_of(v, TRANS_B, q, 2u));
  meet_column(acc, j + 3u, s, column_of(v, TRANS_B, q, 3u));
}
fn meet(acc: ptr<function, Sums>, j: u32, s: ptr<function, Rows>, v: Sixteen) {
  meet_four(acc, j, s, v, 0u);
  meet_four(acc, j + 4u, s, v, 1u);
  meet_four(acc, j + 8u, s, v, 2u);
  meet_four(acc, j + 12u, s, v, 3u);
}

// Four k of row or column `at`, zeros past the end of k.
fn along_a(at: u32, k: u32) -> vec4f { return select(vec4f(0.0), a[at + k / 4u], vec4u(k) + vec4u(0u, 1u, 2u, 3u) < vec4u(dims.K)); }
fn along_b(at: u32, k: u32) -> vec4f { return select(vec4f(0.0), b[at + k / 4u], vec4u(k) + vec4u(0u, 1u, 2u, 3u) < vec4u(dims.K)); }

// Four columns of row k, zeros past the end of k.
fn across_a(at: u32, k: u32) -> vec4f { return select(vec4f(0.0), a[at + min(k, dims.K - 1u) * (dims.lda / 4u)], vec4<bool>(k < dims.K)); }
fn across_b(at: u32, k: u32) -> vec4f { return select(vec4f(0.0), b[at + min(k, dims.K - 1u) * (dims.ldb / 4u)], vec4<bool>(k < dims.K)); }

// Four rows of A from where a lane's four columns of it begin.
fn turned_a(at: u32, k: u32) -> mat4x4f { return transpose(mat4x4f(across_a(at, k), across_a(at, k + 1u), across_a(at, k + 2u), across_a(at, k + 3u))); }

// What the lane brings of four k and 16 columns of B, from vec4 `column` on. Of eight lanes only two of the four are used, and loaded, of sixteen one.
fn factors(b0: u32, column: u32, k: u32, lane: u32) -> Sixteen {
  if (TRANS_B) {
    let j = min(vec4u(4u * column + lane) + LANES * vec4u(0u, 1u, 2u, 3u), vec4u(dims.N - 1u)) * (dims.ldb / 4u) + vec4u(b0);
    return sixteen(along_b(j.x, k), along_b(j.y, k), along_b(j.z, k), along_b(j.w, k));
  }
  let j = b0 + min(column + lane % 4u, (dims.N - 1u) / 4u);
  let r = k + lane / 4u;
  return sixteen(across_b(j, r), across_b(j, r + LANES / 4u), across_b(j, r + LANES / 2u), across_b(j, r + 3u * LANES / 4u));
}

// Row i of the lane's: LANES apart, or, TRANS_A, two times four neighbours.
fn row_of(lane: u32, i: u32) -> u32 { return select(lane + LANES * i, 4u * lane + i % 4u + i / 4u * (4u * LANES), TRANS_A); }

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let N4 = (dims.N + 3u) / 4u;
  let column_tiles = (N4 + Q - 1u) / Q;
  let row_tiles = (dims.M + LANES * R - 1u) / (LANES * R);
  let tile = workgroup_index(workgroup, count);
  let row = tile / column_tiles % row_tiles * LANES * R;
  let column = tile % column_tiles * Q;
  let batch = tile / (column_tiles * row_tiles);
  if (batch >= dims.batch) { return; }
  let image = batch / dims.inner;
  let head = batch % dims.inner;
  let a0 = (image * dims.outer_a + head * dims.inner_a) / 4u;
  let b0 = (image * dims.outer_b + head * dims.inner_b) / 4u;
  let c0 = (image * dims.outer_c + head * dims.inner_c) / 4u;
  let lda = dims.lda / 4u;

  // Where the lane's rows begin, or its neighbouring rows; those past the end are the last.
  let last = dims.M - 1u;
  let r0 = a0 + min(row + lane, last) * lda;
  let r1 = a0 + min(row + lane + LANES, last) * lda;
  let r2 = a0 + min(row + lane + 2u * LANES, last) * lda;
  let r3 = a0 + min(row + lane + 3u * LANES, last) * lda;
  let r4 = a0 + min(row + lane + 4u * LANES, last) * lda;
  let r5 = a0 + min(row + lane + 5u * LANES, last) * lda;
  let r6 = a0 + min(row + lane + 6u * LANES, last) * lda;
  let r7 = a0 + min(row + lane + 7u * LANES, last) * lda;
  let low = a0 + min(row / 4u + lane, last / 4u);
  let high = a0 + min(row / 4u + lane + LANES, last / 4u);

  var acc: Sums;
  for (var k = 0u; k < dims.K; k += 4u) {
    var s: Rows;
    if (TRANS_A) {
      let t = turned_a(low, k);
      s[0] = t[0];
      s[1] = t[1];
      s[2] = t[2];
      s[3] = t[3];
    } else {
      s[0] = along_a(r0, k);
      s[1] = along_a(r1, k);
      s[2] = along_a(r2, k);
      s[3] = along_a(r3, k);
    }
    if (R > 4u) {
      if (TRANS_A) {
        let t = turned_a(high, k);
        s[4] = t[0];
        s[5] = t[1];
        s[6] = t[2];
        s[7] = t[3];
      } else {
        s[4] = along_a(r4, k);
        s[5] = along_a(r5, k);
        s[6] = along_a(r6, k);
        s[7] = along_a(r7, k);
      }
    }
    meet(&acc, 0u, &s, factors(b0, column, k, lane));
    if (Q > 4u) { meet(&acc, 16u, &s, factors(b0, column + 4u, k, lane)); }
    if (Q > 8u) {
      meet(&acc, 32u, &s, factors(b0, column + 8u, k, lane));
      meet(&acc, 48u, &s, factors(b0, column + 12u, k, lane));
    }
  }

  for (var i = 0u; i < R * min(Q, N4 - column); i++) {
    let r = row + row_of(lane, i % R);
    let at = i % R * 64u + i / R * 4u;
    if (r < dims.M) {
      let to = c0 + r * (dims.ldc / 4u) + column + i / R;
      var sum = dims.alpha * vec4f(acc[at], acc[at + 1u], acc[at + 2u], acc[at + 3u]);
      if (dims.accumulate != 0u) { sum += c[to]; }
      c[to] = sum;
    }
  }
}
