// y[n,oh,ow,o] = bias[o] + per_image[n,o] + residual[n,oh,ow,o] + sum_{kh,kw,c} x[n, oh*stride+kh-pad_top, ow*stride+kw-pad_left, c] * w[kh,kw,C0+c,o], or, TRANSPOSED, dx from dy = x: its input gradient
// One 8-wide subgroup computes 64 pixels x 4 Q channels, lane = eight pixels, eight apart. The weights reach the multiply-adds by broadcast.
// As conv2d_3x3_subgroup, for any taps and strides: on a CPU (llvmpipe) loads are what takes time, so that a tile has many pixels for each weight, and, with Q = 16, 64
// channels for each pixel where there are so many; else Q is 4. TRANSPOSED x is dy (N, OH, OW, O) and y is dx (N, H, W, C). C and O are multiples of 4.
enable subgroups;
#import index
#import conv2d
#import conv2d_subgroup
override Q: u32 = 4u;
override TRANSPOSED: bool = false;
@group(0) @binding(0) var<storage, read> x: array<vec4f>;         // (N, H, W, C)
@group(0) @binding(1) var<storage, read> w: array<vec4f>;         // (KH, KW, WC, O)
@group(0) @binding(2) var<storage, read> bias: array<vec4f>;      // (O)
@group(0) @binding(3) var<storage, read> per_image: array<vec4f>; // (N, O)
@group(0) @binding(4) var<storage, read> residual: array<vec4f>;  // (N, OH, OW, O)
@group(0) @binding(5) var<storage, read_write> y: array<vec4f>;   // (N, OH, OW, O)
@group(0) @binding(6) var<uniform> dims: Dims;

