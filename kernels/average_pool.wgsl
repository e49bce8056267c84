// y[n,oh,ow,c] = mean_{kh,kw} x[n, oh*stride+kh-pad, ow*stride+kw-pad, c] over the taps inside the image; padding does not count
// One invocation computes one channel of one pixel, or four (_vec4).
#import index
#import values
#import pool
@group(0) @binding(0) var<storage, read> x: array<Values>;       // (N, H, W, C)
@group(0) @binding(1) var<storage, read_write> y: array<Values>; // (N, OH, OW, C)
@group(0) @binding(2) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  let C = dims.C / WIDTH;
  if (i >= dims.N * dims.OH * dims.OW * C) { return; }
  let w = window(i / C);
  var sum = Values();
  for (var h = 0u; h < w.height; h++) {
    for (var v = 0u; v < w.width; v++) { sum += x[(w.row + h * dims.W + v) * C + i % C]; }
  }
  y[i] = sum / f32(w.height * w.width);
}
