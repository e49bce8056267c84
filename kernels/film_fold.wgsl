// dgamma[c] = sum_n dy[n,0,c] (1 + s[n,0,c]), dbeta[c] = sum_n dy[n,1,c] (1 + s[n,0,c]), in the order of n
// One invocation folds one channel.
#import index
struct Dims { N: u32, C: u32, accumulate: u32 }
@group(0) @binding(0) var<storage, read> s: array<f32>;            // (N, 2, C): scale, shift
@group(0) @binding(1) var<storage, read> dy: array<f32>;           // (N, 2, C)
@group(0) @binding(2) var<storage, read_write> dgamma: array<f32>; // (C)
@group(0) @binding(3) var<storage, read_write> dbeta: array<f32>;  // (C)
@group(0) @binding(4) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let c = thread_index(id, count);
  if (c >= dims.C) { return; }
  var sums = vec2f(0.0);
  for (var n = 0u; n < dims.N; n++) {
    let scale = 2u * n * dims.C + c;
    sums = fma(vec2f(dy[scale], dy[scale + dims.C]), vec2f(1.0 + s[scale]), sums);
  }
  if (dims.accumulate != 0u) { sums += vec2f(dgamma[c], dbeta[c]); }
  dgamma[c] = sums.x;
  dbeta[c] = sums.y;
}
