// doutput = dvlb[n] d vlb[n] / d output (vlb_forward), without clipping; zero for the mean's channels if they are held fixed (Improved DDPM, section 3.1)
// One invocation per value of an image: the derivative by the mean's channel and, if there is one, by v.
#import index
#import bound
struct Dims { N: u32, size: u32, K: u32, C: u32, M: u32, fixed: u32, accumulate: u32 }
@group(0) @binding(0) var<storage, read> t: array<u32>;             // (N)
@group(0) @binding(1) var<storage, read> coef: array<f32>;          // (N, K): a, b, mean_coef1, mean_coef2, c, d, log_variance of q first
@group(0) @binding(2) var<storage, read> output: array<f32>;        // (N, size / C, M)
@group(0) @binding(3) var<storage, read> x0: array<f32>;            // (N, size)
@group(0) @binding(4) var<storage, read> xt: array<f32>;            // (N, size)
@group(0) @binding(5) var<storage, read> dvlb: array<f32>;          // (N)
@group(0) @binding(6) var<storage, read_write> doutput: array<f32>; // as output
@group(0) @binding(7) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let at = thread_index(id, count);
  let n = at / dims.size;
  if (n >= dims.N) { return; }
  let row = n * dims.K;
  let mean_at = at / dims.C * dims.M + at % dims.C;
  let learned = dims.M > dims.C;
  var log_p = coef[row + 4u];
  if (learned) { log_p += coef[row + 5u] * output[mean_at + dims.C]; }
  let start = coef[row] * xt[at] + coef[row + 1u] * output[mean_at];
  var d: vec3f;
  if (t[n] > 0u) { d = normal_kl(coef[row + 2u] * (start - x0[at]), coef[row + 6u], log_p); }
  else { d = decoder_nll(x0[at], coef[row + 2u] * start + coef[row + 3u] * xt[at], log_p); }
  let scale = dvlb[n] / (f32(dims.size) * 0.6931471805599453);
  var by_mean = 0.0;
  if (dims.fixed == 0u) { by_mean = scale * d.y * coef[row + 2u] * coef[row + 1u]; }
  if (dims.accumulate != 0u) { by_mean += doutput[mean_at]; }
  doutput[mean_at] = by_mean;
  if (!learned) { return; }
  var by_v = scale * d.z * coef[row + 5u];
  if (dims.accumulate != 0u) { by_v += doutput[mean_at + dims.C]; }
  doutput[mean_at + dims.C] = by_v;
}
