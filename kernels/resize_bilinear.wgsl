// y[n,h,w,c] = bilinear interpolation of x at ((h + 1/2) H/OH - 1/2, (w + 1/2) W/OW - 1/2), the edges repeated (PyTorch's align_corners = false)
// One invocation computes one value. Nothing is smoothed before shrinking, as in PyTorch without antialias.
#import index
struct Dims { N: u32, H: u32, W: u32, C: u32, OH: u32, OW: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;       // (N, H, W, C)
@group(0) @binding(1) var<storage, read_write> y: array<f32>; // (N, OH, OW, C)
@group(0) @binding(2) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= dims.N * dims.OH * dims.OW * dims.C) { return; }
  let c = i % dims.C;
  let p = i / dims.C;
  let v = place(p / dims.OW % dims.OH, dims.H, dims.OH);
  let u = place(p % dims.OW, dims.W, dims.OW);
  let image = p / (dims.OH * dims.OW) * dims.H;
  let above = mix(x[((image + v.first) * dims.W + u.first) * dims.C + c], x[((image + v.first) * dims.W + u.second) * dims.C + c], u.share);
  let below = mix(x[((image + v.second) * dims.W + u.first) * dims.C + c], x[((image + v.second) * dims.W + u.second) * dims.C + c], u.share);
  y[i] = mix(above, below, v.share);
}

struct Place { first: u32, second: u32, share: f32 }

// The two of `size` pixels around the centre of pixel i of `resized`, and the second one's share.
fn place(i: u32, size: u32, resized: u32) -> Place {
  // In units of 1 / (2 resized) input pixels: whole numbers, exact until the share is rounded.
  let twice = (2u * i + 1u) * size;
  let beyond = max(twice, resized) - resized;
  let first = min(beyond / (2u * resized), size - 1u);
  return Place(first, min(first + 1u, size - 1u), f32(beyond - first * 2u * resized) / f32(2u * resized));
}
