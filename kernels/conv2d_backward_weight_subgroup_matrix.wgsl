// part[s,kh,kw,c,o] = sum over the pixels of split s of x[n, oh*stride+kh-pad_top, ow*stride+kw-pad_left, c] * dy[n,oh,ow,o]; dw = sum_s part[s]; sums[s,o] = sum dy[n,oh,ow,o], whose fold is the bias's gradient; factors are float16, sums float32
// One workgroup of four subgroups computes 64 (kh,kw,c) x 64 o of one split, a subgroup 32 x 32 as 2 x 2 matrices of 16 x 16, 32 pixels a turn.
// For GPUs with tensor cores and subgroups of 32; C and O are multiples of 4. It has been compiled and never run: no device at hand has the feature.
enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
#import index
#import stored
#import conv2d
@group(0) @binding(0) var<storage, read> x: array<Stored4>;        // (N, H, W, C)
@group(0) @binding(1) var<storage, read> dy: array<Stored4>;       // (N, OH, OW, O)
@group(0) @binding(2) var<storage, read_write> part: array<vec4f>; // (splits, KH, KW, C, O)
@group(0) @binding(3) var<storage, read_write> sums: array<vec4f>; // (splits, O); anything where has_bias is not set
@group(0) @binding(4) var<uniform> dims: Dims;

const BK = 32u;
// Rows of 64 halves, and 8 more against bank conflicts, in vec4s.
const S = 18u;
var<workgroup> xs: array<vec4<f16>, 576>; // (BK, S): the left factor, turned
var<workgroup> ys: array<vec4<f16>, 576>; // (BK, S)
var<workgroup> out: array<vec4f, 256>;    // (4 subgroups, 16, 16 / 4)

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) li: u32, @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
  let C4 = dims.C / 4u;
  let O4 = dims.O / 4u;
  let rows4 = dims.KH * dims.KW * C4;
  let row_tiles = (rows4 + 15u) / 16u;
  let column_tiles = (O4 + 15u) / 16u;
  let tile = workgroup_index(workgroup, count);
  let column = tile % column_tiles * 16u;
  let row = tile / column_tiles % row_tiles * 16u;
  let split = tile / (column_tiles * row_tiles);
  let pixels = dims.N * dims.OH * dims.OW;
  let share = (pixels + BK * dims.splits - 1u) / (BK * dims.splits) * BK;
  let first = split * share;
  let end = min(first + share, pixels);
  let top = (subgroup & 1u) * 32u;
  let left = (subgroup >> 1u) * 32u;

  // What this invocation brings is fixed in m: one (tap, c) for x and one o for dy, at four pixels a turn.
  let m = row + li % 16u;
  let tap = min(m / C4, dims.KH * dims.KW - 1u);
  let n = column + li % 16u;
  var sum = vec4f(0.0);
  var acc: array<array<subgroup_matrix_result<f32, 16, 16>, 2>, 2>;
  for (var q0 = first; q0 < end; q0 += BK) {
    for (var j = 0u; j < 4u; j++) {
      let k = li / 16u + 8u * j;
      let q = q0 + k;
      var a = vec4f(0.0);
      var b = vec4f(0.0);
      if (q < end) {
        let p = input_pixel(pixel(q, dims.OH, dims.OW), tap / dims.KW, tap % dims.KW);
        if (p >= 0 && m < rows4) { a = vec4f(x[u32(p) * C4 + m % C4]); }
        if (n < O4) { b = vec4f(dy[q * O4 + n]); }
      }
      xs[k * S + li % 16u] = vec4<f16>(a);
      ys[k * S + li % 16u] = vec4<f16>(b);
    }
    workgroupBarrier();
    for (var k = 0u; k < BK; k += 16u) {
      var b: array<subgroup_matrix_right<f16, 16, 16>, 2>;
      for (var j = 0u; j < 2u; j++) { b[j] = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, row_major>(&ys, k * S + (left + 16u * j) / 4u, S); }
      for (var i = 0u; i < 2u; i++) {
        let a = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, col_major>(&xs, k * S + (top + 16u * i) / 4u, S);
        for (var j = 0u; j < 2u; j++) { acc[i][j] = subgroupMatrixMultiplyAccumulate(a, b[j], acc[i][j]); }
      }
    }
    if (dims.has_bias != 0u && row == 0u && li < 16u) {
      for (var k = 0u; k < BK; k++) { sum += vec4f(ys[k * S + li]); }
    }
    workgroupBarrier();
  }

  if (dims.has_bias != 0u && row == 0u && li < 16u && n < O4 && split < dims.splits) { sums[split * O4 + n] = sum; }
  for (var i = 0u; i < 2u; i++) {
    for (var j = 0u; j < 2u; j++) {
      subgroupMatrixStore<row_major>(&out, subgroup * 64u, acc[i][j], 4u);
      workgroupBarrier();
      for (var half = 0u; half < 2u; half++) {
        let r = lane / 4u + 8u * half;
        let to = row * 4u + top + 16u * i + r;
        let o = column + left / 4u + 4u * j + lane % 4u;
        if (to < rows4 * 4u && o < O4 && split < dims.splits) { part[(split * rows4 * 4u + to) * O4 + o] = out[subgroup * 64u + r * 4u + lane % 4u]; }
      }
      workgroupBarrier();
    }
  }
}
