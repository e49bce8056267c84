// C[b,i,j] = alpha sum_k op(A)[b,i,k] op(B)[b,k,j] (+ C[b,i,j]); op transposes if TRANS_A, TRANS_B are set; factors are float16, sums float32
// One workgroup computes TILE x TILE of one matrix, each of eight subgroups TILE / 2 x TILE / 4 in matrices of 16 x 16, 32 k a turn; the next 32 load while these are multiplied.
// Sums have names, as in conv2d_subgroup_matrix. Strides are those of matmul and multiples of four. Padding between the last column and the next row is written too.
// For GPUs with tensor cores and subgroups of 32. 63 TFLOP/s on attention's products on an H100.
enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
#import index
#import stored
struct Dims {
  M: u32, N: u32, K: u32, batch: u32, inner: u32, accumulate: u32, alpha: f32,
  lda: u32, ldb: u32, ldc: u32, outer_a: u32, outer_b: u32, outer_c: u32, inner_a: u32, inner_b: u32, inner_c: u32,
}
// 128 needs more workgroup memory than WebGPU's default.
override TILE: u32 = 64u;
override TRANS_A: bool = false;
override TRANS_B: bool = false;
@group(0) @binding(0) var<storage, read> a: array<Stored4>;       // (batch, M, K), or (batch, K, M) where TRANS_A
@group(0) @binding(1) var<storage, read> b: array<Stored4>;       // (batch, K, N), or (batch, N, K) where TRANS_B
@group(0) @binding(2) var<storage, read_write> c: array<Stored4>; // (batch, M, N)
@group(0) @binding(3) var<uniform> dims: Dims;

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sums = subgroup_matrix_result<f32, 16, 16>;

// Factors keep the orientation that they have in memory: rows of 32 halves, or of TILE, and 8 more against bank conflicts, in vec4s.
const ALONG = 10u;
fn across() -> u32 { return TILE / 4u + 2u; }
var<workgroup> xs: array<vec4<f16>, TILE * ALONG>; // (TILE i, ALONG), or TRANS_A (32 k, across)
var<workgroup> ys: array<vec4<f16>, TILE * ALONG>; // (32 k, across), or TRANS_B (TILE j, ALONG)
#import settle

// The four vec4s (two if TILE is 64) that an invocation loads of an operand whose rows run along k, or across it: where they are, the step to the next turn's, and their first k.
struct Places { at: vec4u, step: u32, k: vec4u }
fn places(along: bool, base: u32, ld4: u32, first: u32, size: u32, li: u32) -> Places {
  let four = vec4u(0u, 1u, 2u, 3u);
  if (along) { return Places(base + min(first + li / 8u + 32u * four, vec4u(size - 1u)) * ld4 + li % 8u, 8u, vec4u(li % 8u * 4u)); }
  let k = li / (TILE / 4u) + 1024u / TILE * four;
  return Places(base + k * ld4 + min(first / 4u + li % (TILE / 4u), (size - 1u) / 4u), 32u * ld4, k);
}
// Which values of a vec4 are inside K.
fn before_last(along: bool, k: u32) -> vec4<bool> { return vec4u(k) + select(vec4u(0u), vec4u(0u, 1u, 2u, 3u), along) < vec4u(dims.K); }

fn a_at(i: u32, k: u32) -> vec4<f16> {
  if (k >= dims.K) { return vec4<f16>(); }
  return select(vec4<f16>(), vec4<f16>(a[i]), before_last(!TRANS_A, k));
}
fn b_at(i: u32, k: u32) -> vec4<f16> {
  if (k >= dims.K) { return vec4<f16>(); }
  return select(vec4<f16>(), vec4<f16>(b[i]), before_last(TRANS_B, k));
}

// Where the first of them is kept, and the step to the next.
fn place_kept(along: bool, li: u32) -> u32 { return select(li / (TILE / 4u) * across() + li % (TILE / 4u), li / 8u * ALONG + li % 8u, along); }
fn step_kept(along: bool) -> u32 { return select(1024u / TILE * across(), 32u * ALONG, along); }

fn left_factor(i: u32, k: u32) -> Left {
  if (TRANS_A) { return subgroupMatrixLoad<Left, col_major>(&xs, k * across() + i / 4u, across()); }
  return subgroupMatrixLoad<Left, row_major>(&xs, i * ALONG + k / 4u, ALONG);
}
fn right_factor(k: u32, j: u32) -> Right {
  if (TRANS_B) { return subgroupMatrixLoad<Right, col_major>(&ys, j * ALONG + k / 4u, ALONG); }
  return subgroupMatrixLoad<Right, row_major>(&ys, k * across() + j / 4u, across());
}

