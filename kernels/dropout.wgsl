// y[n,i] = x[n,i] / (1 - p) with probability 1 - p, else 0; the gradient is the same function of dy, with the same mask
// One invocation masks four values of one sample. The mask is a function of (seed, stream, step, sample, element) and is never stored.
#import index
#import stored
#import philox
#import clock
struct Dims { N: u32, size: u32, stream: u32, p: f32, accumulate: u32 }
@group(0) @binding(0) var<storage, read> clock: Clock;           // 64 bytes
@group(0) @binding(1) var<storage, read> x: array<Stored>;       // (N, size)
@group(0) @binding(2) var<storage, read_write> y: array<Stored>; // (N, size)
@group(0) @binding(3) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  let blocks = (dims.size + 3u) / 4u;
  let n = i / blocks;
  if (n >= dims.N) { return; }
  let block = i % blocks;
  let u = unit(philox(vec4u(block, clock.first + n, clock.step, 0u), vec2u(clock.seed, dims.stream)));
  for (var j = 0u; j < 4u && block * 4u + j < dims.size; j++) {
    let at = n * dims.size + block * 4u + j;
    var value = select(0.0, f32(x[at]) / (1.0 - dims.p), u[j] >= dims.p);
    if (dims.accumulate != 0u) { value += f32(y[at]); }
    y[at] = Stored(value);
  }
}
