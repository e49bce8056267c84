// part[s,kh,kw,c,o] = sum over the pixels of split s of x[n, oh*stride+kh-pad_top, ow*stride+kw-pad_left, c] * dy[n,oh,ow,o]; dw = sum_s part[s]; sums[s,o] = sum dy[n,oh,ow,o], whose fold is the bias's gradient
// One 8-wide subgroup computes 32 (tap, c) x 16 o of one split: lane = pixel for x, lane = two output channels for dy; eight pixels a turn, each dy used 32 times.
// Pixels advance by carries: a division costs as much as thirty FMAs here. C and O are multiples of 4.
enable subgroups;
#import index
#import conv2d
@group(0) @binding(0) var<storage, read> x: array<vec4f>;          // (N, H, W, C)
@group(0) @binding(1) var<storage, read> dy: array<vec2f>;         // (N, OH, OW, O)
@group(0) @binding(2) var<storage, read_write> part: array<vec2f>; // (splits, KH, KW, C, O)
@group(0) @binding(3) var<storage, read_write> sums: array<vec2f>; // (splits, O); anything where has_bias is not set
@group(0) @binding(4) var<uniform> dims: Dims;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) lane: u32) {
  let C4 = dims.C / 4u;
  let O2 = dims.O / 2u;
  let rows4 = dims.KH * dims.KW * C4;
  let column_tiles = (O2 + 7u) / 8u;
  let row_tiles = (rows4 + 7u) / 8u;
  let tile = workgroup_index(workgroup, count);
  let column = tile % column_tiles * 8u + lane;
  let o = min(column, O2 - 1u);
  let row4 = tile / column_tiles % row_tiles * 8u;
  let split = tile / (column_tiles * row_tiles);
  if (split >= dims.splits) { return; }
  let pixels = dims.N * dims.OH * dims.OW;
  // Whole turns of eight pixels, so that only the last split has a ragged end.
  let share = (pixels + 8u * dims.splits - 1u) / (8u * dims.splits) * 8u;
  let end = min((split + 1u) * share, pixels);

  var q = pixel(split * share + lane, dims.OH, dims.OW);
  let eight = pixel(8u, dims.OH, dims.OW);
  // What does not change with the pixel is computed once: llvmpipe hoists nothing out of loops.
  var kh: array<u32, 8>;
  var kw: array<u32, 8>;
  var c: array<u32, 8>;
  for (var g = 0u; g < 8u; g++) {
    let m = min(row4 + g, rows4 - 1u);
    kh[g] = m / C4 / dims.KW;
    kw[g] = m / C4 % dims.KW;
    c[g] = m % C4;
  }
  var sum = vec2f(0.0);
  var acc: array<vec2f, 32>;
  for (var first = split * share; first < end; first += 8u) {
    var a: array<vec4f, 8>;
    for (var g = 0u; g < 8u; g++) {
      let p = input_pixel(q, kh[g], kw[g]);
      a[g] = x[u32(max(p, 0)) * C4 + c[g]] * select(0.0, 1.0, p >= 0 && first + lane < end);
    }
    for (var r = 0u; r < 8u; r++) {
      let b = dy[min(first + r, pixels - 1u) * O2 + o];
      sum += select(vec2f(0.0), b, first + r < end);
      for (var g = 0u; g < 8u; g++) {
        let s = subgroupShuffle(a[g], r);
        acc[4u * g] = fma(vec2f(s.x), b, acc[4u * g]);
        acc[4u * g + 1u] = fma(vec2f(s.y), b, acc[4u * g + 1u]);
        acc[4u * g + 2u] = fma(vec2f(s.z), b, acc[4u * g + 2u]);
        acc[4u * g + 3u] = fma(vec2f(s.w), b, acc[4u * g + 3u]);
      }
    }
    q = advance(q, eight, dims.OH, dims.OW);
  }

  if (column >= O2) { return; }
  if (dims.has_bias != 0u && row4 == 0u) { sums[split * O2 + column] = sum; }
  for (var r = 0u; r < 32u && row4 * 4u + r < rows4 * 4u; r++) { part[(split * rows4 * 4u + row4 * 4u + r) * O2 + column] = acc[r]; }
}
