// ds[n,0,c] = dy[n,0,c] gamma[c] + dy[n,1,c] beta[c], ds[n,1,c] = dy[n,1,c]: the gradient of an image's scale and shift
// One invocation computes the pair of one channel of one image.
#import index
struct Dims { N: u32, C: u32, accumulate: u32 }
@group(0) @binding(0) var<storage, read> gamma: array<f32>;    // (C)
@group(0) @binding(1) var<storage, read> beta: array<f32>;     // (C)
@group(0) @binding(2) var<storage, read> dy: array<f32>;       // (N, 2, C)
@group(0) @binding(3) var<storage, read_write> ds: array<f32>; // (N, 2, C)
@group(0) @binding(4) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= dims.N * dims.C) { return; }
  let c = i % dims.C;
  let scale = 2u * (i - c) + c;
  let shift = scale + dims.C;
  var d = vec2f(fma(dy[scale], gamma[c], dy[shift] * beta[c]), dy[shift]);
  if (dims.accumulate != 0u) { d += vec2f(ds[scale], ds[shift]); }
  ds[scale] = d.x;
  ds[shift] = d.y;
}
