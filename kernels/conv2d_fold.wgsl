// dw[kh,kw,C0+c,o] = sum_s part[s,kh,kw,c,o], db[o] = sum_s sums[s,o] where has_bias is set, in the order of s: the same bits on every run
// One invocation computes one weight's gradient, or behind the weights one bias's.
#import index
#import conv2d
@group(0) @binding(0) var<storage, read> part: array<f32>;     // (splits, KH, KW, C, O)
@group(0) @binding(1) var<storage, read> sums: array<f32>;     // (splits, O)
@group(0) @binding(2) var<storage, read_write> dw: array<f32>; // (KH, KW, WC, O)
@group(0) @binding(3) var<storage, read_write> db: array<f32>; // (O)
@group(0) @binding(4) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  let rows = dims.C * dims.O;
  let weights = dims.KH * dims.KW * rows;
  if (i >= weights + dims.O * dims.has_bias) { return; }
  var sum = 0.0;
  if (i >= weights) {
    let o = i - weights;
    for (var s = 0u; s < dims.splits; s++) { sum += sums[s * dims.O + o]; }
    if (dims.accumulate != 0u) { sum += db[o]; }
    db[o] = sum;
    return;
  }
  for (var s = 0u; s < dims.splits; s++) { sum += part[s * weights + i]; }
  let j = (i / rows * dims.WC + dims.C0) * dims.O + i % rows;
  if (dims.accumulate != 0u) { sum += dw[j]; }
  dw[j] = sum;
}
