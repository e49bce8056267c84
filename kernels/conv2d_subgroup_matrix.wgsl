// TRANSPOSED = false: y = conv(x, w) + bias + per_image + residual, as conv2d_forward; true: dx from dy, as conv2d_backward_input; factors are float16, sums float32
// One workgroup of four subgroups computes 128 pixels x 128 channels, a subgroup 64 x 64 as 4 x 4 matrices of 16 x 16: an implicit GEMM over k = (kh, kw, channel),
// whose factors are gathered into padded workgroup memory, 16 k a turn. For GPUs with tensor cores and subgroups of 32; channel counts are multiples of 4.
// Names are the GEMM's, as in conv2d_tiled. It has been compiled and never run: no device at hand has the feature.
enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
#import index
#import stored
#import conv2d
#import conv2d_gemm
override TRANSPOSED: bool = false;
override TWO: bool = false;
@group(0) @binding(0) var<storage, read> x: array<Stored4>;        // pixels x CIN
@group(0) @binding(1) var<storage, read> x2: array<Stored4>;       // pixels x (WC - C); anything where TWO is not set
@group(0) @binding(2) var<storage, read> w: array<vec4f>;          // (KH, KW, WC, O)
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;       // (COUT)
@group(0) @binding(4) var<storage, read> per_image: array<vec4f>;  // (N, COUT)
@group(0) @binding(5) var<storage, read> residual: array<Stored4>; // pixels x COUT
@group(0) @binding(6) var<storage, read_write> y: array<Stored4>;  // pixels x COUT
@group(0) @binding(7) var<uniform> dims: Dims;

// Rows of 16 and 128 halves, and 8 more against bank conflicts, in vec4s. All is 16 KiB, what every device has.
const XS = 6u;
const WS = 34u;
var<workgroup> xs: array<vec4<f16>, 768>; // (128 pixels, XS)
var<workgroup> ws: array<vec4<f16>, 768>; // (16 k, WS), or TRANSPOSED (128 channels, XS): as the weight lies in memory
var<workgroup> out: array<vec4f, 256>;    // (4 subgroups, 16, 16 / 4)

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) li: u32, @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
  let cin4 = gemm_cin4();
  let cout4 = gemm_cout4();
  let height = select(dims.OH, dims.H, TRANSPOSED);
  let width = select(dims.OW, dims.W, TRANSPOSED);
  let pixels = dims.N * height * width;
  let column_tiles = (cout4 + 31u) / 32u;
  let tile = workgroup_index(workgroup, count);
  let row = tile / column_tiles * 128u;
  let column = tile % column_tiles * 32u;
  let top = (subgroup & 1u) * 64u;
  let left = (subgroup >> 1u) * 64u;

  let q = pixel(row + li, height, width);
  let taps = dims.KH * dims.KW;
  let steps = (taps * cin4 + 3u) / 4u;
  var acc: array<array<subgroup_matrix_result<f32, 16, 16>, 4>, 4>;
  for (var step = 0u; step < steps; step++) {
    // An invocation brings one pixel's 16 k.
    for (var j = 0u; j < 4u; j++) {
      let k = step * 4u + j;
      xs[li * XS + j] = vec4<f16>(gemm_x(gemm_pixel(q, k / cin4), k % cin4, cin4));
    }
    for (var i = li; i < 512u; i += 128u) {
      var value = vec4f(0.0);
      if (TRANSPOSED) {
        let k = step * 4u + i % 4u;
        let n = column * 4u + i / 4u;
        if (k / cin4 < taps && n < dims.C) { value = w[(k / cin4 * dims.WC + dims.C0 + n) * cin4 + k % cin4]; }
        ws[i / 4u * XS + i % 4u] = vec4<f16>(value);
      } else {
        let k = step * 4u + i / 128u;
        let c = column + i % 32u;
        if (k / cin4 < taps && c < cout4) { value = w[(k / cin4 * dims.WC + dims.C0 + k % cin4 * 4u + i / 32u % 4u) * cout4 + c]; }
        ws[i / 32u * WS + i % 32u] = vec4<f16>(value);
      }
    }
    workgroupBarrier();
    var b: array<subgroup_matrix_right<f16, 16, 16>, 4>;
    for (var j = 0u; j < 4u; j++) {
      let n = left + 16u * j;
      if (TRANSPOSED) { b[j] = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&ws, n * XS, XS); }
      else { b[j] = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, row_major>(&ws, n / 4u, WS); }
    }
    for (var i = 0u; i < 4u; i++) {
      let a = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&xs, (top + 16u * i) * XS, XS);
      for (var j = 0u; j < 4u; j++) { acc[i][j] = subgroupMatrixMultiplyAccumulate(a, b[j], acc[i][j]); }
    }
    workgroupBarrier();
  }

  // A matrix has no elements in WGSL: it goes through memory to where they are masked and added to.
  for (var i = 0u; i < 4u; i++) {
    for (var j = 0u; j < 4u; j++) {
      subgroupMatrixStore<row_major>(&out, subgroup * 64u, acc[i][j], 4u);
      workgroupBarrier();
      for (var half = 0u; half < 2u; half++) {
        let r = lane / 4u + 8u * half;
        let p = row + top + 16u * i + r;
        let c = column + left / 4u + 4u * j + lane % 4u;
        if (p < pixels && c < cout4) {
          var sum = out[subgroup * 64u + r * 4u + lane % 4u];
          if (dims.has_bias != 0u) { sum += bias[c]; }
          if (dims.has_per_image != 0u) { sum += per_image[p / (height * width) * cout4 + c]; }
          if (dims.has_residual != 0u) { sum += vec4f(residual[p * cout4 + c]); }
          if (dims.accumulate != 0u) { sum += vec4f(y[p * cout4 + c]); }
          y[p * cout4 + c] = Stored4(sum);
        }
      }
      workgroupBarrier();
    }
  }
}
