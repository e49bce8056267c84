// dx = rstd (dh gamma - mean(dh gamma) - xhat mean(dh gamma xhat)), means over the group; dh is dy with dropout and SiLU undone where set
// One workgroup does one group of one image, whose means group_norm_backward left: dx and dx2 are the gradients of two inputs. That kernel has no binding left for the second.
// Four channels at a time (_vec4) where C0, C1 and the channels of a group are multiples of 4.
#import values
#import stored
#import group_norm
override WG: u32 = 64u;
override TWO: bool = true;
override DROP: bool = false;
@group(0) @binding(0) var<storage, read> x: array<StoredValues>;         // (N, P, C0)
@group(0) @binding(1) var<storage, read> x2: array<StoredValues>;        // (N, P, C1)
@group(0) @binding(2) var<storage, read> dy: array<StoredValues>;        // (N, P, C0 + C1)
@group(0) @binding(3) var<storage, read> gamma: array<Values>;           // (C0 + C1), or with beta (N, 2, C0 + C1)
@group(0) @binding(4) var<storage, read> beta: array<Values>;            // (C0 + C1)
@group(0) @binding(5) var<storage, read> stats: array<vec4u>;            // (N, G): bits of mean, rstd, mean of dh gamma, mean of dh gamma xhat; behind them with DROP the clock's numbers
@group(0) @binding(6) var<storage, read_write> dx: array<StoredValues>;  // (N, P, C0)
@group(0) @binding(7) var<storage, read_write> dx2: array<StoredValues>; // (N, P, C1)
@group(0) @binding(8) var<uniform> dims: Dims;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) li: u32) {
  let C0 = dims.C0 / WIDTH;
  let C1 = dims.C1 / WIDTH;
  let size = (C0 + C1) / dims.G;
  let first = workgroup.x * size;
  let row = workgroup.y * dims.P;
  let m = bitcast<vec4f>(stats[workgroup.y * dims.G + workgroup.x]);
  var key = vec3u();
  if (DROP) { key = stats[dims.N * dims.G].xyz; }
  for (var c = first; c < first + size; c++) {
    let g = scale_of(workgroup.y, c);
    let b = offset_of(workgroup.y, c);
    for (var p = li; p < dims.P; p += WG) {
      var e = Values(dy[(row + p) * (C0 + C1) + c]);
      if (DROP) { e = dropped(e, workgroup.y, p, c, key); }
      var d = gradient(e, load(row + p, c), g, b, m);
      if (c < C0) {
        let i = (row + p) * C0 + c;
        if (dims.accumulate != 0u) { d += Values(dx[i]); }
        dx[i] = StoredValues(d);
      } else {
        let i = (row + p) * C1 + c - C0;
        if (dims.accumulate2 != 0u) { d += Values(dx2[i]); }
        dx2[i] = StoredValues(d);
      }
    }
  }
}
