// part[s,kh,kw,c,o] = sum over the pixels of split s of x[n, oh*stride+kh-pad_top, ow*stride+kw-pad_left, c] * dy[n,oh,ow,o]; dw = sum_s part[s]
// One workgroup computes 128 (kh,kw,c) x 128 o of one split, an invocation 8 x 8: conv2d_backward_weight_tiled with four times the work for twice the loads.
// For GPUs; C and O are multiples of 4.
#import index
#import conv2d
@group(0) @binding(0) var<storage, read> x: array<vec4f>;          // (N, H, W, C)
@group(0) @binding(1) var<storage, read> dy: array<vec4f>;         // (N, OH, OW, O)
@group(0) @binding(2) var<storage, read_write> part: array<vec4f>; // (splits, K, K, C, O)
@group(0) @binding(3) var<uniform> dims: Dims;

var<workgroup> xs: array<vec4f, 512>; // (16 pixels, 128 / 4)
var<workgroup> ys: array<vec4f, 512>; // (16 pixels, 128 / 4)

@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_id) l: vec3u, @builtin(local_invocation_index) li: u32) {
  let C4 = dims.C / 4u;
  let O4 = dims.O / 4u;
  let rows4 = dims.K * dims.K * C4;
  let row_tiles = (rows4 + 31u) / 32u;
  let column_tiles = (O4 + 31u) / 32u;
  let tile = workgroup_index(workgroup, count);
  let column = tile % column_tiles * 32u;
  let row = tile / column_tiles % row_tiles * 32u;
  let split = tile / (column_tiles * row_tiles);
  let pixels = dims.N * dims.OH * dims.OW;
  let share = (pixels + 16u * dims.splits - 1u) / (16u * dims.splits) * 16u;
  let first = split * share;
  let end = min(first + share, pixels);

  // What this invocation brings is fixed in m: one (tap, c) for x and one o for dy, at two pixels a turn, which advance by carries.
  let m = row + li % 32u;
  let tap = min(m / C4, dims.K * dims.K - 1u);
  let kh = tap / dims.K;
  let kw = tap % dims.K;
  let c = m % C4;
  let n = column + li % 32u;
  let sixteen = pixel(16u, dims.OH, dims.OW);
  var q = first + li / 32u;
  var q0 = pixel(q, dims.OH, dims.OW);
  var q1 = pixel(q + 8u, dims.OH, dims.OW);
  var acc: array<array<vec4f, 2>, 8>;
  for (var base = first; base < end; base += 16u) {
    var a0 = vec4f(0.0);
    var a1 = vec4f(0.0);
    var b0 = vec4f(0.0);
    var b1 = vec4f(0.0);
    if (m < rows4) {
      let p0 = input_pixel(q0, kh, kw);
      let p1 = input_pixel(q1, kh, kw);
      if (p0 >= 0 && q < end) { a0 = x[u32(p0) * C4 + c]; }
      if (p1 >= 0 && q + 8u < end) { a1 = x[u32(p1) * C4 + c]; }
    }
    if (n < O4) {
      if (q < end) { b0 = dy[q * O4 + n]; }
      if (q + 8u < end) { b1 = dy[(q + 8u) * O4 + n]; }
    }
    workgroupBarrier();
    xs[li] = a0;
    xs[li + 256u] = a1;
    ys[li] = b0;
    ys[li + 256u] = b1;
    workgroupBarrier();
    for (var k = 0u; k < 16u; k++) {
      let u = ys[k * 32u + l.x];
      let v = ys[k * 32u + l.x + 16u];
      let s = xs[k * 32u + l.y * 2u];
      let t = xs[k * 32u + l.y * 2u + 1u];
      for (var i = 0u; i < 4u; i++) {
        acc[i][0] = fma(vec4f(s[i]), u, acc[i][0]);
        acc[i][1] = fma(vec4f(s[i]), v, acc[i][1]);
        acc[i + 4u][0] = fma(vec4f(t[i]), u, acc[i + 4u][0]);
        acc[i + 4u][1] = fma(vec4f(t[i]), v, acc[i + 4u][1]);
      }
    }
    q += 16u;
    q0 = advance(q0, sixteen, dims.OH, dims.OW);
    q1 = advance(q1, sixteen, dims.OH, dims.OW);
  }
  if (split >= dims.splits) { return; }
  for (var j = 0u; j < 2u; j++) {
    let o = column + l.x + 16u * j;
    if (o >= O4) { break; }
    for (var i = 0u; i < 8u; i++) {
      let r = row * 4u + l.y * 8u + i;
      if (r < rows4 * 4u) { part[(split * rows4 * 4u + r) * O4 + o] = acc[i][j]; }
    }
  }
}
