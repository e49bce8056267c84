// Losses: of every image, (N), and their weighted mean. Where the prediction has more channels than the goal, the first ones count.
import { record, threads } from '../autograd.ts';
import { type Grid, grid } from '../gpu/kernel.ts';
import * as k from '../gpu/kernels.gen.ts';
import { requireShapes, sameShape, Tensor } from '../tensor.ts';
import { type Clip, clipped } from './clip.ts';

/** N images of P pixels; C channels of M. */
function dimsOf(op: string, pred: Tensor, goal: Tensor): { N: number; P: number; C: number; M: number } {
  requireShapes(sameShape(pred, goal, false) && pred.shape.at(-1)! >= goal.shape.at(-1)!, op, 'a prediction and a goal of one shape, or a prediction with more channels', { pred, goal });
  const N = pred.shape[0]!, whole = pred.size === goal.size;
  const C = whole ? 1 : goal.shape.at(-1)!, M = whole ? 1 : pred.shape.at(-1)!;
  return { N, P: goal.size / N / C, C, M };
}

/** Workgroups for the pixels of every image, and for every image; where there are more than a dimension of the grid holds, an invocation takes several. */
export const overPixels = ({ N, P }: { readonly N: number; readonly P: number }): Grid => [Math.min(Math.ceil(P / 64), 65535), Math.min(N, 65535)];

/** mean((pred - goal)^2) of every image, (N). No gradient flows to goal. */
export function squaredError(pred: Tensor, goal: Tensor): Tensor {
  const { engine } = pred, dims = dimsOf('squaredError', pred, goal);
  const each = Tensor.empty(engine, [dims.N]);
  engine.run(k.mse_forward, grid(dims.N), { pred: pred.slice, goal: goal.slice, each: each.slice, ...dims });
  return record(each, [pred], (deach, [dpred]) => {
    if (dpred) engine.run(k.mse_backward, overPixels(dims), { pred: pred.slice, goal: goal.slice, deach, dpred: dpred.slice, ...dims, accumulate: dpred.accumulate });
  });
}

/** PyTorch's smooth_l1 with beta = delta, of every image, (N); the absolute error where delta is 0. No gradient flows to goal. */
export function smoothL1(pred: Tensor, goal: Tensor, delta: number): Tensor {
  const { engine } = pred, dims = { ...dimsOf('smoothL1', pred, goal), delta };
  const each = Tensor.empty(engine, [dims.N]);
  engine.run(k.smooth_l1_forward, grid(dims.N), { pred: pred.slice, goal: goal.slice, each: each.slice, ...dims });
  return record(each, [pred], (deach, [dpred]) => {
    if (dpred) engine.run(k.smooth_l1_backward, overPixels(dims), { pred: pred.slice, goal: goal.slice, deach, dpred: dpred.slice, ...dims, accumulate: dpred.accumulate });
  });
}

/** What the term of the variational bound is computed from. */
export interface BoundInputs {
  /** (N) uint32 */
  readonly t: Tensor;
  /** (N, K), the seven columns of boundTable (src/diffusion/losses.ts) first */
  readonly coef: Tensor;
  /** the network's, (N, H, W, C) or (N, H, W, 2 C) */
  readonly output: Tensor;
  /** (N, H, W, C) */
  readonly x0: Tensor;
  /** (N, H, W, C) */
  readonly xt: Tensor;
}

/**
 * The term of the variational bound at each image's t, (N), in bits a dimension: KL(q(x_{t-1} | x_t, x_0), p(x_{t-1} | x_t)), or -log p(x_0 | x_1) at t = 0.
 * With `clip` the predicted x_0 is clipped, as for an evaluation; such a bound has no gradient. `fixedMean` lets the gradient through to v alone.
 */
