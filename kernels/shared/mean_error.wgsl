// The mean of error_of(pred - goal) over one image, by one workgroup of 64. The kernel defines error_of. Of pred (N, P, M) the first C channels count; goal is (N, P, C).
var<workgroup> sums: array<f32, 64>;

fn mean_error(n: u32, li: u32) -> f32 {
  var sum = 0.0;
  for (var p = n * dims.P + li; p < (n + 1u) * dims.P; p += 64u) {
    for (var c = 0u; c < dims.C; c++) { sum += error_of(pred[p * dims.M + c] - goal[p * dims.C + c]); }
  }
  sums[li] = sum;
  workgroupBarrier();
  for (var half = 32u; half > 0u; half /= 2u) {
    if (li < half) { sums[li] += sums[li + half]; }
    workgroupBarrier();
  }
  return sums[0] / f32(dims.P * dims.C);
}
