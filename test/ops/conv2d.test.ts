// Every convolution kernel against its float64 twin: three families forward and backward, on odd sizes and over the edges of their tiles.
import * as assert from 'uvu/assert';
import { isLanes } from '../../src/gpu/device-class.ts';
import type { Engine } from '../../src/gpu/engine.ts';
import { grid } from '../../src/gpu/kernel.ts';
import * as k from '../../src/gpu/kernels.gen.ts';
import { threads } from '../../src/autograd.ts';
import { fold } from '../../src/folds.ts';
import { conv2d, linear } from '../../src/ops/conv2d.ts';
import { CONV_TILES, CONV_TILES_16, convChoice, GEMM_TILES, tileRows } from '../../src/ops/conv2d_choice.ts';
import { backwardInput, backwardWeight, forward, forwardTwo } from '../../src/ops/conv2d_kernels.ts';
import { subgroupKernels } from '../../src/ops/subgroup_kernels.ts';
import { tiles } from '../../src/ops/tiles.ts';
import { Tensor } from '../../src/tensor.ts';
import type { ConvDirection, ConvVariant } from '../../src/variants.ts';
import { abs, assertClose, bound } from '../helpers/close.ts';
import { assertError, destination, differentiate, gpuSuite, random, upload } from '../helpers/gpu.ts';
import * as twin from '../ref/conv2d.ts';
import { linear as linearTwin, linearBackward } from '../ref/matmul.ts';
import { add } from '../ref/pointwise.ts';
import { filteredBound, filteredGradientBound, filteredWeightBound } from '../ref/winograd.ts';

interface Case extends twin.ConvShape {
  what: string;
}

const shape = (what: string, N: number, H: number, W: number, C: number, O: number, K: number | readonly [number, number], options: { stride?: number; pad?: number[]; wC?: number; c0?: number } = {}): Case => {
  const [KH, KW] = typeof K === 'number' ? [K, K] : K;
  const { stride = 1, pad = [KH, KH, KW, KW].map((k) => (k - 1) / 2), wC = C, c0 = 0 } = options;
  const [top, bottom, left, right] = pad;
  return { what, N, H, W, C, O, KH, KW, stride, pad: [top, left], OH: Math.floor((H + top + bottom - KH) / stride) + 1, OW: Math.floor((W + left + right - KW) / stride) + 1, wC, c0 };
};

/** Any channel counts: the plain kernels, and the GEMM on padded copies. */
const odd: Case[] = [
  shape('1 to 5 channels', 2, 5, 7, 1, 5, 3),
  shape('7 to 3 channels over a workgroup', 3, 6, 5, 7, 3, 3),
  shape('1x1, 5 to 6 channels', 2, 3, 5, 5, 6, 1),
  shape('stride 2, padded at the bottom and right, odd height', 2, 9, 8, 3, 5, 3, { stride: 2, pad: [0, 1, 0, 1] }),
  shape('uneven padding', 1, 4, 6, 2, 3, 3, { pad: [2, 0, 1, 2] }),
  shape('3x1, stride 2', 2, 7, 5, 3, 5, [3, 1], { stride: 2 }),
  shape('5x5 without padding', 1, 6, 7, 2, 3, 5, { pad: [0, 0, 0, 0] }),
  shape('channels 2 to 4 of 7', 2, 4, 3, 3, 2, 3, { wC: 7, c0: 2 }),
];
/** Multiples of 4: every family. Tiles are 8 to 64 pixels x 16 to 64 channels (subgroup; of four lanes half as many pixels), of the weight's gradient 16 x 16, 32 x 16, 64 x 32 or 64 x 64 (half as wide), and 128 x 64 or a half or a quarter of both or, of the weight's gradient, 128 x 128 (tiled); the last tile of each row and column is ragged. */
const fours: Case[] = [
  shape('one small tile', 1, 3, 3, 4, 4, 3),
  shape('several tiles, ragged in all directions', 2, 9, 7, 36, 68, 3),
  shape('more input than output channels', 1, 5, 13, 68, 20, 3),
  shape('1x1 over several tiles', 3, 5, 5, 72, 36, 1),
  shape('stride 2, padded at the bottom and right', 2, 10, 10, 20, 36, 3, { stride: 2, pad: [0, 1, 0, 1] }),
  shape('1x7', 2, 5, 9, 12, 20, [1, 7]),
  shape('7x1', 2, 9, 5, 20, 12, [7, 1]),
  shape('1x3, padded on one side only, channels 4 to 11 of 16', 1, 3, 9, 8, 8, [1, 3], { pad: [0, 0, 2, 0], wC: 16, c0: 4 }),
  shape('5x5', 1, 9, 7, 8, 24, 5),
  shape('stride 2, odd height, padded all around', 2, 11, 6, 8, 40, 3, { stride: 2 }),
  shape('channels 4 to 15 of 20', 2, 5, 6, 12, 24, 3, { wC: 20, c0: 4 }),
  shape('pixels and channels enough for tiles of 64 channels each way', 2, 16, 17, 60, 52, 1),
  shape('many pixels, so that the weight gradient is split', 1, 25, 32, 4, 8, 3),
  shape('1x1 with few channels', 2, 7, 5, 12, 20, 1),
  shape('1x1, stride 2: some pixels meet no tap', 2, 7, 6, 12, 20, 1, { stride: 2 }),
  shape('stride 2 with many pixels and channels', 3, 20, 20, 20, 36, 3, { stride: 2 }),
  shape('stride 2 to tiles of 64 channels', 2, 33, 32, 4, 52, 3, { stride: 2 }),
  shape('stride 2, and its gradient to tiles of 64 channels', 2, 17, 16, 52, 4, 3, { stride: 2, pad: [0, 1, 0, 1] }),
  shape('stride 2, the weight gradient in tiles of 64 x 64', 2, 12, 12, 44, 60, 3, { stride: 2, pad: [0, 1, 0, 1] }),
];

