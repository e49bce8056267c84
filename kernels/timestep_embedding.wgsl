// y[n,i] = sin(t[n] f_i), y[n,half+i] = cos(t[n] f_i), f_i = freq[i] (Vaswani et al., 2017; halves swapped if `flip`)
// One invocation computes one value. exp() and sin() of large arguments differ between devices, so the host computes freq in float64,
// and the angle is first reduced to one turn, with freq / 2 pi as a pair of floats.
#import index
#import philox
struct Dims { N: u32, half: u32, size: u32, flip: u32 }
@group(0) @binding(0) var<storage, read> t: array<u32>;       // (N)
@group(0) @binding(1) var<storage, read> freq: array<vec2f>;  // (half): f / 2 pi as high and low float32
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (N, size), size = 2 half, or 2 half + 1 with a zero at the end
@group(0) @binding(3) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= dims.N * dims.size) { return; }
  let column = i % dims.size;
  if (column >= 2u * dims.half) {
    y[i] = 0.0;
    return;
  }
  // high has 12 bits, so t * high is exact for t < 4096, and only its fraction counts.
  let f = freq[column % dims.half];
  let time = f32(t[i / dims.size]);
  let u = fract(fract(time * f.x) + time * f.y);
  let cs = turn(u);
  y[i] = select(cs.y, cs.x, (column >= dims.half) != (dims.flip != 0u));
}
