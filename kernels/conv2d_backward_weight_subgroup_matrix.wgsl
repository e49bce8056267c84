// part[s,kh,kw,c,o] = sum over the pixels of split s of x[n, oh*stride+kh-pad_top, ow*stride+kw-pad_left, c] * dy[n,oh,ow,o]; dw = sum_s part[s]; sums[s,o] = sum dy[n,oh,ow,o], whose fold is the bias's gradient; factors are float16, sums float32
// One workgroup computes TILE c x TILE o of one tap and one split, one of eight subgroups TILE / 2 x TILE / 4 in matrices of 16 x 16, TILE / 2 pixels a turn; the next turn's are fetched while the
// present turn is multiplied. Sums are named one by one, as in conv2d_subgroup_matrix. TILE is 128, or 64 where C or O is no more.
// 124 to 170 TFLOP/s of 3 x 3 convolutions of 128 maps from 8 x 8 on, on an H100, with the fold and the bias's gradient.
// For GPUs with tensor cores and subgroups of 32; C and O are multiples of 8.
enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
#import index
#import stored
#import eights
#import conv2d
// 128 needs more workgroup memory than WebGPU's default.
override TILE: u32 = 64u;
@group(0) @binding(0) var<storage, read> x: array<Stored8>;        // (N, H, W, C)
@group(0) @binding(1) var<storage, read> dy: array<Stored8>;       // (N, OH, OW, O)
@group(0) @binding(2) var<storage, read_write> part: array<vec4f>; // (splits, KH, KW, C, O)
@group(0) @binding(3) var<storage, read_write> sums: array<vec4f>; // (splits, O); anything where has_bias is not set
@group(0) @binding(4) var<uniform> dims: Dims;

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sums = subgroup_matrix_result<f32, 16, 16>;

// Rows of TILE halves, and 8 more against bank conflicts, in vec4s.
fn row_size() -> u32 { return TILE / 4u + 2u; }
var<workgroup> xs: array<vec4<f16>, TILE / 2u * (TILE / 4u + 2u)>; // (TILE / 2 pixels, row_size): the left factor, turned
var<workgroup> ys: array<vec4<f16>, TILE / 2u * (TILE / 4u + 2u)>; // (TILE / 2 pixels, row_size)
#import settle

fn left_factor(row: u32, k: u32) -> Left { return subgroupMatrixLoad<Left, col_major>(&xs, k * row_size() + row / 4u, row_size()); }
fn right_factor(k: u32, column: u32) -> Right { return subgroupMatrixLoad<Right, row_major>(&ys, k * row_size() + column / 4u, row_size()); }

fn keep_x(at: u32, v: Half8) {
  xs[at] = first_four(v);
  xs[at + 1u] = last_four(v);
}
fn keep_y(at: u32, v: Half8) {
  ys[at] = first_four(v);
  ys[at + 1u] = last_four(v);
}

