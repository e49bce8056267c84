// x_0 = sqrt_recip_acp x_t - sqrt_recipm1_acp eps, clipped; mean = coef1 x_0 + coef2 x_t; x_{t-1} = mean + [t > 0] exp(log_variance / 2) z (DDPM, eq. 7 and algorithm 2)
// One invocation draws four z of one image and takes its reverse step in place: the whole step is one pass over memory. Each image has its own t.
#import index
#import philox
#import clock
struct Dims { N: u32, size: u32, K: u32, clip: u32, given: u32, stream: u32 }
@group(0) @binding(0) var<storage, read> clock: Clock;         // 64 bytes
@group(0) @binding(1) var<storage, read> t: array<u32>;        // (N)
@group(0) @binding(2) var<storage, read> coef: array<f32>;     // (N, K): sqrt_recip_acp, sqrt_recipm1_acp, mean_coef1, mean_coef2, log_variance first
@group(0) @binding(3) var<storage, read> eps: array<f32>;      // (N, size)
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
  var noise = vec4f(0.0);
  if (dims.given == 0u && t[n] > 0u) { noise = normal4(philox(vec4u(block, clock.first + n, t[n], 0u), vec2u(clock.seed, dims.stream))); }
  let sigma = select(0.0, exp(0.5 * coef[row + 4u]), t[n] > 0u);
  for (var j = 0u; j < 4u && block * 4u + j < dims.size; j++) {
    let at = n * dims.size + block * 4u + j;
    var start = coef[row] * x[at] - coef[row + 1u] * eps[at];
    if (dims.clip != 0u) { start = clamp(start, -1.0, 1.0); }
    var draw = noise[j];
    if (dims.given != 0u) { draw = z[at]; }
    x0[at] = start;
    x[at] = coef[row + 2u] * start + coef[row + 3u] * x[at] + sigma * draw;
  }
}
