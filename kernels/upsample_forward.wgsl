// y[n,h,w,c] = x[n, h/2, w/2, c]: nearest neighbour, twice the size
// One invocation copies one value of x to its four pixels.
#import index
#import stored
struct Dims { N: u32, H: u32, W: u32, C: u32 }
@group(0) @binding(0) var<storage, read> x: array<Stored>;       // (N, H, W, C)
@group(0) @binding(1) var<storage, read_write> y: array<Stored>; // (N, 2 H, 2 W, C)
@group(0) @binding(2) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= dims.N * dims.H * dims.W * dims.C) { return; }
  let pixel = i / dims.C;
  let c = i - pixel * dims.C;
  let row = pixel / dims.W; // n H + h: rows 2h and 2h + 1 of y are rows 2 row and 2 row + 1 over all images
  let at = (row * 4u * dims.W + 2u * (pixel - row * dims.W)) * dims.C + c;
  let below = at + 2u * dims.W * dims.C;
  let value = x[i];
  y[at] = value;
  y[at + dims.C] = value;
  y[below] = value;
  y[below + dims.C] = value;
}
