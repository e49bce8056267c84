// Convolution on the tape, and linear layers as 1 x 1 convolutions.
import { type Destination, record } from '../autograd.ts';
import { sumPixels, sumRows } from './sum.ts';
import { DdpmError } from '../errors.ts';
import { ParameterTensor, Tensor } from '../tensor.ts';
import type { ConvDims } from './conv2d_choice.ts';
import { backwardInput, backwardWeight, choiceOfTwo, forward, forwardTwo } from './conv2d_kernels.ts';

/** What conv2d() does besides: stride, padding, and what is added to the result in the same pass. */
export interface Conv2dOptions {
  /** 1 (the default) or 2, both ways. */
  readonly stride?: number;
  /** [top, bottom, left, right]; default keeps the size for stride 1. DDPM's downsampling is [0, 1, 0, 1]. */
  readonly padding?: readonly [number, number, number, number];
  /** (N, O), added to every pixel of an image: the time embedding. */
  readonly perImage?: Tensor | null;
  /** (N, OH, OW, O), added to the result: the block's input. */
  readonly residual?: Tensor | null;
  /** The result is not computed, only its gradient: for what checkpoint() runs again, whose result nobody reads. */
  readonly unread?: boolean;
}

/**
 * x (N, H, W, C) * w (KH, KW, WC, O) + bias (O) -> (N, OH, OW, O). `x` may be two tensors, read as if their channels were concatenated: WC is the sum of theirs.
 * OH = floor((H + top + bottom - KH) / stride) + 1, and OW likewise. Throws E-SHAPE where x, w and what is added do not fit, or the stride is neither 1 nor 2.
 */
export function conv2d(x: Tensor | readonly [Tensor, Tensor], w: Tensor, bias: Tensor | null, options: Conv2dOptions = {}): Tensor {
  const xs: readonly Tensor[] = x instanceof Tensor ? [x] : x;
  const { engine } = w;
  const [N, H, W] = xs[0]!.shape as [number, number, number, number];
  const [KH, KW, WC, O] = w.shape as [number, number, number, number];
  const { stride = 1, perImage = null, residual = null, unread = false } = options;
  const [top, bottom, left, right] = options.padding ?? [(KH - 1) / 2, (KH - 1) / 2, (KW - 1) / 2, (KW - 1) / 2];
  const OH = Math.floor((H + top + bottom - KH) / stride) + 1, OW = Math.floor((W + left + right - KW) / stride) + 1;
  if (xs.reduce((c, t) => c + t.shape[3]!, 0) !== WC || w.shape.length !== 4 || OH < 1 || OW < 1 || xs.some((t) => t.shape.length !== 4 || t.shape[0] !== N || t.shape[1] !== H || t.shape[2] !== W))
    throw new DdpmError('E-SHAPE', `conv2d: inputs ${xs.map((t) => `(${t.shape.join(', ')})`).join(' and ')} do not fit the weight (${w.shape.join(', ')}).`);

  if (stride !== 1 && stride !== 2) throw new DdpmError('E-SHAPE', `conv2d: a stride of ${stride}; 1 and 2 are implemented.`);

  for (const [what, tensor, size] of [['bias', bias, O], ['perImage', perImage, N * O], ['residual', residual, N * OH * OW * O]] as const)
    if (tensor && tensor.size !== size) throw new DdpmError('E-SHAPE', `conv2d: ${what} (${tensor.shape.join(', ')}) does not fit the result (${N}, ${OH}, ${OW}, ${O}).`);

  const rounded = w instanceof ParameterTensor ? w.rounded : null;
  const y = Tensor.empty(engine, [N, OH, OW, O], xs[0]!.type);
  let C0 = 0;
  const parts = xs.map((t, i) => {
    const C = t.shape[3]!;
    // The first part brings bias, time embedding and residual; the second adds to it.
    const dims: ConvDims = {
      N, H, W, C, OH, OW, O, KH, KW, stride, pad_top: top, pad_left: left, WC, C0,
      has_bias: Number(i === 0 && !!bias), has_per_image: Number(i === 0 && !!perImage), has_residual: Number(i === 0 && !!residual), accumulate: Number(i > 0), splits: 1,
    };
    C0 += C;
    return { x: t, dims };
  });
  const args = ({ x: t, dims }: (typeof parts)[number]) => ({ ...dims, rounded, x: t.slice, w: w.slice, bias: (bias ?? w).slice, per_image: (perImage ?? w).slice, residual: (residual ?? t).slice, y: y.slice });
  const [first, second] = parts as [(typeof parts)[number], (typeof parts)[number]?];
  const both = second ? choiceOfTwo(engine, [first.dims, second.dims]) : null;
  // For what nobody reads there is memory, and no more.
  if (!unread && second && both) forwardTwo(engine, args(first), second.x.slice, both.variant, both.tile);
  else if (!unread) for (const part of parts) forward(engine, args(part));

  return record(
    y,
    [...xs, w, bias, perImage, residual],
    (dy, out) => {
      const [dw, db, dPerImage] = out.slice(xs.length) as (Destination | null)[];
      parts.forEach(({ x: t, dims }, i) => {
        const dx = out[i];
        if (dx) backwardInput(engine, { ...dims, rounded }, dy, w.slice, dx);
        // The first part's pass over dy sums it for the bias as well.
        if (dw) backwardWeight(engine, dims, t.slice, dy, dw, i === 0 ? db : null);
      });
      if (dPerImage) sumPixels(engine, dy, N, OH * OW, O, dPerImage);
      if (db && !dw) sumRows(engine, dy, N * OH * OW, O, db);
    },
    { passes: residual ? xs.length + 3 : -1 },
  );
}

/** What linear() does besides: `residual` (..., O) is added to the result, which with `unread` is not computed, as in conv2d(). */
export interface LinearOptions {
  readonly residual?: Tensor | null;
  readonly unread?: boolean;
}

/** x (..., C) W^T + b -> (..., O), with W as (1, 1, C, O): a 1 x 1 convolution over rows. E-SHAPE where W does not fit. */
export function linear(x: Tensor, w: Tensor, bias: Tensor | null, { residual = null, unread = false }: LinearOptions = {}): Tensor {
  const C = x.shape.at(-1)!, rows = x.size / C, O = w.shape[3]!;
  if (w.shape.length !== 4 || w.shape[0] !== 1 || w.shape[1] !== 1 || w.shape[2] !== C) throw new DdpmError('E-SHAPE', `linear: rows (${x.shape.join(', ')}) do not fit the weight (${w.shape.join(', ')}); it takes (1, 1, ${C}, O).`);
  const view = x.view([1, rows, 1, C]);
  const y = conv2d(view, w, bias, { residual: residual && residual.view([1, rows, 1, O]), unread });
  return y.view([...x.shape.slice(0, -1), O]);
}
