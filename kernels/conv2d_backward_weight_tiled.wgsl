// part[s,kh,kw,c,o] = sum over the pixels of split s of x[n, oh*stride+kh-pad_top, ow*stride+kw-pad_left, c] * dy[n,oh,ow,o]; dw = sum_s part[s]; sums[s,o] = sum dy[n,oh,ow,o], whose fold is the bias's gradient
// One workgroup computes 128 (kh,kw,c) x 128 o of one split, an invocation 8 x 8, eight pixels a turn. Both operands are contiguous along what is not summed: vec4 loads, nothing turned.
// 31 TFLOP/s on an H100 where splits make a thousand workgroups. The next turn's pixels are found by carries and are on their way while this one's are multiplied;
// 32 invocations are 8 across and 4 down. For GPUs; C and O are multiples of 4.
#import operands
#import index
#import stored
#import conv2d
@group(0) @binding(0) var<storage, read> x: array<Stored4>;        // (N, H, W, C)
@group(0) @binding(1) var<storage, read> dy: array<Stored4>;       // (N, OH, OW, O)
@group(0) @binding(2) var<storage, read_write> part: array<vec4f>; // (splits, KH, KW, C, O)
@group(0) @binding(3) var<storage, read_write> sums: array<vec4f>; // (splits, O); anything where has_bias is not set
@group(0) @binding(4) var<uniform> dims: Dims;

const BK = 8u;
const B4 = 32u;
var<workgroup> xs: array<Operand4, 256>;  // (BK, B4)
var<workgroup> ys: array<Operand4, 256>;  // (BK, B4)
var<workgroup> columns: array<vec4f, 256>; // (BK, B4): sums of every eighth pixel of dy

// Four channels of x at the pixel that pixel q of y meets at a tap.
fn fetch_x(q: Pixel, kh: u32, kw: u32, inside: bool, c: u32, C4: u32) -> vec4f {
  let p = input_pixel(q, kh, kw);
  if (!inside || p < 0) { return vec4f(0.0); }
  return vec4f(x[u32(p) * C4 + c]);
}

fn fetch_y(q: u32, end: u32, n: u32, O4: u32) -> vec4f {
  if (q >= end || n >= O4) { return vec4f(0.0); }
  return vec4f(dy[q * O4 + n]);
}

// Four channels o of row r of part, in vec4s from `base` on.
fn put(base: u32, r: u32, rows: u32, o: u32, O4: u32, value: vec4f) {
  if (r < rows && o < O4) { part[base + r * O4 + o] = value; }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) li: u32) {
  let C4 = dims.C / 4u;
  let O4 = dims.O / 4u;
  let rows4 = dims.KH * dims.KW * C4;
  let row_tiles = (rows4 + B4 - 1u) / B4;
  let column_tiles = (O4 + B4 - 1u) / B4;
  let tile = workgroup_index(workgroup, count);
  let column = tile % column_tiles * B4;
  let row = tile / column_tiles % row_tiles * B4;
  let split = tile / (column_tiles * row_tiles);
  let pixels = dims.N * dims.OH * dims.OW;
  let share = (pixels + BK * dims.splits - 1u) / (BK * dims.splits) * BK;
  let first = split * share;
  let end = min(first + share, pixels);

  // What this invocation brings is fixed in m: one (tap, c) for x and one o for dy, at one pixel a turn.
  let m = row + li % B4;
  let tap = min(m / C4, dims.KH * dims.KW - 1u);
  let kh = tap / dims.KW;
  let kw = tap % dims.KW;
  let n = column + li % B4;
  var r = first + li / B4;
  var q = pixel(r, dims.OH, dims.OW);
  let turn = pixel(BK, dims.OH, dims.OW);
  var f = fetch_x(q, kh, kw, m < rows4 && r < end, m % C4, C4);
  var g = fetch_y(r, end, n, O4);

  // It computes rows 4 ly to 4 ly + 3 and the same 64 further on, of four channels at lx, s, and 64 further on, t.
  let lx = li % 8u + li / 32u % 2u * 8u;
  let ly = li / 8u % 4u + li / 64u * 4u;
  var s0 = vec4f(0.0); var s1 = s0; var s2 = s0; var s3 = s0; var s4 = s0; var s5 = s0; var s6 = s0; var s7 = s0;
  var t0 = vec4f(0.0); var t1 = t0; var t2 = t0; var t3 = t0; var t4 = t0; var t5 = t0; var t6 = t0; var t7 = t0;
  var sum = vec4f(0.0);
  for (var at = first; at < end; at += BK) {
    xs[li] = Operand4(f);
    ys[li] = Operand4(g);
    workgroupBarrier();
    sum += vec4f(ys[li]);
    r += BK;
    q = advance(q, turn, dims.OH, dims.OW);
    f = fetch_x(q, kh, kw, m < rows4 && r < end, m % C4, C4);
    g = fetch_y(r, end, n, O4);
    for (var k = 0u; k < BK; k++) {
      let b = vec4f(ys[k * B4 + lx]);
      let d = vec4f(ys[k * B4 + lx + 16u]);
      let a = vec4f(xs[k * B4 + ly]);
      let e = vec4f(xs[k * B4 + ly + 16u]);
      s0 = fma(vec4f(a.x), b, s0);
      t0 = fma(vec4f(a.x), d, t0);
      s1 = fma(vec4f(a.y), b, s1);
      t1 = fma(vec4f(a.y), d, t1);
      s2 = fma(vec4f(a.z), b, s2);
      t2 = fma(vec4f(a.z), d, t2);
      s3 = fma(vec4f(a.w), b, s3);
      t3 = fma(vec4f(a.w), d, t3);
      s4 = fma(vec4f(e.x), b, s4);
      t4 = fma(vec4f(e.x), d, t4);
      s5 = fma(vec4f(e.y), b, s5);
      t5 = fma(vec4f(e.y), d, t5);
      s6 = fma(vec4f(e.z), b, s6);
      t6 = fma(vec4f(e.z), d, t6);
      s7 = fma(vec4f(e.w), b, s7);
      t7 = fma(vec4f(e.w), d, t7);
    }
    workgroupBarrier();
  }
  columns[li] = sum;
  workgroupBarrier();
  if (split >= dims.splits) { return; }
  if (dims.has_bias != 0u && row == 0u && li < B4 && n < O4) {
    for (var k = 1u; k < BK; k++) { sum += columns[k * B4 + li]; }
    sums[split * O4 + n] = sum;
  }
  let rows = rows4 * 4u;
  let base = split * rows * O4;
  let h = (row + ly) * 4u;
  let o = column + lx;
  put(base, h, rows, o, O4, s0);
  put(base, h, rows, o + 16u, O4, t0);
  put(base, h + 1u, rows, o, O4, s1);
  put(base, h + 1u, rows, o + 16u, O4, t1);
  put(base, h + 2u, rows, o, O4, s2);
  put(base, h + 2u, rows, o + 16u, O4, t2);
  put(base, h + 3u, rows, o, O4, s3);
  put(base, h + 3u, rows, o + 16u, O4, t3);
  put(base, h + 64u, rows, o, O4, s4);
  put(base, h + 64u, rows, o + 16u, O4, t4);
  put(base, h + 65u, rows, o, O4, s5);
  put(base, h + 65u, rows, o + 16u, O4, t5);
  put(base, h + 66u, rows, o, O4, s6);
  put(base, h + 66u, rows, o + 16u, O4, t6);
  put(base, h + 67u, rows, o, O4, s7);
  put(base, h + 67u, rows, o + 16u, O4, t7);
}
