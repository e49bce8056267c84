// y = uncond + w (cond - uncond) in the first C of M channels (classifier-free guidance, Ho & Salimans 2022); in the rest, a learned variance, y = cond
// One invocation computes one value.
#import index
struct Dims { size: u32, C: u32, M: u32, w: f32 }
@group(0) @binding(0) var<storage, read> cond: array<f32>;    // (size / M, M)
@group(0) @binding(1) var<storage, read> uncond: array<f32>;  // (size / M, M)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (size / M, M)
@group(0) @binding(3) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= dims.size) { return; }
  let c = cond[i];
  let u = uncond[i];
  y[i] = select(c, u + dims.w * (c - u), i % dims.M < dims.C);
}
