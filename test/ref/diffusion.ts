// Float64 twins of the diffusion kernels: batch gather, schedule gather, q_sample, the reverse steps of DDPM and DDIM, and the loss.

type Floats = ArrayLike<number>;

const map = (n: number, f: (i: number) => number): Float64Array => Float64Array.from({ length: n }, (_, i) => f(i));
/** To [-1, 1] where clip is true, to [-clip, clip] where it is a number. */
export const clipped = (v: number, clip: boolean | number): number => (clip === false ? v : Math.min(Number(clip), Math.max(-clip, v)));

/** table (T,K), t (N) → (N,K): the coefficients of each image's own timestep. */
export const scheduleGather = (table: Floats, t: ArrayLike<number>, K: number): Float64Array =>
  map(t.length * K, (i) => table[t[Math.floor(i / K)] * K + (i % K)]);

/** Every step below has one row of coefficients an image: coef (N,K), and tensors (N,…) whose elements an image follow from N. */
function eachElement(x: Floats, coef: Floats, K: number, f: (i: number, row: (k: number) => number, n: number) => number): Float64Array {
  const size = x.length / (coef.length / K);
  return map(x.length, (i) => {
    const n = Math.floor(i / size);
    return f(i, (k) => coef[n * K + k], n);
  });
}

/** coef (N,2) = sqrt_alphas_cumprod, sqrt_one_minus_alphas_cumprod → x_t = coef₀ x₀ + coef₁ ε */
export const qSample = (x0: Floats, eps: Floats, coef: Floats): Float64Array =>
  eachElement(x0, coef, 2, (i, k) => k(0) * x0[i] + k(1) * eps[i]);

/** coef (N,2) = sqrt_recip_alphas_cumprod, sqrt_recipm1_alphas_cumprod → x̂₀ = coef₀ x_t - coef₁ ε, clipped to [-1, 1] on request */
export const predictStart = (xt: Floats, eps: Floats, coef: Floats, clip: boolean | number = false): Float64Array =>
  eachElement(xt, coef, 2, (i, k) => clipped(k(0) * xt[i] - k(1) * eps[i], clip));

/**
 * One step of the ancestral sampler. coef (N,6) = factors of x_t and of the network's output in x̂₀, posterior_mean_coef1, posterior_mean_coef2, and
 * log variance = coef₄ + coef₅ v. last[n] != 0 marks an image at t = 0, which gets no noise; without `last` all do.
 * With `channels` the output has twice as many, v in the second half.
 */
export function posteriorStep(a: { xt: Floats; output: Floats; z: Floats; coef: Floats; clip: boolean | number; last?: Floats; channels?: number }): {
  prev: Float64Array;
  x0: Float64Array;
} {
  const { xt, output, z, coef, clip, last, channels: C } = a;
  const mean = (i: number) => output[C ? 2 * C * Math.floor(i / C) + (i % C) : i], v = (i: number) => (C ? output[2 * C * Math.floor(i / C) + C + (i % C)] : 0);
  const x0 = eachElement(xt, coef, 6, (i, k) => clipped(k(0) * xt[i] + k(1) * mean(i), clip));
  const prev = eachElement(xt, coef, 6, (i, k, n) => k(2) * x0[i] + k(3) * xt[i] + (last?.[n] ? 0 : Math.exp((k(4) + k(5) * v(i)) / 2) * z[i]));
  return { prev, x0 };
}

export type Prediction = 'eps' | 'x0' | 'v' | 'mu';
export type Variance = 'fixed_small' | 'fixed_large' | 'learned_range' | 'learned';

/**
 * The (T,6) table of posteriorStep, from β alone. The variance is posterior_variance (fixed_small) or β (fixed_large), both with index 0 replaced
 * by posterior_variance[1], so that its logarithm is finite; or v goes from the former (v = -1) to log β (v = 1), or is the log variance itself.
 */