// Adds what eight pixels of x, i-th of the lane's, bring to their 4 Q channels.
fn meet(acc: ptr<function, array<vec4f, 128>>, i: u32, s: vec4f, m: array<mat4x4f, 16>) {
  (*acc)[16u * i] = add(s, m[0], (*acc)[16u * i]);
  (*acc)[16u * i + 1u] = add(s, m[1], (*acc)[16u * i + 1u]);
  (*acc)[16u * i + 2u] = add(s, m[2], (*acc)[16u * i + 2u]);
  (*acc)[16u * i + 3u] = add(s, m[3], (*acc)[16u * i + 3u]);
  if (Q > 4u) {
    (*acc)[16u * i + 4u] = add(s, m[4], (*acc)[16u * i + 4u]);
    (*acc)[16u * i + 5u] = add(s, m[5], (*acc)[16u * i + 5u]);
    (*acc)[16u * i + 6u] = add(s, m[6], (*acc)[16u * i + 6u]);
    (*acc)[16u * i + 7u] = add(s, m[7], (*acc)[16u * i + 7u]);
    (*acc)[16u * i + 8u] = add(s, m[8], (*acc)[16u * i + 8u]);
    (*acc)[16u * i + 9u] = add(s, m[9], (*acc)[16u * i + 9u]);
    (*acc)[16u * i + 10u] = add(s, m[10], (*acc)[16u * i + 10u]);
    (*acc)[16u * i + 11u] = add(s, m[11], (*acc)[16u * i + 11u]);
    (*acc)[16u * i + 12u] = add(s, m[12], (*acc)[16u * i + 12u]);
    (*acc)[16u * i + 13u] = add(s, m[13], (*acc)[16u * i + 13u]);
    (*acc)[16u * i + 14u] = add(s, m[14], (*acc)[16u * i + 14u]);
    (*acc)[16u * i + 15u] = add(s, m[15], (*acc)[16u * i + 15u]);
  }
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

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) lane: u32) {
  let from4 = select(dims.C, dims.O, TRANSPOSED) / 4u;
  let to4 = select(dims.O, dims.C, TRANSPOSED) / 4u;
  let size = select(vec2u(dims.OH, dims.OW), vec2u(dims.H, dims.W), TRANSPOSED);
  // TRANSPOSED pixels of one parity in both directions are met by the same taps: with a stride of 2 a subgroup takes 64 of one kind, and leaves the other taps out.
  let s = select(1u, dims.stride, TRANSPOSED);
  let part = (size + vec2u(s - 1u)) / s;
  let channel_tiles = (to4 + Q - 1u) / Q;
  let pixel_tiles = (dims.N * part.x * part.y + 63u) / 64u;
  let tile = workgroup_index(workgroup, count);
  let kind = tile / (channel_tiles * pixel_tiles);
  if (kind >= s * s) { return; }
  let down = kind / s;
  let right = kind % s;
  let channel = tile % channel_tiles * Q;

  // The lane's pixels, counted among those of its kind; the ones past the end lie in image N.
  let eight = pixel(8u, part.x, part.y);
  let first = pixel(tile / channel_tiles % pixel_tiles * 64u + lane, part.x, part.y);
  let corner = Corner(s, down, right, size);
  var at: array<Pixel, 8>;
  var here = first;
  for (var i = 0u; i < 8u; i++) {
    at[i] = place(here, corner);
    here = advance(here, eight, part.x, part.y);
  }

  var acc: array<vec4f, 128>;
  for (var kh = 0u; kh < dims.KH; kh++) {
    for (var kw = 0u; kw < dims.KW; kw++) {
      if (TRANSPOSED && (((down + dims.pad_top + kh) | (right + dims.pad_left + kw)) & (s - 1u)) != 0u) { continue; }
      let p0 = source(met(at[0], kh, kw), from4);
      let p1 = source(met(at[1], kh, kw), from4);
      let p2 = source(met(at[2], kh, kw), from4);
      let p3 = source(met(at[3], kh, kw), from4);
      let p4 = source(met(at[4], kh, kw), from4);
      let p5 = source(met(at[5], kh, kw), from4);
      let p6 = source(met(at[6], kh, kw), from4);
      let p7 = source(met(at[7], kh, kw), from4);
      let tap = kh * dims.KW + kw;
      var w0 = weights_of(tap, channel, lane);
      var w1 = weights_of(tap, channel + 4u, lane);
      var w2 = weights_of(tap, channel + 8u, lane);
      var w3 = weights_of(tap, channel + 12u, lane);
      for (var c = 0u; c < from4; c++) {
        var m: array<mat4x4f, 16>;
        let v0 = Weights(w[w0.x], w[w0.y]);
        m[0] = spread(v0, 0u);
        m[1] = spread(v0, 1u);
        m[2] = spread(v0, 2u);
        m[3] = spread(v0, 3u);
        if (Q > 4u) {
          let v1 = Weights(w[w1.x], w[w1.y]);
          m[4] = spread(v1, 0u);
          m[5] = spread(v1, 1u);
          m[6] = spread(v1, 2u);
          m[7] = spread(v1, 3u);
          let v2 = Weights(w[w2.x], w[w2.y]);
          m[8] = spread(v2, 0u);
          m[9] = spread(v2, 1u);
          m[10] = spread(v2, 2u);
          m[11] = spread(v2, 3u);
          let v3 = Weights(w[w3.x], w[w3.y]);
          m[12] = spread(v3, 0u);
          m[13] = spread(v3, 1u);
          m[14] = spread(v3, 2u);
          m[15] = spread(v3, 3u);
        }
        meet(&acc, 0u, load(p0, c), m);
        meet(&acc, 1u, load(p1, c), m);
        meet(&acc, 2u, load(p2, c), m);
        meet(&acc, 3u, load(p3, c), m);
        meet(&acc, 4u, load(p4, c), m);
        meet(&acc, 5u, load(p5, c), m);
        meet(&acc, 6u, load(p6, c), m);
        meet(&acc, 7u, load(p7, c), m);
        w0 += vec2u(weights_turn());
        w1 += vec2u(weights_turn());
        w2 += vec2u(weights_turn());
        w3 += vec2u(weights_turn());
      }
    }
  }

  // One loop, which is not unrolled: storing is longer than all that is before.
  let pixels = size.x * size.y;
  var start = vec4f(0.0);
  for (var i = 0u; i < 8u * min(Q, to4 - channel); i++) {
    let p = i % 8u;
    let o = channel + i / 8u;
    if (p == 0u) {
      here = first;
      if (dims.has_bias != 0u) { start = bias[o]; }
    }
    let q = place(here, corner);
    here = advance(here, eight, part.x, part.y);
    if (q.n < dims.N) {
      let to = (q.n * pixels + q.y * size.y + q.x) * to4 + o;
      var sum = acc[p * 16u + i / 8u] + start;
      if (dims.has_per_image != 0u) { sum += per_image[q.n * to4 + o]; }
      if (dims.has_residual != 0u) { sum += residual[to]; }
      if (dims.accumulate != 0u) { sum += y[to]; }
      y[to] = sum;
    }
  }
}
