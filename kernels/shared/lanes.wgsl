// What the LANES neighbours of a workgroup of WG that do one row together share.
var<workgroup> shares: array<f32, WG>;

// The sum of what each of them has, in a fixed tree; all of them get it.
fn total(mine: f32, li: u32) -> f32 {
  if (LANES == 1u) { return mine; }
  shares[li] = mine;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if (li % LANES < half) { shares[li] += shares[li + half]; }
    workgroupBarrier();
  }
  let all = shares[li / LANES * LANES];
  workgroupBarrier();
  return all;
}
