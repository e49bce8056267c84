// y[n,h,w,o] = bias[o] + per_image[n,o] + residual[n,h,w,o] + sum_{kh,kw,c} x[n, h+kh-1, w+kw-1, c] * w[kh,kw,C0+c,o]: a 3 x 3 convolution that keeps the size, or, TRANSPOSED, its input gradient
// One subgroup of LANES, eight, four (_lanes4) or sixteen (_lanes16), computes G rows x COLUMNS LANES columns x 16 channels, WIDE 32, lane = one column or two beside each other, over columns (n, w) counted through all images.
// On a CPU (llvmpipe) a load costs a scalar access a lane, as much as three multiply-adds, and a broadcast less than one: x is loaded and transformed once for all nine taps,
// which find their columns in the lane beside, and a weight is loaded once for all pixels of the tile, each spread by broadcast. Little more than a quarter of its
// instructions then multiply and add. G rows should divide H: 7 for 28, 14 and 7; 8 or 4 else.
// Down the rows it filters (Winograd; Lavin and Gray 2016, arXiv:1509.09308): a correlation with three taps as a product of polynomials at the points 0, 1, -1, 2, -2 and infinity. Four
// rows of y from six of x take six products instead of twelve, three from five take five instead of nine, for twice the rounding errors. What does not divide evenly is left to x.
// BESIDE is off where each tile ends with an image: what lies beside it is zero then, and is not loaded.
// TRANSPOSED x is dy (N, H, W, O) and y is dx (N, H, W, C). C and O are multiples of 4.
enable subgroups;
#import index
#import conv2d
#import subgroup_8
#import conv2d_subgroup
#import winograd
override G: u32 = 7u;
override COLUMNS: u32 = 2u;
override BESIDE: bool = true;
override WIDE: bool = false;
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

// Those rows of the columns beside the tile, LANES / 2 a load, and the column on its left for the first lane, on its right for the others. What asks lanes is written out here:
// of sixteen, a loop of it is too long for llvmpipe to unroll, and indices that change take a quarter of the time.
alias Beside = array<vec4f, 5>;
fn beyond(d: Beside, row: u32, side: u32) -> vec4f { return vec4_of_lane(d[2u * row / LANES], 2u * row % LANES + side); }
fn beside_of(d: Beside, row: u32, lane: u32) -> vec4f {
  if (row >= G + 2u) { return vec4f(0.0); }
  return select(beyond(d, row, 0u), beyond(d, row, 1u), lane > 0u);
}
fn outside(d: Beside, lane: u32) -> Rows {
  return Rows(
    beside_of(d, 0u, lane), beside_of(d, 1u, lane), beside_of(d, 2u, lane), beside_of(d, 3u, lane), beside_of(d, 4u, lane),
    beside_of(d, 5u, lane), beside_of(d, 6u, lane), beside_of(d, 7u, lane), beside_of(d, 8u, lane), beside_of(d, 9u, lane),
  );
}

// Row `h` of the column that begins at `at`, zero outside of the image.
fn source(at: u32, row: u32, h: i32) -> vec4f {
  return select(vec4f(0.0), x[at + row * u32(clamp(h, 0, i32(dims.H) - 1))], vec4<bool>(h >= 0 && h < i32(dims.H)));
}

// Where column j begins, in vec4s.
fn column(j: u32, from4: u32) -> u32 { return (min(j / dims.W, dims.N - 1u) * dims.H * dims.W + j % dims.W) * from4; }

// Five rows of x, for three rows of y: without the point -2.
fn three_rows(d: array<vec4f, 5>) -> array<vec4f, 6> {
  let a = 0.5 * (d[3] - d[1]);
  return array<vec4f, 6>(d[0] - d[2] + a, d[1] + 0.5 * (d[2] - d[3]), (3.0 * d[2] - 2.0 * d[1] - d[3]) * (1.0 / 6.0), a * (1.0 / 3.0), vec4f(0.0), 2.0 * (d[1] - d[3]) - d[2] + d[4]);
}

