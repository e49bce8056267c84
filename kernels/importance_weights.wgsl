// w[t] = sqrt(mean_i history[t,i]^2), sums[t] = w[0] + ... + w[t] (Improved DDPM, section 3.3); all zero until every t has its ten losses
// One workgroup: each invocation sums a run of t, then the first adds the runs in order.
struct Dims { T: u32 }
@group(0) @binding(0) var<storage, read> history: array<f32>;    // (T, 11): ten losses, and how many came; from ten on, 10 + the place of the oldest
@group(0) @binding(1) var<storage, read_write> w: array<f32>;    // (T)
@group(0) @binding(2) var<storage, read_write> sums: array<f32>; // (T)
@group(0) @binding(3) var<uniform> dims: Dims;

var<workgroup> runs: array<f32, 64>;
var<workgroup> missing: array<u32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) li: u32) {
  let length = (dims.T + 63u) / 64u;
  let first = min(li * length, dims.T);
  let last = min(first + length, dims.T);
  var sum = 0.0;
  var absent = 0u;
  for (var t = first; t < last; t++) {
    var squares = 0.0;
    for (var i = 0u; i < 10u; i++) { squares += history[t * 11u + i] * history[t * 11u + i]; }
    w[t] = sqrt(squares / 10.0);
    sum += w[t];
    if (history[t * 11u + 10u] < 10.0) { absent++; }
  }
  runs[li] = sum;
  missing[li] = absent;
  workgroupBarrier();
  var before = 0.0;
  absent = 0u;
  for (var i = 0u; i < 64u; i++) {
    if (i < li) { before += runs[i]; }
    absent += missing[i];
  }
  if (absent > 0u) { before = 0.0; }
  for (var t = first; t < last; t++) {
    if (absent > 0u) { w[t] = 0.0; }
    before += w[t];
    sums[t] = before;
  }
}
