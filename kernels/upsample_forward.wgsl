// y[n,h,w,c] = x[n, h/2, w/2, c]: nearest neighbour, twice the size
// One invocation copies one value.
#import index
struct Dims { N: u32, H: u32, W: u32, C: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;       // (N, H, W, C)
@group(0) @binding(1) var<storage, read_write> y: array<f32>; // (N, 2 H, 2 W, C)
@group(0) @binding(2) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= 4u * dims.N * dims.H * dims.W * dims.C) { return; }
  let c = i % dims.C;
  let w = i / dims.C % (2u * dims.W);
  let row = i / (dims.C * 2u * dims.W);
  let h = row % (2u * dims.H);
  let n = row / (2u * dims.H);
  y[i] = x[((n * dims.H + h / 2u) * dims.W + w / 2u) * dims.C + c];
}
