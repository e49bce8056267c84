// dx[n,h,w,c] = sum_{kh,kw,o} dy[n, (h+pad_top-kh)/stride, (w+pad_left-kw)/stride, o] * w[kh,kw,C0+c,o], where the divisions are exact
// One 8-wide subgroup computes 16 pixels x 32 input channels: as conv2d_forward_subgroup, but w is read along o, four columns a lane apart by eight.
// The 4 x 4 transpose of what a lane reads is a renaming of registers, so no transposed copy of the weight is needed. O is a multiple of 4.
enable subgroups;
#import index
#import conv2d
@group(0) @binding(0) var<storage, read> dy: array<vec4f>;     // (N, OH, OW, O)
@group(0) @binding(1) var<storage, read> w: array<vec4f>;      // (K, K, WC, O)
@group(0) @binding(2) var<storage, read_write> dx: array<f32>; // (N, H, W, C)
@group(0) @binding(3) var<uniform> dims: Dims;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) lane: u32) {
  let O4 = dims.O / 4u;
  let column_tiles = (dims.C + 31u) / 32u;
  let tile = workgroup_index(workgroup, count);
  let row = tile / column_tiles * 16u;
  let pixels = dims.N * dims.H * dims.W;
  let column = tile % column_tiles * 32u + lane;
  let c = min(vec4u(column) + vec4u(0u, 8u, 16u, 24u), vec4u(dims.C - 1u)) * O4;
  let q0 = pixel(row + lane, dims.H, dims.W);
  let q1 = pixel(row + 8u + lane, dims.H, dims.W);

  var acc: array<vec4f, 16>;
  for (var kh = 0u; kh < dims.K; kh++) {
    for (var kw = 0u; kw < dims.K; kw++) {
      let p0 = output_pixel(q0, kh, kw);
      let p1 = output_pixel(q1, kh, kw);
      let in0 = select(0.0, 1.0, p0 >= 0);
      let in1 = select(0.0, 1.0, p1 >= 0);
      let d0 = u32(max(p0, 0)) * O4;
      let d1 = u32(max(p1, 0)) * O4;
      let tap = c + vec4u(((kh * dims.K + kw) * dims.WC + dims.C0) * O4);
      for (var o = 0u; o < O4; o++) {
        let b = transpose(mat4x4f(w[tap.x + o], w[tap.y + o], w[tap.z + o], w[tap.w + o]));
        let a0 = dy[d0 + o] * in0;
        let a1 = dy[d1 + o] * in1;
        for (var r = 0u; r < 8u; r++) {
          let s0 = subgroupShuffle(a0, r);
          acc[r] = fma(vec4f(s0.x), b[0], fma(vec4f(s0.y), b[1], fma(vec4f(s0.z), b[2], fma(vec4f(s0.w), b[3], acc[r]))));
          let s1 = subgroupShuffle(a1, r);
          acc[r + 8u] = fma(vec4f(s1.x), b[0], fma(vec4f(s1.y), b[1], fma(vec4f(s1.z), b[2], fma(vec4f(s1.w), b[3], acc[r + 8u]))));
        }
      }
    }
  }

  for (var r = 0u; r < 16u && row + r < pixels; r++) {
    for (var j = 0u; j < 4u && column + j * 8u < dims.C; j++) {
      let i = (row + r) * dims.C + column + j * 8u;
      var sum = acc[r][j];
      if (dims.accumulate != 0u) { sum += dx[i]; }
      dx[i] = sum;
    }
  }
}
