// part[s,kh,kw,c,o] = sum over the pixels of split s of x[n, oh*stride+kh-pad_top, ow*stride+kw-pad_left, c] * dy[n,oh,ow,o]; dw = sum_s part[s]; sums[s,o] = sum dy[n,oh,ow,o], whose fold is the bias's gradient
// One subgroup of LANES, eight, four (_lanes4) or sixteen (_lanes16), computes 4 ROWS (tap, c) x CHANNELS LANES COLUMNS o of one split: eight pixels a turn, lane = one of them for x, of four lanes
// two, of sixteen one and half of the rows, lane = CHANNELS COLUMNS output channels for dy; each dy is used 4 ROWS times.
// On a CPU (llvmpipe) loads are what takes time: a tile of twice the height and width takes half as many for each product, and where there are few channels a small one leaves less of itself empty.
// Pixels advance by carries: a division costs as much as thirty FMAs here. C and O are multiples of 4.
enable subgroups;
#import index
#import conv2d
#import subgroup_8
override ROWS: u32 = 8u;
override COLUMNS: u32 = 1u;
@group(0) @binding(0) var<storage, read> x: array<vec4f>;             // (N, H, W, C)
@group(0) @binding(1) var<storage, read> dy: array<Channels>;         // (N, OH, OW, O)
@group(0) @binding(2) var<storage, read_write> part: array<Channels>; // (splits, KH, KW, C, O)
@group(0) @binding(3) var<storage, read_write> sums: array<Channels>; // (splits, O); anything where has_bias is not set
@group(0) @binding(4) var<uniform> dims: Dims;

// Output channels of dy at eight pixels, zero from pixel `end` on.
alias Eight = array<Channels, 8>;
fn dy_at(p: u32, end: u32, o: u32) -> Channels { return select(Channels(0.0), dy[min(p, end - 1u) * (dims.O / CHANNELS) + o], p < end); }
fn eight_of(p: u32, end: u32, o: u32) -> Eight {
  return Eight(dy_at(p, end, o), dy_at(p + 1u, end, o), dy_at(p + 2u, end, o), dy_at(p + 3u, end, o), dy_at(p + 4u, end, o), dy_at(p + 5u, end, o), dy_at(p + 6u, end, o), dy_at(p + 7u, end, o));
}
// The lane's columns.
alias Columns = array<Eight, 4>;
fn columns_of(p: u32, end: u32, o: vec4u) -> Columns {
  var b: Columns;
  b[0] = eight_of(p, end, o.x);
  if (COLUMNS > 1u) { b[1] = eight_of(p, end, o.y); }
  if (COLUMNS > 2u) {
    b[2] = eight_of(p, end, o.z);
    b[3] = eight_of(p, end, o.w);
  }
  return b;
}
fn total(b: Eight) -> Channels { return ((b[0] + b[1]) + (b[2] + b[3])) + ((b[4] + b[5]) + (b[6] + b[7])); }

// Four rows of the tile: a tap and four channels each.
struct Row { kh: u32, kw: u32, c: u32 }
alias Rows = array<Row, 4>;
fn row(i: u32) -> Row {
  let C4 = dims.C / 4u;
  let m = min(i, dims.KH * dims.KW * C4 - 1u);
  return Row(m / C4 / dims.KW, m / C4 % dims.KW, m % C4);
}
fn rows_of(i: u32, lane: u32) -> Rows {
  let first = i + lane / 8u * 2u;
  return Rows(row(first), row(first + 1u), row(first + 2u), row(first + 3u));
}

// What the lane's pixel and, of four lanes, the one four further on meet there, zero unless they are `inside` of the split.
struct Held { first: Pixel, second: Pixel, inside: vec2<bool> }
alias Four = array<mat2x4f, 4>;
fn x_at(q: Pixel, inside: bool, r: Row) -> vec4f {
  let p = input_pixel(q, r.kh, r.kw);
  return x[u32(max(p, 0)) * (dims.C / 4u) + r.c] * select(0.0, 1.0, p >= 0 && inside);
}
fn both_at(q: Held, r: Row) -> mat2x4f {
  if (LANES >= 8u) { return mat2x4f(x_at(q.first, q.inside.x, r), vec4f()); }
  return mat2x4f(x_at(q.first, q.inside.x, r), x_at(q.second, q.inside.y, r));
}
fn four_of(q: Held, rows: Rows) -> Four {
  if (LANES > 8u) { return Four(both_at(q, rows[0]), both_at(q, rows[1]), mat2x4f(), mat2x4f()); }
  return Four(both_at(q, rows[0]), both_at(q, rows[1]), both_at(q, rows[2]), both_at(q, rows[3]));
}
// What they hold of a row at a pixel of the eight: of sixteen lanes the last eight hold the second two rows.
fn spread(a: Four, row: u32, pixel: u32) -> vec4f {
  if (LANES > 8u) { return vec4_of_lane(a[row % 2u][0], row / 2u * 8u + pixel); }
  return vec4_of_lane(select(a[row][0], a[row][1], pixel >= LANES), pixel % LANES);
}

// The sums of products with each of the columns.
alias Sums = array<Channels, 64>;
alias AllSums = array<Sums, 4>;

