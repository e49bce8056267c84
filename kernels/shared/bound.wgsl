// The terms of the variational bound in nats, as in DDPM's code: the KL of two normals, and a decoder that gives each of 256 levels a probability.
// The normal CDF is approximated by sigmoid(PHI (x + CUBE x^3)), at most 1.8e-4 off: WGSL has no erf.
const PHI = 1.5957691216057308;
const CUBE = 0.044715;
const HALF_BIN = 1.0 / 255.0;
// Smallest argument of a log.
const LEAST = 1e-12;

// For small x these two would cancel; there they are summed as series.
// 1 - exp(-x)
fn one_minus_exp(x: f32) -> f32 {
  if (abs(x) < 0.1) { return x * (1.0 - x / 2.0 * (1.0 - x / 3.0 * (1.0 - x / 4.0 * (1.0 - x / 5.0)))); }
  return 1.0 - exp(-x);
}
// exp(-x) - 1 + x
fn exp_remainder(x: f32) -> f32 {
  if (abs(x) < 0.25) { return x * x / 2.0 * (1.0 - x / 3.0 * (1.0 - x / 4.0 * (1.0 - x / 5.0 * (1.0 - x / 6.0 * (1.0 - x / 7.0))))); }
  return exp(-x) - 1.0 + x;
}
fn logistic(x: f32) -> f32 { return 1.0 / (1.0 + exp(min(-x, 80.0))); }

// KL(q, p) for means `distance` apart: its value and its derivatives by the distance and by p's log variance.
fn normal_kl(distance: f32, log_q: f32, log_p: f32) -> vec3f {
  let inverse = exp(-log_p);
  let square = distance * distance * inverse;
  return vec3f(0.5 * (exp_remainder(log_p - log_q) + square), distance * inverse, 0.5 * (one_minus_exp(log_p - log_q) - square));
}

// -log P of level x, a bin of 1/255 to either side, open at the ends: its value and its derivatives by the mean and by the log variance.
fn decoder_nll(x: f32, mean: f32, log_variance: f32) -> vec3f {
  let rate = exp(-0.5 * log_variance);
  let upper = (x - mean + HALF_BIN) * rate;
  let lower = (x - mean - HALF_BIN) * rate;
  let width = 2.0 * HALF_BIN * rate;
  let squares = upper * upper + upper * lower + lower * lower;
  // With s the sigmoid, P = s(A) - s(B) = s(A) (1 - exp(B - A)) s(-B), which does not subtract two numbers near 1.
  let a = PHI * upper * (1.0 + CUBE * upper * upper);
  let b = PHI * lower * (1.0 + CUBE * lower * lower);
  let gap = one_minus_exp(PHI * width * (1.0 + CUBE * squares));
  let below = logistic(a);
  let above = logistic(-b);
  var p = 1.0;
  var d = vec2f(0.0); // of log p, by mean and by log variance
  if (x < 0.999) {
    p = below;
    let slope = PHI * (1.0 + 3.0 * CUBE * upper * upper) * logistic(-a);
    d -= slope * vec2f(rate, 0.5 * upper);
  }
  if (x > -0.999) {
    p *= above;
    let slope = PHI * (1.0 + 3.0 * CUBE * lower * lower) * logistic(b);
    d += slope * vec2f(rate, 0.5 * lower);
  }
  if (abs(x) < 0.999) {
    p *= gap;
    let slope = PHI * width * (1.0 - gap) / gap;
    d -= slope * vec2f(3.0 * CUBE * (upper + lower) * rate, 0.5 * (1.0 + 3.0 * CUBE * squares));
  }
  if (p < LEAST) { return vec3f(-log(LEAST), 0.0, 0.0); }
  return vec3f(-log(p), -d);
}