export function variationalBound({ t, coef, output, x0, xt }: BoundInputs, { clip = false, fixedMean = false }: { readonly clip?: Clip; readonly fixedMean?: boolean } = {}): Tensor {
  const { engine } = x0, N = t.size, size = x0.size / N, C = x0.shape.at(-1)!;
  requireShapes(
    x0.shape[0] === N && sameShape(x0, xt) && sameShape(x0, output, false) && [C, 2 * C].includes(output.shape.at(-1)!) && coef.shape.length === 2 && coef.shape[0] === N && coef.shape[1]! >= 7,
    'variationalBound', 't (N), coef (N, 7 or more), x0 and xt (N, ..., C), and an output (N, ..., C) or (N, ..., 2 C)', { t, coef, x0, xt, output },
  );
  const inputs = { t: t.slice, coef: coef.slice, output: output.slice, x0: x0.slice, xt: xt.slice };
  const dims = { size, K: coef.shape[1]!, C, M: (C * output.size) / x0.size };
  const vlb = Tensor.empty(engine, [N]);
  clipped(clip, { coef, x: xt, output }, (seen, range) => engine.run(k.vlb_forward, [N], { ...inputs, output: seen.slice, vlb: vlb.slice, ...dims, clip: range }));
  return clip ? vlb : record(vlb, [output], (dvlb, [doutput]) => {
    if (doutput) engine.run(k.vlb_backward, threads(x0.size), { ...inputs, dvlb, doutput: doutput.slice, N, ...dims, fixed: Number(fixedMean), accumulate: doutput.accumulate });
  });
}

/** How two losses of every image become one number. */
export interface ObjectiveOptions {
  /** A second term, (N). */
  readonly vlb?: Tensor | null;
  /** Factors of both terms: columns `a` and `b` of rows (N, K). Needed for two terms; one has the factor 1 without. */
  readonly factors?: { readonly rows: Tensor; readonly a: number; readonly b: number } | null;
  /** What each image counts, (N); 1 without. */
  readonly weight?: Tensor | null;
}

/** each[n] = a[n] simple[n] + b[n] vlb[n], (N), and loss = mean_n weight[n] each[n], (1). The gradient flows through the loss alone. */
export function objective(simple: Tensor, { vlb = null, factors = null, weight = null }: ObjectiveOptions = {}): { loss: Tensor; each: Tensor } {
  const { engine } = simple, N = simple.size;
  const { rows, a: ca = 0, b: cb = 0 } = factors ?? {};
  requireShapes(
    (vlb ?? simple).size === N && (weight ?? simple).size === N && (!rows || (rows.shape.length === 2 && rows.shape[0] === N && rows.shape[1]! > Math.max(ca, cb))),
    'objective', `terms and weights (N)${rows ? `, and factors (N, K) with the columns ${ca} and ${cb}` : ''}`, { simple, ...(vlb && { vlb }), ...(weight && { weight }), ...(rows && { factors: rows }) },
  );
  const each = Tensor.empty(engine, [N]), loss = Tensor.empty(engine, [1]);
  const coef = factors?.rows ?? simple, share = weight ?? simple;
  const dims = { N, K: factors?.rows.shape[1] ?? 0, scaled: Number(!!factors), weighted: Number(!!weight) };
  const inputs = { simple: simple.slice, vlb: (vlb ?? simple).slice, coef: coef.slice, weight: share.slice };
  engine.run(k.objective_forward, [1], { ...inputs, each: each.slice, loss: loss.slice, ...dims, a: factors?.a ?? 0, b: factors?.b ?? 0, two: Number(!!vlb) });
  const columns = [factors?.a ?? 0, factors?.b ?? 0];
  record(loss, vlb ? [simple, vlb] : [simple], (dloss, gradients) =>
    gradients.forEach((d, i) => {
      if (d) engine.run(k.objective_backward, threads(N), { dloss, coef: coef.slice, weight: share.slice, dx: d.slice, ...dims, column: columns[i]!, accumulate: d.accumulate });
    }),
  );
  return { loss, each };
}

/** mean((pred - goal)^2) over everything, (1), of two tensors of one shape (E-SHAPE otherwise). No gradient flows to goal. */
export function mse(pred: Tensor, goal: Tensor): Tensor {
  return pred.engine.scope(() => objective(squaredError(pred, goal)).loss);
}
