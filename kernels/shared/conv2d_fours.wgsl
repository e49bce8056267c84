// What the GEMM of conv2d_gemm reads and multiplies where it takes four channels at a time. For kernels with conv2d and conv2d_gemm whose x and x2 are arrays of vec4s.

// The pixel of x that pixel q of y meets at a tap, or -1; so too beyond the last tap.
fn gemm_pixel(q: Pixel, tap: u32) -> i32 {
  if (tap >= dims.KH * dims.KW) { return -1; }
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
