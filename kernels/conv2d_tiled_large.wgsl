// TRANSPOSED = false: y = conv(x, w) + bias + per_image + residual, as conv2d_forward; true: dx from dy, as conv2d_backward_input, with w as (K, K, O, C)
// One workgroup computes 128 pixels x 128 channels, an invocation 8 x 8: conv2d_tiled with four times the work for twice the loads, for maps large enough
// to fill a GPU with such tiles. Names as there. The channels that are summed are a multiple of 16, so that no tile of k crosses a tap; the others of 4.
#import index
#import conv2d
override TRANSPOSED: bool = false;
@group(0) @binding(0) var<storage, read> x: array<vec4f>;         // pixels x CIN
@group(0) @binding(1) var<storage, read> w: array<vec4f>;         // (K, K, WROWS, COUT)
@group(0) @binding(2) var<storage, read> bias: array<vec4f>;      // (COUT)
@group(0) @binding(3) var<storage, read> per_image: array<vec4f>; // (N, COUT)
@group(0) @binding(4) var<storage, read> residual: array<vec4f>;  // pixels x COUT
@group(0) @binding(5) var<storage, read_write> y: array<vec4f>;   // pixels x COUT
@group(0) @binding(6) var<uniform> dims: Dims;

var<workgroup> xs: array<vec4f, 512>; // (16 / 4, 128 pixels): k-major, so that the inner loop's reads are broadcasts
var<workgroup> ws: array<vec4f, 512>; // (16, 128 / 4)

@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_id) l: vec3u, @builtin(local_invocation_index) li: u32) {
  let cin4 = select(dims.C, dims.O, TRANSPOSED) / 4u;
  let cout4 = select(dims.O, dims.C, TRANSPOSED) / 4u;
  let w_rows = select(dims.WC, dims.O, TRANSPOSED);
  let w_first = select(dims.C0, 0u, TRANSPOSED);
  let height = select(dims.OH, dims.H, TRANSPOSED);
  let width = select(dims.OW, dims.W, TRANSPOSED);
  let pixels = dims.N * height * width;
  let column_tiles = (cout4 + 31u) / 32u;
  let tile = workgroup_index(workgroup, count);
  let row = tile / column_tiles * 128u;
  let column = tile % column_tiles * 32u;

  let q = pixel(row + li % 128u, height, width);
  let n = column + li % 32u;
  let k4 = li / 128u;
  let k = li / 32u;
  var acc: array<array<vec4f, 2>, 8>;
  for (var kh = 0u; kh < dims.K; kh++) {
    for (var kw = 0u; kw < dims.K; kw++) {
      var p = -1;
      if (TRANSPOSED) { p = output_pixel(q, kh, kw); } else { p = input_pixel(q, kh, kw); }
      let start = u32(max(p, 0)) * cin4 + k4;
      let tap = (kh * dims.K + kw) * w_rows + w_first + k;
      for (var c = 0u; c < cin4; c += 4u) {
        var a0 = vec4f(0.0);
        var a1 = vec4f(0.0);
        if (p >= 0) {
          a0 = x[start + c];
          a1 = x[start + c + 2u];
        }
        var b0 = vec4f(0.0);
        var b1 = vec4f(0.0);
        if (n < cout4) {
          b0 = w[(tap + c * 4u) * cout4 + n];
          b1 = w[(tap + c * 4u + 8u) * cout4 + n];
        }
        workgroupBarrier();
        xs[li] = a0;
        xs[li + 256u] = a1;
        ws[li] = b0;
        ws[li + 256u] = b1;
        workgroupBarrier();
        for (var s = 0u; s < 4u; s++) {
          let o = s * 128u + l.x;
          let u = mat4x4f(ws[o], ws[o + 32u], ws[o + 64u], ws[o + 96u]);
          let v = mat4x4f(ws[o + 16u], ws[o + 48u], ws[o + 80u], ws[o + 112u]);
          for (var i = 0u; i < 8u; i++) {
            let a = xs[s * 128u + l.y * 8u + i];
            acc[i][0] = fma(vec4f(a.x), u[0], fma(vec4f(a.y), u[1], fma(vec4f(a.z), u[2], fma(vec4f(a.w), u[3], acc[i][0]))));
            acc[i][1] = fma(vec4f(a.x), v[0], fma(vec4f(a.y), v[1], fma(vec4f(a.z), v[2], fma(vec4f(a.w), v[3], acc[i][1]))));
          }
        }
      }
    }
  }

  for (var j = 0u; j < 2u; j++) {
    let c = column + l.x + 16u * j;
    if (c >= cout4) { break; }
    var start = vec4f(0.0);
    if (dims.has_bias != 0u) { start = bias[c]; }
    for (var i = 0u; i < 8u; i++) {
      let p = row + l.y * 8u + i;
      if (p >= pixels) { break; }
      var sum = acc[i][j] + start;
      if (dims.has_per_image != 0u) { sum += per_image[p / (height * width) * cout4 + c]; }
      if (dims.has_residual != 0u) { sum += residual[p * cout4 + c]; }
      if (dims.accumulate != 0u) { sum += y[p * cout4 + c]; }
      y[p * cout4 + c] = sum;
    }
  }
}
