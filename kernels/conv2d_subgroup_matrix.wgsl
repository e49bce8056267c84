// TRANSPOSED = false: y = conv(x, w) + bias + per_image + residual, as conv2d_forward; true: dx from dy, as conv2d_backward_input; factors are float16, sums float32
// One workgroup of four subgroups computes TILE pixels x TILE channels, a subgroup a quarter in matrices of 16 x 16: an implicit GEMM over k = (kh, kw, channel) whose factors
// lie in padded workgroup memory, 32 k a turn; the next turn's are fetched while the present turn is multiplied. Sums are named one by one: an array of matrices in a loop lies
// in memory on an H100. There 190 TFLOP/s of 3 x 3 convolutions, 180 TRANSPOSED, and 25 by such an array; a loop of nothing but products does 621.
// TILE is 128, or 64 where that leaves most of the device idle; every sum is added in the same order. SPLIT, for images too small to fill one, `splits` workgroups share the turns of a tile and leave
// their sums in `part`, to be folded; what is added to them is in the first.
// For GPUs with tensor cores and subgroups of 32; channel counts are multiples of 4. Names are the GEMM's, as in conv2d_tiled.
enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
#import index
#import stored
#import conv2d
#import conv2d_gemm
#import conv2d_kinds
#import conv2d_share
// 128 needs more workgroup memory than WebGPU's default.
override TILE: u32 = 64u;
override TRANSPOSED: bool = false;
// TRANSPOSED with a stride of 2, and only then.
override STRIDED: bool = false;
override TWO: bool = false;
// Not with STRIDED.
override SPLIT: bool = false;
@group(0) @binding(0) var<storage, read> x: array<Stored4>;           // pixels x CIN
@group(0) @binding(1) var<storage, read> x2: array<Stored4>;          // pixels x (WC - C); anything where TWO is not set
@group(0) @binding(2) var<storage, read> w: array<vec4f>;             // (KH, KW, WC, O)
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;          // (COUT)
@group(0) @binding(4) var<storage, read> per_image: array<vec4f>;     // (N, COUT)
@group(0) @binding(5) var<storage, read> residual: array<Stored4>;    // pixels x COUT
@group(0) @binding(6) var<storage, read_write> y: array<Stored4>;     // pixels x COUT
@group(0) @binding(7) var<storage, read_write> part: array<vec4f>;    // SPLIT (splits, pixels, COUT); else anything
@group(0) @binding(8) var<uniform> dims: Dims;

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sums = subgroup_matrix_result<f32, 16, 16>;

// Rows of 32 halves, and of TILE, and 8 more against bank conflicts, in vec4s.
const XS = 10u;
fn ws_row() -> u32 { return TILE / 4u + 2u; }
var<workgroup> xs: array<vec4<f16>, TILE * XS>; // (TILE pixels, XS)
var<workgroup> ws: array<vec4<f16>, TILE * XS>; // (32 k, ws_row), or TRANSPOSED (TILE channels, XS): as the weight lies in memory
var<workgroup> out: array<vec4f, 256>;          // (4 subgroups, 16, 16 / 4)

// Four rows' pixels.
struct Pixels { a: Pixel, b: Pixel, c: Pixel, d: Pixel }
fn pixels_of(p: u32, k: Kind) -> Pixels { return Pixels(gemm_row(p, k), gemm_row(p + 16u, k), gemm_row(p + 32u, k), gemm_row(p + 48u, k)); }

// The pixels of x that pixels q of y meet at a tap, -1 where they meet none.
fn met(q: Pixels, tap: u32) -> vec4i { return vec4i(gemm_pixel(q.a, tap), gemm_pixel(q.b, tap), gemm_pixel(q.c, tap), gemm_pixel(q.d, tap)); }

// Channels 4 c of four pixels of x, zero in the padding and beyond the last channel.
fn fetch_x(p: vec4i, c: u32, cin4: u32) -> mat4x4<f16> { return mat4x4<f16>(x_at(p.x, c, cin4), x_at(p.y, c, cin4), x_at(p.z, c, cin4), x_at(p.w, c, cin4)); }
fn x_at(p: i32, c: u32, cin4: u32) -> vec4<f16> {
  if (p < 0 || c >= cin4) { return vec4<f16>(); }
  let C4 = dims.C / 4u;
  if (!TWO) { return vec4<f16>(x[u32(p) * cin4 + c]); }
  if (c < C4) { return vec4<f16>(x[u32(p) * C4 + c]); }
  return vec4<f16>(x2[u32(p) * (cin4 - C4) + c - C4]);
}

// Four vec4s of the weight. What lies beyond the last k meets zeros of x, beyond the last channel it is not stored: any number of the weight will do there.
fn fetch_w(i: vec4u, last: u32) -> mat4x4<f16> {
  let at = min(i, vec4u(last));
  return mat4x4<f16>(vec4<f16>(w[at.x]), vec4<f16>(w[at.y]), vec4<f16>(w[at.z]), vec4<f16>(w[at.w]));
}

