// part[s,kh,kw,c,o] = sum over the pixels of split s of x[n, oh*stride+kh-pad_top, ow*stride+kw-pad_left, c] * dy[n,oh,ow,o]; dw = sum_s part[s]
// One 8-wide subgroup computes 16 input x 32 output channels of one tap: lane = pixel for x, lane = four output channels for dy; eight pixels a turn.
// C and O are multiples of 4.
enable subgroups;
#import index
#import conv2d
@group(0) @binding(0) var<storage, read> x: array<vec4f>;          // (N, H, W, C)
@group(0) @binding(1) var<storage, read> dy: array<vec4f>;         // (N, OH, OW, O)
@group(0) @binding(2) var<storage, read_write> part: array<vec4f>; // (splits, K, K, C, O)
@group(0) @binding(3) var<uniform> dims: Dims;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) lane: u32) {
  let C4 = dims.C / 4u;
  let O4 = dims.O / 4u;
  let column_tiles = (O4 + 7u) / 8u;
  let row_tiles = (C4 + 3u) / 4u;
  let tile = workgroup_index(workgroup, count);
  let column = tile % column_tiles * 8u + lane;
  let o = min(column, O4 - 1u);
  let row = tile / column_tiles % row_tiles * 4u;
  let c = min(vec4u(row) + vec4u(0u, 1u, 2u, 3u), vec4u(C4 - 1u));
  let tap = tile / (column_tiles * row_tiles) % (dims.K * dims.K);
  let split = tile / (column_tiles * row_tiles * dims.K * dims.K);
  if (split >= dims.splits) { return; }
  let pixels = dims.N * dims.OH * dims.OW;
  // Whole turns of eight pixels, so that only the last split has a ragged end.
  let share = (pixels + 8u * dims.splits - 1u) / (8u * dims.splits) * 8u;
  let end = min((split + 1u) * share, pixels);

  var acc: array<vec4f, 16>;
  for (var q = split * share; q < end; q += 8u) {
    let p = input_pixel(pixel(q + lane, dims.OH, dims.OW), tap / dims.K, tap % dims.K);
    let inside = select(0.0, 1.0, p >= 0 && q + lane < end);
    let xi = u32(max(p, 0)) * C4;
    let a0 = x[xi + c.x] * inside;
    let a1 = x[xi + c.y] * inside;
    let a2 = x[xi + c.z] * inside;
    let a3 = x[xi + c.w] * inside;
    for (var r = 0u; r < 8u; r++) {
      let b = dy[min(q + r, pixels - 1u) * O4 + o];
      let s0 = subgroupShuffle(a0, r);
      let s1 = subgroupShuffle(a1, r);
      let s2 = subgroupShuffle(a2, r);
      let s3 = subgroupShuffle(a3, r);
      for (var j = 0u; j < 4u; j++) {
        acc[j] = fma(vec4f(s0[j]), b, acc[j]);
        acc[j + 4u] = fma(vec4f(s1[j]), b, acc[j + 4u]);
        acc[j + 8u] = fma(vec4f(s2[j]), b, acc[j + 8u]);
        acc[j + 12u] = fma(vec4f(s3[j]), b, acc[j + 12u]);
      }
    }
  }

  if (column >= O4) { return; }
  for (var r = 0u; r < 16u && row * 4u + r < dims.C; r++) {
    part[((split * dims.K * dims.K + tap) * dims.C + row * 4u + r) * O4 + column] = acc[r];
  }
}
