// TRANSPOSED = false: y = conv(x, w) + bias + per_image + residual, as conv2d_forward; true: dx from dy, as conv2d_backward_input; factors are float16, sums float32
// One workgroup of eight subgroups computes TILE pixels x TILE channels, a subgroup TILE / 2 x TILE / 4 in matrices of 16 x 16: an implicit GEMM over k = (kh, kw, channel) whose factors
// lie in padded workgroup memory, TILE / 2 k a turn; the next turn's are fetched while the present turn is multiplied. Sums are named one by one: an array of matrices in a loop lies
// in memory on an H100. There 216 to 249 TFLOP/s of 3 x 3 convolutions of 128 maps from 8 x 8 on; a loop of nothing but products does 641.
// TILE is 128, or 64 where that leaves most of the device idle; every sum is added in the same order. SPLIT, for images too small to fill one, `splits` workgroups share the turns of a tile and leave
// their sums in `part`, to be folded; what is added to them is in the first.
// For GPUs with tensor cores and subgroups of 32; channel counts are multiples of 8, KH and KW at most 16. Names are the GEMM's, as in conv2d_tiled.
enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
#import index
#import stored
#import eights
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
@group(0) @binding(0) var<storage, read> x: array<Stored8>;           // pixels x CIN
@group(0) @binding(1) var<storage, read> x2: array<Stored8>;          // pixels x (WC - C); anything where TWO is not set
@group(0) @binding(2) var<storage, read> w: array<Half8>;             // (KH, KW, WC, O)
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;          // (COUT)
@group(0) @binding(4) var<storage, read> per_image: array<vec4f>;     // (N, COUT)
@group(0) @binding(5) var<storage, read> residual: array<Stored4>;    // pixels x COUT
@group(0) @binding(6) var<storage, read_write> y: array<Stored4>;     // pixels x COUT
@group(0) @binding(7) var<storage, read_write> part: array<vec4f>;    // SPLIT (splits, pixels, COUT); else anything
@group(0) @binding(8) var<uniform> dims: Dims;

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sums = subgroup_matrix_result<f32, 16, 16>;

// Rows of TILE / 2 halves, and of TILE, and 8 more against bank conflicts, in vec4s.
fn xs_row() -> u32 { return TILE / 8u + 2u; }
fn ws_row() -> u32 { return TILE / 4u + 2u; }
var<workgroup> xs: array<vec4<f16>, TILE * (TILE / 8u + 2u)>; // (TILE pixels, xs_row)
var<workgroup> ws: array<vec4<f16>, TILE * (TILE / 8u + 2u)>; // (TILE / 2 k, ws_row), or TRANSPOSED (TILE channels, xs_row): as the weight lies in memory
#import settle

// The pixels of x that a row's pixel of y meets: at a tap the one `at` and the tap's `step` further on, if there is one, which bit kh of `inside` and bit 16 + kw say. Two numbers a row leave
// registers to the sums.
struct Row { at: i32, inside: u32 }
fn row_of(row: u32, k: Kind) -> Row {
  let q = gemm_row(row, k);
  let s = select(0u, 1u, STRIDED);
  let size = select(vec2i(i32(dims.H), i32(dims.W)), vec2i(i32(dims.OH), i32(dims.OW)), TRANSPOSED);
  let pad = vec2i(i32(dims.pad_top), i32(dims.pad_left));
  let origin = select(vec2i(i32(q.y * dims.stride), i32(q.x * dims.stride)) - pad, vec2i(i32(q.y), i32(q.x)) + pad, TRANSPOSED);
  var inside = 0u;
  for (var i = 0u; i < max(dims.KH, dims.KW); i++) {
    let p = select(origin + i32(i), (origin - i32(i)) >> vec2u(s), TRANSPOSED);
    let is = select(vec2u(0u), vec2u(1u << i, 65536u << i), (p >= vec2i(0)) & (p < size));
    inside |= is.x | is.y;
  }
  let first = origin >> vec2u(s);
  return Row((i32(q.n) * size.x + first.x) * size.y + first.y, select(0u, inside, q.n < dims.N));
}
struct Tap { kh: u32, kw: u32, step: i32 }
fn tap_of(tap: u32) -> Tap {
  let kh = tap / dims.KW;
  let kw = tap % dims.KW;
  let s = select(0u, 1u, STRIDED);
  if (TRANSPOSED) { return Tap(kh, 16u + kw, -i32((kh >> s) * dims.OW + (kw >> s))); }
  return Tap(kh, 16u + kw, i32(kh * dims.W + kw));
}

