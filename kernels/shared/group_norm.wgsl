// Shared by the group norm kernels. x and x2 are read as one tensor of C0 + C1 channels, WIDTH of them (f32 or vec4f) at a time.
struct Dims { N: u32, P: u32, C0: u32, C1: u32, G: u32, silu: u32, eps: f32, accumulate: u32, accumulate2: u32, per_image: u32, stream: u32, p: f32 }
#import philox

fn load(row: u32, c: u32) -> Values {
  let C0 = dims.C0 / WIDTH;
  if (!TWO || c < C0) { return Values(x[row * C0 + c]); }
  return Values(x2[row * (dims.C1 / WIDTH) + c - C0]);
}

// Four rows, `step` apart: all are requested before one is used.
fn load_four(row: u32, step: u32, c: u32) -> array<Values, 4> {
  let C0 = dims.C0 / WIDTH;
  if (!TWO || c < C0) {
    let i = row * C0 + c;
    let s = step * C0;
    return array<Values, 4>(Values(x[i]), Values(x[i + s]), Values(x[i + 2u * s]), Values(x[i + 3u * s]));
  }
  let C1 = dims.C1 / WIDTH;
  let i = row * C1 + c - C0;
  let s = step * C1;
  return array<Values, 4>(Values(x2[i]), Values(x2[i + s]), Values(x2[i + 2u * s]), Values(x2[i + 3u * s]));
}

// A channel's scale and offset: gamma and beta (C), or, where per_image = 2 C, each image's own, both in one tensor (N, 2, C).
fn scale_of(n: u32, c: u32) -> Values { return gamma[n * (dims.per_image / WIDTH) + c]; }
fn offset_of(n: u32, c: u32) -> Values { return beta[n * (dims.per_image / WIDTH) + dims.per_image / (2u * WIDTH) + c]; }

// Dropout of v at pixel `row` of image n, channel c, as the kernel dropout does it; key is the clock's (seed, step, first). Backward draws the mask again,
// for at most 1.3 ms, 1 % of a step, of ddpm-cifar10 at batch 128 on an H100. Stored masks would take 0.6 ms and 0.5 GiB.
fn dropped(v: Values, n: u32, row: u32, c: u32, key: vec3u) -> Values {
  let element = row * (dims.C0 + dims.C1) + c * WIDTH;
  let u = unit(philox(vec4u(element / 4u, key.z + n, key.y, 0u), vec2u(key.x, dims.stream)));
  return select(Values(), v / (1.0 - dims.p), of_four(u, element) >= Values(dims.p));
}
