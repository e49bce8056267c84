// C[b,i,j] = alpha sum_k op(A)[b,i,k] op(B)[b,k,j] (+ C[b,i,j]); op transposes where trans_a, trans_b are set; factors are float16, sums float32
// One workgroup of four subgroups computes 64 x 64 of one matrix, a subgroup 32 x 32 as 2 x 2 matrices of 16 x 16, 32 k a turn. Strides are those of matmul.
// For GPUs with tensor cores and subgroups of 32. It has been compiled and never run: no device at hand has the feature.
enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
#import index
#import stored
struct Dims {
  M: u32, N: u32, K: u32, batch: u32, inner: u32, trans_a: u32, trans_b: u32, accumulate: u32, alpha: f32,
  lda: u32, ldb: u32, ldc: u32, outer_a: u32, outer_b: u32, outer_c: u32, inner_a: u32, inner_b: u32, inner_c: u32,
}
@group(0) @binding(0) var<storage, read> a: array<Stored>;       // (batch, M, K), or (batch, K, M) where trans_a
@group(0) @binding(1) var<storage, read> b: array<Stored>;       // (batch, K, N), or (batch, N, K) where trans_b
@group(0) @binding(2) var<storage, read_write> c: array<Stored>; // (batch, M, N)
@group(0) @binding(3) var<uniform> dims: Dims;

// Rows of 32 and of 64 halves, and 8 more against bank conflicts.
const AS = 40u;
const BS = 72u;
var<workgroup> ta: array<f16, 2560>; // (64, AS)
var<workgroup> tb: array<f16, 2304>; // (32, BS)
var<workgroup> out: array<f32, 1024>; // (4 subgroups, 16, 16)

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) li: u32, @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
  let columns = (dims.N + 63u) / 64u;
  let rows = (dims.M + 63u) / 64u;
  let tile = workgroup_index(workgroup, count);
  let j0 = tile % columns * 64u;
  let i0 = tile / columns % rows * 64u;
  let batch = tile / (columns * rows);
  if (batch >= dims.batch) { return; }
  let a0 = batch / dims.inner * dims.outer_a + batch % dims.inner * dims.inner_a;
  let b0 = batch / dims.inner * dims.outer_b + batch % dims.inner * dims.inner_b;
  let c0 = batch / dims.inner * dims.outer_c + batch % dims.inner * dims.inner_c;
  let top = (subgroup & 1u) * 32u;
  let left = (subgroup >> 1u) * 32u;

  var acc: array<array<subgroup_matrix_result<f32, 16, 16>, 2>, 2>;
  for (var k0 = 0u; k0 < dims.K; k0 += 32u) {
    for (var s = li; s < 2048u; s += 128u) {
      // The faster index follows memory in either orientation.
      let ka = select(s % 32u, s / 64u, dims.trans_a != 0u);
      let ia = select(s / 32u, s % 64u, dims.trans_a != 0u);
      let kb = select(s / 64u, s % 32u, dims.trans_b != 0u);
      let jb = select(s % 64u, s / 32u, dims.trans_b != 0u);
      var va = 0.0;
      if (i0 + ia < dims.M && k0 + ka < dims.K) { va = f32(a[a0 + select((i0 + ia) * dims.lda + k0 + ka, (k0 + ka) * dims.lda + i0 + ia, dims.trans_a != 0u)]); }
      var vb = 0.0;
      if (j0 + jb < dims.N && k0 + kb < dims.K) { vb = f32(b[b0 + select((k0 + kb) * dims.ldb + j0 + jb, (j0 + jb) * dims.ldb + k0 + kb, dims.trans_b != 0u)]); }
      ta[ia * AS + ka] = f16(va);
      tb[kb * BS + jb] = f16(vb);
    }
    workgroupBarrier();
    for (var k = 0u; k < 32u; k += 16u) {
      var right: array<subgroup_matrix_right<f16, 16, 16>, 2>;
      for (var j = 0u; j < 2u; j++) { right[j] = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, row_major>(&tb, k * BS + left + 16u * j, BS); }
      for (var i = 0u; i < 2u; i++) {
        let rows_a = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&ta, (top + 16u * i) * AS + k, AS);
        for (var j = 0u; j < 2u; j++) { acc[i][j] = subgroupMatrixMultiplyAccumulate(rows_a, right[j], acc[i][j]); }
      }
    }
    workgroupBarrier();
  }

  for (var i = 0u; i < 2u; i++) {
    for (var j = 0u; j < 2u; j++) {
      subgroupMatrixStore<row_major>(&out, subgroup * 256u, acc[i][j], 16u);
      workgroupBarrier();
      for (var s = lane; s < 256u; s += 32u) {
        let m = i0 + top + 16u * i + s / 16u;
        let n = j0 + left + 16u * j + s % 16u;
        if (m < dims.M && n < dims.N) {
          let to = c0 + m * dims.ldc + n;
          var value = dims.alpha * out[subgroup * 256u + s];
          if (dims.accumulate != 0u) { value += f32(c[to]); }
          c[to] = Stored(value);
        }
      }
      workgroupBarrier();
    }
  }
}
