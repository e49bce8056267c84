// The kernels of a convolution: which family computes a shape on a device, and how it is launched.
import { type Destination, threads } from '../autograd.ts';
import { fold, termsRoom } from '../folds.ts';
import type { Engine } from '../gpu/engine.ts';
import { type Args, grid, type Slice } from '../gpu/kernel.ts';
import * as k from '../gpu/kernels.gen.ts';
import { castInto } from './cast.ts';
import { Columns } from './columns.ts';
import { channelsAtATime, type ConvChoice, convChoice, type ConvDims, CONV_TILES, CONV_TILES_16, convTile, coreWeightTile, floatChoice, gemmTile, isWide3x3, subgroupWeight3x3Tile, subgroupWeightTile, tileColumns, tileRows, weightGroups, weightSplits } from './conv2d_choice.ts';
import { coreTile, HALF } from './half.ts';
import { subgroupKernels } from './subgroup_kernels.ts';
import { sumRows } from './sum.ts';
import { subgroupTile, tiles } from './tiles.ts';

/** `rounded`: the weight as float16, where there is such a copy; else tensor cores get one for the time of the call. */
export type ConvArgs = Args<typeof k.conv2d_forward> & { readonly rounded?: Slice | null };

/** One GEMM for the forward and the input's gradient, one for the weight's. */
const TILED = { tiled: k.conv2d_tiled, tiled3x3: k.conv2d_3x3_tiled, ...HALF.conv } as const;
const WEIGHT_TILED = { tiled: k.conv2d_backward_weight_tiled, tiled3x3: k.conv2d_backward_weight_3x3_tiled, ...HALF.weight } as const;

/**
 * The GEMM over pixels and channels. With a stride of 2 an input's gradient takes pixels of one kind in a tile, of four; `tiled3x3` takes four pixels, one below the other, for
 * a row. Where it leaves its sums in parts, these are folded here.
 */
function gemm(engine: Engine, variant: keyof typeof TILED, args: Args<typeof k.conv2d_tiled> & Pick<ConvArgs, 'rounded'>, tile?: ConvChoice['tile']): void {
  const { N, H, W, OH, OW, C, O, y } = args, channels = args.TRANSPOSED ? C : O, stride = args.TRANSPOSED ? args.stride : 1, kinds = stride ** 2, STRIDED = stride - 1;
  const rows = args.TRANSPOSED ? N * Math.ceil(H / stride) * Math.ceil(W / stride) : N * OH * OW, size = rows * channels;
  if (variant !== 'tiled3x3' && variant !== 'subgroup_matrix') {
    const count = (each: number): number => kinds * tiles(rows, channels, 2 * each, each), BN = tile ?? gemmTile(engine, channels, count);
    return engine.run(TILED[variant], grid(count(BN)), { ...args, STRIDED, BN });
  }
  // Parts that no binding holds are one: a batch so large has workgroups enough. Without parts the kernel for tensor cores is given something to bind all the same.
  const splits = 4 * args.splits * size > engine.device.limits.maxStorageBufferBindingSize ? 1 : args.splits, SPLIT = Number(splits > 1), parts = termsRoom(engine, SPLIT ? 4 * splits * size : 16);
  const all = { ...args, splits, SPLIT, accumulate: SPLIT ? 0 : args.accumulate };
  if (variant === 'tiled3x3') {
    const count = (each: number): number => splits * tiles(N * Math.ceil(H / 4) * W, channels, each / 2, each), BN = tile ?? gemmTile(engine, channels, count);
    engine.run(k.conv2d_3x3_tiled, grid(count(BN)), { ...all, y: SPLIT ? parts : y, BN });
  } else {
    const TILE = tile ?? convTile(engine, kinds * rows, channels, splits), w = args.rounded ?? halved(engine, args.w);
    engine.run(k.conv2d_subgroup_matrix, grid(splits * kinds * tiles(rows, channels, TILE, TILE)), { ...all, w, STRIDED, TILE, part: parts });
    if (w !== args.rounded) engine.free(w);
  }
  if (SPLIT) fold(engine, parts, [{ y, accumulate: args.accumulate ? 1 : 0, from: 0, terms: splits, step: size, size }]);
  else engine.free(parts);
}