// Channels 8 c of the pixel of x that a row meets at a tap, zero in the padding and beyond the last channel.
fn fetch_x(r: Row, t: Tap, c: u32, cin8: u32) -> Half8 {
  if (((r.inside >> t.kh) & (r.inside >> t.kw) & 1u) == 0u || c >= cin8) { return Half8(); }
  let p = u32(r.at + t.step);
  let C8 = dims.C / 8u;
  if (!TWO) { return packed(x[p * cin8 + c]); }
  if (c < C8) { return packed(x[p * C8 + c]); }
  return packed(x2[p * (cin8 - C8) + c - C8]);
}

fn keep_x(at: u32, v: Half8) {
  xs[at] = first_four(v);
  xs[at + 1u] = last_four(v);
}
fn keep_w(at: u32, v: Half8) {
  ws[at] = first_four(v);
  ws[at + 1u] = last_four(v);
}

fn left_factor(row: u32, k: u32) -> Left { return subgroupMatrixLoad<Left, row_major>(&xs, row * xs_row() + k / 4u, xs_row()); }
fn right_factor(k: u32, column: u32) -> Right {
  if (TRANSPOSED) { return subgroupMatrixLoad<Right, col_major>(&ws, column * xs_row() + k / 4u, xs_row()); }
  return subgroupMatrixLoad<Right, row_major>(&ws, k * ws_row() + column / 4u, ws_row());
}

