// x_0 = sqrt_recip_acp x_t - sqrt_recipm1_acp eps, clipped; eps' = (sqrt_recip_acp x_t - x_0) / sqrt_recipm1_acp; x_prev = a x_0 + b eps' + sigma z (DDIM, eq. 12)
// One invocation takes the step for four values of one image, in place. Without `rederive` eps stays the network's after clipping, as diffusers does by default;
// with it DDIM at eta = 1 is DDPM.
#import index
#import philox
#import clock
struct Dims { N: u32, size: u32, K: u32, clip: u32, rederive: u32, stream: u32 }
@group(0) @binding(0) var<storage, read> clock: Clock;         // 64 bytes
@group(0) @binding(1) var<storage, read> t: array<u32>;        // (N)
@group(0) @binding(2) var<storage, read> coef: array<f32>;     // (N, K): sqrt_recip_acp, sqrt_recipm1_acp, a = sqrt(acp_prev), b = sqrt(1 - acp_prev - sigma^2), sigma
@group(0) @binding(3) var<storage, read> eps: array<f32>;      // (N, size)
@group(0) @binding(4) var<storage, read_write> x: array<f32>;  // (N, size): x_t, becomes x_prev
@group(0) @binding(5) var<storage, read_write> x0: array<f32>; // (N, size): the predicted x_0
@group(0) @binding(6) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  let blocks = (dims.size + 3u) / 4u;
  let n = i / blocks;
  if (n >= dims.N) { return; }
  let block = i % blocks;
  let row = n * dims.K;
  let sigma = coef[row + 4u];
  var noise = vec4f(0.0);
  if (sigma > 0.0) { noise = normal4(philox(vec4u(block, clock.first + n, t[n], 0u), vec2u(clock.seed, dims.stream))); }
  for (var j = 0u; j < 4u && block * 4u + j < dims.size; j++) {
    let at = n * dims.size + block * 4u + j;
    var start = coef[row] * x[at] - coef[row + 1u] * eps[at];
    var direction = eps[at];
    if (dims.clip != 0u && abs(start) > 1.0) {
      start = clamp(start, -1.0, 1.0);
      if (dims.rederive != 0u) { direction = (coef[row] * x[at] - start) / coef[row + 1u]; }
    }
    x0[at] = start;
    x[at] = coef[row + 2u] * start + coef[row + 3u] * direction + sigma * noise[j];
  }
}