/** The same for subgroups: for any kernel, and for one of 3 x 3 in tiles of `rows` rows. */
function subgroupGemm(engine: Engine, args: Args<typeof k.conv2d_subgroup>): void {
  const { N, H, W, OH, OW, C, O, stride } = args, { conv, lanes } = subgroupKernels(engine);
  const kinds = args.TRANSPOSED ? stride ** 2 : 1, pixels = args.TRANSPOSED ? N * Math.ceil(H / stride) * Math.ceil(W / stride) : N * OH * OW, channels = args.TRANSPOSED ? C : O;
  const { R, Q } = subgroupTile(lanes === 16 ? CONV_TILES_16 : CONV_TILES, pixels, channels, kinds, lanes);
  engine.run(conv, grid(kinds * tiles(pixels, channels, R * lanes, 4 * Q)), { ...args, R, Q });
}
function subgroup3x3Gemm(engine: Engine, args: Args<typeof k.conv2d_3x3_subgroup>, rows: number): void {
  const { N, H, W } = args, { conv3x3, lanes } = subgroupKernels(engine), COLUMNS = tileColumns(N * W, lanes), width = COLUMNS * lanes;
  const channels = args.TRANSPOSED ? args.C : args.O, count = tiles(H, N * W, rows, width), wide = isWide3x3(channels, count, width);
  engine.run(conv3x3, grid(count * Math.ceil(channels / (wide ? 32 : 16))), { ...args, G: rows, COLUMNS, BESIDE: Number(width % W !== 0), WIDE: Number(wide) });
}

/** A copy of a weight as float16. */
function halved(engine: Engine, w: Slice): Slice {
  const size = w.bytes / 4, y = engine.allocate(2 * size, 'f16');
  castInto(engine, size, w, y);
  return y;
}

/** y = conv(x, w) and what is added to it. */
export function forward(engine: Engine, args: ConvArgs, { variant, rows = tileRows(args.H), tile, splits = 1 }: ConvChoice = convChoice(engine, args, 'forward')): void {
  const { N, H, W, C, O } = args;
  const pixels = N * args.OH * args.OW;
  if (variant === 'plain') engine.run(k.conv2d_forward, threads(pixels * O), args);
  else if (variant === 'subgroup') subgroupGemm(engine, { ...args, TRANSPOSED: 0 });
  else if (variant === 'subgroup3x3') subgroup3x3Gemm(engine, { ...args, TRANSPOSED: 0 }, rows);
  else if (Object.hasOwn(TILED, variant)) gemm(engine, variant as keyof typeof TILED, { ...args, splits, x2: args.x, TRANSPOSED: 0, TWO: 0 }, tile);
  else if (variant === 'rounded') {
    const copies = new Columns(engine);
    forward(engine, { ...args, x: copies.rounded(args.x), w: copies.rounded(args.w) }, floatChoice(engine, args, 'forward'));
    copies.free();
  } else {
    const copies = new Columns(engine), dims = even(engine, args);
    const x = copies.widened(args.x, N * H * W, C, dims.C);
    const y = dims.O === O ? args.y : copies.room(pixels, dims.O, args.y.type);
    forward(engine, {
      ...args, ...dims, x, y,
      w: evenWeight(copies, args, args.w, dims),
      bias: args.has_bias ? copies.widened(args.bias, 1, O, dims.O) : args.w,
      per_image: args.has_per_image ? copies.widened(args.per_image, N, O, dims.O) : args.w,
      residual: args.has_residual ? copies.widened(args.residual, pixels, O, dims.O) : x,
      accumulate: dims.O === O ? args.accumulate : 0,
    });
    if (dims.O !== O) copies.cut(y, args.y, pixels, O, dims.O, { accumulate: args.accumulate });
    copies.free();
  }
}

