// t[n] ~ p, p[t] = share / T + (1 - share) w[t] / sum w, or uniform if all w are zero; weight[n] = 1 / (T p[t[n]])
// One invocation draws one image's t: uniformly with probability `share`, else where a uniform number falls among the sums. With stratum = 1 / N, image n takes that number
// from the nth of N equal parts of [0, 1) (stratified sampling); with 0, from all of it.
#import index
#import philox
#import clock
struct Dims { N: u32, T: u32, stream: u32, share: f32, stratum: f32 }
@group(0) @binding(0) var<storage, read> clock: Clock;             // 64 bytes
@group(0) @binding(1) var<storage, read> w: array<f32>;            // (T)
@group(0) @binding(2) var<storage, read> sums: array<f32>;         // (T)
@group(0) @binding(3) var<storage, read_write> t: array<u32>;      // (N)
@group(0) @binding(4) var<storage, read_write> weight: array<f32>; // (N)
@group(0) @binding(5) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let n = thread_index(id, count);
  if (n >= dims.N) { return; }
  let words = philox(vec4u(0u, clock.first + n, clock.step, 0u), vec2u(clock.seed, dims.stream));
  let u = unit(words);
  let total = sums[dims.T - 1u];
  var at = mul_hi_lo(words.x, dims.T).x;
  if (total > 0.0 && u.y >= dims.share) {
    // The first t whose sum exceeds the number.
    let place = select(u.z, (f32(n) + u.z) * dims.stratum, dims.stratum > 0.0) * total;
    var low = 0u;
    var high = dims.T - 1u;
    while (low < high) {
      let middle = (low + high) / 2u;
      if (sums[middle] > place) { high = middle; } else { low = middle + 1u; }
    }
    at = low;
  }
  t[n] = at;
  weight[n] = 1.0;
  if (total > 0.0) { weight[n] = 1.0 / (dims.share + (1.0 - dims.share) * w[at] / total * f32(dims.T)); }
}
