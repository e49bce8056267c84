// TRANSPOSED = false: y = conv(x, w) + bias + per_image + residual, as conv2d_forward; true: dx from dy, as conv2d_backward_input
// One workgroup computes 128 pixels x 64 channels, an invocation 8 x 8: an implicit GEMM over k = (kh, kw, channel), 16 k a turn, with tiles in workgroup memory. Or a half or a quarter of both (BN), where
// there are too few tiles for a GPU: then turns take 32 or 64 k, and there are fewer to wait for. All add every sum in the same order.
// 36 TFLOP/s of 3 x 3 convolutions on an H100 (32 TRANSPOSED), 25 of 1 x 1; a loop of nothing but FMAs of three operands does 48 there. What that takes: sums that no loop looks up, so that
// they stay in registers; 32 invocations that are 8 across and 4 down, so that a read of workgroup memory serves many; the factors of the next turn on their way while those of this
// one are multiplied; and in that loop no index but its counter.
// The two directions are one GEMM; only the gather of pixels differs. For GPUs; channel counts are multiples of 4. In the transposed direction
// the names are the GEMM's: x is dy with C = O of the forward, y is dx, and H, W, OH, OW keep the forward's meaning.
#import operands
#import index
#import stored
#import conv2d
#import conv2d_gemm
#import conv2d_fours
#import conv2d_kinds
override TRANSPOSED: bool = false;
// TRANSPOSED with a stride of 2, and only then.
override STRIDED: bool = false;
// Forward only: x and x2 are read as one tensor of WC channels, C of them in x.
override TWO: bool = false;
// 64, 32 or 16 channels a workgroup, and twice as many pixels.
override BN: u32 = 64u;
@group(0) @binding(0) var<storage, read> x: array<Stored4>;        // pixels x CIN
@group(0) @binding(1) var<storage, read> x2: array<Stored4>;       // pixels x (WC - C); anything where TWO is not set
@group(0) @binding(2) var<storage, read> w: array<vec4f>;          // (KH, KW, WC, O)
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;       // (COUT)
@group(0) @binding(4) var<storage, read> per_image: array<vec4f>;  // (N, COUT)
@group(0) @binding(5) var<storage, read> residual: array<Stored4>; // pixels x COUT
@group(0) @binding(6) var<storage, read_write> y: array<Stored4>;  // pixels x COUT
@group(0) @binding(7) var<uniform> dims: Dims;

// Pixels, and vec4s of channels of y, and of k a turn.
fn bm() -> u32 { return 2u * BN; }
fn bn4() -> u32 { return BN / 4u; }
fn bk4() -> u32 { return 256u / BN; }
// Four k of x, and four k and their rows of w, lie so far apart that what eight invocations store or read at a time is in eight different banks.
fn xs_row() -> u32 { return 2u * BN + max(1u, BN / 32u); }
fn ws_row() -> u32 { return BN / 4u + BN / 64u; }
fn ws_k4() -> u32 { return 4u * ws_row() + max(1u, BN / 32u); }
var<workgroup> xs: array<Operand4, 528>; // (bk4, xs_row): vec4s along k
// (bk4, ws_k4), of which four rows of ws_row: vec4s along the channels of y, one of four k a row; TRANSPOSED as they lie in w, along k, one of four channels of y a row.
var<workgroup> ws: array<Operand4, 280>;

// Four k of x at a pixel, as gemm_x, zero beyond its channels.
fn fetch_x(p: i32, c: u32, cin4: u32) -> vec4f {
  if (c >= cin4) { return vec4f(0.0); }
  return gemm_x(p, c, cin4);
}

// The i-th of 256 vec4s of the weight's tile at a tap, from channel c on.
fn fetch_w(tap: u32, c: u32, i: u32, column: u32, cin4: u32, cout4: u32) -> vec4f {
  if (tap >= dims.KH * dims.KW) { return vec4f(0.0); }
  let row = tap * dims.WC + dims.C0;
  if (TRANSPOSED) {
    let k4 = c + i % bk4();
    let n = column * 4u + i / bk4();
    if (k4 >= cin4 || n >= cout4 * 4u) { return vec4f(0.0); }
    return w[(row + n) * cin4 + k4];
  }
  let k = c * 4u + i / bn4();
  let n4 = column + i % bn4();
  if (k >= cin4 * 4u || n4 >= cout4) { return vec4f(0.0); }
  return w[(row + k) * cout4 + n4];
}

