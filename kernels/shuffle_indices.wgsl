// index[n] = permutation_epoch(p mod count), p = step * N + n, epoch = p / count: every image once an epoch, in an order keyed by (seed, epoch)
// One invocation computes one index: a Feistel network over 2 `half` bits (a bijection), repeated until the result is below count.
#import index
#import philox
#import clock
struct Dims { N: u32, count: u32, half: u32, stream: u32 }
@group(0) @binding(0) var<storage, read> clock: Clock;            // 64 bytes
@group(0) @binding(1) var<storage, read_write> index: array<u32>; // (N)
@group(0) @binding(2) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let n = thread_index(id, count);
  if (n >= dims.N) { return; }
  let position = clock.step * dims.N + n;
  let epoch = position / dims.count;
  let mask = (1u << dims.half) - 1u;
  var i = position % dims.count;
  loop {
    var left = i >> dims.half;
    var right = i & mask;
    for (var round = 0u; round < 4u; round++) {
      let mixed = left ^ (philox(vec4u(right, round, epoch, 0u), vec2u(clock.seed, dims.stream)).x & mask);
      left = right;
      right = mixed;
    }
    i = (left << dims.half) | right;
    if (i < dims.count) { break; }
  }
  index[n] = i;
}
