// part[n,c] = (sum_p dh xhat, sum_p dh), terms of dgamma and dbeta; means[n,g] = (mean, rstd, mean of dh gamma, mean of dh gamma xhat) for the second pass
// One workgroup sums one group of one image, channel by channel; dh is the gradient by h = gamma xhat + beta, SiLU undone where set.
// Four channels at a time: C0, C1 and the channels of a group are multiples of 4.
override WG: u32 = 64u;
override TWO: bool = true;
struct Dims { N: u32, P: u32, C0: u32, C1: u32, G: u32, silu: u32, eps: f32, accumulate: u32, accumulate2: u32 }
@group(0) @binding(0) var<storage, read> x: array<vec4f>;           // (N, P, C0)
@group(0) @binding(1) var<storage, read> x2: array<vec4f>;          // (N, P, C1)
@group(0) @binding(2) var<storage, read> dy: array<vec4f>;          // (N, P, C0 + C1)
@group(0) @binding(3) var<storage, read> gamma: array<vec4f>;       // (C0 + C1)
@group(0) @binding(4) var<storage, read> beta: array<vec4f>;        // (C0 + C1)
@group(0) @binding(5) var<storage, read> stats: array<vec2f>;       // (N, G): mean, rstd
@group(0) @binding(6) var<storage, read_write> part: array<vec4f>;  // (N, 2, C0 + C1)
@group(0) @binding(7) var<storage, read_write> means: array<vec4f>; // (N, G)
@group(0) @binding(8) var<uniform> dims: Dims;

var<workgroup> sums: array<mat2x4f, WG>;

fn load(row: u32, c: u32) -> vec4f {
  let C0 = dims.C0 / 4u;
  if (!TWO || c < C0) { return x[row * C0 + c]; }
  return x2[row * (dims.C1 / 4u) + c - C0];
}

// The gradient by h = gamma xhat + beta, given the one by y = h or y = silu(h).
fn through_silu(d: vec4f, h: vec4f) -> vec4f {
  if (dims.silu == 0u) { return d; }
  let s = 1.0 / (1.0 + exp(-h));
  return d * s * (1.0 + h * (1.0 - s));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) li: u32) {
  let C = (dims.C0 + dims.C1) / 4u;
  let size = C / dims.G;
  let first = workgroup.x * size;
  let row = workgroup.y * dims.P;
  let stat = stats[workgroup.y * dims.G + workgroup.x];
  var total = vec2f(0.0);
  for (var c = first; c < first + size; c++) {
    let g = gamma[c];
    let b = beta[c];
    var dgamma = vec4f(0.0);
    var dbeta = vec4f(0.0);
    for (var p = li; p < dims.P; p += WG) {
      let xhat = (load(row + p, c) - stat.x) * stat.y;
      let dh = through_silu(dy[(row + p) * C + c], g * xhat + b);
      dgamma = fma(dh, xhat, dgamma);
      dbeta += dh;
    }
    sums[li] = mat2x4f(dgamma, dbeta);
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
      if (li < half) { sums[li] += sums[li + half]; }
      workgroupBarrier();
    }
    let sum = sums[0];
    workgroupBarrier();
    total += vec2f(dot(sum[1], g), dot(sum[0], g));
    if (li == 0u) {
      part[2u * workgroup.y * C + c] = sum[0];
      part[(2u * workgroup.y + 1u) * C + c] = sum[1];
    }
  }
  if (li == 0u) { means[workgroup.y * dims.G + workgroup.x] = vec4f(stat, total / f32(dims.P * (dims.C0 + dims.C1) / dims.G)); }
}
