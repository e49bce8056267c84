// Shared by both backward passes of group norm.
#import group_norm

// dh from dy, for y = h or y = silu(h), h = gamma xhat + beta.
fn through_silu(d: Values, h: Values) -> Values {
  if (dims.silu == 0u) { return d; }
  let s = 1.0 / (1.0 + exp(-h));
  return d * s * (1.0 + h * (1.0 - s));
}

// dy at the rows of load_four.
fn gradients_four(row: u32, step: u32, c: u32) -> array<Values, 4> {
  let C = (dims.C0 + dims.C1) / WIDTH;
  let i = row * C + c;
  let s = step * C;
  return array<Values, 4>(Values(dy[i]), Values(dy[i + s]), Values(dy[i + 2u * s]), Values(dy[i + 3u * s]));
}

// dx of one element from dy. g and b are its channel's scale and offset, m its group's (mean, rstd, mean of dh gamma, mean of dh gamma xhat).
fn gradient(by_y: Values, v: Values, g: Values, b: Values, m: vec4f, n: u32, p: u32, c: u32, key: vec3u) -> Values {
  var d = by_y;
  if (DROP) { d = dropped(d, n, p, c, key); }
  let xhat = (v - m.x) * m.y;
  return m.y * (through_silu(d, g * xhat + b) * g - m.z - xhat * m.w);
}
