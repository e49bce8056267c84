// For LANES neighbours in a workgroup of WG that share a row.
var<workgroup> shares: array<f32, WG>;

// Their sum, in a fixed tree; every one of them gets it.
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
