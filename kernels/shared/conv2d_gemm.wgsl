// A convolution and its gradient by the input as one GEMM over k = (kh, kw, channel): where its pixels lie. For kernels with the bindings x and x2 and the overrides
// TRANSPOSED and TWO. Channels and k are counted in vec4s; a tap is kh * KW + kw.
fn gemm_cin4() -> u32 { return select(select(dims.C, dims.WC, TWO), dims.O, TRANSPOSED) / 4u; }
fn gemm_cout4() -> u32 { return select(dims.O, dims.C, TRANSPOSED) / 4u; }

// The pixels of a tile, and the taps that they meet. TRANSPOSED with a stride of 2 only pixels of one parity in both directions meet the same: a tile has those of one kind and goes through no other
// taps, a quarter of them on average. Rows of the GEMM are the kind's pixels, height x width an image, (down, right) the first; of its taps (kh, kw) is the first, and there are `taps`.
struct Kind { down: u32, right: u32, height: u32, width: u32, kh: u32, kw: u32, taps: u32, row: u32 }
fn gemm_stride() -> u32 { return select(1u, dims.stride, TRANSPOSED); }

// Of a tile of `rows` rows, of which the first is `row`; beyond the last tile there are no pixels.
fn gemm_kind(tile: u32, rows: u32) -> Kind {
  let s = gemm_stride();
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
  let s = gemm_stride();
  if (s == 1u || tap % dims.KW + s < dims.KW) { return tap + s; }
  return (tap / dims.KW + s) * dims.KW + k.kw;
}

// A row's pixel of y, in image N where there is none.
fn gemm_row(p: u32, k: Kind) -> Pixel {
  let s = gemm_stride();
  let q = pixel(p, k.height, k.width);
  let y = q.y * s + k.down;
  let x = q.x * s + k.right;
  return Pixel(select(dims.N, q.n, s == 1u || (y < dims.H && x < dims.W)), y, x);
}
// Where it lies; beyond all pixels where there is none.
fn gemm_place(p: u32, k: Kind) -> u32 {
  if (gemm_stride() == 1u) { return p; }
  let q = gemm_row(p, k);
  return select(dims.N * dims.H * dims.W, (q.n * dims.H + q.y) * dims.W + q.x, q.n < dims.N);
}

// The pixel of x that pixel q of y meets at a tap, or -1; so too beyond the last tap.
fn gemm_pixel(q: Pixel, tap: u32) -> i32 {
  if (tap >= dims.KH * dims.KW) { return -1; }
  return gemm_met(q, tap);
}
// As gemm_pixel, of a tap that there is.
fn gemm_met(q: Pixel, tap: u32) -> i32 {
  if (TRANSPOSED) { return output_pixel(q, tap / dims.KW, tap % dims.KW); }
  return input_pixel(q, tap / dims.KW, tap % dims.KW);
}

// Four channels of x, zero in the padding.
fn gemm_x(p: i32, c: u32, cin4: u32) -> vec4f {
  if (p < 0) { return vec4f(0.0); }
  let C4 = dims.C / 4u;
  if (!TWO) { return vec4f(x[u32(p) * cin4 + c]); }
  if (c < C4) { return vec4f(x[u32(p) * C4 + c]); }
  return vec4f(x2[u32(p) * (cin4 - C4) + c - C4]);
}

// A sum with the products of four k: a is their values at a pixel, m's columns their weights.
fn meet(a: vec4f, m: mat4x4f, sum: vec4f) -> vec4f { return fma(vec4f(a.x), m[0], fma(vec4f(a.y), m[1], fma(vec4f(a.z), m[2], fma(vec4f(a.w), m[3], sum)))); }
