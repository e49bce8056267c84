// C[b,i,j] = alpha sum_k op(A)[b,i,k] op(B)[b,k,j] (+ C[b,i,j]); op transposes if trans_a, trans_b are set
// One workgroup computes 32 x 32 of one matrix, an invocation 4 x 4, with tiles of 16 k in workgroup memory. Batches have an outer and an inner stride
// (image and head), so that attention heads are read in place, inside (N, T, C).
#import operands
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

var<workgroup> ta: array<Operand, 528>; // (16, 33): k x rows; one row is padding against bank conflicts
var<workgroup> tb: array<Operand, 528>; // (16, 33): k x columns, likewise

@compute @workgroup_size(8, 8)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_id) l: vec3u, @builtin(local_invocation_index) li: u32) {
  let columns = (dims.N + 31u) / 32u;
  let rows = (dims.M + 31u) / 32u;
  let tile = workgroup_index(workgroup, count);
  let j0 = tile % columns * 32u;
  let i0 = tile / columns % rows * 32u;
  let batch = tile / (columns * rows);
  if (batch >= dims.batch) { return; }
  let a0 = batch / dims.inner * dims.outer_a + batch % dims.inner * dims.inner_a;
  let b0 = batch / dims.inner * dims.outer_b + batch % dims.inner * dims.inner_b;
  let c0 = batch / dims.inner * dims.outer_c + batch % dims.inner * dims.inner_c;

  var acc: array<vec4f, 4>;
  for (var k0 = 0u; k0 < dims.K; k0 += 16u) {
    for (var s = li; s < 512u; s += 64u) {
      // In either orientation the faster index follows memory.
      let ka = select(s % 16u, s / 32u, dims.trans_a != 0u);
      let ia = select(s / 16u, s % 32u, dims.trans_a != 0u);
      let kb = select(s / 32u, s % 16u, dims.trans_b != 0u);
      let jb = select(s % 32u, s / 16u, dims.trans_b != 0u);
      var va = 0.0;
      if (i0 + ia < dims.M && k0 + ka < dims.K) { va = f32(a[a0 + select((i0 + ia) * dims.lda + k0 + ka, (k0 + ka) * dims.lda + i0 + ia, dims.trans_a != 0u)]); }
      var vb = 0.0;
      if (j0 + jb < dims.N && k0 + kb < dims.K) { vb = f32(b[b0 + select((k0 + kb) * dims.ldb + j0 + jb, (j0 + jb) * dims.ldb + k0 + kb, dims.trans_b != 0u)]); }
      ta[ka * 33u + ia] = Operand(va);
      tb[kb * 33u + jb] = Operand(vb);
    }
    workgroupBarrier();
    for (var k = 0u; k < 16u; k++) {
      let rb = k * 33u + l.x;
      let vb = vec4f(f32(tb[rb]), f32(tb[rb + 8u]), f32(tb[rb + 16u]), f32(tb[rb + 24u]));
      for (var r = 0u; r < 4u; r++) { acc[r] = fma(vec4f(f32(ta[k * 33u + l.y * 4u + r])), vb, acc[r]); }
    }
    workgroupBarrier();
  }
  for (var r = 0u; r < 4u; r++) {
    for (var s = 0u; s < 4u; s++) {
      let i = i0 + l.y * 4u + r;
      let j = j0 + l.x + 8u * s;
      if (i < dims.M && j < dims.N) {
        let out = c0 + i * dims.ldc + j;
        var value = dims.alpha * acc[r][s];
        if (dims.accumulate != 0u) { value += f32(c[out]); }
        c[out] = Stored(value);
      }
    }
  }
}
