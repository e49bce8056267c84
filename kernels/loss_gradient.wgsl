// y = a S
// One invocation. The gradient that backward starts from carries the loss scale S, so that small gradients survive float16.
struct Dims { a: f32 }
@group(0) @binding(0) var<storage, read> scaling: array<f32>; // (2): S, good steps
@group(0) @binding(1) var<storage, read_write> y: array<f32>; // (1)
@group(0) @binding(2) var<uniform> dims: Dims;

@compute @workgroup_size(1)
fn main() { y[0] = dims.a * scaling[0]; }
