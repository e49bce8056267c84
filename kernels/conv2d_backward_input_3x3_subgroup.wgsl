// dx[n,h,w,c] = sum_{kh,kw,o} dy[n, h+1-kh, w+1-kw, o] * w[kh,kw,C0+c,o]: the input gradient of a 3 x 3 convolution that keeps the size
// One 8-wide subgroup computes G rows x 8 columns x 16 input channels, as conv2d_forward_3x3_subgroup: each row of dy is loaded once and meets three rows of dx.
// w is read along o, for two columns a lane that lie eight apart. O is a multiple of 4, G at most 8.
enable subgroups;
#import index
#import conv2d
#import conv2d_3x3
override G: u32 = 7u;
@group(0) @binding(0) var<storage, read> dy: array<vec4f>;     // (N, H, W, O)
@group(0) @binding(1) var<storage, read> w: array<vec4f>;      // (3, 3, WC, O)
@group(0) @binding(2) var<storage, read_write> dx: array<f32>; // (N, H, W, C)
@group(0) @binding(3) var<uniform> dims: Dims;

// The weights of two input channels along o, turned by naming their components.
fn taps(u: vec4f, v: vec4f) -> mat4x2f { return mat4x2f(u.x, v.x, u.y, v.y, u.z, v.z, u.w, v.w); }

// The lane's column in row `h` of its image, zero outside.
fn source(column: u32, h: i32, inside: f32) -> vec4f {
  let row = u32(clamp(h, 0, i32(dims.H) - 1));
  return dy[column + row * dims.W * (dims.O / 4u)] * select(0.0, inside, h >= 0 && h < i32(dims.H));
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) lane: u32) {
  let O4 = dims.O / 4u;
  let channel_tiles = (dims.C + 15u) / 16u;
  let row_tiles = (dims.H + G - 1u) / G;
  let tile = workgroup_index(workgroup, count);
  let channel = tile % channel_tiles * 16u + lane;
  let c = min(vec2u(channel, channel + 8u), vec2u(dims.C - 1u)) * O4;
  let top = tile / channel_tiles % row_tiles * G;
  let first = tile / (channel_tiles * row_tiles) * 8u;
  let columns = dims.N * dims.W;
  let j = first + lane;
  let n = min(j / dims.W, dims.N - 1u);
  let step = 3u * dims.WC * O4;

  var acc: array<vec2f, 64>;
  for (var kw = 0u; kw < 3u; kw++) {
    let across = i32(j % dims.W) + 1 - i32(kw);
    let inside = select(0.0, 1.0, across >= 0 && across < i32(dims.W) && j < columns);
    var column = (n * dims.H * dims.W + u32(clamp(across, 0, i32(dims.W) - 1))) * O4;
    var tap = c + vec2u((kw * dims.WC + dims.C0) * O4);
    for (var o = 0u; o < O4; o++) {
      // Turned around: the row above a pixel reaches it through the last row of taps.
      let b0 = taps(w[tap.x + 2u * step], w[tap.y + 2u * step]);
      let b1 = taps(w[tap.x + step], w[tap.y + step]);
      let b2 = taps(w[tap.x], w[tap.y]);
      let h = i32(top);
      let s0 = source(column, h - 1, inside);
      let s1 = source(column, h, inside);
      let s2 = source(column, h + 1, inside);
      let s3 = source(column, h + 2, inside);
      let s4 = source(column, h + 3, inside);
      let s5 = source(column, h + 4, inside);
      meet(&acc, 0u, s0, s1, s2, b0, b1, b2);
      meet(&acc, 1u, s1, s2, s3, b0, b1, b2);
      meet(&acc, 2u, s2, s3, s4, b0, b1, b2);
      meet(&acc, 3u, s3, s4, s5, b0, b1, b2);
      if (G > 4u) {
        let s6 = source(column, h + 5, inside);
        let s7 = source(column, h + 6, inside);
        let s8 = source(column, h + 7, inside);
        meet(&acc, 4u, s4, s5, s6, b0, b1, b2);
        meet(&acc, 5u, s5, s6, s7, b0, b1, b2);
        meet(&acc, 6u, s6, s7, s8, b0, b1, b2);
        if (G > 7u) {
          let s9 = source(column, h + 8, inside);
          meet(&acc, 7u, s7, s8, s9, b0, b1, b2);
        }
      }
      tap += vec2u(1u);
      column += 1u;
    }
  }

  var at = (first / dims.W * dims.H + top) * dims.W + first % dims.W;
  var left = dims.W - first % dims.W;
  for (var r = 0u; r < 8u && first + r < columns; r++) {
    for (var g = 0u; g < G && top + g < dims.H; g++) {
      for (var k = 0u; k < 2u && channel + k * 8u < dims.C; k++) {
        let i = (at + g * dims.W) * dims.C + channel + k * 8u;
        var sum = acc[g * 8u + r][k];
        if (dims.accumulate != 0u) { sum += dx[i]; }
        dx[i] = sum;
      }
    }
    at += 1u;
    left -= 1u;
    if (left == 0u) {
      at += (dims.H - 1u) * dims.W;
      left = dims.W;
    }
  }
}
