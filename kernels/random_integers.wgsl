// k[n] ~ uniform on {0, ..., high - 1}: the high word of word * high, Philox at counter (0, first + n, step), key (seed, stream)
// One invocation draws one integer.
#import index
#import philox
#import clock
struct Dims { N: u32, high: u32, stream: u32 }
@group(0) @binding(0) var<storage, read> clock: Clock;        // 64 bytes
@group(0) @binding(1) var<storage, read_write> k: array<u32>; // (N)
@group(0) @binding(2) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let n = thread_index(id, count);
  if (n >= dims.N) { return; }
  k[n] = mul_hi_lo(philox(vec4u(0u, clock.first + n, clock.step, 0u), vec2u(clock.seed, dims.stream)).x, dims.high).x;
}