/** 3 x 3 that keeps the size: tiles of 7, 8 or 4 rows by 8 or 16 columns counted through the images, and 16 or 32 channels (subgroup3x3; of four lanes half as many columns); of 32 columns of 4 rows and 64 channels, or a half or a quarter of both (tiled3x3). */
const kept: Case[] = [
  ...fours.filter((s) => s.KH === 3 && s.KW === 3 && s.stride === 1 && s.OH === s.H),
  shape('tiles of 7 rows', 3, 14, 5, 20, 36, 3),
  shape('tiles of 8 rows', 2, 16, 9, 16, 16, 3),
  shape('tiles of 4 rows', 5, 4, 3, 8, 12, 3),
  shape('7 rows of a column a lane', 1, 7, 4, 8, 20, 3),
  shape('8 rows of a column a lane, of four lanes of two', 1, 8, 8, 12, 8, 3),
  shape('tiles that end with an image, 8 rows', 3, 8, 8, 8, 20, 3),
  shape('tiles that end with an image, 4 rows', 5, 4, 4, 12, 8, 3),
  shape('a ragged tile of rows', 2, 10, 11, 12, 20, 3),
  shape('a ragged tile of 8 rows', 1, 15, 5, 4, 8, 3),
  shape('one column', 3, 6, 1, 4, 8, 3),
  shape('the weight gradient in wide tiles', 1, 5, 9, 44, 60, 3),
  shape('tiles of 7 rows and 32 channels', 2, 7, 9, 12, 92, 3),
];

const inputsOf = (s: Case) => ({
  x: random(s.N * s.H * s.W * s.C, 0),
  w: random(s.KH * s.KW * s.wC! * s.O, 1),
  dy: random(s.N * s.OH * s.OW * s.O, 2),
  bias: random(s.O, 3),
  perImage: random(s.N * s.O, 4),
  residual: random(s.N * s.OH * s.OW * s.O, 5),
  before: random(Math.max(s.N * s.H * s.W * s.C, s.N * s.OH * s.OW * s.O, s.KH * s.KW * s.wC! * s.O), 6),
});

const dimsOf = (s: Case) => ({
  N: s.N, H: s.H, W: s.W, C: s.C, OH: s.OH, OW: s.OW, O: s.O, KH: s.KH, KW: s.KW, stride: s.stride, pad_top: s.pad[0], pad_left: s.pad[1], WC: s.wC!, C0: s.c0!,
  has_bias: 0, has_per_image: 0, has_residual: 0, accumulate: 0, splits: 1,
});

/** Elements of dw (KH, KW, WC, O) that belong to the input channels of this call. */
const inSlice = (s: Case) => (i: number): boolean => Math.floor(i / s.O) % s.wC! >= s.c0! && Math.floor(i / s.O) % s.wC! < s.c0! + s.C;

/** Subgroup kernels need one width of 8, as lavapipe has, or of 4; tiled3x3 more workgroup memory than a device opened with default limits has. */
const available = (engine: Engine, variant: ConvVariant): boolean =>
  variant === 'tiled3x3' ? engine.device.limits.maxComputeWorkgroupStorageSize >= k.conv2d_3x3_tiled.workgroupBytes : !variant.startsWith('subgroup') || isLanes(engine.subgroupWidth);

/** What results may be off by besides the roundings of their sums: a 3 x 3 convolution that keeps the size is filtered where the engine chooses so, and by its own variant. */
function filtering(engine: Engine, s: Case, { x, w, dy }: ReturnType<typeof inputsOf>, variant?: ConvVariant) {
  const even = { ...dimsOf(s), C: 4 * Math.ceil(s.C / 4), O: 4 * Math.ceil(s.O / 4) };
  const chosen = (direction: ConvDirection) => {
    const first = variant ?? convChoice(engine, dimsOf(s), direction).variant;
    return first === 'padded' ? convChoice(engine, even, direction).variant : first;
  };
  const rows = (direction: ConvDirection) => ({ subgroup3x3: tileRows(s.H), tiled3x3: 4 })[chosen(direction) as string];
  const more = (off: Float64Array | null) => (atol: Float64Array) => (off ? atol.map((v, i) => v + off[i]) : atol);
  const [y, dx] = [rows('forward'), rows('input')];
  return {
    y: more(y ? filteredBound({ ...s, x, w }, y) : null), dx: more(dx ? filteredGradientBound({ ...s, dy, w }, dx) : null),
    dw: more(chosen('weight') === 'tiled3x3' ? filteredWeightBound({ ...s, x, dy }) : null),
  };
}