/** The variant that reads two inputs, with so many channels, in one dispatch, and its tile; null where there is none. */
export function choiceOfTwo(engine: Engine, dims: readonly [ConvDims, ConvDims]): Pick<ConvChoice, 'tile'> & { readonly variant: keyof typeof TILED } | null {
  const [{ variant, tile }, other] = [convChoice(engine, dims[0], 'forward'), convChoice(engine, dims[1], 'forward')];
  return variant === other.variant && Object.hasOwn(TILED, variant) ? { variant: variant as keyof typeof TILED, tile } : null;
}

/** y = conv((x, x2), w), channels read as concatenated, and what is added to it: one pass over y where two calls of `forward` make two. `args` are those of x. */
export function forwardTwo(engine: Engine, args: ConvArgs, x2: Slice, variant: keyof typeof TILED, tile?: ConvChoice['tile']): void {
  gemm(engine, variant, { ...args, x2, TRANSPOSED: 0, TWO: 1 }, tile);
}

/** dx from dy. */
export function backwardInput(engine: Engine, dims: ConvDims & Pick<ConvArgs, 'rounded'>, dy: Slice, w: Slice, dx: Destination, { variant, rows = tileRows(dims.H), tile, splits = 1 }: ConvChoice = convChoice(engine, dims, 'input')): void {
  const { N, H, W, C, OH, OW, O } = dims;
  const pixels = N * H * W;
  // But for the plain kernel, the forward's GEMM, with pixels gathered and the weight read the other way round.
  const args = { ...dims, has_bias: 0, has_per_image: 0, has_residual: 0, accumulate: dx.accumulate, x: dy, w, y: dx.slice, bias: w, per_image: w, residual: dy, TRANSPOSED: 1 };
  if (variant === 'plain') engine.run(k.conv2d_backward_input, threads(pixels * C), { ...dims, dy, w, dx: dx.slice, accumulate: dx.accumulate });
  else if (variant === 'subgroup') subgroupGemm(engine, args);
  else if (variant === 'subgroup3x3') subgroup3x3Gemm(engine, args, rows);
  else if (variant === 'rounded') {
    const copies = new Columns(engine);
    backwardInput(engine, dims, copies.rounded(dy), copies.rounded(w), dx, floatChoice(engine, dims, 'input'));
    copies.free();
  } else if (variant === 'padded') {
    const copies = new Columns(engine), wide = even(engine, dims);
    const out = wide.C === C ? dx : { slice: copies.room(pixels, wide.C, dx.slice.type), accumulate: 0 as const };
    backwardInput(engine, wide, copies.widened(dy, N * OH * OW, O, wide.O), evenWeight(copies, dims, w, wide), out);
    if (out !== dx) copies.cut(out.slice, dx.slice, pixels, C, wide.C, { accumulate: dx.accumulate });
    copies.free();
  } else gemm(engine, variant, { ...args, splits, x2: dy, TWO: 0 }, tile);
}

