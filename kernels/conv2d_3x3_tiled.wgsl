// y[n,h,w,o] = bias[o] + per_image[n,o] + residual[n,h,w,o] + sum_{kh,kw,c} x[n, h+kh-1, w+kw-1, c] * w[kh,kw,C0+c,o]: a 3 x 3 convolution that keeps the size, or, TRANSPOSED, its input gradient
// One workgroup computes 32 groups of four pixels, one below the other, x 64 channels, or a half or a quarter of both (BN): for each of six points, below, 32 invocations, an invocation 8 groups x 8 channels.
// Down the rows it filters (Winograd; Lavin and Gray 2016, arXiv:1509.09308): a correlation with three taps as a product of polynomials at the points 0, 1, -1, 2, -2 and infinity. Four rows of y
// from six of x take six products instead of twelve, for twice the rounding errors. Each point is a GEMM over k = (kw, channel), 8 k a turn, with tiles in workgroup memory as in conv2d_tiled:
// 64 of the invocations bring x to the points and 128 the weight, while all multiply what came before. On an H100 48 TFLOP/s of the convolution that it stands for, 46 TRANSPOSED;
// conv2d_tiled 36 and 32. Where there are too few tiles for a GPU smaller ones, whose turns take 16 or 32 k, have fewer turns to wait for; all add every sum in the same order. SPLIT, for images with too
// few groups to fill a GPU, `splits` workgroups share the turns of a tile and leave y in as many parts, (splits, N, H, W, O), to be folded; what is added to the sums is in the first.
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
// 64, 32 or 16 channels a workgroup, and half as many groups.
override BN: u32 = 64u;
@group(0) @binding(0) var<storage, read> x: array<vec4f>;         // (N, H, W, C)
@group(0) @binding(1) var<storage, read> x2: array<vec4f>;        // (N, H, W, WC - C); anything where TWO is not set
@group(0) @binding(2) var<storage, read> w: array<vec4f>;         // (3, 3, WC, O)
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;      // (O)
@group(0) @binding(4) var<storage, read> per_image: array<vec4f>; // (N, O)
@group(0) @binding(5) var<storage, read> residual: array<vec4f>;  // (N, H, W, O)
@group(0) @binding(6) var<storage, read_write> y: array<vec4f>;   // (N, H, W, O), SPLIT (splits, N, H, W, O)
@group(0) @binding(7) var<uniform> dims: Dims;

// Groups, and vec4s of channels of y, and of k a turn.
fn bm() -> u32 { return BN / 2u; }
fn bn4() -> u32 { return BN / 4u; }
fn bk4() -> u32 { return 128u / BN; }
// Four k of x, and four k and their rows of w, lie so far apart that what eight invocations store or read at a time is in eight different banks, but for what TRANSPOSED stores if BN is 32.
fn xs_row() -> u32 { return BN / 2u + BN / 16u; }
fn ws_row() -> u32 { return BN / 4u + BN / 64u; }
fn ws_k4() -> u32 { return BN + BN / 16u; }
const XE = 72u;
const WE = 136u;
var<workgroup> xs: array<vec4f, 432>; // (6, bk4, xs_row): vec4s along k
// (6, bk4, ws_k4), of which four rows of ws_row: vec4s along the channels of y, one of four k a row; TRANSPOSED as they lie in w, along k, one of four channels of y a row. In the end (6, 8, bn4):
// products of 8 groups.
var<workgroup> ws: array<vec4f, 816>;

// Four pixels of y, one below the other: its image's first pixel, and where it begins.
struct Group { image: u32, top: i32, left: i32, inside: bool }

// Row i of the six that a group meets at column kw of the taps, zero outside of the image and from vec4 `end` of the channels on.
fn source(g: Group, i: i32, kw: u32, c: u32, end: u32, from4: u32) -> vec4f {
  let h = g.top - 1 + i;
  let u = g.left - 1 + i32(kw);
  let inside = g.inside && c < end && h >= 0 && h < i32(dims.H) && u >= 0 && u < i32(dims.W);
  return gemm_x(select(-1, i32(g.image) + h * i32(dims.W) + u, inside), c, from4);
}

// The i-th of 128 vec4s of the weight's tile at a tap, from channel c on; TRANSPOSED the taps are turned around.
fn tap_of(kh: u32, kw: u32, i: u32, c: u32, column: u32, from4: u32, to4: u32) -> vec4f {
  if (TRANSPOSED) {
    let k4 = c + i % bk4();
    let n = column * 4u + i / bk4();
    if (k4 >= from4 || n >= to4 * 4u) { return vec4f(0.0); }
    return w[((8u - kh * 3u - kw) * dims.WC + dims.C0 + n) * from4 + k4];
  }
  let k = c * 4u + i / bn4();
  let n4 = column + i % bn4();
  if (k >= from4 * 4u || n4 >= to4) { return vec4f(0.0); }
  return w[((kh * 3u + kw) * dims.WC + dims.C0 + k) * to4 + n4];
}

