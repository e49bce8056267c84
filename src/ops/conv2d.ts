// Convolution, its gradients, and the choice of kernel: plain for few channels, subgroup GEMM on CPUs, tiled GEMM on GPUs.
import { type Destination, record, threads } from '../autograd.ts';
import { sumPixels } from './sum.ts';
import { DdpmError } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import { type Args, type Slice, grid } from '../gpu/kernel.ts';
import * as k from '../gpu/kernels.gen.ts';
import { Tensor } from '../tensor.ts';

export interface Conv2dOptions {
  readonly stride?: number;
  /** [top, bottom, left, right]; default keeps the size for stride 1. DDPM's downsampling is [0, 1, 0, 1]. */
  readonly padding?: readonly [number, number, number, number];
  /** (N, O), added to every pixel of an image: the time embedding. */
  readonly perImage?: Tensor | null;
  /** (N, OH, OW, O), added to the result: the block's input. */
  readonly residual?: Tensor | null;
}

type ConvArgs = Args<typeof k.conv2d_forward>;
export type ConvDims = Omit<Args<typeof k.conv2d_forward>, 'x' | 'w' | 'bias' | 'per_image' | 'residual' | 'y'>;

/**
 * Which family computes a convolution: `plain` takes any channel counts, the GEMMs multiples of four, `padded` makes them so for a GEMM,
 * `subgroup3x3` is the subgroup GEMM for 3 x 3 convolutions that keep the size.
 */
export type ConvVariant = 'plain' | 'subgroup' | 'subgroup3x3' | 'tiled' | 'padded';
export type ConvDirection = 'forward' | 'input' | 'weight';

/**
 * The family for this shape on this device: on CPUs (llvmpipe is 8 wide) GEMMs by subgroup broadcasts, on GPUs one by tiles in workgroup memory.
 * Where an image has 1 or 3 channels a CPU pads them to 4 at a tenth of the plain kernels' cost; a GPU does so for the weight's gradient only,
 * which the plain kernel takes 31 ms for where the GEMM takes less than one (H100, 128 x 32 x 32, 3 -> 128).
 */
export function convVariant(engine: Engine, dims: ConvDims, direction: ConvDirection): ConvVariant {
  const cpu = engine.subgroupWidth === 8;
  if (dims.C % 4 || dims.O % 4) return direction === 'weight' || cpu ? 'padded' : 'plain';
  return cpu ? (keepsSize3x3(dims) ? 'subgroup3x3' : 'subgroup') : 'tiled';
}

const keepsSize3x3 = ({ K, stride, pad_top, pad_left, H, W, OH, OW }: ConvDims) => K === 3 && stride === 1 && pad_top === 1 && pad_left === 1 && H === OH && W === OW;

/** Rows of a 3 x 3 tile: what divides the height best, 7 where it makes no difference. */
const tileRows = (H: number) => [7, 8, 4].reduce((best, G) => (Math.ceil(H / G) * G < Math.ceil(H / best) * best ? G : best));

/**
 * x (N, H, W, C) * w (K, K, WC, O) + bias (O) -> (N, OH, OW, O). `x` may be two tensors, read as if their channels were concatenated: WC is the sum of theirs.
 */
