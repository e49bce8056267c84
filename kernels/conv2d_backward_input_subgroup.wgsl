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
  // Pixels of one parity in both directions are met by the same taps: with a stride of 2 a subgroup takes 32 of one kind, and leaves the other taps out.
  let s = dims.stride;
  let H = (dims.H + s - 1u) / s;
  let W = (dims.W + s - 1u) / s;
  let row_tiles = (dims.N * H * W + 31u) / 32u;
  let tile = workgroup_index(workgroup, count);
  let kind = tile / (column_tiles * row_tiles);
  if (kind >= s * s) { return; }
  let down = kind / s;
  let right = kind % s;
  let row = tile / column_tiles % row_tiles * 32u;
  let column = tile % column_tiles * 16u + lane;
  let columns = min(vec2u(column, column + 8u), vec2u(dims.C - 1u)) * O4;
  let eight = pixel(8u, H, W);
  let p0 = pixel(row + lane, H, W);
  let p1 = advance(p0, eight, H, W);
  let p2 = advance(p1, eight, H, W);
  let p3 = advance(p2, eight, H, W);
  let q0 = Pixel(p0.n, p0.y * s + down, p0.x * s + right);
  let q1 = Pixel(p1.n, p1.y * s + down, p1.x * s + right);
  let q2 = Pixel(p2.n, p2.y * s + down, p2.x * s + right);
  let q3 = Pixel(p3.n, p3.y * s + down, p3.x * s + right);

  var acc: array<vec2f, 32>;
  for (var kh = 0u; kh < dims.KH; kh++) {
    for (var kw = 0u; kw < dims.KW; kw++) {
      if ((((down + dims.pad_top + kh) | (right + dims.pad_left + kw)) & (s - 1u)) != 0u) { continue; }
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

  var q = pixel(row, H, W);
  for (var r = 0u; r < 32u && q.n < dims.N; r++) {
    let y = q.y * s + down;
    let x = q.x * s + right;
    for (var j = 0u; j < 2u && column + j * 8u < dims.C && y < dims.H && x < dims.W; j++) {
      let i = ((q.n * dims.H + y) * dims.W + x) * dims.C + column + j * 8u;
      var sum = acc[r][j];
      if (dims.accumulate != 0u) { sum += dx[i]; }
      dx[i] = sum;
    }
    q = advance(q, Pixel(0u, 0u, 1u), H, W);
  }
}