// Turns of a share, which is in units of eight k; a column of the taps has so many units. A smaller tile takes two or four of them a turn, but at the end of a column and of the share.
fn turns_of(share: Share, units: u32) -> u32 {
  if (share.end <= share.begin) { return 0u; }
  if (BN > 32u) { return share.end - share.begin; }
  let each = bk4() / 2u;
  let first = share.begin / units;
  let last = share.end / units;
  if (first == last) { return (share.end - share.begin + each - 1u) / each; }
  let of_column = (units + each - 1u) / each;
  return (units - share.begin % units + each - 1u) / each + (last - first - 1u) * of_column + (share.end % units + each - 1u) / each;
}
// The vec4 of channels at which a share ends in column kw of the taps.
fn channels_until(share: Share, kw: u32, units: u32, from4: u32) -> u32 {
  if (!SPLIT || BN > 32u || kw < share.end / units) { return from4; }
  return min(share.end % units * 2u, from4);
}

// Where it is put, at each point.
fn place(i: u32) -> u32 {
  if (TRANSPOSED) { return i % bk4() * ws_k4() + i / bk4() % 4u * ws_row() + i / bk4() / 4u; }
  return i / bn4() / 4u * ws_k4() + i / bn4() % 4u * ws_row() + i % bn4();
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
  let i = first + k4 * ws_k4() + n4;
  let m = mat4x4f(ws[i], ws[i + ws_row()], ws[i + 2u * ws_row()], ws[i + 3u * ws_row()]);
  if (TRANSPOSED) { return transpose(m); }
  return m;
}

// Lays an invocation's products of a group, or of two, at point e before the others.
fn settle(e: u32, ly: u32, lx: u32, s: vec4f, t: vec4f, s2: vec4f, t2: vec4f) {
  let i = (e * 8u + ly) * bn4() + lx;
  ws[i] = s;
  if (BN > 32u) { ws[i + 8u] = t; }
  if (BN > 16u) { ws[i + 4u * bn4()] = s2; }
  if (BN > 32u) { ws[i + 4u * bn4() + 8u] = t2; }
}

