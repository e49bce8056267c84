// dpred[n,i] = deach[n] 2 (pred[n,i] - goal[n,i]) / size in the first C of M channels, 0 in the rest
// One invocation computes the channels of one pixel, or of several, 64 workgroups.x apart: workgroups are counted in x over the pixels of an image, in y over the images.
struct Dims { P: u32, C: u32, M: u32, accumulate: u32 }
@group(0) @binding(0) var<storage, read> pred: array<f32>;        // (N, P, M)
@group(0) @binding(1) var<storage, read> goal: array<f32>;        // (N, P, C)
@group(0) @binding(2) var<storage, read> deach: array<f32>;       // (N)
@group(0) @binding(3) var<storage, read_write> dpred: array<f32>; // (N, P, M)
@group(0) @binding(4) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let scale = 2.0 * deach[id.y] / f32(dims.P * dims.C);
  for (var i = id.x; i < dims.P; i += 64u * count.x) {
    let p = id.y * dims.P + i;
    for (var c = 0u; c < dims.M; c++) {
      var d = 0.0;
      if (c < dims.C) { d = (pred[p * dims.M + c] - goal[p * dims.C + c]) * scale; }
      if (dims.accumulate != 0u) { d += dpred[p * dims.M + c]; }
      dpred[p * dims.M + c] = d;
    }
  }
}