// A column at the points: its first rows, then its last.
alias Points = array<vec4f, 12>;
fn filtered(s: Rows) -> Points {
  let t = four_rows(array<vec4f, 6>(s[0], s[1], s[2], s[3], s[4], s[5]));
  var u = array<vec4f, 6>();
  if (G == 7u) { u = three_rows(array<vec4f, 5>(s[4], s[5], s[6], s[7], s[8])); }
  if (G > 7u) { u = four_rows(array<vec4f, 6>(s[4], s[5], s[6], s[7], s[8], s[9])); }
  return Points(t[0], t[1], t[2], t[3], t[4], t[5], u[0], u[1], u[2], u[3], u[4], u[5]);
}

// The column left or right of each lane's, that of `lane`, or, at the edge of the tile, `outside`.
fn at_neighbour(t: vec4f, lane: u32, outside: vec4f, edge: bool) -> vec4f { return select(vec4_of_neighbour(t, lane), outside, edge); }
fn neighbour(t: Points, lane: u32, outside: Points, edge: bool) -> Points {
  return Points(
    at_neighbour(t[0], lane, outside[0], edge), at_neighbour(t[1], lane, outside[1], edge), at_neighbour(t[2], lane, outside[2], edge), at_neighbour(t[3], lane, outside[3], edge),
    at_neighbour(t[4], lane, outside[4], edge), at_neighbour(t[5], lane, outside[5], edge), at_neighbour(t[6], lane, outside[6], edge), at_neighbour(t[7], lane, outside[7], edge),
    at_neighbour(t[8], lane, outside[8], edge), at_neighbour(t[9], lane, outside[9], edge), at_neighbour(t[10], lane, outside[10], edge), at_neighbour(t[11], lane, outside[11], edge),
  );
}

// The column that tap kw meets, zero outside of the image.
fn met(kw: u32, left: Points, here: Points, right: Points, inside: bool) -> Points {
  var r: Points;
  for (var p = 0u; p < 12u; p++) { r[p] = select(vec4f(0.0), select(select(right[p], here[p], kw == 1u), left[p], kw == 0u), inside); }
  return r;
}

// The three taps of a column, at the points.
fn at_points(above: Weights, here: Weights, below: Weights) -> array<Weights, 6> {
  let one = above + below;
  let two = above + 4.0 * below;
  let here2 = 2.0 * here;
  return array<Weights, 6>(above, one + here, one - here, two + here2, two - here2, below);
}

// The sums of products: of point p, tile t and output channel o the one at (p * 4 + t) * 16 + o. Tiles 0 and 1 are the first rows of a lane's two columns, 2 and 3 the last.
// WIDE there are as many for the next sixteen channels: `half` says which, 0 or 1.
alias Sums = array<f32, 384>;
alias AllSums = array<Sums, 2>;

// Adds the products of four input channels.
fn meet(acc: ptr<function, AllSums>, half: u32, i: u32, s: vec4f, w: vec4f) {
  (*acc)[half][i] = fma(s.w, w.w, fma(s.z, w.z, fma(s.y, w.y, fma(s.x, w.x, (*acc)[half][i]))));
}

// One output channel after another, so that its four weights wait in registers for all pixels; written out, as llvmpipe unrolls no loop as long as this.
fn meet_channel(acc: ptr<function, AllSums>, half: u32, p: u32, o: u32, s: array<Points, 2>, w: vec4f) {
  let i = p * 64u + o;
  meet(acc, half, i, s[0][p], w);
  if (COLUMNS > 1u) { meet(acc, half, i + 16u, s[1][p], w); }
  if (G > 7u || (G > 4u && p != 4u)) {
    meet(acc, half, i + 32u, s[0][6u + p], w);
    if (COLUMNS > 1u) { meet(acc, half, i + 48u, s[1][6u + p], w); }
  }
}
fn meet_point(acc: ptr<function, AllSums>, half: u32, p: u32, q: u32, s: array<Points, 2>, w: Weights) {
  meet_channel(acc, half, p, q * 4u, s, weight_of(w, q, 0u));
  meet_channel(acc, half, p, q * 4u + 1u, s, weight_of(w, q, 1u));
  meet_channel(acc, half, p, q * 4u + 2u, s, weight_of(w, q, 2u));
  meet_channel(acc, half, p, q * 4u + 3u, s, weight_of(w, q, 3u));
}
fn meet_quad(acc: ptr<function, AllSums>, half: u32, q: u32, s: array<Points, 2>, w: array<Weights, 6>) {
  meet_point(acc, half, 0u, q, s, w[0]);
  meet_point(acc, half, 1u, q, s, w[1]);
  meet_point(acc, half, 2u, q, s, w[2]);
  meet_point(acc, half, 3u, q, s, w[3]);
  meet_point(acc, half, 4u, q, s, w[4]);
  meet_point(acc, half, 5u, q, s, w[5]);
}