/** dw from x and dy, and with `db` the bias's gradient from the same reading of dy: partial sums over splits of the pixels, folded in order. */
export function backwardWeight(engine: Engine, dims: ConvDims, x: Slice, dy: Slice, dw: Destination, db: Destination | null = null, choice: ConvChoice = convChoice(engine, dims, 'weight')): void {
  const { N, H, W, C, O, KH, KW, WC, C0 } = dims;
  const pixels = N * dims.OH * dims.OW, rows = KH * KW * C, { variant } = choice;
  if (db && (variant === 'plain' || (variant === 'padded' && O % 4))) {
    sumRows(engine, dy, pixels, O, db);
    db = null;
  }
  if (variant === 'rounded') {
    const copies = new Columns(engine);
    backwardWeight(engine, dims, copies.rounded(x), copies.rounded(dy), dw, db, floatChoice(engine, dims, 'weight'));
    return copies.free();
  }
  if (variant === 'padded') {
    const copies = new Columns(engine), wide = even(engine, dims);
    const slice = copies.room(KH * KW * wide.C, wide.O), narrow = wide.O === O ? slice : copies.room(KH * KW * wide.C, O);
    backwardWeight(engine, wide, copies.widened(x, N * H * W, C, wide.C), copies.widened(dy, pixels, O, wide.O), { slice, accumulate: 0 }, db);
    if (narrow !== slice) copies.cut(slice, narrow, KH * KW * wide.C, O, wide.O);
    copies.cut(narrow, dw.slice, KH * KW, C * O, wide.C * O, { accumulate: dw.accumulate, stride: WC * O, first: C0 * O });
    copies.free();
    return;
  }
  const { columns, weight, weight3x3 } = subgroupKernels(engine), tile: number = choice.tile ?? coreTile(engine, coreWeightTile(C, O)), groups = weightGroups(variant, dims, columns, tile), splits = choice.splits ?? weightSplits(variant, dims, columns);
  // One split over the whole weight is the gradient itself.
  if (splits === 1 && C === WC && !dw.accumulate && !db?.accumulate) return launch(dw.slice, db?.slice ?? null);
  const weights = splits * rows * O, first = Math.ceil(weights / 64) * 64;
  const terms = termsRoom(engine, 4 * (db ? first + splits * O : weights), dw.late && (!db || db.late));
  launch(range(terms, 0, weights), db && range(terms, first, splits * O));
  fold(engine, terms, [
    { y: dw.slice, accumulate: dw.accumulate, from: 0, terms: splits, step: rows * O, size: rows * O, row: C * O, stride: WC * O, to: C0 * O },
    ...(db ? [{ y: db.slice, accumulate: db.accumulate, from: first, terms: splits, step: O, size: O }] : []),
  ]);

  function launch(part: Slice, sums: Slice | null): void {
    const args = { ...dims, has_bias: Number(!!sums), splits, x, dy, part };
    if (variant === 'plain') return engine.run(k.conv2d_backward_weight, threads(splits * groups), args);
    const kernel = WEIGHT_TILED[variant as 'tiled'];
    const nowhere = sums ? null : engine.allocate(16);
    const all = { ...args, sums: sums ?? nowhere! };
    if (variant === 'subgroup_matrix') engine.run(k.conv2d_backward_weight_subgroup_matrix, grid(splits * groups), { ...all, TILE: tile });
    else if (variant === 'subgroup') engine.run(weight, grid(splits * groups), { ...all, ...subgroupWeightTile(dims, columns) });
    else if (variant === 'subgroup3x3') engine.run(weight3x3, grid(splits * groups), { ...all, BESIDE: Number(8 % W !== 0), WIDE: subgroupWeight3x3Tile(dims, columns).WIDE });
    else engine.run(kernel, grid(splits * groups), all);
    if (nowhere) engine.free(nowhere);
  }
}

/** `count` elements of a slice, from `first`. */
const range = ({ buffer, offset }: Slice, first: number, count: number): Slice => ({ buffer, offset: offset + 4 * first, bytes: 4 * count });

/** The shape with channels padded to as many as kernels take, and the weight cut to what x meets. */
function even(engine: Engine, dims: ConvDims): ConvDims & { readonly rounded: null } {
  const unit = channelsAtATime(engine), up = (channels: number) => Math.ceil(channels / unit) * unit;
  return { ...dims, C: up(dims.C), O: up(dims.O), WC: up(dims.C), C0: 0, rounded: null };
}

/** The part of the weight that x meets, (KH, KW, C, O), as (KH, KW, wide.C, wide.O). */
function evenWeight(copies: Columns, { KH, KW, C, O, WC, C0 }: ConvDims, w: Slice, wide: ConvDims): Slice {
  const rows = copies.widened(w, KH * KW, C * O, wide.C * O, { stride: WC * O, first: C0 * O });
  return copies.widened(rows, KH * KW * wide.C, O, wide.O);
}
