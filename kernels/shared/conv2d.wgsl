// What all conv2d kernels share. x is (N, H, W, C), w is (KH, KW, WC, O), y is (N, OH, OW, O); x holds the weight's input channels C0 .. C0 + C - 1,
// so that nothing is concatenated for a convolution over a skip connection: it is two dispatches, the second with accumulate, or one of a kernel with an override TWO.
// has_bias, has_per_image, has_residual and accumulate say what is added to the sums, 0 or 1; `splits` is how many parts a sum is left in.
struct Dims {
  N: u32, H: u32, W: u32, C: u32, OH: u32, OW: u32, O: u32, KH: u32, KW: u32, stride: u32, pad_top: u32, pad_left: u32, WC: u32, C0: u32,
  has_bias: u32, has_per_image: u32, has_residual: u32, accumulate: u32, splits: u32,
}

struct Pixel { n: u32, y: u32, x: u32 }

fn pixel(p: u32, height: u32, width: u32) -> Pixel {
  let rows = p / width;
  return Pixel(rows / height, rows % height, p % width);
}

// The pixel `step` further on, by carries instead of divisions.
fn advance(q: Pixel, step: Pixel, height: u32, width: u32) -> Pixel {
  var r = Pixel(q.n + step.n, q.y + step.y, q.x + step.x);
  if (r.x >= width) { r = Pixel(r.n, r.y + 1u, r.x - width); }
  if (r.y >= height) { r = Pixel(r.n + 1u, r.y - height, r.x); }
  return r;
}

// The input pixel that output pixel q meets at tap (kh, kw), as an index into (N, H, W), or -1 in the padding.
fn input_pixel(q: Pixel, kh: u32, kw: u32) -> i32 {
  let y = i32(q.y * dims.stride + kh) - i32(dims.pad_top);
  let x = i32(q.x * dims.stride + kw) - i32(dims.pad_left);
  let inside = q.n < dims.N && y >= 0 && y < i32(dims.H) && x >= 0 && x < i32(dims.W);
  return select(-1, (i32(q.n * dims.H) + y) * i32(dims.W) + x, inside);
}

// The output pixel that input pixel q reached through tap (kh, kw), as an index into (N, OH, OW), or -1 where there is none.
// The stride is 1 or 2, so that it divides by a shift: a division costs a CPU as much as thirty FMAs.
fn output_pixel(q: Pixel, kh: u32, kw: u32) -> i32 {
  let y = i32(q.y + dims.pad_top) - i32(kh);
  let x = i32(q.x + dims.pad_left) - i32(kw);
  let shift = dims.stride - 1u;
  let whole = ((y | x) & i32(shift)) == 0;
  let inside = whole && q.n < dims.N && y >= 0 && x >= 0 && (y >> shift) < i32(dims.OH) && (x >> shift) < i32(dims.OW);
  return select(-1, (i32(q.n * dims.OH) + (y >> shift)) * i32(dims.OW) + (x >> shift), inside);
}
