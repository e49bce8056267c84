// y[n,h,w,o] = bias[o] + per_image[n,o] + residual[n,h,w,o] + sum_{kh,kw,c} x[n, h+kh-1, w+kw-1, c] * w[kh,kw,C0+c,o]: a 3 x 3 convolution that keeps the size
// One 8-wide subgroup computes G rows x 8 columns x 16 output channels, lane = column for x, over columns (n, w) counted through all images.
// A row of x is loaded once and meets the three rows of y that it touches: 45 to 56 GFLOP/s on two cores at G = 7, where conv2d_forward_subgroup,
// which loads it three times, has 32 to 43. G rows should divide H: 7 for 28, 14 and 7; 8 or 4 else. C and O are multiples of 4.
enable subgroups;
#import index
#import conv2d
#import conv2d_3x3
override G: u32 = 7u;
@group(0) @binding(0) var<storage, read> x: array<vec4f>;         // (N, H, W, C)
@group(0) @binding(1) var<storage, read> w: array<vec2f>;         // (3, 3, WC, O)
@group(0) @binding(2) var<storage, read> bias: array<vec2f>;      // (O)
@group(0) @binding(3) var<storage, read> per_image: array<vec2f>; // (N, O)
@group(0) @binding(4) var<storage, read> residual: array<vec2f>;  // (N, H, W, O)
@group(0) @binding(5) var<storage, read_write> y: array<vec2f>;   // (N, H, W, O)
@group(0) @binding(6) var<uniform> dims: Dims;

fn taps(at: u32, O2: u32) -> mat4x2f { return mat4x2f(w[at], w[at + O2], w[at + 2u * O2], w[at + 3u * O2]); }

// The lane's column in row `h` of its image, zero outside.
fn source(column: u32, h: i32, inside: f32) -> vec4f {
  let row = u32(clamp(h, 0, i32(dims.H) - 1));
  return x[column + row * dims.W * (dims.C / 4u)] * select(0.0, inside, h >= 0 && h < i32(dims.H));
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) lane: u32) {
  let C4 = dims.C / 4u;
  let O2 = dims.O / 2u;
  let channel_tiles = (O2 + 7u) / 8u;
  let row_tiles = (dims.H + G - 1u) / G;
  let tile = workgroup_index(workgroup, count);
  let channel = tile % channel_tiles * 8u + lane;
  let o = min(channel, O2 - 1u);
  let top = tile / channel_tiles % row_tiles * G;
  let first = tile / (channel_tiles * row_tiles) * 8u;
  let columns = dims.N * dims.W;
  let j = first + lane;
  let n = min(j / dims.W, dims.N - 1u);
  let step = 3u * dims.WC * O2;

  var acc: array<vec2f, 64>;
  for (var kw = 0u; kw < 3u; kw++) {
    let across = i32(j % dims.W + kw) - 1;
    let inside = select(0.0, 1.0, across >= 0 && across < i32(dims.W) && j < columns);
    var column = (n * dims.H * dims.W + u32(clamp(across, 0, i32(dims.W) - 1))) * C4;
    var tap = (kw * dims.WC + dims.C0) * O2 + o;
    for (var c = 0u; c < C4; c++) {
      let b0 = taps(tap, O2);
      let b1 = taps(tap + step, O2);
      let b2 = taps(tap + 2u * step, O2);
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
      tap += 4u * O2;
      column += 1u;
    }
  }

  if (channel >= O2) { return; }
  var start = vec2f(0.0);
  if (dims.has_bias != 0u) { start = bias[channel]; }
  var at = (first / dims.W * dims.H + top) * dims.W + first % dims.W;
  var left = dims.W - first % dims.W;
  for (var r = 0u; r < 8u && first + r < columns; r++) {
    var base = start;
    if (dims.has_per_image != 0u) { base += per_image[(first + r) / dims.W * O2 + channel]; }
    for (var g = 0u; g < G && top + g < dims.H; g++) {
      let i = (at + g * dims.W) * O2 + channel;
      var sum = acc[g * 8u + r] + base;
      if (dims.has_residual != 0u) { sum += residual[i]; }
      if (dims.accumulate != 0u) { sum += y[i]; }
      y[i] = sum;
    }
    at += 1u;
    left -= 1u;
    if (left == 0u) {
      at += (dims.H - 1u) * dims.W;
      left = dims.W;
    }
  }
}