const families = gpuSuite('conv2d kernels'), subgroups = gpuSuite('conv2d kernels in subgroups'), fourLanes = gpuSuite('conv2d kernels in subgroups of four', { lanes: 4 });
const of = [...(['plain', 'tiled', 'tiled3x3', 'padded'] as const).map((variant) => [families, variant] as const), ...(['subgroup', 'subgroup3x3'] as const).flatMap((variant) => [[subgroups, variant], [fourLanes, variant]] as const)];
for (const [kernels, variant] of of) {
  for (const s of { plain: [...odd, ...fours], subgroup: fours, subgroup3x3: kept, tiled: fours, tiled3x3: kept, padded: odd }[variant]) {
    kernels(`${variant}: ${s.what}`, async (engine) => {
      if (!available(engine, variant)) return;
      const values = inputsOf(s), { x, w, dy, bias, perImage, residual, before } = values, dims = dimsOf(s), taps = s.KH * s.KW, off = filtering(engine, s, values, variant);
      // What is left to the engine is the first; smaller tiles give the same bits.
      const tilings = variant === 'tiled' || variant === 'tiled3x3' ? GEMM_TILES.map((tile) => ({ variant, tile })) : [{ variant }];
      const [tx, tw, tdy] = [x, w, dy].map((v) => upload(engine, [v.length], v));
      const inputs = { x: tx.slice, w: tw.slice, bias: upload(engine, [s.O], bias).slice, per_image: upload(engine, [perImage.length], perImage).slice, residual: upload(engine, [residual.length], residual).slice };

      // Every term of the epilogue alone, since each has its own flag; none; all of them on top of what is there.
      for (const flags of [[], ['bias'], ['perImage'], ['residual'], ['accumulate'], ['bias', 'perImage', 'residual', 'accumulate']]) {
        const has = (flag: string): number => Number(flags.includes(flag));
        const [y, ...others] = tilings.map((tiling) => {
          const y = destination(engine, [dy.length], has('accumulate') ? before.subarray(0, dy.length) : null);
          forward(engine, { ...dims, ...inputs, y: y.slice, has_bias: has('bias'), has_per_image: has('perImage'), has_residual: has('residual'), accumulate: has('accumulate') }, tiling);
          return y;
        });
        const compute = (f: (v: ArrayLike<number>) => ArrayLike<number>) => {
          const sum = twin.conv2d({ ...s, x: f(x), w: f(w), bias: has('bias') ? f(bias) : undefined, perImage: has('perImage') ? f(perImage) : undefined, residual: has('residual') ? f(residual) : undefined });
          return has('accumulate') ? add(sum, f(before)) : sum;
        };
        const what = `y with ${flags.join(', ') || 'nothing added'}`, got = await y.read();
        assertClose(got, compute((v) => v), { atol: off.y(bound(taps * s.C + flags.length, compute(abs))), what });
        for (const [i, other] of others.entries()) assert.equal(await other.read(), got, `bits of ${what}, smaller tile ${i + 1}`);
      }

      for (const accumulate of [0, 1] as const) {
        const on = accumulate ? ' on top' : '';
        const [dx, ...others] = tilings.map((tiling) => {
          const dx = destination(engine, [x.length], accumulate ? before.subarray(0, x.length) : null);
          backwardInput(engine, dims, tdy.slice, tw.slice, { slice: dx.slice, accumulate }, tiling);
          return dx;
        });
        const wantDx = (f: (v: ArrayLike<number>) => ArrayLike<number>) => {
          const sum = twin.conv2dBackwardInput({ ...s, dy: f(dy), w: f(w) });
          return accumulate ? add(sum, f(before)) : sum;
        };
        const gotDx = await dx.read();
        assertClose(gotDx, wantDx((v) => v), { atol: off.dx(bound(taps * s.O + 1, wantDx(abs))), what: `dx${on}` });
        for (const [i, other] of others.entries()) assert.equal(await other.read(), gotDx, `bits of dx${on}, smaller tile ${i + 1}`);

        // The rest of dw belongs to the other input of a skip connection: it stays as it is.
        const dw = upload(engine, [w.length], before.subarray(0, w.length)), mine = inSlice(s);
        if (!accumulate) engine.write(dw.slice, before.subarray(0, w.length).map((v, i) => (mine(i) ? NaN : v)));
        const db = destination(engine, [s.O], accumulate ? before.subarray(0, s.O) : null);
        backwardWeight(engine, dims, tx.slice, tdy.slice, { slice: dw.slice, accumulate }, { slice: db.slice, accumulate }, { variant });
        const wantDb = (f: (v: Float32Array) => Float32Array | Float64Array) => {
          const sums = Float64Array.from({ length: s.O }, (_, o) => (accumulate ? f(before)[o] : 0));
          f(dy).forEach((v, i) => (sums[i % s.O] += v));
          return sums;
        };
        assertClose(await db.read(), wantDb((v) => v), { atol: bound(s.N * s.OH * s.OW + 1, wantDb(abs)), what: `db${on}` });
        const wantDw = (f: (v: ArrayLike<number>) => ArrayLike<number>) => twin.conv2dBackwardWeight({ ...s, x: f(x), dy: f(dy) }).map((v, i) => (accumulate || !mine(i) ? v + f(before)[i] : v));
        const sizes = abs(before), tolerance = bound(s.N * s.OH * s.OW + 1, twin.conv2dBackwardWeight({ ...s, x: abs(x), dy: abs(dy) }).map((v, i) => (accumulate ? v + sizes[i] : v)));
        assertClose(await dw.read(), wantDw((v) => v), { atol: off.dw(tolerance).map((v, i) => (mine(i) ? v : 0)), what: `dw${on}` });
      }
    });
  }

  if (variant === 'padded') continue;
  kernels(`${variant}: weight gradient in more splits than there are pixels for`, async (engine) => {
    if (!available(engine, variant)) return;
    const s = fours[1], values = inputsOf(s), { x, dy } = values, weights = s.KH * s.KW * s.C * s.O;
    const [tx, tdy] = [x, dy].map((v) => upload(engine, [v.length], v));
    const want = twin.conv2dBackwardWeight({ ...s, x, dy }), atol = filtering(engine, s, values, variant).dw(bound(s.N * s.OH * s.OW, twin.conv2dBackwardWeight({ ...s, x: abs(x), dy: abs(dy) })));
    const columns = (values: Float32Array) => Float64Array.from({ length: s.O }, (_, o) => values.reduce((sum, v, i) => (i % s.O === o ? sum + v : sum), 0));
    const wantDb = columns(dy), atolDb = bound(s.N * s.OH * s.OW, columns(dy.map(Math.abs)));
    // Tiles of rows and columns, in those of the smallest: of `subgroup` in fours, of `subgroup3x3` input channels.
    const { weight, weight3x3, columns: smallest } = subgroupKernels(engine), one = { ROWS: 8, COLUMNS: 1 };
    const tilings = { subgroup: [one, { ROWS: 4, COLUMNS: 1 }, { ROWS: 16, COLUMNS: 2 }, { ROWS: 16, COLUMNS: 4 }], subgroup3x3: [one, { ROWS: 16, COLUMNS: 2 }] }[variant as string] ?? [one];
    let first = new Float32Array();
    for (const splits of [5, 11]) for (const tiling of tilings) {
      const part = Tensor.empty(engine, [splits * weights]), dw = Tensor.empty(engine, [weights]);
      const sums = Tensor.empty(engine, [splits * s.O]), db = Tensor.empty(engine, [s.O]), has_bias = Number(variant !== 'plain');
      const args = { ...dimsOf(s), has_bias, splits, x: tx.slice, dy: tdy.slice, part: part.slice, sums: sums.slice };
      if (variant === 'plain') engine.run(k.conv2d_backward_weight, threads(splits * weights), args);
      else if (variant === 'subgroup') engine.run(weight, grid(splits * Math.ceil((s.KH * s.KW * s.C) / (4 * tiling.ROWS)) * Math.ceil(s.O / (smallest * tiling.COLUMNS))), { ...args, ...tiling });
      else if (variant === 'subgroup3x3') engine.run(weight3x3, grid(splits * tiles(s.C, s.O, tiling.ROWS, smallest * tiling.COLUMNS)), { ...args, WIDE: Number(tiling !== one) });
      else if (variant === 'tiled3x3') engine.run(k.conv2d_backward_weight_3x3_tiled, grid(splits * Math.ceil((3 * s.C) / 32) * Math.ceil(s.O / 64)), args);
      else engine.run(k.conv2d_backward_weight_tiled, grid(splits * Math.ceil((s.KH * s.KW * s.C) / 128) * Math.ceil(s.O / 128)), args);
      fold(engine, part.slice, [{ y: dw.slice, accumulate: 0, from: 0, terms: splits, step: weights, size: weights }]);
      if (has_bias) fold(engine, sums.slice, [{ y: db.slice, accumulate: 0, from: 0, terms: splits, step: s.O, size: s.O }]);
      const got = await dw.read();
      assertClose(got, want, { atol, what: `${splits} splits of ${tiling.ROWS} x ${tiling.COLUMNS}` });
      if (tiling === one) first = got;
      assert.equal(got, first, `bits of ${splits} splits of ${tiling.ROWS} x ${tiling.COLUMNS}`);
      if (has_bias) assertClose(await db.read(), wantDb, { atol: atolDb, what: `the bias's in ${splits} splits` });
    }
  });
}