// The kind of this workgroup's pixels: a row's place in memory depends on it.
var<private> here: Kind;
// Four channels of y at a row, of a split.
fn put(split: u32, row: u32, c: u32, value: vec4f) {
  let p = gemm_place(row, here);
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

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) li: u32, @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
  let cin8 = gemm_cin4() / 2u;
  let cout8 = gemm_cout4() / 2u;
  let BK = TILE / 2u;
  let column_tiles = (cout8 * 8u + TILE - 1u) / TILE;
  let tile = workgroup_index(workgroup, count);
  let area = select(dims.OH * dims.OW, dims.H * dims.W, TRANSPOSED);
  // A share is in units of 64 k of a tap, which the smaller tile goes through in two turns, but for the last of a tap with no more than 32 left.
  let units = (cin8 + 7u) / 8u;
  let of_tap = (cin8 + BK / 8u - 1u) / (BK / 8u);
  let share = share_of(tile / column_tiles, (dims.N * area + TILE - 1u) / TILE, dims.KH * dims.KW * units);
  let kind = gemm_kind(share.tile, TILE);
  here = kind;
  let row = kind.row;
  let column = tile % column_tiles * TILE;
  let top = subgroup % 2u * (TILE / 2u);
  let left = subgroup / 2u * (TILE / 4u);

  // An invocation brings eight k of a pixel and eight numbers of the weight, of TILE 128 those of four pixels and four rows.
  let across = TILE / 16u;
  let k8 = li % across;
  let m = li / across;
  let keep = m * xs_row() + k8 * 2u;
  let below = 32u * xs_row();
  let ra = row_of(row + m, kind);
  let rb = row_of(row + m + 32u, kind);
  let rc = row_of(row + m + 64u, kind);
  let rd = row_of(row + m + 96u, kind);
  // Rows of the weight are k, or TRANSPOSED channels of y. What lies beyond the last k meets zeros of x, beyond the last channel it is not stored: any number of the weight will do there.
  let wide = TILE / 8u;
  let n = li / wide;
  let n8 = li % wide;
  var first_w = n * cout8 + column / 8u + n8;
  var rows_w = 16u * cout8;
  var keep_at = n * ws_row() + n8 * 2u;
  var step_w = 16u * ws_row();
  if (TRANSPOSED) {
    first_w = (column + m) * cin8 + k8;
    rows_w = 32u * cin8;
    keep_at = keep;
    step_w = below;
  }

  let last = dims.KH * dims.KW * dims.WC * dims.O / 8u - 1u;
  var begin = 0u;
  var end = kind.taps * of_tap;
  if (SPLIT) {
    begin = share.begin / units * of_tap + min(share.begin % units * (64u / BK), of_tap);
    end = share.end / units * of_tap + min(share.end % units * (64u / BK), of_tap);
  }
  var tap = gemm_tap(kind) + begin / of_tap;
  var t = tap_of(tap);
  var c = begin % of_tap * (BK / 8u);
  var at_w = first_w + select((tap * dims.WC + dims.C0 + c * 8u) * cout8, (tap * dims.WC + dims.C0) * cin8 + c, TRANSPOSED);
  var xa = fetch_x(ra, t, c + k8, cin8);
  var wa = w[min(at_w, last)];
  var xb: Half8; var xc: Half8; var xd: Half8;
  var wb: Half8; var wc: Half8; var wd: Half8;
  if (TILE > 64u) {
    xb = fetch_x(rb, t, c + k8, cin8);
    xc = fetch_x(rc, t, c + k8, cin8);
    xd = fetch_x(rd, t, c + k8, cin8);
    wb = w[min(at_w + rows_w, last)];
    wc = w[min(at_w + 2u * rows_w, last)];
    wd = w[min(at_w + 3u * rows_w, last)];
  }
  var s00: Sums; var s01: Sums;
  var s10: Sums; var s11: Sums;
  var s20: Sums; var s21: Sums;
  var s30: Sums; var s31: Sums;
  for (var step = begin; step < end; step++) {
    keep_x(keep, xa);
    keep_w(keep_at, wa);
    if (TILE > 64u) {
      keep_x(keep + below, xb);
      keep_x(keep + 2u * below, xc);
      keep_x(keep + 3u * below, xd);
      keep_w(keep_at + step_w, wb);
      keep_w(keep_at + 2u * step_w, wc);
      keep_w(keep_at + 3u * step_w, wd);
    }
    workgroupBarrier();

    c += BK / 8u;
    if (c >= cin8) {
      c = 0u;
      tap = gemm_next(tap, kind);
      t = tap_of(tap);
    }
    if (step + 1u < end) {
      at_w = first_w + select((tap * dims.WC + dims.C0 + c * 8u) * cout8, (tap * dims.WC + dims.C0) * cin8 + c, TRANSPOSED);
      xa = fetch_x(ra, t, c + k8, cin8);
      wa = w[min(at_w, last)];
      if (TILE > 64u) {
        xb = fetch_x(rb, t, c + k8, cin8);
        xc = fetch_x(rc, t, c + k8, cin8);
        xd = fetch_x(rd, t, c + k8, cin8);
        wb = w[min(at_w + rows_w, last)];
        wc = w[min(at_w + 2u * rows_w, last)];
        wd = w[min(at_w + 3u * rows_w, last)];
      }
    }

    for (var k = 0u; k < BK; k += 16u) {
      let right0 = right_factor(k, left);
      let left0 = left_factor(top, k);
      s00 = subgroupMatrixMultiplyAccumulate(left0, right0, s00);
      let left1 = left_factor(top + 16u, k);
      s10 = subgroupMatrixMultiplyAccumulate(left1, right0, s10);
      if (TILE > 64u) {
        let right1 = right_factor(k, left + 16u);
        s01 = subgroupMatrixMultiplyAccumulate(left0, right1, s01);
        s11 = subgroupMatrixMultiplyAccumulate(left1, right1, s11);
        let left2 = left_factor(top + 32u, k);
        s20 = subgroupMatrixMultiplyAccumulate(left2, right0, s20);
        s21 = subgroupMatrixMultiplyAccumulate(left2, right1, s21);
        let left3 = left_factor(top + 48u, k);
        s30 = subgroupMatrixMultiplyAccumulate(left3, right0, s30);
        s31 = subgroupMatrixMultiplyAccumulate(left3, right1, s31);
      }
    }
    workgroupBarrier();
  }

  let split = share.split;
  let to_row = row + top;
  let to = (column + left) / 4u;
  settle(s00, split, to_row, to, subgroup, lane);
  settle(s10, split, to_row + 16u, to, subgroup, lane);
  if (TILE > 64u) {
    settle(s01, split, to_row, to + 4u, subgroup, lane);
    settle(s11, split, to_row + 16u, to + 4u, subgroup, lane);
    settle(s20, split, to_row + 32u, to, subgroup, lane);
    settle(s21, split, to_row + 32u, to + 4u, subgroup, lane);
    settle(s30, split, to_row + 48u, to, subgroup, lane);
    settle(s31, split, to_row + 48u, to + 4u, subgroup, lane);
  }
}
