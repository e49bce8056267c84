// x_t = sqrt_alphas_cumprod[t] x_0 + sqrt_one_minus_alphas_cumprod[t] eps, eps ~ N(0, 1) (DDPM, eq. 4); goal = start[t] x_0 + noise[t] eps
// One invocation draws four eps of one image and diffuses with them; the goal is what the network learns to predict: eps, x_0, v or the posterior mean.
#import index
#import philox
#import clock
struct Dims { N: u32, size: u32, K: u32, a: u32, b: u32, start: u32, noise: u32, stream: u32 }
@group(0) @binding(0) var<storage, read> clock: Clock;           // 64 bytes
@group(0) @binding(1) var<storage, read> x0: array<f32>;         // (N, size)
@group(0) @binding(2) var<storage, read> coef: array<f32>;       // (N, K); columns a, b, start and noise
@group(0) @binding(3) var<storage, read_write> xt: array<f32>;   // (N, size)
@group(0) @binding(4) var<storage, read_write> goal: array<f32>; // (N, size)
@group(0) @binding(5) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  let blocks = (dims.size + 3u) / 4u;
  let n = i / blocks;
  if (n >= dims.N) { return; }
  let block = i % blocks;
  let values = normal4(philox(vec4u(block, clock.first + n, clock.step, 0u), vec2u(clock.seed, dims.stream)));
  let row = n * dims.K;
  for (var j = 0u; j < 4u && block * 4u + j < dims.size; j++) {
    let at = n * dims.size + block * 4u + j;
    goal[at] = coef[row + dims.start] * x0[at] + coef[row + dims.noise] * values[j];
    xt[at] = coef[row + dims.a] * x0[at] + coef[row + dims.b] * values[j];
  }
}
