// y[n,h,w,o] = bias[o] + per_image[n,o] + residual[n,h,w,o] + sum_{kh,kw,c} x[n, h+kh-1, w+kw-1, c] * w[kh,kw,C0+c,o]: a 3 x 3 convolution that keeps the size, or, TRANSPOSED, its input gradient
// One 8-wide subgroup computes G rows x 16 columns x 16 channels, lane = columns j and j + 8, over columns (n, w) counted through all images.
// On a CPU (llvmpipe) a load costs a scalar access a lane, as much as three multiply-adds, and a broadcast less than one: x is loaded once for all nine taps, which
// find their columns in the lane beside, and a weight once for all pixels of the tile, each spread by broadcast. G rows should divide H: 7 for 28, 14 and 7; 8 or 4 else.
// TRANSPOSED x is dy (N, H, W, O) and y is dx (N, H, W, C). C and O are multiples of 4.
enable subgroups;
#import index
#import conv2d
#import conv2d_subgroup
override G: u32 = 7u;
override TRANSPOSED: bool = false;
@group(0) @binding(0) var<storage, read> x: array<vec4f>;         // (N, H, W, C)
@group(0) @binding(1) var<storage, read> w: array<vec4f>;         // (3, 3, WC, O)
@group(0) @binding(2) var<storage, read> bias: array<vec4f>;      // (O)
@group(0) @binding(3) var<storage, read> per_image: array<vec4f>; // (N, O)
@group(0) @binding(4) var<storage, read> residual: array<vec4f>;  // (N, H, W, O)
@group(0) @binding(5) var<storage, read_write> y: array<vec4f>;   // (N, H, W, O)
@group(0) @binding(6) var<uniform> dims: Dims;

// A column of x, rows top - 1 to top + G.
alias Rows = array<vec4f, 10>;

// Row `h` of the column that begins at `at`, zero outside of the image.
fn source(at: u32, row: u32, h: i32) -> vec4f {
  return select(vec4f(0.0), x[at + row * u32(clamp(h, 0, i32(dims.H) - 1))], vec4<bool>(h >= 0 && h < i32(dims.H)));
}

// Where column j begins, in vec4s.
fn column(j: u32, from4: u32) -> u32 { return (min(j / dims.W, dims.N - 1u) * dims.H * dims.W + j % dims.W) * from4; }

// A row of the tile as tap kw meets it: each lane's columns moved by kw - 1, with `beyond` from outside of the tile, and zero where that is outside of the image.
struct Shift { lane: u32, right: bool, edge: bool, inside: vec2<bool> }
fn moved(a: vec4f, b: vec4f, beyond: vec4f, s: Shift) -> mat2x4f {
  let u = subgroupShuffle(a, s.lane);
  let v = subgroupShuffle(b, s.lane);
  let left = select(u, select(beyond, v, s.right), s.edge);
  let right = select(v, select(u, beyond, s.right), s.edge);
  return mat2x4f(select(vec4f(0.0), left, s.inside.x), select(vec4f(0.0), right, s.inside.y));
}

// Adds to four channels of one row what the rows of x above, at and below it bring. Each sum takes its twelve products at once:
// there are more sums than registers, and each is stored as seldom as can be.
fn meet(acc: ptr<function, array<vec4f, 64>>, i: u32, above: mat2x4f, here: mat2x4f, below: mat2x4f, m: Taps) {
  (*acc)[i] = add(above[0], m.above, add(here[0], m.here, add(below[0], m.below, (*acc)[i])));
  (*acc)[i + 32u] = add(above[1], m.above, add(here[1], m.here, add(below[1], m.below, (*acc)[i + 32u])));
}
struct Taps { above: mat4x4f, here: mat4x4f, below: mat4x4f }

