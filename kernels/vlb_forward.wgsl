// vlb[n] = mean_i of KL(q(x_{t-1} | x_t, x_0), p(x_{t-1} | x_t)), or at t = 0 of -log p(x_0 | x_1), in bits (DDPM, eq. 5 and 13)
// One workgroup sums one image. The predicted x_0 is clipped to [-clip, clip] if clip > 0. The means differ by coef1 (x_0 - predicted x_0): their terms in x_t are equal.
#import bound
struct Dims { size: u32, K: u32, C: u32, M: u32, clip: f32 }
@group(0) @binding(0) var<storage, read> t: array<u32>;         // (N)
@group(0) @binding(1) var<storage, read> coef: array<f32>;      // (N, K): a, b, mean_coef1, mean_coef2, c, d, log_variance of q first
@group(0) @binding(2) var<storage, read> output: array<f32>;    // (N, size / C, M): M = C, or 2 C with v in the second half
@group(0) @binding(3) var<storage, read> x0: array<f32>;        // (N, size)
@group(0) @binding(4) var<storage, read> xt: array<f32>;        // (N, size)
@group(0) @binding(5) var<storage, read_write> vlb: array<f32>; // (N)
@group(0) @binding(6) var<uniform> dims: Dims;

var<workgroup> sums: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) li: u32) {
  let n = workgroup.x;
  let row = n * dims.K;
  var sum = 0.0;
  for (var i = li; i < dims.size; i += 64u) {
    let at = n * dims.size + i;
    let mean_at = at / dims.C * dims.M + at % dims.C;
    var log_p = coef[row + 4u];
    if (dims.M > dims.C) { log_p += coef[row + 5u] * output[mean_at + dims.C]; }
    var start = coef[row] * xt[at] + coef[row + 1u] * output[mean_at];
    if (dims.clip > 0.0) { start = clamp(start, -dims.clip, dims.clip); }
    if (t[n] > 0u) { sum += normal_kl(coef[row + 2u] * (start - x0[at]), coef[row + 6u], log_p).x; }
    else { sum += decoder_nll(x0[at], coef[row + 2u] * start + coef[row + 3u] * xt[at], log_p).x; }
  }
  sums[li] = sum;
  workgroupBarrier();
  if (li > 0u) { return; }
  for (var i = 1u; i < 64u; i++) { sum += sums[i]; }
  vlb[n] = sum / (f32(dims.size) * 0.6931471805599453);
}