// Where it is put.
fn place(i: u32) -> u32 {
  if (TRANSPOSED) { return i % bk4() * ws_k4() + i / bk4() % 4u * ws_row() + i / bk4() / 4u; }
  return i / bn4() / 4u * ws_k4() + i / bn4() % 4u * ws_row() + i % bn4();
}

// The weights of four k (columns) and four channels of y.
fn weights(k4: u32, n4: u32) -> mat4x4f {
  let i = k4 * ws_k4() + n4;
  let m = mat4x4f(vec4f(ws[i]), vec4f(ws[i + ws_row()]), vec4f(ws[i + 2u * ws_row()]), vec4f(ws[i + 3u * ws_row()]));
  if (TRANSPOSED) { return transpose(m); }
  return m;
}

// Four channels of y, with all that is added to them.
fn put(row: u32, c: u32, value: vec4f, kind: Kind, area: u32, pixels: u32, cout4: u32) {
  let p = gemm_place(row, kind);
  if (p >= pixels || c >= cout4) { return; }
  var sum = value;
  if (dims.has_bias != 0u) { sum += bias[c]; }
  if (dims.has_per_image != 0u) { sum += per_image[p / area * cout4 + c]; }
  if (dims.has_residual != 0u) { sum += vec4f(residual[p * cout4 + c]); }
  if (dims.accumulate != 0u) { sum += vec4f(y[p * cout4 + c]); }
  y[p * cout4 + c] = Stored4(sum);
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) li: u32) {
  let cin4 = gemm_cin4();
  let cout4 = gemm_cout4();
  let area = select(dims.OH * dims.OW, dims.H * dims.W, TRANSPOSED);
  let pixels = dims.N * area;
  let column_tiles = (cout4 + bn4() - 1u) / bn4();
  let tile = workgroup_index(workgroup, count);
  let kind = gemm_kind(tile / column_tiles, bm());
  let row = kind.row;
  let column = tile % column_tiles * bn4();

  // Each invocation brings four vec4s of x, of pixels that are `apart` from one another, and two of w.
  let xk = li % bk4();
  let xm = li / bk4();
  let apart = 128u / bk4();
  let q0 = gemm_row(row + xm, kind);
  let q1 = gemm_row(row + xm + apart, kind);
  let q2 = gemm_row(row + xm + 2u * apart, kind);
  let q3 = gemm_row(row + xm + 3u * apart, kind);
  var tap = gemm_tap(kind);
  var p0 = gemm_pixel(q0, tap);
  var p1 = gemm_pixel(q1, tap);
  var p2 = gemm_pixel(q2, tap);
  var p3 = gemm_pixel(q3, tap);
  var f0 = fetch_x(p0, xk, cin4);
  var f1 = fetch_x(p1, xk, cin4);
  var f2 = fetch_x(p2, xk, cin4);
  var f3 = fetch_x(p3, xk, cin4);
  var g0 = fetch_w(tap, 0u, li, column, cin4, cout4);
  var g1 = fetch_w(tap, 0u, li + 128u, column, cin4, cout4);

  // It computes every sixteenth pixel from `ly` on, and the eight channels in two vec4s, `lx` and eight further on: s the first, t the second. In tiles of 32 these are four pixels and one vec4,
  // in tiles of 16 one pixel.
  let across = min(8u, bn4());
  let lx = li % across;
  let ly = li / across;
  var s0 = vec4f(0.0); var s1 = s0; var s2 = s0; var s3 = s0; var s4 = s0; var s5 = s0; var s6 = s0; var s7 = s0;
  var t0 = vec4f(0.0); var t1 = t0; var t2 = t0; var t3 = t0; var t4 = t0; var t5 = t0; var t6 = t0; var t7 = t0;
  let steps = kind.taps * ((cin4 + bk4() - 1u) / bk4());
  var c = 0u;
  for (var step = 0u; step < steps; step++) {
    let xi = xk * xs_row() + xm;
    xs[xi] = Operand4(f0);
    xs[xi + apart] = Operand4(f1);
    xs[xi + 2u * apart] = Operand4(f2);
    xs[xi + 3u * apart] = Operand4(f3);
    ws[place(li)] = Operand4(g0);
    ws[place(li + 128u)] = Operand4(g1);
    workgroupBarrier();
    c += bk4();
    if (c >= cin4) {
      c = 0u;
      tap = gemm_next(tap, kind);
      p0 = gemm_pixel(q0, tap);
      p1 = gemm_pixel(q1, tap);
      p2 = gemm_pixel(q2, tap);
      p3 = gemm_pixel(q3, tap);
    }
    f0 = fetch_x(p0, c + xk, cin4);
    f1 = fetch_x(p1, c + xk, cin4);
    f2 = fetch_x(p2, c + xk, cin4);
    f3 = fetch_x(p3, c + xk, cin4);
    g0 = fetch_w(tap, c, li, column, cin4, cout4);
    g1 = fetch_w(tap, c, li + 128u, column, cin4, cout4);
    for (var k4 = 0u; k4 < bk4(); k4++) {
      let b = weights(k4, lx);
      var d = b;
      if (BN > 32u) { d = weights(k4, lx + 8u); }
      let i = k4 * xs_row() + ly;
      let a0 = vec4f(xs[i]);
      s0 = meet(a0, b, s0);
      if (BN > 32u) { t0 = meet(a0, d, t0); }
      if (BN > 16u) {
        let a1 = vec4f(xs[i + 16u]);
        s1 = meet(a1, b, s1);
        if (BN > 32u) { t1 = meet(a1, d, t1); }
        let a2 = vec4f(xs[i + 32u]);
        s2 = meet(a2, b, s2);
        if (BN > 32u) { t2 = meet(a2, d, t2); }
        let a3 = vec4f(xs[i + 48u]);
        s3 = meet(a3, b, s3);
        if (BN > 32u) { t3 = meet(a3, d, t3); }
      }
      if (BN > 32u) {
        let a4 = vec4f(xs[i + 64u]);
        s4 = meet(a4, b, s4);
        t4 = meet(a4, d, t4);
        let a5 = vec4f(xs[i + 80u]);
        s5 = meet(a5, b, s5);
        t5 = meet(a5, d, t5);
        let a6 = vec4f(xs[i + 96u]);
        s6 = meet(a6, b, s6);
        t6 = meet(a6, d, t6);
        let a7 = vec4f(xs[i + 112u]);
        s7 = meet(a7, b, s7);
        t7 = meet(a7, d, t7);
      }
    }
    workgroupBarrier();
  }

  let p = row + ly;
  let o = column + lx;
  put(p, o, s0, kind, area, pixels, cout4);
  if (BN > 16u) {
    put(p + 16u, o, s1, kind, area, pixels, cout4);
    put(p + 32u, o, s2, kind, area, pixels, cout4);
    put(p + 48u, o, s3, kind, area, pixels, cout4);
  }
  if (BN > 32u) {
    put(p, o + 8u, t0, kind, area, pixels, cout4);
    put(p + 16u, o + 8u, t1, kind, area, pixels, cout4);
    put(p + 32u, o + 8u, t2, kind, area, pixels, cout4);
    put(p + 48u, o + 8u, t3, kind, area, pixels, cout4);
    put(p + 64u, o, s4, kind, area, pixels, cout4);
    put(p + 64u, o + 8u, t4, kind, area, pixels, cout4);
    put(p + 80u, o, s5, kind, area, pixels, cout4);
    put(p + 80u, o + 8u, t5, kind, area, pixels, cout4);
    put(p + 96u, o, s6, kind, area, pixels, cout4);
    put(p + 96u, o + 8u, t6, kind, area, pixels, cout4);
    put(p + 112u, o, s7, kind, area, pixels, cout4);
    put(p + 112u, o + 8u, t7, kind, area, pixels, cout4);
  }
}