for (const [kernels, tilings] of [[subgroups, [...CONV_TILES, ...CONV_TILES_16]], [fourLanes, [CONV_TILES[0], CONV_TILES.at(-1)!]]] as const) for (const s of [shape('', 3, 9, 11, 8, 68, 1), shape('', 2, 7, 9, 12, 36, 3, { stride: 2, pad: [1, 0, 0, 1] })])
  kernels(`subgroup: ${s.KH} x ${s.KW} of ${s.C} to ${s.O} channels, all tiles with the same bits`, async (engine) => {
    if (!available(engine, 'subgroup')) return;
    const { x, w, dy } = inputsOf(s), { conv, lanes } = subgroupKernels(engine), [tx, tw, tdy] = [x, w, dy].map((v) => upload(engine, [v.length], v));
    const none = { bias: tw.slice, per_image: tw.slice, residual: tx.slice }, kinds = s.stride ** 2;
    for (const [TRANSPOSED, from, size, want, atol, matrices, pixels, channels] of [
      [0, tx, dy.length, twin.conv2d({ ...s, x, w }), bound(s.KH * s.KW * s.C, twin.conv2d({ ...s, x: abs(x), w: abs(w) })), 1, s.N * s.OH * s.OW, s.O],
      [1, tdy, x.length, twin.conv2dBackwardInput({ ...s, dy, w }), bound(s.KH * s.KW * s.O, twin.conv2dBackwardInput({ ...s, dy: abs(dy), w: abs(w) })), kinds, s.N * Math.ceil(s.H / s.stride) * Math.ceil(s.W / s.stride), s.C],
    ] as const) {
      let first: Float32Array | null = null;
      for (const { R, Q } of tilings) {
        const y = destination(engine, [size], null), what = `${R * lanes} x ${4 * Q} ${TRANSPOSED ? 'dx' : 'y'}`;
        engine.run(conv, grid(matrices * tiles(pixels, channels, R * lanes, 4 * Q)), { ...dimsOf(s), ...none, x: from.slice, w: tw.slice, y: y.slice, R, Q, TRANSPOSED });
        const got = await y.read();
        assertClose(got, want, { atol, what });
        first ??= got;
        assert.equal(got, first, `bits of ${what}`);
      }
    }
  });

