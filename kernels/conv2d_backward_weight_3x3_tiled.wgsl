// part[s,kh,kw,c,o] = sum over the pixels of split s of x[n, h+kh-1, w+kw-1, c] * dy[n,h,w,o], for a 3 x 3 convolution that keeps the size; dw = sum_s part[s]; sums[s,o] = sum dy[n,oh,ow,o], whose fold is the bias's gradient
// One workgroup computes all three kh of 32 (kw,c) x 64 o of one split: for each of six points, below, 32 invocations, an invocation 8 x 8, eight groups of four pixels a turn.
// Down the rows it filters, as conv2d_3x3_tiled (Winograd; Lavin and Gray 2016, arXiv:1509.09308): with dw = G^T sum((A dy) (B^T x)) three taps of four rows of dy and six of x take six products
// instead of twelve. Each point is a GEMM over groups of pixels: 64 of the invocations bring x to the points and 128 dy. On an H100 51 TFLOP/s of the gradient that it stands for;
// conv2d_backward_weight_tiled 31.
// For GPUs with 18,432 bytes of workgroup memory, and float32 alone. C and O are multiples of 4.
#import index
#import conv2d
#import winograd
@group(0) @binding(0) var<storage, read> x: array<vec4f>;          // (N, H, W, C)
@group(0) @binding(1) var<storage, read> dy: array<vec4f>;         // (N, H, W, O)
@group(0) @binding(2) var<storage, read_write> part: array<vec4f>; // (splits, 3, 3, C, O)
@group(0) @binding(3) var<storage, read_write> sums: array<vec4f>; // (splits, O); anything where has_bias is not set
@group(0) @binding(4) var<uniform> dims: Dims;

const BK = 8u;
const BM4 = 8u;
const BN4 = 16u;
const XE = BK * BM4;
const YE = BK * BN4;
var<workgroup> xs: array<vec4f, 384>; // (6, BK, BM4); in the end (BK, BN4): sums of every eighth group of dy
var<workgroup> ys: array<vec4f, 768>; // (6, BK, BN4); in the end (6, 8, BN4): products of 8 rows

// Row i of the six of x that four pixels of dy meet at column kw of the taps, zero outside of the image. A pixel q counts four rows as one.
fn source(q: Pixel, i: u32, kw: u32, inside: bool, c: u32, C4: u32) -> vec4f {
  let h = i32(q.y * 4u + i) - 1;
  let u = i32(q.x + kw) - 1;
  if (!inside || h < 0 || h >= i32(dims.H) || u < 0 || u >= i32(dims.W)) { return vec4f(0.0); }
  return x[((q.n * dims.H + u32(h)) * dims.W + u32(u)) * C4 + c];
}

// Row i of the four of dy.
fn gradient(q: Pixel, i: u32, inside: bool, n: u32, O4: u32) -> vec4f {
  let h = q.y * 4u + i;
  if (!inside || h >= dims.H) { return vec4f(0.0); }
  return dy[((q.n * dims.H + h) * dims.W + q.x) * O4 + n];
}

// Lays an invocation's products of two rows at point e before the others.
fn settle(e: u32, ly: u32, lx: u32, s: vec4f, t: vec4f, s2: vec4f, t2: vec4f) {
  let i = (e * 8u + ly) * BN4 + lx;
  ys[i] = s;
  ys[i + 8u] = t;
  ys[i + 4u * BN4] = s2;
  ys[i + 4u * BN4 + 8u] = t2;
}

