// y[n,0,c] = gamma[c] (1 + s[n,0,c]), y[n,1,c] = beta[c] (1 + s[n,0,c]) + s[n,1,c]: group norm's scale and offset, modulated by each image's scale and shift (Perez et al., 2018)
// One invocation computes the pair of one channel of one image.
#import index
struct Dims { N: u32, C: u32 }
@group(0) @binding(0) var<storage, read> gamma: array<f32>;   // (C)
@group(0) @binding(1) var<storage, read> beta: array<f32>;    // (C)
@group(0) @binding(2) var<storage, read> s: array<f32>;       // (N, 2, C): scale, shift
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // (N, 2, C)
@group(0) @binding(4) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= dims.N * dims.C) { return; }
  let c = i % dims.C;
  let scale = 2u * (i - c) + c;
  let shift = scale + dims.C;
  let factor = 1.0 + s[scale];
  y[scale] = gamma[c] * factor;
  y[shift] = fma(beta[c], factor, s[shift]);
}
