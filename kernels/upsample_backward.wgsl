// dx[n,h,w,c] = dy[n,2h,2w,c] + dy[n,2h,2w+1,c] + dy[n,2h+1,2w,c] + dy[n,2h+1,2w+1,c]
// One invocation sums one value.
#import index
#import stored
struct Dims { N: u32, H: u32, W: u32, C: u32, accumulate: u32 }
@group(0) @binding(0) var<storage, read> dy: array<Stored>;       // (N, 2 H, 2 W, C)
@group(0) @binding(1) var<storage, read_write> dx: array<Stored>; // (N, H, W, C)
@group(0) @binding(2) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= dims.N * dims.H * dims.W * dims.C) { return; }
  let c = i % dims.C;
  let w = i / dims.C % dims.W;
  let row = i / (dims.C * dims.W); // n H + h
  let at = (row * 4u * dims.W + 2u * w) * dims.C + c; // rows 2h and 2h + 1 of dy are rows 2 row and 2 row + 1 over all images
  let below = at + 2u * dims.W * dims.C;
  var sum = f32(dy[at]) + f32(dy[at + dims.C]) + f32(dy[below]) + f32(dy[below + dims.C]);
  if (dims.accumulate != 0u) { sum += f32(dx[i]); }
  dx[i] = Stored(sum);
}
