// The gradient of mean_error, at pixels first, first + stride, ... of image n. The kernel defines slope_of, the derivative of error_of. Channels C to M get 0.
fn error_gradient(n: u32, first: u32, stride: u32) {
  let scale = deach[n] / f32(dims.P * dims.C);
  for (var i = first; i < dims.P; i += stride) {
    let p = n * dims.P + i;
    for (var c = 0u; c < dims.M; c++) {
      var d = 0.0;
      if (c < dims.C) { d = slope_of(pred[p * dims.M + c] - goal[p * dims.C + c]) * scale; }
      if (dims.accumulate != 0u) { d += dpred[p * dims.M + c]; }
      dpred[p * dims.M + c] = d;
    }
  }
}