// Three taps from their products, for two rows of each of four vec4s of rows: row k of the vec4s from `m4` on, and row k + 1.
fn finish(li: u32, m4: u32, k: u32, column: u32, rows4: u32, O4: u32, split: u32) {
  let r4 = m4 + li / BN4 % 4u;
  let o = column + li % BN4;
  if (li >= 8u * BN4 || r4 >= rows4 || o >= O4 || split >= dims.splits) { return; }
  let even = ys[li + 128u] + ys[li + 256u];
  let odd = ys[li + 128u] - ys[li + 256u];
  let even2 = ys[li + 384u] + ys[li + 512u];
  let odd2 = ys[li + 384u] - ys[li + 512u];
  let rows = rows4 * 4u;
  let at = (split * 3u * rows + r4 * 4u + k + li / (4u * BN4)) * O4 + o;
  part[at] = ys[li] + even + even2;
  part[at + rows * O4] = odd + 2.0 * odd2;
  part[at + 2u * rows * O4] = even + 4.0 * even2 + ys[li + 640u];
}

@compute @workgroup_size(192)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) li: u32) {
  let C4 = dims.C / 4u;
  let O4 = dims.O / 4u;
  let rows4 = 3u * C4;
  let row_tiles = (rows4 + BM4 - 1u) / BM4;
  let column_tiles = (O4 + BN4 - 1u) / BN4;
  let tile = workgroup_index(workgroup, count);
  let column = tile % column_tiles * BN4;
  let row = tile / column_tiles % row_tiles * BM4;
  let split = tile / (column_tiles * row_tiles);
  let bands = (dims.H + 3u) / 4u;
  let groups = dims.N * bands * dims.W;
  let share = (groups + BK * dims.splits - 1u) / (BK * dims.splits) * BK;
  let first = split * share;
  let end = min(first + share, groups);

  // What an invocation brings is fixed in m: one (kw, c) of x or one o of dy, of one group a turn.
  let brings_x = li < XE;
  let yi = li - XE;
  let m = row + li % BM4;
  let kw = m / C4;
  let c = m % C4;
  let n = column + yi % BN4;
  let inside = select(n < O4, m < rows4, brings_x);
  var r = first + select(yi / BN4, li / BM4, brings_x);
  var q = pixel(r, bands, dims.W);
  let turn = pixel(BK, bands, dims.W);
  var f0 = vec4f(0.0); var f1 = f0; var f2 = f0; var f3 = f0; var f4 = f0; var f5 = f0;
  if (brings_x) {
    f0 = source(q, 0u, kw, inside && r < end, c, C4);
    f1 = source(q, 1u, kw, inside && r < end, c, C4);
    f2 = source(q, 2u, kw, inside && r < end, c, C4);
    f3 = source(q, 3u, kw, inside && r < end, c, C4);
    f4 = source(q, 4u, kw, inside && r < end, c, C4);
    f5 = source(q, 5u, kw, inside && r < end, c, C4);
  } else {
    f0 = gradient(q, 0u, inside && r < end, n, O4);
    f1 = gradient(q, 1u, inside && r < end, n, O4);
    f2 = gradient(q, 2u, inside && r < end, n, O4);
    f3 = gradient(q, 3u, inside && r < end, n, O4);
  }

  // It computes point e of rows 4 ly to 4 ly + 3 and the same 16 further on, of four channels at lx, s, and 32 further on, t.
  let e = li / 32u;
  let lx = li % 8u;
  let ly = li / 8u % 4u;
  var s0 = vec4f(0.0); var s1 = s0; var s2 = s0; var s3 = s0; var s4 = s0; var s5 = s0; var s6 = s0; var s7 = s0;
  var t0 = vec4f(0.0); var t1 = t0; var t2 = t0; var t3 = t0; var t4 = t0; var t5 = t0; var t6 = t0; var t7 = t0;
  var sum = vec4f(0.0);
  for (var at = first; at < end; at += BK) {
    if (brings_x) {
      let p = four_rows(array<vec4f, 6>(f0, f1, f2, f3, f4, f5));
      xs[li] = p[0];
      xs[li + XE] = p[1];
      xs[li + 2u * XE] = p[2];
      xs[li + 3u * XE] = p[3];
      xs[li + 4u * XE] = p[4];
      xs[li + 5u * XE] = p[5];
    } else {
      let even = f0 + f2;
      let odd = f1 + f3;
      let even2 = f0 + 4.0 * f2;
      let odd2 = 2.0 * f1 + 8.0 * f3;
      ys[yi] = f0;
      ys[yi + YE] = even + odd;
      ys[yi + 2u * YE] = even - odd;
      ys[yi + 3u * YE] = even2 + odd2;
      ys[yi + 4u * YE] = even2 - odd2;
      ys[yi + 5u * YE] = f3;
      sum += even + odd;
    }
    workgroupBarrier();
    r += BK;
    q = advance(q, turn, bands, dims.W);
    if (brings_x) {
      f0 = source(q, 0u, kw, inside && r < end, c, C4);
      f1 = source(q, 1u, kw, inside && r < end, c, C4);
      f2 = source(q, 2u, kw, inside && r < end, c, C4);
      f3 = source(q, 3u, kw, inside && r < end, c, C4);
      f4 = source(q, 4u, kw, inside && r < end, c, C4);
      f5 = source(q, 5u, kw, inside && r < end, c, C4);
    } else {
      f0 = gradient(q, 0u, inside && r < end, n, O4);
      f1 = gradient(q, 1u, inside && r < end, n, O4);
      f2 = gradient(q, 2u, inside && r < end, n, O4);
      f3 = gradient(q, 3u, inside && r < end, n, O4);
    }
    for (var k = 0u; k < BK; k++) {
      let a = xs[(e * BK + k) * BM4 + ly];
      let g = xs[(e * BK + k) * BM4 + ly + 4u];
      let b = ys[(e * BK + k) * BN4 + lx];
      let d = ys[(e * BK + k) * BN4 + lx + 8u];
      s0 = fma(vec4f(a.x), b, s0);
      t0 = fma(vec4f(a.x), d, t0);
      s1 = fma(vec4f(a.y), b, s1);
      t1 = fma(vec4f(a.y), d, t1);
      s2 = fma(vec4f(a.z), b, s2);
      t2 = fma(vec4f(a.z), d, t2);
      s3 = fma(vec4f(a.w), b, s3);
      t3 = fma(vec4f(a.w), d, t3);
      s4 = fma(vec4f(g.x), b, s4);
      t4 = fma(vec4f(g.x), d, t4);
      s5 = fma(vec4f(g.y), b, s5);
      t5 = fma(vec4f(g.y), d, t5);
      s6 = fma(vec4f(g.z), b, s6);
      t6 = fma(vec4f(g.z), d, t6);
      s7 = fma(vec4f(g.w), b, s7);
      t7 = fma(vec4f(g.w), d, t7);
    }
    workgroupBarrier();
  }

  // The products of a tap lie with six invocations of six subgroups: they meet in workgroup memory, eight rows at a time.
  if (!brings_x) { xs[yi] = sum; }
  settle(e, ly, lx, s0, t0, s1, t1);
  workgroupBarrier();
  finish(li, row, 0u, column, rows4, O4, split);
  workgroupBarrier();
  settle(e, ly, lx, s2, t2, s3, t3);
  workgroupBarrier();
  finish(li, row, 2u, column, rows4, O4, split);
  workgroupBarrier();
  settle(e, ly, lx, s4, t4, s5, t5);
  workgroupBarrier();
  finish(li, row + 4u, 0u, column, rows4, O4, split);
  workgroupBarrier();
  settle(e, ly, lx, s6, t6, s7, t7);
  workgroupBarrier();
  finish(li, row + 4u, 2u, column, rows4, O4, split);
  if (dims.has_bias != 0u && row == 0u && li < BN4 && column + li < O4 && split < dims.splits) {
    var all = xs[li];
    for (var k = 1u; k < BK; k++) { all += xs[k * BN4 + li]; }
    sums[split * O4 + column + li] = all;
  }
}
