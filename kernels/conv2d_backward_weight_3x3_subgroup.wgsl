// part[s,kh,kw,c,o] = sum over the columns of split s of x[n, h+kh-1, w+kw-1, c] * dy[n,h,w,o], for a 3 x 3 convolution that keeps the size; dw = sum_s part[s]; sums[s,o] = sum dy[n,oh,ow,o], whose fold is the bias's gradient
// One 8-wide subgroup computes all kh of one kw, 16 c and 16 o: lane = column (n, w) for x, lane = two output channels for dy. It walks down the rows of
// eight columns and keeps the rows of x above, at and below in registers, so that each is loaded once for three taps. C and O are multiples of 4.
enable subgroups;
#import index
#import conv2d
@group(0) @binding(0) var<storage, read> x: array<vec4f>;          // (N, H, W, C)
@group(0) @binding(1) var<storage, read> dy: array<vec2f>;         // (N, H, W, O)
@group(0) @binding(2) var<storage, read_write> part: array<vec2f>; // (splits, 3, 3, C, O)
@group(0) @binding(3) var<storage, read_write> sums: array<vec2f>; // (splits, O); anything where has_bias is not set
@group(0) @binding(4) var<uniform> dims: Dims;

// Adds the outer products of sixteen channels of x and of dy at eight columns to the sums of one row of taps. Each sum takes its eight products at once:
// there are more sums than registers, and each is stored as seldom as can be.
fn meet(acc: ptr<function, array<vec2f, 48>>, first: u32, a: mat4x4f, b: array<vec2f, 8>) {
  for (var q = 0u; q < 4u; q++) {
    for (var k = 0u; k < 4u; k++) {
      var sum = (*acc)[first + q * 4u + k];
      for (var r = 0u; r < 8u; r++) { sum = fma(vec2f(subgroupShuffle(a[q][k], r)), b[r], sum); }
      (*acc)[first + q * 4u + k] = sum;
    }
  }
}

// Sixteen channels of the lane's column in row `h` of its image, zero outside.
fn source(column: u32, c: vec4u, h: u32, inside: f32) -> mat4x4f {
  let at = vec4u(column + min(h, dims.H - 1u) * dims.W * (dims.C / 4u)) + c;
  let m = select(0.0, inside, h < dims.H);
  return mat4x4f(x[at.x] * m, x[at.y] * m, x[at.z] * m, x[at.w] * m);
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) lane: u32) {
  let C4 = dims.C / 4u;
  let O2 = dims.O / 2u;
  let o_tiles = (O2 + 7u) / 8u;
  let c_tiles = (C4 + 3u) / 4u;
  let tile = workgroup_index(workgroup, count);
  let channel = tile % o_tiles * 8u + lane;
  let o = min(channel, O2 - 1u);
  let c4 = tile / o_tiles % c_tiles * 4u;
  let kw = tile / (o_tiles * c_tiles) % 3u;
  let split = tile / (o_tiles * c_tiles * 3u);
  if (split >= dims.splits) { return; }
  let c = min(vec4u(c4) + vec4u(0u, 1u, 2u, 3u), vec4u(C4 - 1u));
  let columns = dims.N * dims.W;
  let share = (columns + 8u * dims.splits - 1u) / (8u * dims.splits) * 8u;
  let end = min((split + 1u) * share, columns);

  let counted = dims.has_bias != 0u && kw == 1u && c4 == 0u;
  var sum = vec2f(0.0);
  var acc: array<vec2f, 48>;
  for (var first = split * share; first < end; first += 8u) {
    let j = min(first + lane, columns - 1u);
    let top = j / dims.W * dims.H * dims.W;
    let across = i32(j % dims.W + kw) - 1;
    let inside = select(0.0, 1.0, across >= 0 && across < i32(dims.W) && first + lane < end);
    let column = (top + u32(clamp(across, 0, i32(dims.W) - 1))) * C4;
    var at = (top + j % dims.W) * O2;
    var above = mat4x4f();
    var here = source(column, c, 0u, inside);
    for (var h = 0u; h < dims.H; h++) {
      let below = source(column, c, h + 1u, inside);
      var b: array<vec2f, 8>;
      for (var r = 0u; r < 8u; r++) { b[r] = dy[subgroupShuffle(at, r) + o]; }
      // Columns past the end count for nothing; x is zero there, dy is not.
      if (counted) {
        for (var r = 0u; r < 8u; r++) { sum += select(vec2f(0.0), b[r], first + r < end); }
      }
      meet(&acc, 0u, above, b);
      meet(&acc, 16u, here, b);
      meet(&acc, 32u, below, b);
      at += dims.W * O2;
      above = here;
      here = below;
    }
  }

  if (channel >= O2) { return; }
  if (counted) { sums[split * O2 + channel] = sum; }
  for (var i = 0u; i < 48u; i++) {
    let ci = c4 * 4u + i % 16u;
    if (ci < dims.C) { part[((split * 9u + i / 16u * 3u + kw) * dims.C + ci) * O2 + channel] = acc[i]; }
  }
}
