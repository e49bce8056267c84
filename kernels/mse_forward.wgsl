// each[n] = mean_i (pred[n,i] - goal[n,i])^2 (DDPM, eq. 14)
// One invocation sums one image's error over the first C of pred's M channels; the rest is for the variance.
#import index
struct Dims { N: u32, P: u32, C: u32, M: u32 }
@group(0) @binding(0) var<storage, read> pred: array<f32>;       // (N, P, M)
@group(0) @binding(1) var<storage, read> goal: array<f32>;       // (N, P, C)
@group(0) @binding(2) var<storage, read_write> each: array<f32>; // (N)
@group(0) @binding(3) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let n = thread_index(id, count);
  if (n >= dims.N) { return; }
  // Rows of 64 pixels first: a running sum over a whole image would lose digits.
  var sum = 0.0;
  for (var first = n * dims.P; first < (n + 1u) * dims.P; first += 64u) {
    var part = 0.0;
    for (var p = first; p < min(first + 64u, (n + 1u) * dims.P); p++) {
      for (var c = 0u; c < dims.C; c++) {
        let d = pred[p * dims.M + c] - goal[p * dims.C + c];
        part = fma(d, d, part);
      }
    }
    sum += part;
  }
  each[n] = sum / f32(dims.P * dims.C);
}
