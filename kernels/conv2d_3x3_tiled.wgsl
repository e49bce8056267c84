// y[n,h,w,o] = bias[o] + per_image[n,o] + residual[n,h,w,o] + sum_{kh,kw,c} x[n, h+kh-1, w+kw-1, c] * w[kh,kw,C0+c,o]: a 3 x 3 convolution that keeps the size, or, TRANSPOSED, its input gradient
// One workgroup computes 32 groups of four pixels, one below the other, x 64 channels: for each of six points, below, 32 invocations, an invocation 8 groups x 8 channels.
// Down the rows it filters (Winograd; Lavin and Gray 2016, arXiv:1509.09308): a correlation with three taps as a product of polynomials at the points 0, 1, -1, 2, -2 and infinity. Four rows of y
// from six of x take six products instead of twelve, for twice the rounding errors. Each point is a GEMM over k = (kw, channel), 8 k a turn, with tiles in workgroup memory as in conv2d_tiled:
// 64 of the invocations bring x to the points and 128 the weight, while all multiply what came before. On an H100 48 TFLOP/s of the convolution that it stands for, 46 TRANSPOSED;
// conv2d_tiled 36 and 32. SPLIT, for images with too few groups to fill a GPU, `splits` workgroups share the turns of a tile and leave y in as many parts, (splits, N, H, W, O), to be folded; what is added
// to the sums is in the first.
// For GPUs with 19,968 bytes of workgroup memory, and float32 alone. TRANSPOSED x is dy (N, H, W, O) and y is dx (N, H, W, C). C and O are multiples of 4.
#import index
#import conv2d
#import conv2d_gemm
#import conv2d_fours
#import conv2d_share
#import winograd
override TRANSPOSED: bool = false;
// Forward only: x and x2 are read as one tensor of WC channels, C of them in x.
override TWO: bool = false;
override SPLIT: bool = false;
@group(0) @binding(0) var<storage, read> x: array<vec4f>;         // (N, H, W, C)
@group(0) @binding(1) var<storage, read> x2: array<vec4f>;        // (N, H, W, WC - C); anything where TWO is not set
@group(0) @binding(2) var<storage, read> w: array<vec4f>;         // (3, 3, WC, O)
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;      // (O)
@group(0) @binding(4) var<storage, read> per_image: array<vec4f>; // (N, O)
@group(0) @binding(5) var<storage, read> residual: array<vec4f>;  // (N, H, W, O)
@group(0) @binding(6) var<storage, read_write> y: array<vec4f>;   // (N, H, W, O), SPLIT (splits, N, H, W, O)
@group(0) @binding(7) var<uniform> dims: Dims;

const BM = 32u;
const BN4 = 16u;
const BK4 = 2u;
// Four k of x and eight rows of w lie so far apart that what eight invocations store or read at a time is in eight different banks.
const XS = BM + 4u;
const XE = BK4 * XS;
const WROW = BN4 + 1u;
const WE = BK4 * 4u * WROW;
var<workgroup> xs: array<vec4f, 432>; // (6, BK4, XS): vec4s along k
// (6, BK4, 4, WROW): vec4s along the channels of y, one of four k a row; TRANSPOSED as they lie in w, along k, one of four channels of y a row. In the end (6, 8, BN4): products of 8 groups.
var<workgroup> ws: array<vec4f, 816>;

// Four pixels of y, one below the other: its image's first pixel, and where it begins.
struct Group { image: u32, top: i32, left: i32, inside: bool }

// Row i of the six that a group meets at column kw of the taps, zero outside of the image and beyond the channels.
fn source(g: Group, i: i32, kw: u32, c: u32, from4: u32) -> vec4f {
  let h = g.top - 1 + i;
  let u = g.left - 1 + i32(kw);
  let inside = g.inside && c < from4 && h >= 0 && h < i32(dims.H) && u >= 0 && u < i32(dims.W);
  return gemm_x(select(-1, i32(g.image) + h * i32(dims.W) + u, inside), c, from4);
}

// The i-th of 128 vec4s of the weight's tile at a tap, from channel c on; TRANSPOSED the taps are turned around.
fn tap_of(kh: u32, kw: u32, i: u32, c: u32, column: u32, from4: u32, to4: u32) -> vec4f {
  if (TRANSPOSED) {
    let k4 = c + i % BK4;
    let n = column * 4u + i / BK4;
    if (k4 >= from4 || n >= to4 * 4u) { return vec4f(0.0); }
    return w[((8u - kh * 3u - kw) * dims.WC + dims.C0 + n) * from4 + k4];
  }
  let k = c * 4u + i / BN4;
  let n4 = column + i % BN4;
  if (k >= from4 * 4u || n4 >= to4) { return vec4f(0.0); }
  return w[((kh * 3u + kw) * dims.WC + dims.C0 + k) * to4 + n4];
}

