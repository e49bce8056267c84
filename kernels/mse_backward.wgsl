// dpred_i = dloss 2 (pred_i - goal_i) / size
// One invocation computes four values.
#import index
struct Dims { size: u32, accumulate: u32 }
@group(0) @binding(0) var<storage, read> pred: array<vec4f>;        // any shape
@group(0) @binding(1) var<storage, read> goal: array<vec4f>;        // as pred
@group(0) @binding(2) var<storage, read> dloss: array<f32>;         // (1)
@group(0) @binding(3) var<storage, read_write> dpred: array<vec4f>; // as pred
@group(0) @binding(4) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= arrayLength(&dpred)) { return; }
  var d = (pred[i] - goal[i]) * (2.0 * dloss[0] / f32(dims.size));
  if (dims.accumulate != 0u) { d += dpred[i]; }
  dpred[i] = d;
}
