// start = p x + q output, clipped to +-clip if clip > 0; x' = a x + b start + c last + d kept + e output + s z; last is the start before, kept is x before the last row that kept it
// One invocation takes the step for four values of one image, in place. DDIM, DPM-Solver++, Heun and Langevin dynamics are rows of these factors (src/diffusion/samplers/).
#import index
#import philox
#import clock
struct Dims { N: u32, size: u32, C: u32, M: u32, clip: f32, stream: u32 }
@group(0) @binding(0) var<storage, read> clock: Clock;            // 64 bytes
@group(0) @binding(1) var<storage, read> coef: array<f32>;        // (9): p, q, a, b, c, d, e, s, whether to keep x
@group(0) @binding(2) var<storage, read> output: array<f32>;      // (N, size / C, M): the first C of M channels are read
@group(0) @binding(3) var<storage, read_write> x: array<f32>;     // (N, size): x, becomes x'
@group(0) @binding(4) var<storage, read_write> start: array<f32>; // (N, size): last, becomes the predicted x_0
@group(0) @binding(5) var<storage, read_write> kept: array<f32>;  // (N, size)
@group(0) @binding(6) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  let blocks = (dims.size + 3u) / 4u;
  let n = i / blocks;
  if (n >= dims.N) { return; }
  let block = i % blocks;
  let s = coef[7];
  var noise = vec4f(0.0);
  if (s > 0.0) { noise = normal4(philox(vec4u(block, clock.first + n, clock.step, 0u), vec2u(clock.seed, dims.stream))); }
  for (var j = 0u; j < 4u && block * 4u + j < dims.size; j++) {
    let at = n * dims.size + block * 4u + j;
    let now = x[at];
    let out = output[at / dims.C * dims.M + at % dims.C];
    var predicted = coef[0] * now + coef[1] * out;
    if (dims.clip > 0.0) { predicted = clamp(predicted, -dims.clip, dims.clip); }
    let next = coef[2] * now + coef[3] * predicted + coef[4] * start[at] + coef[5] * kept[at] + coef[6] * out + s * noise[j];
    if (coef[8] != 0.0) { kept[at] = now; }
    start[at] = predicted;
    x[at] = next;
  }
}
