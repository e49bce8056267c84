// x[n,h,w,c] = data[index[n], h, flip ? W-1-w : w, c] / 127.5 - 1, flip drawn with probability 1/2 if dims.flip is set
// One invocation converts one value. Images stay on the device as bytes; those from `split` on are in a second buffer, because a binding is limited.
#import index
#import philox
#import clock
struct Dims { N: u32, H: u32, W: u32, C: u32, split: u32, flip: u32, stream: u32 }
@group(0) @binding(0) var<storage, read> clock: Clock;           // 64 bytes
@group(0) @binding(1) var<storage, read> index: array<u32>;      // (N)
@group(0) @binding(2) var<storage, read> data: array<u32>;       // (split, H, W, C) bytes
@group(0) @binding(3) var<storage, read> data_rest: array<u32>;  // (count - split, H, W, C) bytes
@group(0) @binding(4) var<storage, read_write> x: array<f32>;    // (N, H, W, C)
@group(0) @binding(5) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  let size = dims.H * dims.W * dims.C;
  let n = i / size;
  if (n >= dims.N) { return; }
  let c = i % dims.C;
  var w = i / dims.C % dims.W;
  let h = i / (dims.C * dims.W) % dims.H;
  if (dims.flip != 0u && (philox(vec4u(0u, clock.first + n, clock.step, 0u), vec2u(clock.seed, dims.stream)).x & 1u) == 1u) { w = dims.W - 1u - w; }
  let at = (h * dims.W + w) * dims.C + c;
  var byte = 0u;
  if (index[n] < dims.split) {
    let b = index[n] * size + at;
    byte = data[b / 4u] >> (b % 4u * 8u);
  } else {
    let b = (index[n] - dims.split) * size + at;
    byte = data_rest[b / 4u] >> (b % 4u * 8u);
  }
  x[i] = f32(byte & 0xffu) / 127.5 - 1.0;
}