// Four rows and channels of y from their products, for 8 groups from `first` on.
fn finish(li: u32, first: u32, column: u32, groups: u32, bands: u32, to4: u32, part: u32) {
  let j = first + li / bn4();
  let c = column + li % bn4();
  let point = 8u * bn4();
  if (li >= point || j >= groups || c >= to4) { return; }
  let even = ws[li + point] + ws[li + 2u * point];
  let odd = ws[li + point] - ws[li + 2u * point];
  let even2 = ws[li + 3u * point] + ws[li + 4u * point];
  let odd2 = ws[li + 3u * point] - ws[li + 4u * point];
  let n = j / dims.W / bands;
  let h = j / dims.W % bands * 4u;
  let p = (n * dims.H + h) * dims.W + j % dims.W;
  put(p, n, c, ws[li] + even + even2, to4, part);
  if (h + 1u < dims.H) { put(p + dims.W, n, c, odd + 2.0 * odd2, to4, part); }
  if (h + 2u < dims.H) { put(p + 2u * dims.W, n, c, even + 4.0 * even2, to4, part); }
  if (h + 3u < dims.H) { put(p + 3u * dims.W, n, c, odd + 8.0 * odd2 + ws[li + 5u * point], to4, part); }
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
  let column_tiles = (to4 + bn4() - 1u) / bn4();
  let tile = workgroup_index(workgroup, count);
  let units = (from4 + 1u) / 2u;
  let share = share_of(tile / column_tiles, (groups + bm() - 1u) / bm(), 3u * units);
  let row = share.tile * bm();
  let column = tile % column_tiles * bn4();

  // What an invocation brings: one of 64 vec4s of k of a group, or of 128 of the weight.
  let brings_x = li < 64u;
  let xk = li % bk4();
  let xm = li / bk4();
  let wi = li - 64u;
  let j = row + xm;
  let g = Group(j / dims.W / bands * dims.H * dims.W, i32(j / dims.W % bands * 4u), i32(j % dims.W), j < groups);
  var kw = share.begin / units;
  var c = share.begin % units * 2u;
  var end = channels_until(share, kw, units, from4);
  var f0 = vec4f(0.0); var f1 = f0; var f2 = f0; var f3 = f0; var f4 = f0; var f5 = f0;
  if (brings_x) {
    f0 = source(g, 0, kw, c + xk, end, from4);
    f1 = source(g, 1, kw, c + xk, end, from4);
    f2 = source(g, 2, kw, c + xk, end, from4);
    f3 = source(g, 3, kw, c + xk, end, from4);
    f4 = source(g, 4, kw, c + xk, end, from4);
    f5 = source(g, 5, kw, c + xk, end, from4);
  } else {
    f0 = tap_of(0u, kw, wi, c, column, from4, to4);
    f1 = tap_of(1u, kw, wi, c, column, from4, to4);
    f2 = tap_of(2u, kw, wi, c, column, from4, to4);
  }

  // It computes point e of every fourth group from `ly` on, and the eight channels in two vec4s, `lx` and eight further on: s the first, t the second. In tiles of 32 these are four groups and one vec4,
  // in tiles of 16 one group.
  let e = li / 32u;
  let across = min(8u, bn4());
  let lx = li % across;
  let ly = li / across % (32u / across);
  var s0 = vec4f(0.0); var s1 = s0; var s2 = s0; var s3 = s0; var s4 = s0; var s5 = s0; var s6 = s0; var s7 = s0;
  var t0 = vec4f(0.0); var t1 = t0; var t2 = t0; var t3 = t0; var t4 = t0; var t5 = t0; var t6 = t0; var t7 = t0;
  let turns = turns_of(share, units);
  for (var turn = 0u; turn < turns; turn++) {
    if (brings_x) {
      let p = four_rows(array<vec4f, 6>(f0, f1, f2, f3, f4, f5));
      let i = xk * xs_row() + xm;
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
    c += bk4();
    if (c >= from4) {
      c = 0u;
      kw++;
      end = channels_until(share, kw, units, from4);
    }
    if (turn + 1u < turns) {
      if (brings_x) {
        f0 = source(g, 0, kw, c + xk, end, from4);
        f1 = source(g, 1, kw, c + xk, end, from4);
        f2 = source(g, 2, kw, c + xk, end, from4);
        f3 = source(g, 3, kw, c + xk, end, from4);
        f4 = source(g, 4, kw, c + xk, end, from4);
        f5 = source(g, 5, kw, c + xk, end, from4);
      } else {
        f0 = tap_of(0u, kw, wi, c, column, from4, to4);
        f1 = tap_of(1u, kw, wi, c, column, from4, to4);
        f2 = tap_of(2u, kw, wi, c, column, from4, to4);
      }
    }
    for (var k4 = 0u; k4 < bk4(); k4++) {
      let b = weights(e * WE, k4, lx);
      var d = b;
      if (BN > 32u) { d = weights(e * WE, k4, lx + 8u); }
      let i = e * XE + k4 * xs_row() + ly;
      let a0 = xs[i];
      s0 = meet(a0, b, s0);
      if (BN > 32u) { t0 = meet(a0, d, t0); }
      if (BN > 16u) {
        let a1 = xs[i + 4u];
        s1 = meet(a1, b, s1);
        if (BN > 32u) { t1 = meet(a1, d, t1); }
        let a2 = xs[i + 8u];
        s2 = meet(a2, b, s2);
        if (BN > 32u) { t2 = meet(a2, d, t2); }
        let a3 = xs[i + 12u];
        s3 = meet(a3, b, s3);
        if (BN > 32u) { t3 = meet(a3, d, t3); }
      }
      if (BN > 32u) {
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
    }
    workgroupBarrier();
  }

  let part = share.split * dims.N * dims.H * dims.W * to4;
  // The products of a group lie with six invocations of six subgroups: they meet in workgroup memory, eight groups at a time.
  settle(e, ly, lx, s0, t0, s1, t1);
  workgroupBarrier();
  finish(li, row, column, groups, bands, to4, part);
  if (BN > 16u) {
    workgroupBarrier();
    settle(e, ly, lx, s2, t2, s3, t3);
    workgroupBarrier();
    finish(li, row + 8u, column, groups, bands, to4, part);
  }
  if (BN > 32u) {
    workgroupBarrier();
    settle(e, ly, lx, s4, t4, s5, t5);
    workgroupBarrier();
    finish(li, row + 16u, column, groups, bands, to4, part);
    workgroupBarrier();
    settle(e, ly, lx, s6, t6, s7, t7);
    workgroupBarrier();
    finish(li, row + 24u, column, groups, bands, to4, part);
  }
}
