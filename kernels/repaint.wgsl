// x' = c (mask x + (1 - mask) (a known + b z)) + d z': what is known, with x's amount of noise, replaces x, and a jump back adds noise to all (RePaint, Lugmayr et al. 2022, eq. 8)
// One invocation draws eight normals of one image and updates four of its values in place.
#import index
#import philox
#import clock
struct Dims { N: u32, size: u32, C: u32, known_stream: u32, jump_stream: u32 }
@group(0) @binding(0) var<storage, read> clock: Clock;        // 64 bytes
@group(0) @binding(1) var<storage, read> coef: array<f32>;    // (4): a, b, c, d
@group(0) @binding(2) var<storage, read> known: array<f32>;   // (N, size)
@group(0) @binding(3) var<storage, read> mask: array<f32>;    // (N, size / C): 1 where x is painted, 0 where it is known
@group(0) @binding(4) var<storage, read_write> x: array<f32>; // (N, size)
@group(0) @binding(5) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  let blocks = (dims.size + 3u) / 4u;
  let n = i / blocks;
  if (n >= dims.N) { return; }
  let block = i % blocks;
  let counter = vec4u(block, clock.first + n, clock.step, 0u);
  let z = normal4(philox(counter, vec2u(clock.seed, dims.known_stream)));
  let jump = normal4(philox(counter, vec2u(clock.seed, dims.jump_stream)));
  for (var j = 0u; j < 4u && block * 4u + j < dims.size; j++) {
    let at = n * dims.size + block * 4u + j;
    let m = mask[at / dims.C];
    x[at] = coef[2] * (m * x[at] + (1.0 - m) * (coef[0] * known[at] + coef[1] * z[j])) + coef[3] * jump[j];
  }
}
