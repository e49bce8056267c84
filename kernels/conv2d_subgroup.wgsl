// y[n,oh,ow,o] = bias[o] + per_image[n,o] + residual[n,oh,ow,o] + sum_{kh,kw,c} x[n, oh*stride+kh-pad_top, ow*stride+kw-pad_left, c] * w[kh,kw,C0+c,o], or, TRANSPOSED, dx from dy = x: its input gradient
// One subgroup of LANES, eight, four (_lanes4) or sixteen (_lanes16), computes R LANES pixels x 4 Q channels, lane = R pixels, LANES apart. The weights reach the multiply-adds by broadcast.
// As conv2d_3x3_subgroup, for any taps and strides: on a CPU (llvmpipe) loads are what takes time, so that a tile has many pixels for each weight, up to
// eight a lane, and many channels for each pixel, up to 64, of sixteen lanes 128 (R = 8 then), where there are so many. TRANSPOSED x is dy (N, OH, OW, O) and y is dx (N, H, W, C). C and O are multiples of 4.
enable subgroups;
#import index
#import conv2d
#import subgroup_8
#import conv2d_subgroup
override R: u32 = 8u;
override Q: u32 = 4u;
override TRANSPOSED: bool = false;
@group(0) @binding(0) var<storage, read> x: array<vec4f>;         // (N, H, W, C)
@group(0) @binding(1) var<storage, read> w: array<vec4f>;         // (KH, KW, WC, O)
@group(0) @binding(2) var<storage, read> bias: array<vec4f>;      // (O)
@group(0) @binding(3) var<storage, read> per_image: array<vec4f>; // (N, O)
@group(0) @binding(4) var<storage, read> residual: array<vec4f>;  // (N, OH, OW, O)
@group(0) @binding(5) var<storage, read_write> y: array<vec4f>;   // (N, OH, OW, O)
@group(0) @binding(6) var<uniform> dims: Dims;

// The sums: of the lane's i-th pixel and output channel o the one at 64 i + o. Of 128 channels there are as many for the last 64: `half` says which, 0 or 1.
alias Sums = array<f32, 512>;
alias AllSums = array<Sums, 2>;
// The weights of four input channels, of each output channel.
alias Spread = array<vec4f, 64>;

fn spread(w: ptr<function, Spread>, o: u32, v: Weights, q: u32) {
  (*w)[o] = weight_of(v, q, 0u);
  (*w)[o + 1u] = weight_of(v, q, 1u);
  (*w)[o + 2u] = weight_of(v, q, 2u);
  (*w)[o + 3u] = weight_of(v, q, 3u);
}
fn spread_sixteen(w: ptr<function, Spread>, o: u32, v: Weights) {
  spread(w, o, v, 0u);
  spread(w, o + 4u, v, 1u);
  spread(w, o + 8u, v, 2u);
  spread(w, o + 12u, v, 3u);
}

// Adds what a pixel's four channels bring to four output channels, to sixteen, to all.
fn meet_four(acc: ptr<function, AllSums>, half: u32, i: u32, s: vec4f, w: ptr<function, Spread>, o: u32) {
  (*acc)[half][i] += dot(s, (*w)[o]);
  (*acc)[half][i + 1u] += dot(s, (*w)[o + 1u]);
  (*acc)[half][i + 2u] += dot(s, (*w)[o + 2u]);
  (*acc)[half][i + 3u] += dot(s, (*w)[o + 3u]);
}
fn meet_sixteen(acc: ptr<function, AllSums>, half: u32, i: u32, s: vec4f, w: ptr<function, Spread>, o: u32) {
  meet_four(acc, half, i, s, w, o);
  meet_four(acc, half, i + 4u, s, w, o + 4u);
  meet_four(acc, half, i + 8u, s, w, o + 8u);
  meet_four(acc, half, i + 12u, s, w, o + 12u);
}
fn meet(acc: ptr<function, AllSums>, i: u32, s: vec4f, w: ptr<function, Spread>) {
  meet_sixteen(acc, 0u, 64u * i, s, w, 0u);
  if (Q > 4u) { meet_sixteen(acc, 0u, 64u * i + 16u, s, w, 16u); }
  if (Q > 8u) {
    meet_sixteen(acc, 0u, 64u * i + 32u, s, w, 32u);
    meet_sixteen(acc, 0u, 64u * i + 48u, s, w, 48u);
  }
}