// Where it is put, at each point.
fn place(i: u32) -> u32 {
  if (TRANSPOSED) { return (i % BK4 * 4u + i / BK4 % 4u) * WROW + i / BK4 / 4u; }
  return i / BN4 * WROW + i % BN4;
}

// The three taps of a column, at the points.
fn three_taps(above: vec4f, here: vec4f, below: vec4f) -> array<vec4f, 6> {
  let one = above + below;
  let two = above + 4.0 * below;
  let here2 = 2.0 * here;
  return array<vec4f, 6>(above, one + here, one - here, two + here2, two - here2, below);
}

// The weights of four k (columns) and four channels of y at a point, whose tile begins at `first`.
fn weights(first: u32, k4: u32, n4: u32) -> mat4x4f {
  let i = first + k4 * 4u * WROW + n4;
  let m = mat4x4f(ws[i], ws[i + WROW], ws[i + 2u * WROW], ws[i + 3u * WROW]);
  if (TRANSPOSED) { return transpose(m); }
  return m;
}

// Lays an invocation's products of two groups at point e before the others.
fn settle(e: u32, ly: u32, lx: u32, s: vec4f, t: vec4f, s2: vec4f, t2: vec4f) {
  let i = (e * 8u + ly) * BN4 + lx;
  ws[i] = s;
  ws[i + 8u] = t;
  ws[i + 4u * BN4] = s2;
  ws[i + 4u * BN4 + 8u] = t2;
}

// Four rows and channels of y from their products, for 8 groups from `first` on.
fn finish(li: u32, first: u32, column: u32, groups: u32, bands: u32, to4: u32, part: u32) {
  let j = first + li / BN4;
  let c = column + li % BN4;
  if (li >= 8u * BN4 || j >= groups || c >= to4) { return; }
  let even = ws[li + 128u] + ws[li + 256u];
  let odd = ws[li + 128u] - ws[li + 256u];
  let even2 = ws[li + 384u] + ws[li + 512u];
  let odd2 = ws[li + 384u] - ws[li + 512u];
  let n = j / dims.W / bands;
  let h = j / dims.W % bands * 4u;
  let p = (n * dims.H + h) * dims.W + j % dims.W;
  put(p, n, c, ws[li] + even + even2, to4, part);
  if (h + 1u < dims.H) { put(p + dims.W, n, c, odd + 2.0 * odd2, to4, part); }
  if (h + 2u < dims.H) { put(p + 2u * dims.W, n, c, even + 4.0 * even2, to4, part); }
  if (h + 3u < dims.H) { put(p + 3u * dims.W, n, c, odd + 8.0 * odd2 + ws[li + 640u], to4, part); }
}

// Four channels of y at pixel p of image n, of the part that begins at `part`; the first with all that is added to them.
fn put(p: u32, n: u32, c: u32, value: vec4f, to4: u32, part: u32) {
  let i = p * to4 + c;
  var sum = value;
  if (part == 0u) {
    if (dims.has_bias != 0u) { sum += bias[c]; }
    if (dims.has_per_image != 0u) { sum += per_image[n * to4 + c]; }
    if (dims.has_residual != 0u) { sum += residual[i]; }
    if (dims.accumulate != 0u) { sum += y[i]; }
  }
  y[part + i] = sum;
}

