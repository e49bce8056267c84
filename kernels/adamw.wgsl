// m = b1 m + (1-b1) s g; v = b2 v + (1-b2) (s g)^2; w = w (1 - lr wd) - lr (m / c1) / (sqrt(v / c2) + eps); e = decay e + (1-decay) w (Loshchilov and Hutter, 2019)
// One invocation updates four parameters: clipping, AdamW and the average e in one pass over memory. s scales the gradient; 0 marks a bad step, which changes nothing.
#import index
#import clock
struct Dims { beta1: f32, beta2: f32, eps: f32, weight_decay: f32 }
@group(0) @binding(0) var<storage, read> clock: Clock;          // 64 bytes: lr, decay
@group(0) @binding(1) var<storage, read> state: array<f32>;     // (5): scale, norm, corrections c1 and c2, good steps
@group(0) @binding(2) var<storage, read> g: array<vec4f>;       // (parameters)
@group(0) @binding(3) var<storage, read_write> w: array<vec4f>; // (parameters)
@group(0) @binding(4) var<storage, read_write> m: array<vec4f>; // (parameters)
@group(0) @binding(5) var<storage, read_write> v: array<vec4f>; // (parameters)
@group(0) @binding(6) var<storage, read_write> e: array<vec4f>; // (parameters)
@group(0) @binding(7) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= arrayLength(&w) || state[0] == 0.0) { return; }
  let gradient = g[i] * state[0];
  let mean = dims.beta1 * m[i] + (1.0 - dims.beta1) * gradient;
  let square = dims.beta2 * v[i] + (1.0 - dims.beta2) * gradient * gradient;
  m[i] = mean;
  v[i] = square;
  let value = w[i] * (1.0 - clock.lr * dims.weight_decay) - clock.lr * (mean / state[2]) / (sqrt(square / state[3]) + dims.eps);
  w[i] = value;
  e[i] = clock.ema_decay * e[i] + (1.0 - clock.ema_decay) * value;
}
