// part[s,kh,kw,c,o] = sum over the pixels of split s of x[n, oh*stride+kh-pad_top, ow*stride+kw-pad_left, c] * dy[n,oh,ow,o]; dw = sum_s part[s]; sums[s,o] = sum dy[n,oh,ow,o], whose fold is the bias's gradient
// One workgroup computes 64 (kh,kw,c) x 64 o of one split, an invocation 8 x 4. Both operands are contiguous along what is not summed: vec4 loads, nothing turned.
// For GPUs; C and O are multiples of 4.
#import operands
#import index
#import stored
#import conv2d
@group(0) @binding(0) var<storage, read> x: array<Stored4>;        // (N, H, W, C)
@group(0) @binding(1) var<storage, read> dy: array<Stored4>;       // (N, OH, OW, O)
@group(0) @binding(2) var<storage, read_write> part: array<vec4f>; // (splits, KH, KW, C, O)
@group(0) @binding(3) var<storage, read_write> sums: array<vec4f>; // (splits, O); anything where has_bias is not set
@group(0) @binding(4) var<uniform> dims: Dims;

const BK = 16u;
var<workgroup> xs: array<Operand4, 256>; // (BK, 64 / 4)
var<workgroup> ys: array<Operand4, 256>; // (BK, 64 / 4)

@compute @workgroup_size(16, 8)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_id) l: vec3u, @builtin(local_invocation_index) li: u32) {
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

  // What this invocation brings is fixed in m: one (tap, c) for x and one o for dy, at two pixels a turn.
  let m = row + li % 16u;
  let tap = min(m / C4, dims.KH * dims.KW - 1u);
  let n = column + li % 16u;
  var sum = vec4f(0.0);
  var acc: array<vec4f, 8>;
  for (var q0 = first; q0 < end; q0 += BK) {
    for (var j = 0u; j < 2u; j++) {
      let q = q0 + li / 16u + 8u * j;
      var a = vec4f(0.0);
      var b = vec4f(0.0);
      if (q < end) {
        let p = input_pixel(pixel(q, dims.OH, dims.OW), tap / dims.KW, tap % dims.KW);
        if (p >= 0 && m < rows4) { a = vec4f(x[u32(p) * C4 + m % C4]); }
        if (n < O4) { b = vec4f(dy[q * O4 + n]); }
      }
      xs[li + 128u * j] = Operand4(a);
      ys[li + 128u * j] = Operand4(b);
    }
    workgroupBarrier();
    for (var k = 0u; k < BK; k++) {
      let b = vec4f(ys[k * 16u + l.x]);
      sum += b;
      let a0 = vec4f(xs[k * 16u + l.y * 2u]);
      let a1 = vec4f(xs[k * 16u + l.y * 2u + 1u]);
      for (var i = 0u; i < 4u; i++) {
        acc[i] = fma(vec4f(a0[i]), b, acc[i]);
        acc[i + 4u] = fma(vec4f(a1[i]), b, acc[i + 4u]);
      }
    }
    workgroupBarrier();
  }
  if (column + l.x >= O4 || split >= dims.splits) { return; }
  if (dims.has_bias != 0u && row == 0u && l.y == 0u) { sums[split * O4 + column + l.x] = sum; }
  for (var i = 0u; i < 8u; i++) {
    let r = row * 4u + l.y * 8u + i;
    if (r < rows4 * 4u) { part[(split * rows4 * 4u + r) * O4 + column + l.x] = acc[i]; }
  }
}