export function posteriorTable(betas: Floats, variance: Variance, prediction: Prediction = 'eps'): Float64Array {
  const T = betas.length, table = new Float64Array(T * 6);
  const acp = [1]; // acp[t + 1] is alphas_cumprod[t]
  for (let t = 0; t < T; t++) acp.push(acp[t] * (1 - betas[t]));
  const posteriorVariance = (t: number) => (betas[t] * (1 - acp[t])) / (1 - acp[t + 1]);
  for (let t = 0; t < T; t++) {
    const beta = betas[t], prev = acp[t], now = acp[t + 1];
    const small = Math.log(posteriorVariance(Math.max(t, 1))), large = Math.log(beta);
    const meanCoef1 = (beta * Math.sqrt(prev)) / (1 - now), meanCoef2 = ((1 - prev) * Math.sqrt(1 - beta)) / (1 - now);
    const start = { eps: [Math.sqrt(1 / now), -Math.sqrt(1 / now - 1)], x0: [0, 1], v: [Math.sqrt(now), -Math.sqrt(1 - now)], mu: [-meanCoef2 / meanCoef1, 1 / meanCoef1] }[prediction];
    const log = { fixed_small: [small, 0], fixed_large: [t === 0 ? small : large, 0], learned_range: [(small + large) / 2, (large - small) / 2], learned: [0, 1] }[variance];
    table.set([...start, meanCoef1, meanCoef2, ...log], t * 6);
  }
  return table;
}

/** alphas_cumprod at t and at the step after it (1 at the end) → coef (1,5) of ddimStep. */
export function ddimCoef(acp: number, acpPrev: number, eta: number): Float64Array {
  const sigma = eta * Math.sqrt(((1 - acpPrev) / (1 - acp)) * (1 - acp / acpPrev));
  return Float64Array.of(Math.sqrt(1 / acp), Math.sqrt(1 / acp - 1), Math.sqrt(acpPrev), Math.sqrt(Math.max(0, 1 - acpPrev - sigma ** 2)), sigma);
}

/**
 * One DDIM step. coef (N,5) = sqrt_recip_alphas_cumprod, sqrt_recipm1_alphas_cumprod, sqrt(acp_prev), sqrt(1 - acp_prev - σ²), σ.
 * With useClippedModelOutput (diffusers' name) ε is derived again from the clipped x̂₀: without that DDIM at η = 1 is not DDPM. It is diffusers'
 * default not to.
 */
export function ddimStep(a: { xt: Floats; eps: Floats; z: Floats; coef: Floats; clip: boolean | number; useClippedModelOutput?: boolean }): {
  prev: Float64Array;
  x0: Float64Array;
} {
  const { xt, eps, z, coef, clip, useClippedModelOutput = true } = a;
  const x0 = eachElement(xt, coef, 5, (i, k) => {
    const v = k(0) * xt[i] - k(1) * eps[i];
    return clipped(v, clip);
  });
  const prev = eachElement(xt, coef, 5, (i, k) => {
    const direction = useClippedModelOutput ? (k(0) * xt[i] - x0[i]) / k(1) : eps[i];
    return k(2) * x0[i] + k(3) * direction + k(4) * z[i];
  });
  return { prev, x0 };
}

/** data uint8 (images,H,W,C), indices (N), flips (N; not 0 mirrors left to right) → x (N,H,W,C) = u / 127.5 - 1 */
export function batchGather(data: Floats, indices: Floats, flips: Floats, H: number, W: number, C: number): Float64Array {
  const x = new Float64Array(indices.length * H * W * C);
  for (let n = 0; n < indices.length; n++)
    for (let h = 0; h < H; h++)
      for (let w = 0; w < W; w++)
        for (let c = 0; c < C; c++) {
          const from = flips[n] ? W - 1 - w : w;
          x[((n * H + h) * W + w) * C + c] = data[((indices[n] * H + h) * W + from) * C + c] / 127.5 - 1;
        }
  return x;
}

/** The mean over all elements of (pred - target)². */
export function mse(pred: Floats, target: Floats): number {
  let sum = 0;
  for (let i = 0; i < pred.length; i++) sum += (pred[i] - target[i]) ** 2;
  return sum / pred.length;
}