// The same for sixteen channels from o on and eight pixels. Of 128 channels one sixteen comes after another: their weights, spread, would be as much as a first cache.
alias Met = array<vec4f, 8>;
fn meet_pixels(acc: ptr<function, AllSums>, half: u32, o: u32, s: ptr<function, Met>, v: Weights) {
  var w: Spread;
  spread_sixteen(&w, 0u, v);
  meet_sixteen(acc, half, o, (*s)[0], &w, 0u);
  meet_sixteen(acc, half, 64u + o, (*s)[1], &w, 0u);
  meet_sixteen(acc, half, 128u + o, (*s)[2], &w, 0u);
  meet_sixteen(acc, half, 192u + o, (*s)[3], &w, 0u);
  meet_sixteen(acc, half, 256u + o, (*s)[4], &w, 0u);
  meet_sixteen(acc, half, 320u + o, (*s)[5], &w, 0u);
  meet_sixteen(acc, half, 384u + o, (*s)[6], &w, 0u);
  meet_sixteen(acc, half, 448u + o, (*s)[7], &w, 0u);
}

// The pixel of x that a pixel of y meets at a tap, or -1.
fn met(q: Pixel, kh: u32, kw: u32) -> i32 {
  if (TRANSPOSED) { return output_pixel(q, kh, kw); }
  return input_pixel(q, kh, kw);
}

// Where a pixel of x begins, and 1, or 0 and 0 where there is none.
struct Source { at: u32, inside: f32 }
fn source(p: i32, from4: u32) -> Source { return Source(u32(max(p, 0)) * from4, select(0.0, 1.0, p >= 0)); }
fn load(s: Source, c: u32) -> vec4f { return x[s.at + c] * s.inside; }