fn meet_all(acc: ptr<function, AllSums>, half: u32, s: array<Points, 2>, w: array<Weights, 6>) {
  meet_quad(acc, half, 0u, s, w);
  meet_quad(acc, half, 1u, s, w);
  meet_quad(acc, half, 2u, s, w);
  meet_quad(acc, half, 3u, s, w);
}

// Four channels of y in the rows of one tile, from the sums of their products.
fn rows_of(acc: ptr<function, AllSums>, half: u32, t: u32, q: u32) -> array<vec4f, 4> {
  let i = t * 16u + q * 4u;
  let m0 = channels(acc, half, i);
  let even = channels(acc, half, i + 64u) + channels(acc, half, i + 128u);
  let odd = channels(acc, half, i + 64u) - channels(acc, half, i + 128u);
  let even2 = channels(acc, half, i + 192u) + channels(acc, half, i + 256u);
  let odd2 = channels(acc, half, i + 192u) - channels(acc, half, i + 256u);
  let last = channels(acc, half, i + 320u);
  if (G == 7u && t >= 2u) { return array<vec4f, 4>(m0 + even + even2, odd + 2.0 * odd2, even + 4.0 * even2 + last, vec4f(0.0)); }
  return array<vec4f, 4>(m0 + even + even2, odd + 2.0 * odd2, even + 4.0 * even2, odd + 8.0 * odd2 + last);
}
fn channels(acc: ptr<function, AllSums>, half: u32, i: u32) -> vec4f { return vec4f((*acc)[half][i], (*acc)[half][i + 1u], (*acc)[half][i + 2u], (*acc)[half][i + 3u]); }

// The rows of quad i % 4 of tile i / 4, and those of all, in a place where a loop may look them up.
alias Settled = array<vec4f, 128>;
fn settle(acc: ptr<function, AllSums>, y: ptr<function, Settled>, half: u32, i: u32) {
  let r = rows_of(acc, half, i / 4u, i % 4u);
  let to = half * 64u + i * 4u;
  (*y)[to] = r[0];
  (*y)[to + 1u] = r[1];
  (*y)[to + 2u] = r[2];
  (*y)[to + 3u] = r[3];
}
fn settle_all(acc: ptr<function, AllSums>, y: ptr<function, Settled>, half: u32) {
  settle(acc, y, half, 0u);
  settle(acc, y, half, 1u);
  settle(acc, y, half, 2u);
  settle(acc, y, half, 3u);
  settle(acc, y, half, 4u);
  settle(acc, y, half, 5u);
  settle(acc, y, half, 6u);
  settle(acc, y, half, 7u);
  settle(acc, y, half, 8u);
  settle(acc, y, half, 9u);
  settle(acc, y, half, 10u);
  settle(acc, y, half, 11u);
  settle(acc, y, half, 12u);
  settle(acc, y, half, 13u);
  settle(acc, y, half, 14u);
  settle(acc, y, half, 15u);
}