/** ∂(scale · mse) / ∂pred */
export const mseGrad = (pred: Floats, target: Floats, scale = 1): Float64Array =>
  map(pred.length, (i) => (scale * 2 * (pred[i] - target[i])) / pred.length);

/** coef (N,2), output (N,size/C,2C) → log variance = coef₀ + coef₁ v, v the second half of the channels. */
export function logVariance(output: Floats, coef: Floats, C: number): Float64Array {
  const N = coef.length / 2, size = output.length / 2 / N;
  return map(N * size, (i) => {
    const n = Math.floor(i / size);
    return coef[2 * n] + coef[2 * n + 1] * output[Math.floor(i / C) * 2 * C + C + (i % C)];
  });
}

/**
 * coef (N,2) = factors of x_t and of the output → the output whose x̂₀ is dynamically thresholded, (N,…,M), and that x̂₀. s is torch.quantile of |x̂₀| over
 * each image, by linear interpolation, kept in [1, max]; x̂₀ becomes clamp(x̂₀, -s, s) / s.
 */
export function dynamicThreshold(a: { x: Floats; output: Floats; coef: Floats; C: number; M: number; ratio: number; max: number }): { y: Float64Array; start: Float64Array; s: Float64Array } {
  const { x, output, coef, C, M, ratio, max } = a, size = x.length / (coef.length / 2), at = (i: number) => Math.floor(i / C) * M + (i % C);
  const start = eachElement(x, coef, 2, (i, k) => k(0) * x[i] + k(1) * output[at(i)]);
  const s = map(coef.length / 2, (n) => {
    const sorted = start.slice(n * size, (n + 1) * size).map(Math.abs).sort(), place = ratio * (size - 1), low = sorted[Math.floor(place)];
    return Math.min(max, Math.max(1, low + (place - Math.floor(place)) * (sorted[Math.ceil(place)] - low)));
  });
  const within = start.map((v, i) => clipped(v, s[Math.floor(i / size)]) / s[Math.floor(i / size)]), y = Float64Array.from(output as ArrayLike<number>);
  eachElement(x, coef, 2, (i, k) => (y[at(i)] = (within[i] - k(0) * x[i]) / k(1)));
  return { y, start: within, s };
}

/** How far a float32 of that y may be off: x̂₀ by two products, s by the most of those over its image, as sorting moves no value further than it was moved. */
export function dynamicThresholdErrors(a: Parameters<typeof dynamicThreshold>[0], { bound, ulp, divide }: { bound: (n: number, sizes: Floats) => Float64Array; ulp: number; divide: number }): Float64Array {
  const { x, output, coef, C, M } = a, { y, start, s } = dynamicThreshold(a), size = x.length / s.length, at = (i: number) => Math.floor(i / C) * M + (i % C), off = new Float64Array(y.length);
  const each = bound(2, eachElement(x, coef, 2, (i, k) => Math.abs(k(0) * x[i]) + Math.abs(k(1) * output[at(i)])));
  for (let n = 0; n < s.length; n++) {
    const most = each.subarray(n * size, (n + 1) * size).reduce((p, q) => Math.max(p, q), 0) + 3 * ulp * s[n];
    for (let i = n * size; i < (n + 1) * size; i++) {
      const said = (each[i] + most) / s[n] + divide * Math.abs(start[i]), whole = Math.abs(start[i]) + Math.abs(coef[2 * n] * x[i]);
      off[at(i)] = (said + bound(2, [whole])[0]) / Math.abs(coef[2 * n + 1]) + divide * Math.abs(y[at(i)]);
    }
  }
  return off;
}

/** coef (N,2) = factors of x_t and of the output → x̂₀, clipped to [-1, 1] where `clip`, or zero where the image's coin is 0 */
export const selfCondition = (xt: Floats, output: Floats, coef: Floats, coins: ArrayLike<number>, clip: boolean | number = true): Float64Array =>
  eachElement(xt, coef, 2, (i, k, n) => coins[n] * clipped(k(0) * xt[i] + k(1) * output[i], clip));
