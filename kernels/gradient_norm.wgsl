// norm = sqrt(sum part), scale = min(1, max_norm / (norm + 1e-6)), or 0 where a gradient or the loss is not finite: then AdamW skips the step
// One workgroup folds the partial sums in a fixed order and logs (loss, norm, first bad index, step) into a ring that the host reads late.
#import clock
struct Dims { count: u32, ring: u32, max_norm: f32 }
@group(0) @binding(0) var<storage, read> clock: Clock;             // 64 bytes
@group(0) @binding(1) var<storage, read> part: array<vec2u>;       // (count)
@group(0) @binding(2) var<storage, read> loss: array<f32>;         // (1)
@group(0) @binding(3) var<storage, read_write> state: array<f32>;  // (2): scale, norm
@group(0) @binding(4) var<storage, read_write> history: array<vec4u>; // (ring): loss, norm, first bad index, step
@group(0) @binding(5) var<uniform> dims: Dims;

var<workgroup> sums: array<f32, 64>;
var<workgroup> bads: array<u32, 64>;

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
  let norm = sqrt(sums[0]);
  let loss_bits = bitcast<u32>(loss[0]);
  // A loss that is not finite is index 0xfffffffe, a sum that overflowed 0xfffffffd.
  var first = bads[0];
  if (!finite(bitcast<u32>(norm)) && first == 0xffffffffu) { first = 0xfffffffdu; }
  if (!finite(loss_bits) && first == 0xffffffffu) { first = 0xfffffffeu; }
  var scale = 1.0;
  if (dims.max_norm > 0.0) { scale = min(1.0, dims.max_norm / (norm + 1e-6)); }
  state[0] = select(0.0, scale, first == 0xffffffffu);
  state[1] = norm;
  history[clock.step % dims.ring] = vec4u(loss_bits, bitcast<u32>(norm), first, clock.step);
}
