// start[n] = a x_t + b output, the predicted x_0, clipped to [-clip, clip] if clip > 0; or zero with probability 1/2 (Chen et al., 2022)
// One invocation computes one value; the coin is tossed once an image.
#import index
#import philox
#import clock
struct Dims { N: u32, size: u32, K: u32, C: u32, M: u32, clip: f32, stream: u32 }
@group(0) @binding(0) var<storage, read> clock: Clock;            // 64 bytes
@group(0) @binding(1) var<storage, read> coef: array<f32>;        // (N, K): a, b first
@group(0) @binding(2) var<storage, read> output: array<f32>;      // (N, size / C, M)
@group(0) @binding(3) var<storage, read> xt: array<f32>;          // (N, size)
@group(0) @binding(4) var<storage, read_write> start: array<f32>; // (N, size)
@group(0) @binding(5) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  let n = i / dims.size;
  if (n >= dims.N) { return; }
  let word = philox(vec4u(0u, clock.first + n, clock.step, 0u), vec2u(clock.seed, dims.stream)).x;
  var value = coef[n * dims.K] * xt[i] + coef[n * dims.K + 1u] * output[i / dims.C * dims.M + i % dims.C];
  if (dims.clip > 0.0) { value = clamp(value, -dims.clip, dims.clip); }
  start[i] = select(0.0, value, (word & 1u) == 1u);
}