// Four channels o of part, of the tap and the split that are `base`.
fn put(base: u32, c: u32, o: u32, value: vec4f) {
  let O4 = dims.O / 4u;
  if (base < dims.splits * dims.KH * dims.KW && c < dims.C && o < O4) { part[(base * dims.C + c) * O4 + o] = value; }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) li: u32, @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
  let C8 = dims.C / 8u;
  let O8 = dims.O / 8u;
  let BK = TILE / 2u;
  let taps = dims.KH * dims.KW;
  let row_tiles = (dims.C + TILE - 1u) / TILE;
  let column_tiles = (dims.O + TILE - 1u) / TILE;
  let tile = workgroup_index(workgroup, count);
  let column = tile % column_tiles * TILE;
  let row = tile / column_tiles % row_tiles * TILE;
  let tap = tile / (column_tiles * row_tiles) % taps;
  let split = tile / (column_tiles * row_tiles * taps);
  let kh = tap / dims.KW;
  let kw = tap % dims.KW;
  let pixels = dims.N * dims.OH * dims.OW;
  // Whole turns of the larger tile, so that a split is the same pixels in either.
  let share = (pixels + 64u * dims.splits - 1u) / (64u * dims.splits) * 64u;
  let first = split * share;
  let end = min(first + share, pixels);
  let top = subgroup % 2u * (TILE / 2u);
  let left = subgroup / 2u * (TILE / 4u);

  // What this invocation brings: eight channels of x and of dy, of TILE 128 four times as many: those 64 channels on, and both of the pixel 32 further on. Beyond the last channel any number will do:
  // its products are not stored.
  let k0 = li / 8u;
  let lane8 = li % 8u;
  let keep = k0 * row_size() + lane8 * 2u;
  let below = keep + 32u * row_size();
  let last_x = dims.N * dims.H * dims.W * C8 - 1u;
  let last_y = pixels * O8 - 1u;
  let turn = pixel(BK, dims.OH, dims.OW);
  var q = pixel(first + k0, dims.OH, dims.OW);
  let half_turn = pixel(32u, dims.OH, dims.OW);
  var a0: Half8; var a1: Half8; var a2: Half8; var a3: Half8;
  var b0: Half8; var b1: Half8; var b2: Half8; var b3: Half8;
  let summing = dims.has_bias != 0u && row == 0u && tap == 0u;
  var sum = vec4f(0.0);
  var s00: Sums; var s01: Sums;
  var s10: Sums; var s11: Sums;
  var s20: Sums; var s21: Sums;
  var s30: Sums; var s31: Sums;
  // A turn fetches its own pixels and multiplies those of the one before.
  for (var at = first; at < end + BK; at += BK) {
    if (at > first) {
      keep_x(keep, a0);
      keep_y(keep, b0);
      if (TILE > 64u) {
        keep_x(keep + 16u, a1);
        keep_y(keep + 16u, b1);
        keep_x(below, a2);
        keep_y(below, b2);
        keep_x(below + 16u, a3);
        keep_y(below + 16u, b3);
      }
      workgroupBarrier();
    }

    a0 = Half8();
    a1 = Half8();
    b0 = Half8();
    b1 = Half8();
    let r = at + k0;
    let p = input_pixel(q, kh, kw);
    if (r < end && p >= 0) {
      let i = u32(p) * C8 + row / 8u + lane8;
      a0 = packed(x[min(i, last_x)]);
      if (TILE > 64u) { a1 = packed(x[min(i + 8u, last_x)]); }
    }
    if (r < end) {
      let i = r * O8 + column / 8u + lane8;
      b0 = packed(dy[min(i, last_y)]);
      if (TILE > 64u) { b1 = packed(dy[min(i + 8u, last_y)]); }
    }
    if (TILE > 64u) {
      a2 = Half8();
      a3 = Half8();
      b2 = Half8();
      b3 = Half8();
      let p2 = input_pixel(advance(q, half_turn, dims.OH, dims.OW), kh, kw);
      if (r + 32u < end && p2 >= 0) {
        let i = u32(p2) * C8 + row / 8u + lane8;
        a2 = packed(x[min(i, last_x)]);
        a3 = packed(x[min(i + 8u, last_x)]);
      }
      if (r + 32u < end) {
        let i = (r + 32u) * O8 + column / 8u + lane8;
        b2 = packed(dy[min(i, last_y)]);
        b3 = packed(dy[min(i + 8u, last_y)]);
      }
    }
    q = advance(q, turn, dims.OH, dims.OW);
    if (at == first) { continue; }

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
    if (summing && li < TILE / 4u) {
      for (var k = 0u; k < BK; k++) { sum += vec4f(ys[k * row_size() + li]); }
    }
    workgroupBarrier();
  }

  let O4 = dims.O / 4u;
  if (summing && li < TILE / 4u && column / 4u + li < O4 && split < dims.splits) { sums[split * O4 + column / 4u + li] = sum; }
  let base = split * taps + tap;
  let to_c = row + top;
  let to_o = (column + left) / 4u;
  settle(s00, base, to_c, to_o, subgroup, lane);
  settle(s10, base, to_c + 16u, to_o, subgroup, lane);
  if (TILE > 64u) {
    settle(s01, base, to_c, to_o + 4u, subgroup, lane);
    settle(s11, base, to_c + 16u, to_o + 4u, subgroup, lane);
    settle(s20, base, to_c + 32u, to_o, subgroup, lane);
    settle(s21, base, to_c + 32u, to_o + 4u, subgroup, lane);
    settle(s30, base, to_c + 48u, to_o, subgroup, lane);
    settle(s31, base, to_c + 48u, to_o + 4u, subgroup, lane);
  }
}