// Adds the products of eight pixels: channel j of x with two of dy. All is written out, as llvmpipe unrolls no loop as long as this.
fn add(sum: Channels, s: array<vec4f, 8>, j: u32, b: Eight) -> Channels {
  return fma(Channels(s[7][j]), b[7], fma(Channels(s[6][j]), b[6], fma(Channels(s[5][j]), b[5], fma(Channels(s[4][j]), b[4],
    fma(Channels(s[3][j]), b[3], fma(Channels(s[2][j]), b[2], fma(Channels(s[1][j]), b[1], fma(Channels(s[0][j]), b[0], sum))))))));
}
// All columns after one another, so that a spread value waits in a register for them.
fn meet_channel(acc: ptr<function, AllSums>, i: u32, s: array<vec4f, 8>, j: u32, b: Columns) {
  (*acc)[0][i] = add((*acc)[0][i], s, j, b[0]);
  if (COLUMNS > 1u) { (*acc)[1][i] = add((*acc)[1][i], s, j, b[1]); }
  if (COLUMNS > 2u) {
    (*acc)[2][i] = add((*acc)[2][i], s, j, b[2]);
    (*acc)[3][i] = add((*acc)[3][i], s, j, b[3]);
  }
}
fn meet_row(acc: ptr<function, AllSums>, i: u32, a: Four, row: u32, b: Columns) {
  let s = array<vec4f, 8>(spread(a, row, 0u), spread(a, row, 1u), spread(a, row, 2u), spread(a, row, 3u), spread(a, row, 4u), spread(a, row, 5u), spread(a, row, 6u), spread(a, row, 7u));
  meet_channel(acc, i, s, 0u, b);
  meet_channel(acc, i + 1u, s, 1u, b);
  meet_channel(acc, i + 2u, s, 2u, b);
  meet_channel(acc, i + 3u, s, 3u, b);
}
fn meet(acc: ptr<function, AllSums>, i: u32, a: Four, b: Columns) {
  meet_row(acc, i, a, 0u, b);
  meet_row(acc, i + 4u, a, 1u, b);
  meet_row(acc, i + 8u, a, 2u, b);
  meet_row(acc, i + 12u, a, 3u, b);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let OL = dims.O / CHANNELS; // the output channels, in what a lane holds
  let rows4 = dims.KH * dims.KW * dims.C / 4u;
  let column_tiles = (OL + LANES * COLUMNS - 1u) / (LANES * COLUMNS);
  let row_tiles = (rows4 + ROWS - 1u) / ROWS;
  let tile = workgroup_index(workgroup, count);
  let column = tile % column_tiles * LANES * COLUMNS + lane;
  let o = min(vec4u(column) + LANES * vec4u(0u, 1u, 2u, 3u), vec4u(OL - 1u));
  let row4 = tile / column_tiles % row_tiles * ROWS;
  let split = tile / (column_tiles * row_tiles);
  if (split >= dims.splits) { return; }
  let pixels = dims.N * dims.OH * dims.OW;
  // Whole turns of eight pixels, so that only the last split has a ragged end.
  let share = (pixels + 8u * dims.splits - 1u) / (8u * dims.splits) * 8u;
  let end = min((split + 1u) * share, pixels);

  var q = Held(pixel(split * share + lane % 8u, dims.OH, dims.OW), pixel(split * share + lane + LANES, dims.OH, dims.OW), vec2<bool>());
  let eight = pixel(8u, dims.OH, dims.OW);
  // What does not change with the pixel is computed once: llvmpipe hoists nothing out of loops.
  let rows0 = rows_of(row4, lane);
  let rows1 = rows_of(row4 + 4u, lane);
  let rows2 = rows_of(row4 + 8u, lane);
  let rows3 = rows_of(row4 + 12u, lane);
  var sum: array<Channels, 4>;
  var acc: AllSums;
  for (var first = split * share; first < end; first += 8u) {
    q.inside = vec2u(first + lane % 8u) + vec2u(0u, LANES) < vec2u(end);
    var a: array<Four, 4>;
    a[0] = four_of(q, rows0);
    if (ROWS > 4u) { a[1] = four_of(q, rows1); }
    if (ROWS > 8u) {
      a[2] = four_of(q, rows2);
      a[3] = four_of(q, rows3);
    }
    let b = columns_of(first, end, o);
    sum[0] += total(b[0]);
    if (COLUMNS > 1u) { sum[1] += total(b[1]); }
    if (COLUMNS > 2u) {
      sum[2] += total(b[2]);
      sum[3] += total(b[3]);
    }
    meet(&acc, 0u, a[0], b);
    if (ROWS > 4u) { meet(&acc, 16u, a[1], b); }
    if (ROWS > 8u) {
      meet(&acc, 32u, a[2], b);
      meet(&acc, 48u, a[3], b);
    }
    q.first = advance(q.first, eight, dims.OH, dims.OW);
    q.second = advance(q.second, eight, dims.OH, dims.OW);
  }

  if (column >= OL) { return; }
  let has = vec3<bool>(COLUMNS > 1u, COLUMNS > 2u, COLUMNS > 2u) & (vec3u(column) + LANES * vec3u(1u, 2u, 3u) < vec3u(OL));
  if (dims.has_bias != 0u && row4 == 0u) {
    let at = split * OL + column;
    sums[at] = sum[0];
    if (has.x) { sums[at + LANES] = sum[1]; }
    if (has.y) { sums[at + 2u * LANES] = sum[2]; }
    if (has.z) { sums[at + 3u * LANES] = sum[3]; }
  }
  for (var r = 0u; r < 4u * min(ROWS, rows4 - row4); r++) {
    let at = (split * rows4 * 4u + row4 * 4u + r) * OL + column;
    part[at] = acc[0][r];
    if (has.x) { part[at + LANES] = acc[1][r]; }
    if (has.y) { part[at + 2u * LANES] = acc[2][r]; }
    if (has.z) { part[at + 3u * LANES] = acc[3][r]; }
  }
}