fn keep_x(at: u32, m: mat4x4<f16>) {
  xs[at] = m[0];
  xs[at + 16u * XS] = m[1];
  xs[at + 32u * XS] = m[2];
  xs[at + 48u * XS] = m[3];
}
fn keep_w(at: u32, step: u32, m: mat4x4<f16>) {
  ws[at] = m[0];
  ws[at + step] = m[1];
  ws[at + 2u * step] = m[2];
  ws[at + 3u * step] = m[3];
}

fn left_factor(row: u32, k: u32) -> Left { return subgroupMatrixLoad<Left, row_major>(&xs, row * XS + k / 4u, XS); }
fn right_factor(k: u32, column: u32) -> Right {
  if (TRANSPOSED) { return subgroupMatrixLoad<Right, col_major>(&ws, column * XS + k / 4u, XS); }
  return subgroupMatrixLoad<Right, row_major>(&ws, k * ws_row() + column / 4u, ws_row());
}

// What a row's place in memory depends on.
struct Place { kind: Kind, split: u32 }
// A matrix has no elements in WGSL: it goes through memory to where they are masked and added to.
fn settle(m: Sums, to: Place, row: u32, column: u32, subgroup: u32, lane: u32) {
  subgroupMatrixStore<row_major>(&out, subgroup * 64u, m, 4u);
  workgroupBarrier();
  put(gemm_place(row + lane / 4u, to.kind), to.split, column + lane % 4u, out[subgroup * 64u + lane]);
  put(gemm_place(row + lane / 4u + 8u, to.kind), to.split, column + lane % 4u, out[subgroup * 64u + lane + 32u]);
  workgroupBarrier();
}
fn put(p: u32, split: u32, c: u32, value: vec4f) {
  let cout4 = gemm_cout4();
  let area = select(dims.OH * dims.OW, dims.H * dims.W, TRANSPOSED);
  if (p >= dims.N * area || c >= cout4) { return; }
  let i = p * cout4 + c;
  var sum = value;
  if (split == 0u) {
    if (dims.has_bias != 0u) { sum += bias[c]; }
    if (dims.has_per_image != 0u) { sum += per_image[p / area * cout4 + c]; }
    if (dims.has_residual != 0u) { sum += vec4f(residual[i]); }
    if (dims.accumulate != 0u) { sum += vec4f(y[i]); }
  }
  if (SPLIT) { part[split * dims.N * area * cout4 + i] = sum; } else { y[i] = Stored4(sum); }
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) li: u32, @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
  let cin4 = gemm_cin4();
  let cout4 = gemm_cout4();
  let column_tiles = (cout4 + TILE / 4u - 1u) / (TILE / 4u);
  let tile = workgroup_index(workgroup, count);
  let of_tap = (cin4 + 7u) / 8u;
  let area = select(dims.OH * dims.OW, dims.H * dims.W, TRANSPOSED);
  let share = share_of(tile / column_tiles, (dims.N * area + TILE - 1u) / TILE, dims.KH * dims.KW * of_tap);
  let kind = gemm_kind(share.tile, TILE);
  let row = kind.row;
  let column = tile % column_tiles * (TILE / 4u);
  let top = subgroup % 2u * (TILE / 2u);
  let left = subgroup / 2u * (TILE / 2u);

  // An invocation brings one vec4 of k of every sixteenth pixel, and of the weight either the same of every sixteenth channel or one vec4 of channels of every few k.
  let k4 = li % 8u;
  let m = li / 8u;
  let four = vec4u(0u, 1u, 2u, 3u);
  let qa = pixels_of(row + m, kind);
  let qb = pixels_of(row + m + 64u, kind);
  let rows = 512u / TILE;
  let n = li / (TILE / 4u);
  var wa = (n + rows * four) * cout4 + min(column + li % (TILE / 4u), cout4 - 1u);
  var wb = wa + 4u * rows * cout4;
  var keep = n * ws_row() + li % (TILE / 4u);
  var step_w = rows * ws_row();
  if (TRANSPOSED) {
    wa = min(column * 4u + m + 16u * four, vec4u(dims.C - 1u)) * cin4 + k4;
    wb = min(column * 4u + m + 64u + 16u * four, vec4u(dims.C - 1u)) * cin4 + k4;
    keep = m * XS + k4;
    step_w = 16u * XS;
  }

  let last = dims.KH * dims.KW * dims.WC * dims.O / 4u - 1u;
  let end = select(kind.taps * of_tap, share.end, SPLIT);
  var tap = gemm_tap(kind) + share.begin / of_tap;
  var c = share.begin % of_tap * 8u;
  var pa = met(qa, tap);
  var pb = met(qb, tap);
  var at_w = select((tap * dims.WC + dims.C0 + c * 4u) * cout4, (tap * dims.WC + dims.C0) * cin4 + c, TRANSPOSED);
  var xa = fetch_x(pa, c + k4, cin4);
  var xb = mat4x4<f16>();
  var va = fetch_w(at_w + wa, last);
  var vb = mat4x4<f16>();
  if (TILE > 64u) {
    xb = fetch_x(pb, c + k4, cin4);
    vb = fetch_w(at_w + wb, last);
  }
  var s00: Sums; var s01: Sums; var s02: Sums; var s03: Sums;
  var s10: Sums; var s11: Sums; var s12: Sums; var s13: Sums;
  var s20: Sums; var s21: Sums; var s22: Sums; var s23: Sums;
  var s30: Sums; var s31: Sums; var s32: Sums; var s33: Sums;
  for (var step = share.begin; step < end; step++) {
    keep_x(m * XS + k4, xa);
    keep_w(keep, step_w, va);
    if (TILE > 64u) {
      keep_x((m + 64u) * XS + k4, xb);
      keep_w(keep + 4u * step_w, step_w, vb);
    }
    workgroupBarrier();

    c += 8u;
    if (c >= cin4) {
      c = 0u;
      tap = gemm_next(tap, kind);
      pa = met(qa, tap);
      pb = met(qb, tap);
    }
    at_w = select((tap * dims.WC + dims.C0 + c * 4u) * cout4, (tap * dims.WC + dims.C0) * cin4 + c, TRANSPOSED);
    xa = fetch_x(pa, c + k4, cin4);
    va = fetch_w(at_w + wa, last);
    if (TILE > 64u) {
      xb = fetch_x(pb, c + k4, cin4);
      vb = fetch_w(at_w + wb, last);
    }

    for (var k = 0u; k < 32u; k += 16u) {
      let b0 = right_factor(k, left);
      let b1 = right_factor(k, left + 16u);
      let a0 = left_factor(top, k);
      s00 = subgroupMatrixMultiplyAccumulate(a0, b0, s00);
      s01 = subgroupMatrixMultiplyAccumulate(a0, b1, s01);
      let a1 = left_factor(top + 16u, k);
      s10 = subgroupMatrixMultiplyAccumulate(a1, b0, s10);
      s11 = subgroupMatrixMultiplyAccumulate(a1, b1, s11);
      if (TILE > 64u) {
        let b2 = right_factor(k, left + 32u);
        let b3 = right_factor(k, left + 48u);
        s02 = subgroupMatrixMultiplyAccumulate(a0, b2, s02);
        s03 = subgroupMatrixMultiplyAccumulate(a0, b3, s03);
        s12 = subgroupMatrixMultiplyAccumulate(a1, b2, s12);
        s13 = subgroupMatrixMultiplyAccumulate(a1, b3, s13);
        let a2 = left_factor(top + 32u, k);
        s20 = subgroupMatrixMultiplyAccumulate(a2, b0, s20);
        s21 = subgroupMatrixMultiplyAccumulate(a2, b1, s21);
        s22 = subgroupMatrixMultiplyAccumulate(a2, b2, s22);
        s23 = subgroupMatrixMultiplyAccumulate(a2, b3, s23);
        let a3 = left_factor(top + 48u, k);
        s30 = subgroupMatrixMultiplyAccumulate(a3, b0, s30);
        s31 = subgroupMatrixMultiplyAccumulate(a3, b1, s31);
        s32 = subgroupMatrixMultiplyAccumulate(a3, b2, s32);
        s33 = subgroupMatrixMultiplyAccumulate(a3, b3, s33);
      }
    }
    workgroupBarrier();
  }

  let to = Place(kind, share.split);
  let p = row + top;
  let o = column + left / 4u;
  settle(s00, to, p, o, subgroup, lane);
  settle(s01, to, p, o + 4u, subgroup, lane);
  settle(s10, to, p + 16u, o, subgroup, lane);
  settle(s11, to, p + 16u, o + 4u, subgroup, lane);
  if (TILE > 64u) {
    settle(s02, to, p, o + 8u, subgroup, lane);
    settle(s03, to, p, o + 12u, subgroup, lane);
    settle(s12, to, p + 16u, o + 8u, subgroup, lane);
    settle(s13, to, p + 16u, o + 12u, subgroup, lane);
    settle(s20, to, p + 32u, o, subgroup, lane);
    settle(s21, to, p + 32u, o + 4u, subgroup, lane);
    settle(s22, to, p + 32u, o + 8u, subgroup, lane);
    settle(s23, to, p + 32u, o + 12u, subgroup, lane);
    settle(s30, to, p + 48u, o, subgroup, lane);
    settle(s31, to, p + 48u, o + 4u, subgroup, lane);
    settle(s32, to, p + 48u, o + 8u, subgroup, lane);
    settle(s33, to, p + 48u, o + 12u, subgroup, lane);
  }
}
