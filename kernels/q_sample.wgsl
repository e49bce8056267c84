// x_t = sqrt_alphas_cumprod[t] x_0 + sqrt_one_minus_alphas_cumprod[t] eps, eps ~ N(0, 1) (DDPM, eq. 4)
// One invocation draws four eps of one image and diffuses with them; eps is written too: it is what the network learns to predict.
#import index
#import philox
#import clock
struct Dims { N: u32, size: u32, K: u32, a: u32, b: u32, stream: u32 }
@group(0) @binding(0) var<storage, read> clock: Clock;          // 64 bytes
@group(0) @binding(1) var<storage, read> x0: array<f32>;        // (N, size)
@group(0) @binding(2) var<storage, read> coef: array<f32>;      // (N, K); columns a and b
@group(0) @binding(3) var<storage, read_write> xt: array<f32>;  // (N, size)
@group(0) @binding(4) var<storage, read_write> eps: array<f32>; // (N, size)
@group(0) @binding(5) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  let blocks = (dims.size + 3u) / 4u;
  let n = i / blocks;
  if (n >= dims.N) { return; }
  let block = i % blocks;
  let values = normal4(philox(vec4u(block, clock.first + n, clock.step, 0u), vec2u(clock.seed, dims.stream)));
  let a = coef[n * dims.K + dims.a];
  let b = coef[n * dims.K + dims.b];
  for (var j = 0u; j < 4u && block * 4u + j < dims.size; j++) {
    let at = n * dims.size + block * 4u + j;
    eps[at] = values[j];
    xt[at] = a * x0[at] + b * values[j];
  }
}