fn meet_all(acc: ptr<function, array<vec4f, 64>>, q: u32, s: array<mat2x4f, 10>, m: Taps) {
  meet(acc, q, s[0], s[1], s[2], m);
  meet(acc, q + 4u, s[1], s[2], s[3], m);
  meet(acc, q + 8u, s[2], s[3], s[4], m);
  meet(acc, q + 12u, s[3], s[4], s[5], m);
  if (G > 4u) {
    meet(acc, q + 16u, s[4], s[5], s[6], m);
    meet(acc, q + 20u, s[5], s[6], s[7], m);
    meet(acc, q + 24u, s[6], s[7], s[8], m);
  }
  if (G > 7u) { meet(acc, q + 28u, s[7], s[8], s[9], m); }
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) lane: u32) {
  let from4 = select(dims.C, dims.O, TRANSPOSED) / 4u;
  let to4 = select(dims.O, dims.C, TRANSPOSED) / 4u;
  let channel_tiles = (to4 + 3u) / 4u;
  let row_tiles = (dims.H + G - 1u) / G;
  let tile = workgroup_index(workgroup, count);
  let channel = tile % channel_tiles * 4u;
  let top = tile / channel_tiles % row_tiles * G;
  let first = tile / (channel_tiles * row_tiles) * 16u;
  let columns = dims.N * dims.W;
  let j = vec2u(first + lane, first + lane + 8u);
  let at_column = j % vec2u(dims.W);
  let row = dims.W * from4;
  let h = i32(top) - 1;
  let step = 3u * dims.WC * (dims.O / 4u);

  // Lane 2 r and 2 r + 1 of three loads: row r of the columns beside the tile, on its left and on its right.
  let beside = column(select(max(first, 1u) - 1u, first + 16u, lane % 2u == 1u), from4);
  var at = vec2u(column(j.x, from4), column(j.y, from4));
  var acc: array<vec4f, 64>;
  for (var c = 0u; c < from4; c++) {
    var a: Rows;
    var b: Rows;
    a[0] = source(at.x + c, row, h);
    b[0] = source(at.y + c, row, h);
    a[1] = source(at.x + c, row, h + 1);
    b[1] = source(at.y + c, row, h + 1);
    a[2] = source(at.x + c, row, h + 2);
    b[2] = source(at.y + c, row, h + 2);
    a[3] = source(at.x + c, row, h + 3);
    b[3] = source(at.y + c, row, h + 3);
    a[4] = source(at.x + c, row, h + 4);
    b[4] = source(at.y + c, row, h + 4);
    a[5] = source(at.x + c, row, h + 5);
    b[5] = source(at.y + c, row, h + 5);
    if (G > 4u) {
      a[6] = source(at.x + c, row, h + 6);
      b[6] = source(at.y + c, row, h + 6);
      a[7] = source(at.x + c, row, h + 7);
      b[7] = source(at.y + c, row, h + 7);
      a[8] = source(at.x + c, row, h + 8);
      b[8] = source(at.y + c, row, h + 8);
    }
    if (G > 7u) {
      a[9] = source(at.x + c, row, h + 9);
      b[9] = source(at.y + c, row, h + 9);
    }
    let d0 = source(beside + c, row, h + i32(lane / 2u));
    let d1 = source(beside + c, row, h + 4 + i32(lane / 2u));
    var d2 = vec4f(0.0);
    if (G > 4u) { d2 = source(beside + c, row, h + 8 + i32(lane / 2u)); }

    for (var kw = 0u; kw < 3u; kw++) {
      let right = kw == 2u;
      let side = kw / 2u;
      let across = vec2i(at_column) + vec2i(i32(kw) - 1);
      let shift = Shift((lane + kw + 7u) % 8u, right, (kw == 0u && lane == 0u) || (right && lane == 7u), (across >= vec2i(0)) & (across < vec2i(i32(dims.W))));
      var s: array<mat2x4f, 10>;
      s[0] = moved(a[0], b[0], subgroupShuffle(d0, side), shift);
      s[1] = moved(a[1], b[1], subgroupShuffle(d0, 2u + side), shift);
      s[2] = moved(a[2], b[2], subgroupShuffle(d0, 4u + side), shift);
      s[3] = moved(a[3], b[3], subgroupShuffle(d0, 6u + side), shift);
      s[4] = moved(a[4], b[4], subgroupShuffle(d1, side), shift);
      s[5] = moved(a[5], b[5], subgroupShuffle(d1, 2u + side), shift);
      if (G > 4u) {
        s[6] = moved(a[6], b[6], subgroupShuffle(d1, 4u + side), shift);
        s[7] = moved(a[7], b[7], subgroupShuffle(d1, 6u + side), shift);
        s[8] = moved(a[8], b[8], subgroupShuffle(d2, side), shift);
      }
      if (G > 7u) { s[9] = moved(a[9], b[9], subgroupShuffle(d2, 2u + side), shift); }

      // Turned around for the gradient: the row above a pixel reaches it through the last row of taps.
      let above = weights_of(select(kw, 8u - kw, TRANSPOSED), channel, lane) + vec2u(c * weights_turn());
      let here = select(above + vec2u(step), above - vec2u(step), TRANSPOSED);
      let below = select(here + vec2u(step), here - vec2u(step), TRANSPOSED);
      let w0 = Weights(w[above.x], w[above.y]);
      let w1 = Weights(w[here.x], w[here.y]);
      let w2 = Weights(w[below.x], w[below.y]);
      meet_all(&acc, 0u, s, Taps(spread(w0, 0u), spread(w1, 0u), spread(w2, 0u)));
      meet_all(&acc, 1u, s, Taps(spread(w0, 1u), spread(w1, 1u), spread(w2, 1u)));
      meet_all(&acc, 2u, s, Taps(spread(w0, 2u), spread(w1, 2u), spread(w2, 2u)));
      meet_all(&acc, 3u, s, Taps(spread(w0, 3u), spread(w1, 3u), spread(w2, 3u)));
    }
  }

  // One loop, which is not unrolled: storing is longer than all that is before.
  let n = j / vec2u(dims.W);
  let corner = ((n * dims.H + vec2u(top)) * dims.W + at_column) * to4;
  var start = vec4f(0.0);
  for (var i = 0u; i < 2u * G * min(4u, to4 - channel); i++) {
    let q = i / (2u * G);
    let g = i % G;
    let o = channel + q;
    let second = i % (2u * G) >= G;
    if (g == 0u) {
      start = vec4f(0.0);
      if (dims.has_bias != 0u) { start = bias[o]; }
      if (dims.has_per_image != 0u) { start += per_image[min(select(n.x, n.y, second), dims.N - 1u) * to4 + o]; }
    }
    if (select(j.x, j.y, second) < columns && top + g < dims.H) {
      let to = select(corner.x, corner.y, second) + g * dims.W * to4 + o;
      var sum = acc[select(0u, 32u, second) + g * 4u + q] + start;
      if (dims.has_residual != 0u) { sum += residual[to]; }
      if (dims.accumulate != 0u) { sum += y[to]; }
      y[to] = sum;
    }
  }
}