for (const [kernels, forms] of [[subgroups, [[7, 2, 0], [7, 2, 1], [8, 2, 0], [4, 1, 1]]], [fourLanes, [[7, 2, 0]]]] as const)
  kernels('subgroup3x3: tiles of 32 channels have the bits of those of 16', async (engine) => {
    if (!available(engine, 'subgroup3x3')) return;
    const { conv3x3, lanes } = subgroupKernels(engine);
    for (const [G, COLUMNS, TRANSPOSED] of forms) {
      const s = TRANSPOSED ? shape('', 2, 10, 5, 52, 12, 3) : shape('', 2, 10, 5, 12, 52, 3), channels = Math.max(s.C, s.O), width = COLUMNS * lanes;
      const { x, w, dy, bias, perImage, residual } = inputsOf(s), from = TRANSPOSED ? dy : x, size = s.N * s.H * s.W * channels;
      const [tx, tw, tb, tp, tr] = [from, w, bias, perImage, residual].map((v) => upload(engine, [v.length], v));
      const added = TRANSPOSED ? {} : { has_bias: 1, has_per_image: 1, has_residual: 1 };
      const got = [];
      for (const WIDE of [0, 1]) {
        const y = destination(engine, [size], null);
        engine.run(conv3x3, grid(tiles(s.H, s.N * s.W, G, width) * Math.ceil(channels / (WIDE ? 32 : 16))), { ...dimsOf(s), ...added, x: tx.slice, w: tw.slice, bias: tb.slice, per_image: tp.slice, residual: tr.slice, y: y.slice, G, COLUMNS, BESIDE: 1, WIDE, TRANSPOSED });
        got.push(await y.read());
      }
      assert.equal(got[1], got[0], `${G} rows of ${width} columns, ${TRANSPOSED ? 'dx' : 'y'}`);
      assert.ok(got[0].every(Number.isFinite), 'all was written');
    }
  });

for (const variant of ['tiled', 'tiled3x3'] as const) families(`${variant}: two inputs in one dispatch, as in two`, async (engine) => {
  if (!available(engine, variant)) return;
  const whole = shape('', 2, 5, 7, 76, 20, 3), values = inputsOf(whole), { x, w, dy, bias, residual } = values, pixels = x.length / whole.C;
  // 24 and 52 channels, so that the border between the inputs lies within a tile of k.
  const cut = (first: number, count: number) => Float32Array.from({ length: pixels * count }, (_, i) => x[Math.floor(i / count) * whole.C + first + (i % count)]);
  const [a, b] = [upload(engine, [pixels * 24], cut(0, 24)), upload(engine, [pixels * 52], cut(24, 52))];
  const [tw, tbias, tresidual] = [w, bias, residual].map((v) => upload(engine, [v.length], v));
  const args = { ...dimsOf({ ...whole, C: 24 }), x: a.slice, w: tw.slice, bias: tbias.slice, per_image: tbias.slice, residual: tresidual.slice, has_bias: 1, has_per_image: 0, has_residual: 1, accumulate: 0 };
  const compute = (f: (v: ArrayLike<number>) => ArrayLike<number>) => twin.conv2d({ ...whole, x: f(x), w: f(w), bias: f(bias), residual: f(residual) });
  const want = compute((v) => v), atol = filtering(engine, whole, values, variant).y(bound(9 * 76 + 2, compute(abs)));
  for (const tile of GEMM_TILES) {
    const y = Tensor.empty(engine, [dy.length]);
    forwardTwo(engine, { ...args, y: y.slice }, b.slice, variant, tile);
    assertClose(await y.read(), want, { atol, what: `y in tiles of ${tile}` });
  }
});

families('tiled3x3: sums left in parts, more of them than there are turns, and of some of the input channels', async (engine) => {
  if (!available(engine, 'tiled3x3')) return;
  for (const s of [shape('', 2, 9, 7, 36, 68, 3), shape('', 3, 4, 3, 12, 8, 3, { wC: 20, c0: 4 })]) {
    const values = inputsOf(s), { x, w, dy, bias, perImage, residual, before } = values, off = filtering(engine, s, values, 'tiled3x3');
    const [tx, tw, tdy, tbias, tperImage, tresidual] = [x, w, dy, bias, perImage, residual].map((v) => upload(engine, [v.length], v).slice);
    const wantY = (f: (v: ArrayLike<number>) => ArrayLike<number>) => add(twin.conv2d({ ...s, x: f(x), w: f(w), bias: f(bias), perImage: f(perImage), residual: f(residual) }), f(before));
    const wantDx = (f: (v: ArrayLike<number>) => ArrayLike<number>) => add(twin.conv2dBackwardInput({ ...s, dy: f(dy), w: f(w) }), f(before));
    const want = { y: wantY((v) => v), dx: wantDx((v) => v) }, sizes = { y: wantY(abs), dx: wantDx(abs) };
    // 15 turns of x and 27 of dy, and 6 and 3: some parts are shorter than others, or empty.
    // A turn of a smaller tile takes what are two or four of these, as far as a part goes.
    for (const splits of [2, 4, 7]) {
      let first: readonly Float32Array[] | null = null;
      for (const tile of GEMM_TILES) {
        const y = destination(engine, [dy.length], before.subarray(0, dy.length)), dx = destination(engine, [x.length], before.subarray(0, x.length));
        const more = { has_bias: 1, has_per_image: 1, has_residual: 1, accumulate: 1 };
        forward(engine, { ...dimsOf(s), ...more, x: tx, w: tw, bias: tbias, per_image: tperImage, residual: tresidual, y: y.slice }, { variant: 'tiled3x3', splits, tile });
        backwardInput(engine, dimsOf(s), tdy, tw, { slice: dx.slice, accumulate: 1 }, { variant: 'tiled3x3', splits, tile });
        const got = [await y.read(), await dx.read()];
        assertClose(got[0], want.y, { atol: off.y(bound(9 * s.C + 4 + splits, sizes.y)), what: `y of ${s.C} channels in ${splits} parts, tiles of ${tile}` });
        assertClose(got[1], want.dx, { atol: off.dx(bound(9 * s.O + 1 + splits, sizes.dx)), what: `dx of ${s.C} channels in ${splits} parts, tiles of ${tile}` });
        assert.equal(got, (first ??= got), `bits in ${splits} parts, tiles of ${tile}`);
      }
    }
  }
});

