// z[n,i] ~ N(0, 1): four normals from Philox at counter (i / 4, first + n, step), key (seed, stream)
// One invocation draws four values of one sample, which do not depend on the batch it is in.
#import index
#import philox
#import clock
struct Dims { N: u32, size: u32, stream: u32 }
@group(0) @binding(0) var<storage, read> clock: Clock;        // 64 bytes
@group(0) @binding(1) var<storage, read_write> z: array<f32>; // (N, size)
@group(0) @binding(2) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  let blocks = (dims.size + 3u) / 4u;
  let n = i / blocks;
  if (n >= dims.N) { return; }
  let block = i % blocks;
  let values = normal4(philox(vec4u(block, clock.first + n, clock.step, 0u), vec2u(clock.seed, dims.stream)));
  for (var j = 0u; j < 4u && block * 4u + j < dims.size; j++) { z[n * dims.size + block * 4u + j] = values[j]; }
}
