// The pixels of a tile of the GEMM, and the taps that they meet. STRIDED, which is TRANSPOSED with a stride of 2, only pixels of one parity in both directions meet the same: a tile has those of one
// kind and goes through no other taps, a quarter of them on average. Rows of the GEMM are the kind's pixels, height x width an image, (down, right) the first; of its taps (kh, kw) is the first, and
// there are `taps`. Without, all of that is known to the compiler. For kernels with conv2d_gemm and the override STRIDED.
struct Kind { down: u32, right: u32, height: u32, width: u32, kh: u32, kw: u32, taps: u32, row: u32 }
// Of a tile of `rows` rows, of which the first is `row`; beyond the last tile there are no pixels.
fn gemm_kind(tile: u32, rows: u32) -> Kind {
  let s = select(1u, 2u, STRIDED);
  let size = (select(vec2u(dims.OH, dims.OW), vec2u(dims.H, dims.W), TRANSPOSED) + vec2u(s - 1u)) / s;
  let tiles = (dims.N * size.x * size.y + rows - 1u) / rows;
  let kind = min(tile / tiles, s * s - 1u);
  let down = kind / s;
  let right = kind % s;
  let kh = (down + dims.pad_top) % s;
  let kw = (right + dims.pad_left) % s;
  return Kind(down, right, size.x, size.y, kh, kw, (dims.KH + s - 1u - kh) / s * ((dims.KW + s - 1u - kw) / s), (tile - kind * tiles) * rows);
}
fn gemm_tap(k: Kind) -> u32 { return k.kh * dims.KW + k.kw; }
// After the last tap none that there is.
fn gemm_next(tap: u32, k: Kind) -> u32 {
  let s = select(1u, 2u, STRIDED);
  if (!STRIDED || tap % dims.KW + s < dims.KW) { return tap + s; }
  return (tap / dims.KW + s) * dims.KW + k.kw;
}

// A row's pixel of y, in image N where there is none.
fn gemm_row(p: u32, k: Kind) -> Pixel {
  let s = select(1u, 2u, STRIDED);
  let q = pixel(p, k.height, k.width);
  let y = q.y * s + k.down;
  let x = q.x * s + k.right;
  return Pixel(select(dims.N, q.n, !STRIDED || (y < dims.H && x < dims.W)), y, x);
}
// Where it lies; beyond all pixels where there is none.
fn gemm_place(p: u32, k: Kind) -> u32 {
  if (!STRIDED) { return p; }
  let q = gemm_row(p, k);
  return select(dims.N * dims.H * dims.W, (q.n * dims.H + q.y) * dims.W + q.x, q.n < dims.N);
}