// Four columns of C from j4 on.
fn put(base: u32, i: u32, j4: u32, sum: vec4f) {
  if (i >= dims.M || j4 * 4u >= dims.N) { return; }
  let at = base + i * (dims.ldc / 4u) + j4;
  var value = dims.alpha * sum;
  if (dims.accumulate != 0u) { value += vec4f(c[at]); }
  c[at] = Stored4(value);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) li: u32, @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
  let columns = (dims.N + TILE - 1u) / TILE;
  let rows = (dims.M + TILE - 1u) / TILE;
  let tile = workgroup_index(workgroup, count);
  let j0 = tile % columns * TILE;
  let i0 = tile / columns % rows * TILE;
  let batch = tile / (columns * rows);
  if (batch >= dims.batch) { return; }
  let base_a = (batch / dims.inner * dims.outer_a + batch % dims.inner * dims.inner_a) / 4u;
  let base_b = (batch / dims.inner * dims.outer_b + batch % dims.inner * dims.inner_b) / 4u;
  let base_c = (batch / dims.inner * dims.outer_c + batch % dims.inner * dims.inner_c) / 4u;
  let top = subgroup % 2u * (TILE / 2u);
  let left = subgroup / 2u * (TILE / 4u);
  let at_x = place_kept(!TRANS_A, li);
  let step_x = step_kept(!TRANS_A);
  let at_y = place_kept(TRANS_B, li);
  let step_y = step_kept(TRANS_B);

  let pa = places(!TRANS_A, base_a, dims.lda / 4u, i0, dims.M, li);
  let pb = places(TRANS_B, base_b, dims.ldb / 4u, j0, dims.N, li);
  var at_a = pa.at;
  var at_b = pb.at;
  var a0: vec4<f16>; var a1: vec4<f16>; var a2: vec4<f16>; var a3: vec4<f16>;
  var b0: vec4<f16>; var b1: vec4<f16>; var b2: vec4<f16>; var b3: vec4<f16>;
  var s00: Sums; var s01: Sums;
  var s10: Sums; var s11: Sums;
  var s20: Sums; var s21: Sums;
  var s30: Sums; var s31: Sums;
  // A turn loads its own k and multiplies those of the turn before.
  for (var k0 = 0u; k0 < dims.K + 32u; k0 += 32u) {
    if (k0 > 0u) {
      xs[at_x] = a0;
      xs[at_x + step_x] = a1;
      ys[at_y] = b0;
      ys[at_y + step_y] = b1;
      if (TILE > 64u) {
        xs[at_x + 2u * step_x] = a2;
        xs[at_x + 3u * step_x] = a3;
        ys[at_y + 2u * step_y] = b2;
        ys[at_y + 3u * step_y] = b3;
      }
      workgroupBarrier();
    }

    if (k0 + 32u <= dims.K) {
      a0 = vec4<f16>(a[at_a.x]);
      a1 = vec4<f16>(a[at_a.y]);
      b0 = vec4<f16>(b[at_b.x]);
      b1 = vec4<f16>(b[at_b.y]);
      if (TILE > 64u) {
        a2 = vec4<f16>(a[at_a.z]);
        a3 = vec4<f16>(a[at_a.w]);
        b2 = vec4<f16>(b[at_b.z]);
        b3 = vec4<f16>(b[at_b.w]);
      }
    } else {
      a0 = a_at(at_a.x, k0 + pa.k.x);
      a1 = a_at(at_a.y, k0 + pa.k.y);
      b0 = b_at(at_b.x, k0 + pb.k.x);
      b1 = b_at(at_b.y, k0 + pb.k.y);
      if (TILE > 64u) {
        a2 = a_at(at_a.z, k0 + pa.k.z);
        a3 = a_at(at_a.w, k0 + pa.k.w);
        b2 = b_at(at_b.z, k0 + pb.k.z);
        b3 = b_at(at_b.w, k0 + pb.k.w);
      }
    }
    at_a += pa.step;
    at_b += pb.step;
    if (k0 == 0u) { continue; }

    for (var k = 0u; k < 32u; k += 16u) {
      let right0 = right_factor(k, left);
      let left0 = left_factor(top, k);
      s00 = subgroupMatrixMultiplyAccumulate(left0, right0, s00);
      let left1 = left_factor(top + 16u, k);
      s10 = subgroupMatrixMultiplyAccumulate(left1, right0, s10);
      if (TILE > 64u) {
        let right1 = right_factor(k, left + 16u);
        s01 = subgroupMatrixMultiplyAccumulate(left0, right1, s01);
        s11 = subgroupMatrixMultiplyAccumulate(left1, right1, s11);
        let left2 = left_factor(top + 32u, k);
        s20 = subgroupMatrixMultiplyAccumulate(left2, right0, s20);
        s21 = subgroupMatrixMultiplyAccumulate(left2, right1, s21);
        let left3 = left_factor(top + 48u, k);
        s30 = subgroupMatrixMultiplyAccumulate(left3, right0, s30);
        s31 = subgroupMatrixMultiplyAccumulate(left3, right1, s31);
      }
    }
    workgroupBarrier();
  }

  let i = i0 + top;
  let j = (j0 + left) / 4u;
  settle(s00, base_c, i, j, subgroup, lane);
  settle(s10, base_c, i + 16u, j, subgroup, lane);
  if (TILE > 64u) {
    settle(s01, base_c, i, j + 4u, subgroup, lane);
    settle(s11, base_c, i + 16u, j + 4u, subgroup, lane);
    settle(s20, base_c, i + 32u, j, subgroup, lane);
    settle(s21, base_c, i + 32u, j + 4u, subgroup, lane);
    settle(s30, base_c, i + 48u, j, subgroup, lane);
    settle(s31, base_c, i + 48u, j + 4u, subgroup, lane);
  }
}
