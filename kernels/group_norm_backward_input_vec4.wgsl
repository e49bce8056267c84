// dx = rstd (dh gamma - mean(dh gamma) - xhat mean(dh gamma xhat)), means over the group; dh is dy with SiLU undone where set
// One workgroup does one group of one image, from the means of group_norm_backward_sums; dx and dx2 are the two inputs' gradients.
// Four channels at a time: C0, C1 and the channels of a group are multiples of 4.
override WG: u32 = 64u;
override TWO: bool = true;
struct Dims { N: u32, P: u32, C0: u32, C1: u32, G: u32, silu: u32, eps: f32, accumulate: u32, accumulate2: u32 }
@group(0) @binding(0) var<storage, read> x: array<vec4f>;         // (N, P, C0)
@group(0) @binding(1) var<storage, read> x2: array<vec4f>;        // (N, P, C1)
@group(0) @binding(2) var<storage, read> dy: array<vec4f>;        // (N, P, C0 + C1)
@group(0) @binding(3) var<storage, read> gamma: array<vec4f>;     // (C0 + C1)
@group(0) @binding(4) var<storage, read> beta: array<vec4f>;      // (C0 + C1)
@group(0) @binding(5) var<storage, read> means: array<vec4f>;     // (N, G)
@group(0) @binding(6) var<storage, read_write> dx: array<vec4f>;  // (N, P, C0)
@group(0) @binding(7) var<storage, read_write> dx2: array<vec4f>; // (N, P, C1); anything where C1 = 0
@group(0) @binding(8) var<uniform> dims: Dims;

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
  let C0 = dims.C0 / 4u;
  let C1 = dims.C1 / 4u;
  let size = (C0 + C1) / dims.G;
  let first = workgroup.x * size;
  let row = workgroup.y * dims.P;
  let m = means[workgroup.y * dims.G + workgroup.x];
  for (var c = first; c < first + size; c++) {
    let g = gamma[c];
    let b = beta[c];
    for (var p = li; p < dims.P; p += WG) {
      let xhat = (load(row + p, c) - m.x) * m.y;
      let dh = through_silu(dy[(row + p) * (C0 + C1) + c], g * xhat + b);
      var d = m.y * (dh * g - m.z - xhat * m.w);
      if (!TWO || c < C0) {
        let i = (row + p) * C0 + c;
        if (dims.accumulate != 0u) { d += dx[i]; }
        dx[i] = d;
      } else {
        let i = (row + p) * C1 + c - C0;
        if (dims.accumulate2 != 0u) { d += dx2[i]; }
        dx2[i] = d;
      }
    }
  }
}