export function conv2d(x: Tensor | readonly [Tensor, Tensor], w: Tensor, bias: Tensor | null, options: Conv2dOptions = {}): Tensor {
  const xs: readonly Tensor[] = x instanceof Tensor ? [x] : x;
  const { engine } = w;
  const [N, H, W] = xs[0]!.shape as [number, number, number, number];
  const [K, , WC, O] = w.shape as [number, number, number, number];
  const { stride = 1, perImage = null, residual = null } = options;
  const same = (K - 1) / 2;
  const [top, bottom, left, right] = options.padding ?? [same, same, same, same];
  const OH = Math.floor((H + top + bottom - K) / stride) + 1, OW = Math.floor((W + left + right - K) / stride) + 1;
  if (xs.reduce((c, t) => c + t.shape[3]!, 0) !== WC || xs.some((t) => t.shape.length !== 4 || t.shape[0] !== N || t.shape[1] !== H || t.shape[2] !== W))
    throw new DdpmError('E-SHAPE', `conv2d: inputs ${xs.map((t) => `(${t.shape.join(', ')})`).join(' and ')} do not fit the weight (${w.shape.join(', ')}).`);

  if (stride !== 1 && stride !== 2) throw new DdpmError('E-SHAPE', `conv2d: a stride of ${stride}; 1 and 2 are implemented.`);

  const y = Tensor.empty(engine, [N, OH, OW, O]);
  let C0 = 0;
  const parts = xs.map((t, i) => {
    const C = t.shape[3]!;
    // The first part brings bias, time embedding and residual; the second adds to it.
    const dims: ConvDims = {
      N, H, W, C, OH, OW, O, K, stride, pad_top: top, pad_left: left, WC, C0,
      has_bias: Number(i === 0 && !!bias), has_per_image: Number(i === 0 && !!perImage), has_residual: Number(i === 0 && !!residual), accumulate: Number(i > 0), splits: 1,
    };
    C0 += C;
    return { x: t, dims };
  });
  for (const { x: t, dims } of parts) forward(engine, { ...dims, x: t.slice, w: w.slice, bias: (bias ?? w).slice, per_image: (perImage ?? t).slice, residual: (residual ?? t).slice, y: y.slice });

  return record(
    y,
    [...xs, w, bias, perImage, residual],
    (dy, out) => {
      const [dw, db, dPerImage] = out.slice(xs.length) as (Destination | null)[];
      parts.forEach(({ x: t, dims }, i) => {
        const dx = out[i];
        if (dx) backwardInput(engine, dims, dy, w.slice, dx);
        if (dw) backwardWeight(engine, dims, t.slice, dy, dw);
      });
      if (dPerImage) sumPixels(engine, dy, N, OH * OW, O, dPerImage);
      // The bias sums over the images what the time embedding has summed over the pixels.
      if (db && dPerImage && !dPerImage.accumulate) sumPixels(engine, dPerImage.slice, 1, N, O, db);
      else if (db) sumRows(engine, dy, N * OH * OW, O, db);
    },
    { passes: residual ? xs.length + 3 : -1 },
  );
}

/** x (..., C) W^T + b, with W as (1, 1, C, O): a 1 x 1 convolution over rows. */
export function linear(x: Tensor, w: Tensor, bias: Tensor | null, options: { residual?: Tensor | null } = {}): Tensor {
  const C = x.shape.at(-1)!, rows = x.size / C, O = w.shape[3]!;
  const view = x.view([1, rows, 1, C]);
  const y = conv2d(view, w, bias, { residual: options.residual ? options.residual.view([1, rows, 1, O]) : null });
  return y.view([...x.shape.slice(0, -1), O]);
}

const even = (channels: number) => Math.ceil(channels / 4) * 4;

/** Copies rows of `width` values into new rows of `padded` values, zeros behind; `first` of `stride` says where a row starts. */
function pad(engine: Engine, x: Slice, rows: number, width: number, padded: number, stride = width, first = 0): Slice {
  const y = engine.allocate(4 * rows * padded);
  engine.run(k.copy_columns, threads(rows), { x, y, rows, width, x_stride: stride, x_first: first, y_stride: padded, y_first: 0, y_width: padded, accumulate: 0 });
  return y;
}

/** The part of the weight that x meets, (K, K, C, O), as (K, K, even C, even O). */
function padWeight(engine: Engine, { K, C, O, WC, C0 }: ConvDims, w: Slice): Slice {
  const rows = pad(engine, w, K * K, C * O, even(C) * O, WC * O, C0 * O);
  const both = pad(engine, rows, K * K * even(C), O, even(O));
  engine.free(rows);
  return both;
}

