// y[n] = labels[index[n]], or `none` with probability p, so that one network learns with and without classes (Ho & Salimans, 2022)
// One invocation per image.
#import index
#import philox
#import clock
struct Dims { N: u32, none: u32, stream: u32, p: f32 }
@group(0) @binding(0) var<storage, read> clock: Clock;        // 64 bytes
@group(0) @binding(1) var<storage, read> index: array<u32>;   // (N)
@group(0) @binding(2) var<storage, read> labels: array<u32>;  // (count)
@group(0) @binding(3) var<storage, read_write> y: array<u32>; // (N)
@group(0) @binding(4) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let n = thread_index(id, count);
  if (n >= dims.N) { return; }
  let u = unit(philox(vec4u(0u, clock.first + n, clock.step, 0u), vec2u(clock.seed, dims.stream))).x;
  y[n] = select(labels[index[n]], dims.none, u < dims.p);
}