families('tiled3x3: workgroups beyond the last part, as where a dimension holds no more, find nothing to do', async (engine) => {
  if (!available(engine, 'tiled3x3')) return;
  const s = shape('', 2, 9, 7, 8, 68, 3), values = inputsOf(s), { x, w, dy } = values, [tx, tw] = [x, w].map((v) => upload(engine, [v.length], v).slice), part = Tensor.empty(engine, [5, dy.length]);
  engine.run(k.conv2d_3x3_tiled, [8 + 9], { ...dimsOf(s), splits: 2, SPLIT: 1, x: tx, x2: tx, w: tw, bias: tw, per_image: tw, residual: tx, y: part.slice });
  const got = await part.read(), want = twin.conv2d({ ...s, x, w });
  assert.ok(got.subarray(2 * dy.length).every(Number.isNaN), 'behind the parts nothing is written');
  assertClose(want.map((_, i) => got[i] + got[dy.length + i]), want, { atol: filtering(engine, s, values, 'tiled3x3').y(bound(9 * s.C + 2, twin.conv2d({ ...s, x: abs(x), w: abs(w) }))), what: 'y' });
});

families('tiled3x3: a coefficient that is a ten-thousandth off is seen', async (engine) => {
  if (!available(engine, 'tiled3x3')) return;
  // One row of x at a time, and nothing that cancels: what may be off is then little beside any of the products.
  const s = shape('', 1, 8, 3, 4, 4, 3), [w, dy] = [1, 2].map((id) => random(144, id).map(Math.abs)), all = random(96, 0).map(Math.abs), { run } = engine;
  const probes = Array.from({ length: 8 }, (_, row) => {
    const x = all.map((v, i) => (Math.floor(i / 12) === row ? v : 0)), values = { ...inputsOf(s), x, w, dy: dy.subarray(0, 96) }, off = filtering(engine, s, values, 'tiled3x3');
    const y = twin.conv2d({ ...s, x, w }), dw = twin.conv2dBackwardWeight({ ...s, x, dy });
    return { x, want: { y, dw }, atol: { y: off.y(bound(36, y)), dw: off.dw(bound(24, dw)) } };
  });
  const [tw, tdy] = [w, dy].map((v) => upload(engine, [v.length], v).slice);
  // Each kernel is compiled once, which takes long here: the stride, which it does not read, says which coefficient is wrong.
  const COEFFICIENTS = [
    ['4.0 * d[2]'], ['(1.0 / 6.0);\n  let odd '], ['4.0 * d[1] - d'], ['(1.0 / 6.0);\n  let even2'], ['(1.0 / 24.0)'], ['(1.0 / 12.0)'], ['1.25 * d'], ['0.25 * d'], ['4.0 * d[1] - 5'], ['5.0 * d'], // of x
    ['4.0 * below', '4.0 * f2'], ['2.0 * here', '2.0 * f1'], ['8.0 * odd2', '8.0 * f3'], ['4.0 * even2'], ['2.0 * odd2'], // of the weight or dy, and of products
  ];
  const changed = (wgsl: string): string =>
    COEFFICIENTS.reduce((text, terms, i) => terms.reduce((t, term) => t.replace(term, `select(1.0, 1.0001, dims.stride == ${i + 2}u) * ${term}`), text), wgsl);
  /** Which results show that a coefficient is wrong. */
  const seen = async (stride: number, change = changed): Promise<string[]> => {
    const found = new Set<string>();
    for (const { x, want, atol } of probes) {
      const tx = upload(engine, [96], x).slice, y = Tensor.empty(engine, [96]), dw = Tensor.empty(engine, [144]);
      engine.run = ((kernel, grid, args) => run.call(engine, { ...kernel, name: `changed_${kernel.name}`, wgsl: change(kernel.wgsl) }, grid, { ...args, stride })) as typeof run;
      try {
        forward(engine, { ...dimsOf(s), x: tx, w: tw, bias: tw, per_image: tw, residual: tx, y: y.slice }, { variant: 'tiled3x3' });
        backwardWeight(engine, dimsOf(s), tx, tdy, { slice: dw.slice, accumulate: 0 }, null, { variant: 'tiled3x3' });
      } finally {
        engine.run = run;
      }
      for (const [what, got] of [['y', await y.read()], ['dw', await dw.read()]] as const) if (got.some((v, i) => !(Math.abs(v - want[what][i]) <= atol[what][i]))) found.add(what);
    }
    return [...found].sort();
  };
  assert.equal([await seen(1, (wgsl) => wgsl), await seen(1)], [[], []]);
  for (const [i, terms] of COEFFICIENTS.entries()) assert.equal(await seen(i + 2), ['dw', 'y'], terms.join());
});

families('copy_columns pads, cuts and adds', async (engine) => {
  const x = random(3 * 5, 0), run = (y: Tensor, dims: Record<'width' | 'x_stride' | 'x_first' | 'y_stride' | 'y_first' | 'y_width' | 'accumulate', number>) =>
    engine.run(k.copy_columns, threads(3 * dims.y_width), { x: upload(engine, [15], x).slice, y: y.slice, rows: 3, ...dims });
  const wide = Tensor.empty(engine, [3, 8]);
  run(wide, { width: 5, x_stride: 5, x_first: 0, y_stride: 8, y_first: 0, y_width: 8, accumulate: 0 });
  assert.equal(await wide.read(), Float32Array.from({ length: 24 }, (_, i) => (i % 8 < 5 ? x[Math.floor(i / 8) * 5 + (i % 8)] : 0)));
  // Columns 1 to 3 of x on top of columns 2 to 4 of 6, the others as they were.
  const before = random(18, 1), some = upload(engine, [3, 6], before);
  run(some, { width: 3, x_stride: 5, x_first: 1, y_stride: 6, y_first: 2, y_width: 3, accumulate: 1 });
  assert.equal(await some.read(), before.map((v, i) => (i % 6 >= 2 && i % 6 < 5 ? v + x[Math.floor(i / 6) * 5 + (i % 6) - 1] : v)));
});