// The taps of column kw at the points, of four input and sixteen output channels.
fn taps(kw: u32, channel: u32, lane: u32, c: u32) -> array<Weights, 6> {
  let step = 3u * dims.WC * (dims.O / 4u);
  // Turned around for the gradient: the row above a pixel reaches it through the last row of taps.
  let above = weights_of(select(kw, 8u - kw, TRANSPOSED), channel, lane) + vec4u(c * weights_turn());
  let here = select(above + vec4u(step), above - vec4u(step), TRANSPOSED);
  let below = select(here + vec4u(step), here - vec4u(step), TRANSPOSED);
  return at_points(weights_at(above), weights_at(here), weights_at(below));
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let from4 = select(dims.C, dims.O, TRANSPOSED) / 4u;
  let to4 = select(dims.O, dims.C, TRANSPOSED) / 4u;
  let row_tiles = (dims.H + G - 1u) / G;
  let tile = workgroup_index(workgroup, count);
  let columns = dims.N * dims.W;
  let width = COLUMNS * LANES;
  let pixel_tiles = (columns + width - 1u) / width * row_tiles;
  // All pixels of some channels, then of the next, so that their weights stay in a core's cache.
  let quads = select(4u, 8u, WIDE);
  let channel = tile / pixel_tiles * quads;
  let top = tile % row_tiles * G;
  let first = tile % pixel_tiles / row_tiles * width;
  let j = vec2u(first + COLUMNS * lane, first + COLUMNS * lane + 1u);
  let at_column = j % vec2u(dims.W);
  let row = dims.W * from4;
  let not_first = at_column > vec2u(0u);
  let not_last = at_column + vec2u(1u) < vec2u(dims.W);
  let h = i32(top) - 1;

  // Lane 2 r and 2 r + 1 of each load beside: its row r of the columns on the left and on the right of the tile.
  let beside = column(select(max(first, 1u) - 1u, first + width, lane % 2u == 1u), from4);
  var at = vec2u(column(j.x, from4), column(j.y, from4));
  var acc: AllSums;
  for (var c = 0u; c < from4; c++) {
    var a: Rows;
    var b: Rows;
    for (var r = 0u; r < 10u; r++) {
      if (r < G + 2u) {
        a[r] = source(at.x + c, row, h + i32(r));
        if (COLUMNS > 1u) { b[r] = source(at.y + c, row, h + i32(r)); }
      }
    }
    var d: Beside;
    if (BESIDE) {
      d[0] = source(beside + c, row, h + i32(lane / 2u));
      d[1] = source(beside + c, row, h + i32((LANES + lane) / 2u));
      if (G + 2u > LANES) { d[2] = source(beside + c, row, h + i32((2u * LANES + lane) / 2u)); }
      if (2u * (G + 2u) > 3u * LANES) { d[3] = source(beside + c, row, h + i32((3u * LANES + lane) / 2u)); }
      if (G + 2u > 2u * LANES) { d[4] = source(beside + c, row, h + i32((4u * LANES + lane) / 2u)); }
    }

    let own = filtered(a);
    var next = own;
    if (COLUMNS > 1u) { next = filtered(b); }
    let beyond = filtered(outside(d, lane));
    let left = neighbour(next, (lane + LANES - 1u) % LANES, beyond, lane == 0u);
    let right = neighbour(own, (lane + 1u) % LANES, beyond, lane == LANES - 1u);
    if (COLUMNS == 1u) { next = right; }
    for (var kw = 0u; kw < 3u; kw++) {
      let inside = select(select(not_last, vec2<bool>(true), kw == 1u), not_first, kw == 0u);
      let t = array<Points, 2>(met(kw, left, own, next, inside.x), met(kw, own, next, right, inside.y));
      meet_all(&acc, 0u, t, taps(kw, channel, lane, c));
      if (WIDE) { meet_all(&acc, 1u, t, taps(kw, channel + 4u, lane, c)); }
    }
  }

  var sums: Settled;
  settle_all(&acc, &sums, 0u);
  if (WIDE) { settle_all(&acc, &sums, 1u); }

  // One loop, which is not unrolled: storing is longer than all that is before. A workgroup that a folded grid has too many stores nothing.
  let n = j / vec2u(dims.W);
  let corner = ((n * dims.H + vec2u(top)) * dims.W + at_column) * to4;
  var start = vec4f(0.0);
  for (var i = 0u; i < COLUMNS * G * min(quads, to4 - min(channel, to4)); i++) {
    let q = i / (COLUMNS * G);
    let g = i % G;
    let o = channel + q;
    let second = i % (COLUMNS * G) >= G;
    if (g == 0u) {
      start = vec4f(0.0);
      if (dims.has_bias != 0u) { start = bias[o]; }
      if (dims.has_per_image != 0u) { start += per_image[min(select(n.x, n.y, second), dims.N - 1u) * to4 + o]; }
    }
    if (select(j.x, j.y, second) < columns && top + g < dims.H) {
      let to = select(corner.x, corner.y, second) + g * dims.W * to4 + o;
      var sum = sums[q / 4u * 64u + (g / 4u * 8u + select(0u, 4u, second) + q % 4u) * 4u + g % 4u] + start;
      if (dims.has_residual != 0u) { sum += residual[to]; }
      if (dims.accumulate != 0u) { sum += y[to]; }
      y[to] = sum;
    }
  }
}