/** The shape with channels padded to multiples of four. */
const evenDims = (dims: ConvDims): ConvDims => ({ ...dims, C: even(dims.C), O: even(dims.O), WC: even(dims.C), C0: 0 });

/** Launches the family's forward kernel; exported for the tests that compare variants. */
export function forward(engine: Engine, args: ConvArgs, variant = convVariant(engine, args, 'forward')): void {
  const { N, H, W, C, O } = args;
  const pixels = N * args.OH * args.OW;
  if (variant === 'plain') engine.run(k.conv2d_forward, threads(pixels * O), args);
  else if (variant === 'subgroup') engine.run(k.conv2d_forward_subgroup, grid(Math.ceil(pixels / 32) * Math.ceil(O / 16)), args);
  else if (variant === 'subgroup3x3') {
    const G = tileRows(H);
    engine.run(k.conv2d_forward_3x3_subgroup, grid(Math.ceil((N * W) / 8) * Math.ceil(H / G) * Math.ceil(O / 16)), { ...args, G });
  } else if (variant === 'tiled') engine.run(k.conv2d_tiled, grid(Math.ceil(pixels / 64) * Math.ceil(O / 64)), { ...args, TRANSPOSED: 0 });
  else {
    const wide = even(O);
    const parts = {
      x: pad(engine, args.x, N * H * W, C, even(C)),
      w: padWeight(engine, args, args.w),
      bias: pad(engine, args.bias, 1, args.has_bias ? O : 0, wide),
      per_image: pad(engine, args.per_image, N, args.has_per_image ? O : 0, wide),
      residual: args.has_residual ? pad(engine, args.residual, pixels, O, wide) : engine.allocate(16),
      y: engine.allocate(4 * pixels * wide),
    };
    forward(engine, { ...args, ...evenDims(args), ...parts, accumulate: 0 });
    cut(engine, parts.y, args.y, pixels, O, wide, args.accumulate as 0 | 1);
    for (const slice of Object.values(parts)) engine.free(slice);
  }
}

/** Copies the first `width` of every `padded` values into dense rows, or into columns `first` of rows of `stride`. */
function cut(engine: Engine, x: Slice, y: Slice, rows: number, width: number, padded: number, accumulate: 0 | 1, stride = width, first = 0): void {
  engine.run(k.copy_columns, threads(rows), { x, y, rows, width, x_stride: padded, x_first: 0, y_stride: stride, y_first: first, y_width: width, accumulate });
}

export function backwardInput(engine: Engine, dims: ConvDims, dy: Slice, w: Slice, dx: Destination, variant = convVariant(engine, dims, 'input')): void {
  const pixels = dims.N * dims.H * dims.W;
  const args = { ...dims, dy, w, dx: dx.slice, accumulate: dx.accumulate };
  if (variant === 'plain') engine.run(k.conv2d_backward_input, threads(pixels * dims.C), args);
  else if (variant === 'subgroup') engine.run(k.conv2d_backward_input_subgroup, grid(Math.ceil(pixels / 32) * Math.ceil(dims.C / 16)), args);
  else if (variant === 'subgroup3x3') {
    const G = tileRows(dims.H);
    engine.run(k.conv2d_backward_input_3x3_subgroup, grid(Math.ceil((dims.N * dims.W) / 8) * Math.ceil(dims.H / G) * Math.ceil(dims.C / 16)), { ...args, G });
  } else if (variant === 'padded') {
    const { N, OH, OW, C, O } = dims;
    const wide = { dy: pad(engine, dy, N * OH * OW, O, even(O)), w: padWeight(engine, dims, w), dx: engine.allocate(4 * pixels * even(C)) };
    backwardInput(engine, evenDims(dims), wide.dy, wide.w, { slice: wide.dx, accumulate: 0 });
    cut(engine, wide.dx, dx.slice, pixels, C, even(C), dx.accumulate);
    for (const slice of Object.values(wide)) engine.free(slice);
  } else {
    const weights = dims.K * dims.K * dims.C * dims.O;
    const turned = engine.allocate(4 * weights);
    engine.run(k.conv2d_turn_weight, threads(weights), { ...dims, w, turned });
    const epilogue = { has_bias: 0, has_per_image: 0, has_residual: 0, accumulate: dx.accumulate };
    engine.run(k.conv2d_tiled, grid(Math.ceil(pixels / 64) * Math.ceil(dims.C / 64)), {
      ...dims, ...epilogue, x: dy, w: turned, y: dx.slice, TRANSPOSED: 1, bias: dy, per_image: dy, residual: dy,
    });
    engine.free(turned);
  }
}