@compute @workgroup_size(192)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) li: u32) {
  let from4 = gemm_cin4();
  let to4 = gemm_cout4();
  let bands = (dims.H + 3u) / 4u;
  let groups = dims.N * bands * dims.W;
  let column_tiles = (to4 + BN4 - 1u) / BN4;
  let tile = workgroup_index(workgroup, count);
  let of_tap = (from4 + BK4 - 1u) / BK4;
  let share = share_of(tile / column_tiles, (groups + BM - 1u) / BM, 3u * of_tap);
  let row = share.tile * BM;
  let column = tile % column_tiles * BN4;

  // What an invocation brings: one of two vec4s of k of a group, or of the weight.
  let brings_x = li < BM * BK4;
  let xk = li % BK4;
  let xm = li / BK4;
  let wi = li - BM * BK4;
  let j = row + xm;
  let g = Group(j / dims.W / bands * dims.H * dims.W, i32(j / dims.W % bands * 4u), i32(j % dims.W), j < groups);
  var kw = share.begin / of_tap;
  var c = share.begin % of_tap * BK4;
  var f0 = vec4f(0.0); var f1 = f0; var f2 = f0; var f3 = f0; var f4 = f0; var f5 = f0;
  if (brings_x) {
    f0 = source(g, 0, kw, c + xk, from4);
    f1 = source(g, 1, kw, c + xk, from4);
    f2 = source(g, 2, kw, c + xk, from4);
    f3 = source(g, 3, kw, c + xk, from4);
    f4 = source(g, 4, kw, c + xk, from4);
    f5 = source(g, 5, kw, c + xk, from4);
  } else {
    f0 = tap_of(0u, kw, wi, c, column, from4, to4);
    f1 = tap_of(1u, kw, wi, c, column, from4, to4);
    f2 = tap_of(2u, kw, wi, c, column, from4, to4);
  }

  // It computes point e of every fourth group from `ly` on, and the eight channels in two vec4s, `lx` and eight further on: s the first, t the second.
  let e = li / 32u;
  let lx = li % 8u;
  let ly = li / 8u % 4u;
  var s0 = vec4f(0.0); var s1 = s0; var s2 = s0; var s3 = s0; var s4 = s0; var s5 = s0; var s6 = s0; var s7 = s0;
  var t0 = vec4f(0.0); var t1 = t0; var t2 = t0; var t3 = t0; var t4 = t0; var t5 = t0; var t6 = t0; var t7 = t0;
  for (var turn = share.begin; turn < share.end; turn++) {
    if (brings_x) {
      let p = four_rows(array<vec4f, 6>(f0, f1, f2, f3, f4, f5));
      let i = xk * XS + xm;
      xs[i] = p[0];
      xs[i + XE] = p[1];
      xs[i + 2u * XE] = p[2];
      xs[i + 3u * XE] = p[3];
      xs[i + 4u * XE] = p[4];
      xs[i + 5u * XE] = p[5];
    } else {
      let p = three_taps(f0, f1, f2);
      let i = place(wi);
      ws[i] = p[0];
      ws[i + WE] = p[1];
      ws[i + 2u * WE] = p[2];
      ws[i + 3u * WE] = p[3];
      ws[i + 4u * WE] = p[4];
      ws[i + 5u * WE] = p[5];
    }
    workgroupBarrier();
    c += BK4;
    if (c >= from4) {
      c = 0u;
      kw++;
    }
    if (turn + 1u < share.end) {
      if (brings_x) {
        f0 = source(g, 0, kw, c + xk, from4);
        f1 = source(g, 1, kw, c + xk, from4);
        f2 = source(g, 2, kw, c + xk, from4);
        f3 = source(g, 3, kw, c + xk, from4);
        f4 = source(g, 4, kw, c + xk, from4);
        f5 = source(g, 5, kw, c + xk, from4);
      } else {
        f0 = tap_of(0u, kw, wi, c, column, from4, to4);
        f1 = tap_of(1u, kw, wi, c, column, from4, to4);
        f2 = tap_of(2u, kw, wi, c, column, from4, to4);
      }
    }
    for (var k4 = 0u; k4 < BK4; k4++) {
      let b = weights(e * WE, k4, lx);
      let d = weights(e * WE, k4, lx + 8u);
      let i = e * XE + k4 * XS + ly;
      let a0 = xs[i];
      s0 = meet(a0, b, s0);
      t0 = meet(a0, d, t0);
      let a1 = xs[i + 4u];
      s1 = meet(a1, b, s1);
      t1 = meet(a1, d, t1);
      let a2 = xs[i + 8u];
      s2 = meet(a2, b, s2);
      t2 = meet(a2, d, t2);
      let a3 = xs[i + 12u];
      s3 = meet(a3, b, s3);
      t3 = meet(a3, d, t3);
      let a4 = xs[i + 16u];
      s4 = meet(a4, b, s4);
      t4 = meet(a4, d, t4);
      let a5 = xs[i + 20u];
      s5 = meet(a5, b, s5);
      t5 = meet(a5, d, t5);
      let a6 = xs[i + 24u];
      s6 = meet(a6, b, s6);
      t6 = meet(a6, d, t6);
      let a7 = xs[i + 28u];
      s7 = meet(a7, b, s7);
      t7 = meet(a7, d, t7);
    }
    workgroupBarrier();
  }

  let part = share.split * dims.N * dims.H * dims.W * to4;
  // The products of a group lie with six invocations of six subgroups: they meet in workgroup memory, eight groups at a time.
  settle(e, ly, lx, s0, t0, s1, t1);
  workgroupBarrier();
  finish(li, row, column, groups, bands, to4, part);
  workgroupBarrier();
  settle(e, ly, lx, s2, t2, s3, t3);
  workgroupBarrier();
  finish(li, row + 8u, column, groups, bands, to4, part);
  workgroupBarrier();
  settle(e, ly, lx, s4, t4, s5, t5);
  workgroupBarrier();
  finish(li, row + 16u, column, groups, bands, to4, part);
  workgroupBarrier();
  settle(e, ly, lx, s6, t6, s7, t7);
  workgroupBarrier();
  finish(li, row + 24u, column, groups, bands, to4, part);
}
