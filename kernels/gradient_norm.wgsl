// norm = sqrt(sum part) / S, scale = min(1, max_norm / (norm + 1e-6)) / S, or 0 if a gradient or the loss is not finite: then AdamW skips the step
// One workgroup folds the partial sums in a fixed order and logs (loss, norm, first bad index, step, S) in a ring that the host reads later. The gradients carry the loss
// scale S: doubled after `growth` good steps in a row, halved by a bad one, never below 1 (as in PyTorch's GradScaler); constant if growth is 0.
// AdamW's corrections are 1 - beta^n at the nth good step.
#import clock
struct Dims { count: u32, ring: u32, growth: u32, max_norm: f32, log_beta1: f32, log_beta2: f32 }
@group(0) @binding(0) var<storage, read> clock: Clock;               // 64 bytes
@group(0) @binding(1) var<storage, read> part: array<vec2u>;         // (count)
@group(0) @binding(2) var<storage, read> loss: array<f32>;           // (1)
@group(0) @binding(3) var<storage, read_write> scaling: array<f32>;  // (2): S, good steps since it changed
@group(0) @binding(4) var<storage, read_write> state: array<f32>;    // (5): scale, norm, AdamW's two corrections, good steps, at first -1
@group(0) @binding(5) var<storage, read_write> history: array<u32>;  // (ring, 5): loss, norm, first bad index, step, S
@group(0) @binding(6) var<uniform> dims: Dims;

var<workgroup> sums: array<f32, 64>;
var<workgroup> bads: array<u32, 64>;

// 1 - exp(t) for t < 0. Near 0, where the difference would lose digits, by the series -t (1 + t/2 (1 + t/3 (...))).
fn one_minus_exp(t: f32) -> f32 {
  if (t < -0.5) { return 1.0 - exp(t); }
  var sum = 1.0;
  for (var k = 9.0; k > 1.0; k -= 1.0) { sum = fma(t / k, sum, 1.0); }
  return -t * sum;
}

fn finite(bits: u32) -> bool { return (bits & 0x7f800000u) != 0x7f800000u; }

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) li: u32) {
  var sum = 0.0;
  var bad = 0xffffffffu;
  for (var i = li; i < dims.count; i += 64u) {
    sum += bitcast<f32>(part[i].x);
    bad = min(bad, part[i].y);
  }
  sums[li] = sum;
  bads[li] = bad;
  workgroupBarrier();
  for (var half = 32u; half > 0u; half /= 2u) {
    if (li < half) {
      sums[li] += sums[li + half];
      bads[li] = min(bads[li], bads[li + half]);
    }
    workgroupBarrier();
  }
  if (li != 0u) { return; }
  // A power of two: dividing by it is exact.
  let S = scaling[0];
  let norm = sqrt(sums[0]) / S;
  let loss_bits = bitcast<u32>(loss[0]);
  // Index 0xfffffffe stands for a loss that is not finite, 0xfffffffd for a sum that overflowed.
  var first = bads[0];
  if (!finite(bitcast<u32>(norm)) && first == 0xffffffffu) { first = 0xfffffffdu; }
  if (!finite(loss_bits) && first == 0xffffffffu) { first = 0xfffffffeu; }
  let good = first == 0xffffffffu;
  var scale = 1.0;
  if (dims.max_norm > 0.0) { scale = min(1.0, dims.max_norm / (norm + 1e-6)); }
  state[0] = select(0.0, scale / S, good);
  state[1] = norm;
  // Steps before this optimizer's first count as good.
  let done = select(state[4], f32(clock.step), state[4] < 0.0);
  let n = done + 1.0;
  state[2] = one_minus_exp(n * dims.log_beta1);
  state[3] = one_minus_exp(n * dims.log_beta2);
  state[4] = select(done, n, good);
  let row = clock.step % dims.ring * 5u;
  history[row] = loss_bits;
  history[row + 1u] = bitcast<u32>(norm);
  history[row + 2u] = first;
  history[row + 3u] = clock.step;
  history[row + 4u] = bitcast<u32>(S);

  if (dims.growth == 0u) { return; }
  let steps = select(0.0, scaling[1] + 1.0, good);
  let grown = steps >= f32(dims.growth);
  // At most 2^100, so that scaled gradients do not overflow.
  if (!good) { scaling[0] = max(0.5 * S, 1.0); } else if (grown) { scaling[0] = min(2.0 * S, 1.2676506e30); }
  scaling[1] = select(steps, 0.0, grown);
}
