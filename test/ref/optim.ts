// Float64 twins of the optimizer kernels: the global gradient norm, and clip + AdamW + EMA in one pass.

type Floats = ArrayLike<number>;

export function sumSquares(x: Floats): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i] ** 2;
  return sum;
}

/** The L2 norm over several buffers as if they were one. */
export const globalNorm = (...buffers: Floats[]): number => Math.sqrt(buffers.reduce((sum, x) => sum + sumSquares(x), 0));

/** What clip_grad_norm_ multiplies every gradient by. */
export const clipScale = (norm: number, maxNorm: number): number => Math.min(1, maxNorm / (norm + 1e-6));

/** What backward starts from: the loss counts `a` and is scaled. */
export const lossGradient = (a: number, scale: number): number => a * scale;

/** The loss scale and the good steps since it changed, after one step more: PyTorch's GradScaler (growth factor 2, backoff 0.5), here between 1 and 2^100. */
export function gradScaler({ scale, steps }: { scale: number; steps: number }, good: boolean, growth: number): { scale: number; steps: number } {
  if (!good) return { scale: Math.max(scale / 2, 1), steps: 0 };
  return steps + 1 === growth ? { scale: Math.min(2 * scale, 2 ** 100), steps: 0 } : { scale, steps: steps + 1 };
}

/** What a moment after n steps is divided by: 1 - beta^n, the sum of its weights. */
export const correction = (beta: number, n: number): number => -Math.expm1(n * Math.log(beta));

/** EMA decay with diffusers' warm-up: the first updates (n = 0, 1, …) forget the initial weights. */
export const emaDecay = (n: number, maxDecay: number): number => Math.min(maxDecay, (1 + n) / (10 + n));

export interface AdamW {
  param: Floats;
  grad: Floats;
  m: Floats;
  v: Floats;
  ema: Floats;
  /** 1 at the first step; steps that were skipped do not count */
  step: number;
  lr: number;
  beta1: number;
  beta2: number;
  eps: number;
  weightDecay: number;
  emaDecay: number;
  /** Gradients are clipped to this norm; leave out for no clipping. */
  maxNorm?: number;
  /** The norm over all parameters, if grad is only a part of them. */
  norm?: number;
}

/** The buffers after one step, or unchanged copies of them where the gradient norm is not finite. */
export function adamw(a: AdamW): { param: Float64Array; m: Float64Array; v: Float64Array; ema: Float64Array; norm: number; skipped: boolean } {
  const { grad, step, lr, beta1, beta2, eps, weightDecay, maxNorm, norm = globalNorm(grad) } = a;
  const param = Float64Array.from(a.param), m = Float64Array.from(a.m), v = Float64Array.from(a.v), ema = Float64Array.from(a.ema);
  if (!Number.isFinite(norm)) return { param, m, v, ema, norm, skipped: true };
  const scale = maxNorm === undefined ? 1 : clipScale(norm, maxNorm);
  for (let i = 0; i < param.length; i++) {
    const g = scale * grad[i];
    m[i] = beta1 * m[i] + (1 - beta1) * g;
    v[i] = beta2 * v[i] + (1 - beta2) * g * g;
    const mHat = m[i] / correction(beta1, step), vHat = v[i] / correction(beta2, step);
    param[i] -= lr * weightDecay * param[i]; // decoupled: before the step, and not through the moments
    param[i] -= (lr * mHat) / (Math.sqrt(vHat) + eps);
    ema[i] = a.emaDecay * ema[i] + (1 - a.emaDecay) * param[i];
  }
  return { param, m, v, ema, norm, skipped: false };
}

/** Sums of the squares of `share` values each. */
export const partialSquares = (x: Float32Array, share: number): Float64Array =>
  Float64Array.from({ length: Math.ceil(x.length / share) }, (_, i) => sumSquares(x.subarray(i * share, (i + 1) * share)));
