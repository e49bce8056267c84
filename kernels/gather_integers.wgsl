// y[n] = table[index[n]]: the labels of a batch of images
// One invocation copies one integer.
#import index
struct Dims { N: u32 }
@group(0) @binding(0) var<storage, read> table: array<u32>;   // (count)
@group(0) @binding(1) var<storage, read> index: array<u32>;   // (N)
@group(0) @binding(2) var<storage, read_write> y: array<u32>; // (N)
@group(0) @binding(3) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let n = thread_index(id, count);
  if (n >= dims.N) { return; }
  y[n] = table[index[n]];
}
