// dx[n,h,w,c] = sum_{kh,kw,o} dy[n, (h+pad_top-kh)/stride, (w+pad_left-kw)/stride, o] * w[kh,kw,C0+c,o], where the divisions are exact
// One 8-wide subgroup computes 32 pixels x 16 input channels: as conv2d_forward_subgroup, but w is read along o, for two columns a lane that lie eight apart.
// What a lane reads is turned by naming its components, so that no transposed copy of the weight is needed. O is a multiple of 4.
enable subgroups;
#import index
#import conv2d
@group(0) @binding(0) var<storage, read> dy: array<vec4f>;     // (N, OH, OW, O)
@group(0) @binding(1) var<storage, read> w: array<vec4f>;      // (KH, KW, WC, O)
@group(0) @binding(2) var<storage, read_write> dx: array<f32>; // (N, H, W, C)
@group(0) @binding(3) var<uniform> dims: Dims;

fn multiply(a: vec4f, b0: vec2f, b1: vec2f, b2: vec2f, b3: vec2f, c: vec2f) -> vec2f {
  return fma(vec2f(a.x), b0, fma(vec2f(a.y), b1, fma(vec2f(a.z), b2, fma(vec2f(a.w), b3, c))));
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) lane: u32) {
  let O4 = dims.O / 4u;
  let column_tiles = (dims.C + 15u) / 16u;
  let tile = workgroup_index(workgroup, count);
  let row = tile / column_tiles * 32u;
  let pixels = dims.N * dims.H * dims.W;
  let column = tile % column_tiles * 16u + lane;
  let columns = min(vec2u(column, column + 8u), vec2u(dims.C - 1u)) * O4;
  let eight = pixel(8u, dims.H, dims.W);
  let q0 = pixel(row + lane, dims.H, dims.W);
  let q1 = advance(q0, eight, dims.H, dims.W);
  let q2 = advance(q1, eight, dims.H, dims.W);
  let q3 = advance(q2, eight, dims.H, dims.W);

  var acc: array<vec2f, 32>;
  for (var kh = 0u; kh < dims.KH; kh++) {
    for (var kw = 0u; kw < dims.KW; kw++) {
      let p = vec4i(output_pixel(q0, kh, kw), output_pixel(q1, kh, kw), output_pixel(q2, kh, kw), output_pixel(q3, kh, kw));
      let inside = select(vec4f(0.0), vec4f(1.0), p >= vec4i(0));
      var i = vec4u(max(p, vec4i(0))) * O4;
      let tap = columns + vec2u(((kh * dims.KW + kw) * dims.WC + dims.C0) * O4);
      for (var o = 0u; o < O4; o++) {
        let u = w[tap.x + o];
        let v = w[tap.y + o];
        let b0 = vec2f(u.x, v.x);
        let b1 = vec2f(u.y, v.y);
        let b2 = vec2f(u.z, v.z);
        let b3 = vec2f(u.w, v.w);
        let a0 = dy[i.x] * inside.x;
        let a1 = dy[i.y] * inside.y;
        let a2 = dy[i.z] * inside.z;
        let a3 = dy[i.w] * inside.w;
        for (var r = 0u; r < 8u; r++) {
          acc[r] = multiply(subgroupShuffle(a0, r), b0, b1, b2, b3, acc[r]);
          acc[r + 8u] = multiply(subgroupShuffle(a1, r), b0, b1, b2, b3, acc[r + 8u]);
          acc[r + 16u] = multiply(subgroupShuffle(a2, r), b0, b1, b2, b3, acc[r + 16u]);
          acc[r + 24u] = multiply(subgroupShuffle(a3, r), b0, b1, b2, b3, acc[r + 24u]);
        }
        i += vec4u(1u);
      }
    }
  }

  for (var r = 0u; r < 32u && row + r < pixels; r++) {
    for (var j = 0u; j < 2u && column + j * 8u < dims.C; j++) {
      let i = (row + r) * dims.C + column + j * 8u;
      var sum = acc[r][j];
      if (dims.accumulate != 0u) { sum += dx[i]; }
      dx[i] = sum;
    }
  }
}