families('the family follows from the shape and the device', (engine) => {
  const cpu = isLanes(engine.subgroupWidth), same = available(engine, 'tiled3x3') ? 'tiled3x3' : 'tiled';
  const family = (C: number, O: number, direction: 'forward' | 'input' | 'weight', options = {}) => convChoice(engine, dimsOf(shape('', 1, 8, 8, C, O, 3, options)), direction).variant;
  assert.equal([family(1, 16, 'forward'), family(16, 3, 'input')], cpu ? ['padded', 'padded'] : ['plain', 'plain']);
  assert.equal([family(1, 16, 'weight'), family(16, 3, 'weight')], ['padded', 'padded']);
  assert.equal([family(16, 4, 'forward'), family(16, 4, 'forward', { stride: 2 })], cpu ? ['subgroup3x3', 'subgroup'] : [same, 'tiled']);
});
families.run();
subgroups.run();
fourLanes.run();

// ---------------------------------------------------------------------------------------------------------------------- through the tape
const ops = gpuSuite('conv2d and linear as ops'), onGpu = gpuSuite('conv2d as on a GPU', { as: 'gpu' });

const composed = [
  ['plain, everything added', odd[1], 0],
  ['GEMM, everything added', shape('', 2, 6, 7, 12, 20, 3), 0],
  ['stride 2', shape('', 2, 7, 6, 8, 12, 3, { stride: 2, pad: [0, 1, 0, 1] }), 0],
  ['plain over a skip connection', shape('', 2, 5, 4, 5, 3, 3, { wC: 7 }), 2],
  ['GEMM over a skip connection', shape('', 2, 5, 6, 12, 36, 3, { wC: 20 }), 8],
  ['GEMM of small images, whose sums a GPU leaves in parts', shape('', 3, 3, 4, 84, 68, 3), 0],
  ['GEMM and plain over a skip connection', shape('', 1, 5, 6, 8, 12, 1, { wC: 11 }), 3],
] as const;
for (const [what, s, second] of composed) {
  for (const suite of what.startsWith('plain') ? [ops] : [ops, onGpu]) suite(what, async (engine) => {
    const values = inputsOf(s), { x, w, dy, bias, perImage, residual } = values, { N, H, W, C, O, KH, KW, OH, OW } = s, taps = KH * KW;
    const x2 = random(N * H * W * second, 7), other = { ...s, C: second, c0: C };
    const t = {
      x: upload(engine, [N, H, W, C], x), w: upload(engine, [KH, KW, s.wC!, O], w), bias: upload(engine, [O], bias),
      perImage: upload(engine, [N, O], perImage), residual: upload(engine, [N, OH, OW, O], residual),
    };
    const t2 = second ? upload(engine, [N, H, W, second], x2) : null;
    const { stride, pad: [top, left] } = s;
    const padding = [top, stride * (OH - 1) + KH - H - top, left, stride * (OW - 1) + KW - W - left] as const;
    const op = () => conv2d(t2 ? [t.x, t2] : t.x, t.w, t.bias, { stride, padding, perImage: t.perImage, residual: t.residual });
    const { y, gradients } = await differentiate([...Object.values(t), ...(t2 ? [t2] : [])], op, dy);

    const rows = N * OH * OW;
    const compute = (f: (v: ArrayLike<number>) => ArrayLike<number>) => {
      const sum = twin.conv2d({ ...s, x: f(x), w: f(w), bias: f(bias), perImage: f(perImage), residual: f(residual) });
      const dw = twin.conv2dBackwardWeight({ ...s, x: f(x), dy: f(dy) });
      return {
        y: second ? add(sum, twin.conv2d({ ...other, x: f(x2), w: f(w) })) : sum,
        dx: twin.conv2dBackwardInput({ ...s, dy: f(dy), w: f(w) }),
        dw: second ? add(dw, twin.conv2dBackwardWeight({ ...other, x: f(x2), dy: f(dy) })) : dw,
        db: twin.sumRows(f(dy), rows, O),
        dPerImage: twin.sumPixels(f(dy), N, OH * OW, O),
        dx2: twin.conv2dBackwardInput({ ...other, dy: f(dy), w: f(w) }),
      };
    };
    const want = compute((v) => v), sizes = compute(abs), off = filtering(engine, s, values), off2 = filtering(engine, other, { ...values, x: x2 });
    assertClose(y, want.y, { atol: off2.y(off.y(bound(taps * s.wC! + 3, sizes.y))), what: 'y' });
    assertClose(gradients[0], want.dx, { atol: off.dx(bound(taps * O, sizes.dx)), what: 'dx' });
    assertClose(gradients[1], want.dw, { atol: off2.dw(off.dw(bound(rows, sizes.dw))), what: 'dw' });
    assertClose(gradients[2], want.db, { atol: bound(rows, sizes.db), what: 'dbias' });
    assertClose(gradients[3], want.dPerImage, { atol: bound(OH * OW, sizes.dPerImage), what: 'dperImage' });
    assert.equal(gradients[4], dy, 'the gradient of the residual is dy itself');
    if (second) assertClose(gradients[5], want.dx2, { atol: off2.dx(bound(taps * O, sizes.dx2)), what: 'dx2' });
  });
}

onGpu('an image of 4 x 4 has the same bits alone and in a batch', async (engine) => {
  const s = shape('', 33, 4, 4, 256, 8, 3), { x, w, bias } = inputsOf(s), of = 16 * s.C, [tw, tbias] = [upload(engine, [3, 3, s.C, s.O], w), upload(engine, [s.O], bias)];
  assert.equal(convChoice(engine, dimsOf(s), 'forward'), available(engine, 'tiled3x3') ? { variant: 'tiled3x3', splits: 6 } : { variant: 'tiled' });
  const y = await conv2d(upload(engine, [33, 4, 4, s.C], x), tw, tbias).read(), last = await conv2d(upload(engine, [1, 4, 4, s.C], x.subarray(32 * of)), tw, tbias).read();
  assert.equal(last, y.subarray(32 * 16 * s.O));
});

