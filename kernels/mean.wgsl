// y = mean_n x[n], in order
// One invocation.
struct Dims { N: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;       // (N)
@group(0) @binding(1) var<storage, read_write> y: array<f32>; // (1)
@group(0) @binding(2) var<uniform> dims: Dims;

@compute @workgroup_size(1)
fn main() {
  var sum = 0.0;
  for (var n = 0u; n < dims.N; n++) { sum += x[n]; }
  y[0] = sum / f32(dims.N);
}
