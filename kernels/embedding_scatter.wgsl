// dtable[k,c] = sum of dy[n,c] over the n with ids[n] = k (+ dtable if accumulate is set)
// One invocation sums one value of the table in the order of n, without atomics: the same bits on every run. Rows that no id names get zeros.
#import index
struct Dims { N: u32, K: u32, C: u32, accumulate: u32 }
@group(0) @binding(0) var<storage, read> ids: array<u32>;          // (N)
@group(0) @binding(1) var<storage, read> dy: array<f32>;           // (N, C)
@group(0) @binding(2) var<storage, read_write> dtable: array<f32>; // (K, C)
@group(0) @binding(3) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= dims.K * dims.C) { return; }
  let row = i / dims.C;
  let column = i % dims.C;
  var sum = 0.0;
  for (var n = 0u; n < dims.N; n++) {
    if (min(ids[n], dims.K - 1u) == row) { sum += dy[n * dims.C + column]; }
  }
  if (dims.accumulate != 0u) { sum += dtable[i]; }
  dtable[i] = sum;
}