ops('a bias alone: its gradient is summed where nobody wants that of the weight', async (engine) => {
  for (const [N, H, W] of [[3, 6, 10], [1, 1, 13]]) {
    const s = shape('', N, H, W, 1, 5, 1), { x, w, dy, bias } = inputsOf(s), rows = N * H * W;
    const inputs = [upload(engine, [N, H, W, 1], x), upload(engine, [1, 1, 1, 5], w), upload(engine, [5], bias)];
    const { gradients } = await differentiate([inputs[2]], () => conv2d(inputs[0], inputs[1], inputs[2]), dy);
    assertClose(gradients[0], twin.sumRows(dy, rows, 5), { atol: bound(rows, twin.sumRows(abs(dy), rows, 5)), what: `dbias of ${rows} rows` });
  }
});

ops('without bias or anything else', async (engine) => {
  const s = fours[0], values = inputsOf(s), { x, w, dy } = values, off = filtering(engine, s, values);
  const inputs = [upload(engine, [1, 3, 3, 4], x), upload(engine, [3, 3, 4, 4], w)];
  const { y, gradients } = await differentiate(inputs, () => conv2d(inputs[0], inputs[1], null), dy);
  assertClose(y, twin.conv2d({ ...s, x, w }), { atol: off.y(bound(36, twin.conv2d({ ...s, x: abs(x), w: abs(w) }))), what: 'y' });
  assertClose(gradients[0], twin.conv2dBackwardInput({ ...s, dy, w }), { atol: off.dx(bound(36, twin.conv2dBackwardInput({ ...s, dy: abs(dy), w: abs(w) }))), what: 'dx' });
});

for (const [M, I, O] of [[5, 7, 3], [70, 12, 36]]) {
  ops(`linear: ${M} rows of ${I} to ${O}`, async (engine) => {
    const x = random(M * I, 0), w = random(I * O, 1), bias = random(O, 2), residual = random(M * O, 3), dy = random(M * O, 4);
    const rows = [M / 5, 5]; // more than one leading dimension
    const t = [upload(engine, [...rows, I], x), upload(engine, [1, 1, I, O], w), upload(engine, [O], bias), upload(engine, [...rows, O], residual)];
    const { y, gradients } = await differentiate(t, () => linear(t[0], t[1], t[2], { residual: t[3] }), dy);
    // The twin has the weight as PyTorch does, (O, I).
    const turn = (v: ArrayLike<number>, a: number, b: number) => Float64Array.from({ length: a * b }, (_, i) => v[(i % a) * b + Math.floor(i / a)]);
    const compute = (f: (v: ArrayLike<number>) => ArrayLike<number>) => {
      const wt = turn(f(w), I, O), g = linearBackward(f(x), wt, f(dy), M, I, O);
      return { y: add(linearTwin(f(x), wt, f(bias), M, I, O), f(residual)), dx: g.dx, dw: turn(g.dw, O, I), db: g.dbias };
    };
    const want = compute((v) => v), sizes = compute(abs);
    assertClose(y, want.y, { atol: bound(I + 2, sizes.y), what: 'y' });
    assertClose(gradients[0], want.dx, { atol: bound(O, sizes.dx), what: 'dx' });
    assertClose(gradients[1], want.dw, { atol: bound(M, sizes.dw), what: 'dw' });
    assertClose(gradients[2], want.db, { atol: bound(M, sizes.db), what: 'dbias' });
    assert.equal(gradients[3], dy, 'dresidual');
  });
}

ops('a result that nobody reads is not computed, and has the same gradients', async (engine) => {
  const s = fours[1], { x, w, dy, bias, perImage, residual } = inputsOf(s), { N, H, W, C, O } = s;
  const t = [upload(engine, [N, H, W, C], x), upload(engine, [3, 3, C, O], w), upload(engine, [O], bias), upload(engine, [N, O], perImage), upload(engine, [N, H, W, O], residual)];
  const of = (unread: boolean) => differentiate(t, () => conv2d(t[0], t[1], t[2], { perImage: t[3], residual: t[4], unread }), dy);
  const read = await of(false), unread = await of(true);
  assert.ok(read.y.every(Number.isFinite) && unread.y.every(Number.isNaN), 'what was in its memory is still there');
  assert.equal(unread.gradients, read.gradients);
  const rows = upload(engine, [5, C], x.subarray(0, 5 * C)), weight = upload(engine, [1, 1, C, O], w.subarray(0, C * O));
  assert.ok((await linear(rows, weight, null, { unread: true }).read()).every(Number.isNaN));
});

ops('shapes that do not fit are refused', async (engine) => {
  const w = Tensor.empty(engine, [3, 3, 8, 4]), x = (shape: number[]) => Tensor.empty(engine, shape);
  for (const bad of [x([1, 4, 4, 7]), [x([1, 4, 4, 4]), x([1, 4, 5, 4])] as const, [x([1, 4, 4, 4]), x([2, 4, 4, 4])] as const, x([4, 4, 8])])
    await assertError(() => conv2d(bad, w, null), 'E-SHAPE', /conv2d: inputs .* do not fit the weight \(3, 3, 8, 4\)/);
  await assertError(() => conv2d(x([1, 4, 4, 8]), w, null, { stride: 3 }), 'E-SHAPE', /conv2d: a stride of 3; 1 and 2 are implemented/);
});

ops.run();
onGpu.run();