/** Workgroups that keep the device busy: several a core on a CPU, several a multiprocessor on a GPU. */
const BUSY = { plain: 4096, subgroup: 16, subgroup3x3: 16, tiled: 512 };

export function backwardWeight(engine: Engine, dims: ConvDims, x: Slice, dy: Slice, dw: Destination, variant = convVariant(engine, dims, 'weight')): void {
  const { N, H, W, C, O, K, WC, C0 } = dims;
  const pixels = N * dims.OH * dims.OW;
  if (variant === 'padded') {
    const wide = { x: pad(engine, x, N * H * W, C, even(C)), dy: pad(engine, dy, pixels, O, even(O)) };
    const dwWide = engine.allocate(4 * K * K * even(C) * even(O)), narrow = engine.allocate(4 * K * K * even(C) * O);
    backwardWeight(engine, evenDims(dims), wide.x, wide.dy, { slice: dwWide, accumulate: 0 });
    cut(engine, dwWide, narrow, K * K * even(C), O, even(O), 0);
    cut(engine, narrow, dw.slice, K * K, C * O, even(C) * O, dw.accumulate, WC * O, C0 * O);
    for (const slice of [wide.x, wide.dy, dwWide, narrow]) engine.free(slice);
    return;
  }
  const weights = K * K * C * O;
  const tiles = {
    plain: weights,
    subgroup: Math.ceil((K * K * C) / 32) * Math.ceil(O / 16),
    subgroup3x3: 3 * Math.ceil(C / 16) * Math.ceil(O / 16),
    tiled: Math.ceil((K * K * C) / 64) * Math.ceil(O / 64),
  }[variant];
  // A split is at least 256 pixels; the count is a function of the shape alone, so that a resumed run adds in the same order.
  const splits = Math.max(1, Math.min(Math.ceil(BUSY[variant] / tiles), Math.floor(pixels / 256)));
  // One split over the whole weight is the gradient itself.
  const direct = splits === 1 && C === WC && !dw.accumulate;
  const part = direct ? dw.slice : engine.allocate(4 * splits * weights);
  const args = { ...dims, splits, x, dy, part };
  if (variant === 'plain') engine.run(k.conv2d_backward_weight, threads(splits * weights), args);
  else if (variant === 'subgroup') engine.run(k.conv2d_backward_weight_subgroup, grid(splits * tiles), args);
  else if (variant === 'subgroup3x3') engine.run(k.conv2d_backward_weight_3x3_subgroup, grid(splits * tiles), args);
  else engine.run(k.conv2d_backward_weight_tiled, grid(splits * tiles), args);
  if (direct) return;
  engine.run(k.conv2d_fold, threads(weights), { ...dims, splits, part, dw: dw.slice, accumulate: dw.accumulate });
  engine.free(part);
}

/** db[o] = sum over rows of dy[row, o]; many rows in two stages, of about as many terms each. */
function sumRows(engine: Engine, dy: Slice, rows: number, O: number, db: Destination): void {
  if (rows <= 128) return sumPixels(engine, dy, 1, rows, O, db);
  let share = Math.ceil(Math.sqrt(rows));
  while (rows % share) share++;
  const part = engine.allocate(4 * (rows / share) * O);
  sumPixels(engine, dy, rows / share, share, O, { slice: part, accumulate: 0 });
  sumPixels(engine, part, 1, rows / share, O, db);
  engine.free(part);
}
