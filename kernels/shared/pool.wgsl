// Shared by the pooling kernels: windows of K x K pixels, cut off at the image's edges.
struct Dims { N: u32, H: u32, W: u32, C: u32, OH: u32, OW: u32, K: u32, stride: u32, pad: u32 }

// The window of output pixel p: where it begins, as an index into (N, H, W), and its size inside the image.
struct Window { row: u32, height: u32, width: u32 }

fn window(p: u32) -> Window {
  let y = p / dims.OW % dims.OH * dims.stride;
  let x = p % dims.OW * dims.stride;
  let top = max(y, dims.pad) - dims.pad;
  let left = max(x, dims.pad) - dims.pad;
  let bottom = min(y + dims.K - dims.pad, dims.H);
  let right = min(x + dims.K - dims.pad, dims.W);
  return Window((p / (dims.OH * dims.OW) * dims.H + top) * dims.W + left, bottom - top, right - left);
}
