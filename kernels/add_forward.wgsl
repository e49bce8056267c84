// y[n,p,c] = a[n,p,c] + b[n,p,c], or + b[n,c] if per_image is set (how the time embedding enters a block)
// One invocation computes one value.
#import index
#import stored
struct Dims { N: u32, P: u32, C: u32, per_image: u32 }
@group(0) @binding(0) var<storage, read> a: array<Stored>;       // (N, P, C)
@group(0) @binding(1) var<storage, read> b: array<Stored>;       // (N, P, C) or (N, C)
@group(0) @binding(2) var<storage, read_write> y: array<Stored>; // (N, P, C)
@group(0) @binding(3) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= dims.N * dims.P * dims.C) { return; }
  let j = select(i, i / (dims.P * dims.C) * dims.C + i % dims.C, dims.per_image != 0u);
  y[i] = Stored(f32(a[i]) + f32(b[j]));
}