// Where a pixel lies that is one of every `s` in both directions.
struct Corner { s: u32, down: u32, right: u32, size: vec2u }
fn place(p: Pixel, c: Corner) -> Pixel {
  let y = p.y * c.s + c.down;
  let x = p.x * c.s + c.right;
  return Pixel(select(dims.N, p.n, y < c.size.x && x < c.size.y), y, x);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  let from4 = select(dims.C, dims.O, TRANSPOSED) / 4u;
  let to4 = select(dims.O, dims.C, TRANSPOSED) / 4u;
  let size = select(vec2u(dims.OH, dims.OW), vec2u(dims.H, dims.W), TRANSPOSED);
  // TRANSPOSED pixels of one parity in both directions are met by the same taps: with a stride of 2 a subgroup takes those of one kind, and leaves the other taps out.
  let s = select(1u, dims.stride, TRANSPOSED);
  let part = (size + vec2u(s - 1u)) / s;
  let channel_tiles = (to4 + Q - 1u) / Q;
  let pixel_tiles = (dims.N * part.x * part.y + R * LANES - 1u) / (R * LANES);
  // The kinds take turns: they meet from one to four taps, and each of a CPU's threads is given workgroups beside each other.
  let index = workgroup_index(workgroup, count);
  let tile = index / (s * s);
  if (tile >= channel_tiles * pixel_tiles) { return; }
  let down = index % (s * s) / s;
  let right = index % s;
  // All pixels of some channels, then of the next, so that their weights stay in a core's cache.
  let channel = tile / pixel_tiles * Q;

  // The lane's pixels, counted among those of its kind; the ones past the end lie in image N.
  let next = pixel(LANES, part.x, part.y);
  let first = pixel(tile % pixel_tiles * (R * LANES) + lane, part.x, part.y);
  let corner = Corner(s, down, right, size);
  var at: array<Pixel, 8>;
  var here = first;
  for (var i = 0u; i < 8u; i++) {
    at[i] = place(here, corner);
    here = advance(here, next, part.x, part.y);
  }

  var acc: AllSums;
  for (var kh = 0u; kh < dims.KH; kh++) {
    for (var kw = 0u; kw < dims.KW; kw++) {
      if (TRANSPOSED && (((down + dims.pad_top + kh) | (right + dims.pad_left + kw)) & (s - 1u)) != 0u) { continue; }
      var p: array<Source, 8>;
      for (var i = 0u; i < 8u; i++) { p[i] = source(met(at[i], kh, kw), from4); }
      let tap = kh * dims.KW + kw;
      var w0 = weights_of(tap, channel, lane);
      var w1 = weights_of(tap, channel + 4u, lane);
      var w2 = weights_of(tap, channel + 8u, lane);
      var w3 = weights_of(tap, channel + 12u, lane);
      var w4 = weights_of(tap, channel + 16u, lane);
      var w5 = weights_of(tap, channel + 20u, lane);
      var w6 = weights_of(tap, channel + 24u, lane);
      var w7 = weights_of(tap, channel + 28u, lane);
      for (var c = 0u; c < from4; c++) {
        if (Q > 16u) {
          var s: Met;
          for (var i = 0u; i < 8u; i++) { s[i] = load(p[i], c); }
          meet_pixels(&acc, 0u, 0u, &s, weights_at(w0));
          meet_pixels(&acc, 0u, 16u, &s, weights_at(w1));
          meet_pixels(&acc, 0u, 32u, &s, weights_at(w2));
          meet_pixels(&acc, 0u, 48u, &s, weights_at(w3));
          meet_pixels(&acc, 1u, 0u, &s, weights_at(w4));
          meet_pixels(&acc, 1u, 16u, &s, weights_at(w5));
          meet_pixels(&acc, 1u, 32u, &s, weights_at(w6));
          meet_pixels(&acc, 1u, 48u, &s, weights_at(w7));
          w4 += vec4u(weights_turn());
          w5 += vec4u(weights_turn());
          w6 += vec4u(weights_turn());
          w7 += vec4u(weights_turn());
        } else {
          var spreads: Spread;
          spread_sixteen(&spreads, 0u, weights_at(w0));
          if (Q > 4u) { spread_sixteen(&spreads, 16u, weights_at(w1)); }
          if (Q > 8u) {
            spread_sixteen(&spreads, 32u, weights_at(w2));
            spread_sixteen(&spreads, 48u, weights_at(w3));
          }
          for (var i = 0u; i < 8u; i++) {
            if (i < R) { meet(&acc, i, load(p[i], c), &spreads); }
          }
        }
        w0 += vec4u(weights_turn());
        w1 += vec4u(weights_turn());
        w2 += vec4u(weights_turn());
        w3 += vec4u(weights_turn());
      }
    }
  }

  // One loop, which is not unrolled: storing is longer than all that is before.
  let pixels = size.x * size.y;
  var start = vec4f(0.0);
  for (var i = 0u; i < R * min(Q, to4 - channel); i++) {
    let p = i % R;
    let o = channel + i / R;
    if (p == 0u) {
      here = first;
      if (dims.has_bias != 0u) { start = bias[o]; }
    }
    let q = place(here, corner);
    here = advance(here, next, part.x, part.y);
    if (q.n < dims.N) {
      let to = (q.n * pixels + q.y * size.y + q.x) * to4 + o;
      let k = p * 64u + i / R % 16u * 4u;
      var sum = vec4f(acc[0][k], acc[0][k + 1u], acc[0][k + 2u], acc[0][k + 3u]);
      if (Q > 16u && i / R >= 16u) { sum = vec4f(acc[1][k], acc[1][k + 1u], acc[1][k + 2u], acc[1][k + 3u]); }
      sum += start;
      if (dims.has_per_image != 0u) { sum += per_image[q.n * to4 + o]; }
      if (dims.has_residual != 0u) { sum += residual[to]; }
      if (dims.accumulate != 0u) { sum += y[to]; }
      y[to] = sum;
    }
  }
}
