// part[s,kh,kw,c,o] = sum over the pixels of split s of x[n, oh*stride+kh-pad_top, ow*stride+kw-pad_left, c] * dy[n,oh,ow,o]; dw = sum_s part[s]
// One invocation computes one element of part. The plain kernel: any channel count. Splits keep the device busy; fold adds them in order.
#import index
#import stored
#import conv2d
@group(0) @binding(0) var<storage, read> x: array<Stored>;       // (N, H, W, C)
@group(0) @binding(1) var<storage, read> dy: array<Stored>;      // (N, OH, OW, O)
@group(0) @binding(2) var<storage, read_write> part: array<f32>; // (splits, KH, KW, C, O)
@group(0) @binding(3) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  let weights = dims.KH * dims.KW * dims.C * dims.O;
  if (i >= dims.splits * weights) { return; }
  let o = i % dims.O;
  let c = i / dims.O % dims.C;
  let tap = i % weights / (dims.C * dims.O);
  let pixels = dims.N * dims.OH * dims.OW;
  let share = (pixels + dims.splits - 1u) / dims.splits;
  let first = i / weights * share;
  var sum = 0.0;
  for (var q = first; q < min(first + share, pixels); q++) {
    let p = input_pixel(pixel(q, dims.OH, dims.OW), tap / dims.KW, tap % dims.KW);
    if (p >= 0) { sum = fma(f32(x[u32(p) * dims.C + c]), f32(dy[q * dims.O + o]), sum); }
  }
  part[i] = sum;
}
