// loss = mean_i (pred_i - goal_i)^2 (DDPM, eq. 14), from the squared error of each image
// One invocation sums one image's error; mse_mean folds them in order.
#import index
struct Dims { N: u32, size: u32 }
@group(0) @binding(0) var<storage, read> pred: array<f32>;      // (N, size)
@group(0) @binding(1) var<storage, read> goal: array<f32>;      // (N, size)
@group(0) @binding(2) var<storage, read_write> each: array<f32>; // (N): mean squared error of each image
@group(0) @binding(3) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let n = thread_index(id, count);
  if (n >= dims.N) { return; }
  // Rows of 64 first: a running sum over a whole image would lose digits.
  var sum = 0.0;
  for (var i = 0u; i < dims.size; i += 64u) {
    var part = 0.0;
    for (var j = i; j < min(i + 64u, dims.size); j++) {
      let d = pred[n * dims.size + j] - goal[n * dims.size + j];
      part = fma(d, d, part);
    }
    sum += part;
  }
  each[n] = sum / f32(dims.size);
}
