// x_0 = a x_t + b output, clipped to +-clip if clip > 0; mean = coef1 x_0 + coef2 x_t; log_variance = c + d v; x_{t-1} = mean + [t > 0] exp(log_variance / 2) z (DDPM, eq. 7)
// One invocation draws four z of one image and takes its reverse step in place, in one pass over memory. Each image has its own t.
#import index
#import philox
#import clock
struct Dims { N: u32, size: u32, K: u32, C: u32, M: u32, clip: f32, given: u32, stream: u32 }
@group(0) @binding(0) var<storage, read> clock: Clock;         // 64 bytes
@group(0) @binding(1) var<storage, read> t: array<u32>;        // (N)
@group(0) @binding(2) var<storage, read> coef: array<f32>;     // (N, K): a, b, mean_coef1, mean_coef2, c, d first
@group(0) @binding(3) var<storage, read> output: array<f32>;   // (N, size / C, M): M = C, or 2 C with v in the second half
@group(0) @binding(4) var<storage, read> z: array<f32>;        // (N, size) where `given`, else anything
@group(0) @binding(5) var<storage, read_write> x: array<f32>;  // (N, size): x_t, becomes x_{t-1}
@group(0) @binding(6) var<storage, read_write> x0: array<f32>; // (N, size): the predicted x_0
@group(0) @binding(7) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  let blocks = (dims.size + 3u) / 4u;
  let n = i / blocks;
  if (n >= dims.N) { return; }
  let block = i % blocks;
  let row = n * dims.K;
  let learned = dims.M > dims.C;
  var noise = vec4f(0.0);
  if (dims.given == 0u && t[n] > 0u) { noise = normal4(philox(vec4u(block, clock.first + n, t[n], 0u), vec2u(clock.seed, dims.stream))); }
  for (var j = 0u; j < 4u && block * 4u + j < dims.size; j++) {
    let at = n * dims.size + block * 4u + j;
    var mean_at = at;
    var log_variance = coef[row + 4u];
    if (learned) {
      mean_at = at / dims.C * dims.M + at % dims.C;
      log_variance += coef[row + 5u] * output[mean_at + dims.C];
    }
    var start = coef[row] * x[at] + coef[row + 1u] * output[mean_at];
    if (dims.clip > 0.0) { start = clamp(start, -dims.clip, dims.clip); }
    var draw = noise[j];
    if (dims.given != 0u) { draw = z[at]; }
    x0[at] = start;
    x[at] = coef[row + 2u] * start + coef[row + 3u] * x[at] + select(0.0, exp(0.5 * log_variance), t[n] > 0u) * draw;
  }
}
