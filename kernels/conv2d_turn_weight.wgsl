// turned[kh,kw,o,c] = w[kh,kw,C0+c,o]: the weight as conv2d_tiled reads it in the transposed direction
// One invocation moves one element; 0.1 ms for 36 million weights on a GPU, once a step.
#import index
#import conv2d
@group(0) @binding(0) var<storage, read> w: array<f32>;            // (KH, KW, WC, O)
@group(0) @binding(1) var<storage, read_write> turned: array<f32>; // (KH, KW, O, C)
@group(0) @binding(2) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= dims.KH * dims.KW * dims.O * dims.C) { return; }
  let c = i % dims.C;
  let o = i / dims.C % dims.O;
  turned[i] = w[(i / (dims.C * dims.O) * dims.WC + dims.C0 + c) * dims.O + o];
}
