// each[n] = log sum_c exp(x[n,c]) - x[n,label[n]]: the cross-entropy of softmax(x[n]) against the class of image n
// One invocation computes one row, which has one value per class.
#import index
struct Dims { N: u32, C: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;          // (N, C)
@group(0) @binding(1) var<storage, read> label: array<u32>;      // (N)
@group(0) @binding(2) var<storage, read_write> each: array<f32>; // (N)
@group(0) @binding(3) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let n = thread_index(id, count);
  if (n >= dims.N) { return; }
  let start = n * dims.C;
  var top = x[start];
  for (var c = 1u; c < dims.C; c++) { top = max(top, x[start + c]); }
  var sum = 0.0;
  for (var c = 0u; c < dims.C; c++) { sum += exp(x[start + c] - top); }
  each[n] = log(sum) + (top - x[start + label[n]]);
}
