// dx = rstd (dh gamma - mean(dh gamma) - xhat mean(dh gamma xhat)), means over the group
// dh is dy taken back through dropout and SiLU, if set. One workgroup takes GROUPS neighbouring groups of one image and writes dx and dx2, for two inputs, from the means
// that group_norm_backward left: that kernel has no binding left for dx2.
// Four channels at a time (_vec4) if C0, C1 and the channels of a group are multiples of 4. COLS as in group_norm_forward.
#import values
#import stored
#import group_norm_backward
override WG: u32 = 64u;
override GROUPS: u32 = 1u;
override COLS: u32 = 1u;
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
  let n = workgroup.y;
  let row = n * dims.P;
  // The lanes take turns at the pixels; left-over invocations get none.
  let lanes = WG / COLS;
  let column = li % COLS;
  let start = select(li / COLS, dims.P, WG % COLS != 0u && li >= lanes * COLS);
  let of_group = COLS / GROUPS;
  let group = workgroup.x * GROUPS + column / of_group;
  let m = bitcast<vec4f>(stats[n * dims.G + group]);
  var key = vec3u();
  if (DROP) { key = stats[dims.N * dims.G].xyz; }
  for (var c = group * size + column % of_group; c < (group + 1u) * size; c += of_group) {
    let g = scale_of(n, c);
    let b = offset_of(n, c);
    var p = start;
    for (; COLS > 2u && p + 3u * lanes < dims.P; p += 4u * lanes) {
      let four = load_four(row + p, lanes, c);
      let e = gradients_four(row + p, lanes, c);
      var d0 = gradient(e[0], four[0], g, b, m, n, p, c, key);
      var d1 = gradient(e[1], four[1], g, b, m, n, p + lanes, c, key);
      var d2 = gradient(e[2], four[2], g, b, m, n, p + 2u * lanes, c, key);
      var d3 = gradient(e[3], four[3], g, b, m, n, p + 3u * lanes, c, key);
      if (c < C0) {
        let i = (row + p) * C0 + c;
        let s = lanes * C0;
        if (dims.accumulate != 0u) {
          d0 += Values(dx[i]);
          d1 += Values(dx[i + s]);
          d2 += Values(dx[i + 2u * s]);
          d3 += Values(dx[i + 3u * s]);
        }
        dx[i] = StoredValues(d0);
        dx[i + s] = StoredValues(d1);
        dx[i + 2u * s] = StoredValues(d2);
        dx[i + 3u * s] = StoredValues(d3);
      } else {
        let i = (row + p) * C1 + c - C0;
        let s = lanes * C1;
        if (dims.accumulate2 != 0u) {
          d0 += Values(dx2[i]);
          d1 += Values(dx2[i + s]);
          d2 += Values(dx2[i + 2u * s]);
          d3 += Values(dx2[i + 3u * s]);
        }
        dx2[i] = StoredValues(d0);
        dx2[i + s] = StoredValues(d1);
        dx2[i + 2u * s] = StoredValues(d2);
        dx2[i + 3u * s] = StoredValues(d3);
      }
    }
    for (; p < dims.P; p += lanes) {
      var d = gradient(Values(dy[(row + p) * (C0 + C1) + c]), load(row + p, c), g, b, m, n, p, c, key);
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
