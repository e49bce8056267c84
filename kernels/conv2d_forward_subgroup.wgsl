// y[n,oh,ow,o] = bias[o] + per_image[n,o] + residual[n,oh,ow,o] + sum_{kh,kw,c} x[n, oh*stride+kh-pad_top, ow*stride+kw-pad_left, c] * w[kh,kw,C0+c,o]
// One 8-wide subgroup computes 16 pixels x 32 output channels: lane = pixel for x, lane = four channels for w and y, and every x reaches the FMAs by broadcast.
// On a CPU (llvmpipe) a load costs a scalar access a lane whatever its pattern, and a broadcast next to nothing: 27 GFLOP/s on two cores, where
// tiles in workgroup memory reach 4 to 7. C and O are multiples of 4.
enable subgroups;
#import index
#import conv2d
@group(0) @binding(0) var<storage, read> x: array<vec4f>;         // (N, H, W, C)
@group(0) @binding(1) var<storage, read> w: array<vec4f>;         // (K, K, WC, O)
@group(0) @binding(2) var<storage, read> bias: array<vec4f>;      // (O)
@group(0) @binding(3) var<storage, read> per_image: array<vec4f>; // (N, O)
@group(0) @binding(4) var<storage, read> residual: array<vec4f>;  // (N, OH, OW, O)
@group(0) @binding(5) var<storage, read_write> y: array<vec4f>;   // (N, OH, OW, O)
@group(0) @binding(6) var<uniform> dims: Dims;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) lane: u32) {
  let C4 = dims.C / 4u;
  let O4 = dims.O / 4u;
  let column_tiles = (O4 + 7u) / 8u;
  let tile = workgroup_index(workgroup, count);
  let row = tile / column_tiles * 16u;
  let pixels = dims.N * dims.OH * dims.OW;
  let column = tile % column_tiles * 8u + lane;
  let o = min(column, O4 - 1u);
  let q0 = pixel(row + lane, dims.OH, dims.OW);
  let q1 = pixel(row + 8u + lane, dims.OH, dims.OW);

  var acc: array<vec4f, 16>;
  for (var kh = 0u; kh < dims.K; kh++) {
    for (var kw = 0u; kw < dims.K; kw++) {
      let p0 = input_pixel(q0, kh, kw);
      let p1 = input_pixel(q1, kh, kw);
      let in0 = select(0.0, 1.0, p0 >= 0);
      let in1 = select(0.0, 1.0, p1 >= 0);
      let x0 = u32(max(p0, 0)) * C4;
      let x1 = u32(max(p1, 0)) * C4;
      let tap = ((kh * dims.K + kw) * dims.WC + dims.C0) * O4 + o;
      for (var c = 0u; c < C4; c++) {
        let b0 = w[tap + (c * 4u + 0u) * O4];
        let b1 = w[tap + (c * 4u + 1u) * O4];
        let b2 = w[tap + (c * 4u + 2u) * O4];
        let b3 = w[tap + (c * 4u + 3u) * O4];
        let a0 = x[x0 + c] * in0;
        let a1 = x[x1 + c] * in1;
        for (var r = 0u; r < 8u; r++) {
          let s0 = subgroupShuffle(a0, r);
          acc[r] = fma(vec4f(s0.x), b0, fma(vec4f(s0.y), b1, fma(vec4f(s0.z), b2, fma(vec4f(s0.w), b3, acc[r]))));
          let s1 = subgroupShuffle(a1, r);
          acc[r + 8u] = fma(vec4f(s1.x), b0, fma(vec4f(s1.y), b1, fma(vec4f(s1.z), b2, fma(vec4f(s1.w), b3, acc[r + 8u]))));
        }
      }
    }
  }

  if (column >= O4) { return; }
  var start = vec4f(0.0);
  if (dims.has_bias != 0u) { start = bias[column]; }
  for (var r = 0u; r < 16u && row + r < pixels; r++) {
    let i = (row + r) * O4 + column;
    var sum = acc[r] + start;
    if (dims.has_per_image != 0u) { sum += per_image[(row + r) / (dims.OH * dims.OW) * O4 + column]; }
    if (dims.has_residual != 0u) { sum += residual[i]; }
    if (dims.accumulate != 0u) { sum += y[i]; }
    y[i] = sum;
  }
}
