// each[n] = coef[n,a] simple[n] + coef[n,b] vlb[n], the second only if there are two terms; loss = mean_n weight[n] each[n], in order
// One invocation.
struct Dims { N: u32, K: u32, a: u32, b: u32, scaled: u32, two: u32, weighted: u32 }
@group(0) @binding(0) var<storage, read> simple: array<f32>;     // (N)
@group(0) @binding(1) var<storage, read> vlb: array<f32>;        // (N) where `two`, else anything
@group(0) @binding(2) var<storage, read> coef: array<f32>;       // (N, K) where `scaled`: columns a and b; else both are 1
@group(0) @binding(3) var<storage, read> weight: array<f32>;     // (N) where `weighted`: 1 / (probability of t times T); else all are 1
@group(0) @binding(4) var<storage, read_write> each: array<f32>; // (N)
@group(0) @binding(5) var<storage, read_write> loss: array<f32>; // (1)
@group(0) @binding(6) var<uniform> dims: Dims;

@compute @workgroup_size(1)
fn main() {
  var sum = 0.0;
  for (var n = 0u; n < dims.N; n++) {
    var value = simple[n];
    if (dims.scaled != 0u) { value *= coef[n * dims.K + dims.a]; }
    if (dims.two != 0u) { value += coef[n * dims.K + dims.b] * vlb[n]; }
    each[n] = value;
    if (dims.weighted != 0u) { value *= weight[n]; }
    sum += value;
  }
  loss[0] = sum / f32(dims.N);
}
