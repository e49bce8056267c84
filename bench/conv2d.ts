// Convolutions at the shapes of a preset's training step: forward, backward-input and backward-weight, every variant that takes the shape.
import type { Engine } from '../src/gpu/engine.ts';
import type { Slice } from '../src/gpu/kernel.ts';
import { convCandidates, floatChoice, type ConvDims } from '../src/ops/conv2d_choice.ts';
import { backwardInput, backwardWeight, forward } from '../src/ops/conv2d_kernels.ts';
import type { ConvDirection, ConvVariant } from '../src/variants.ts';
import { type Case, noise } from './harness.ts';
import type { Shape } from './model.ts';

/** The variants worth timing on this device; the first is the one that the engine chooses. */
function variants(engine: Engine, dims: ConvDims, direction: ConvDirection, all: boolean): ConvVariant[] {
  const chosen = floatChoice(engine, dims, direction).variant;
  if (!all) return [chosen];
  return [...new Set([chosen, ...convCandidates(engine, dims, direction).map(({ variant }) => variant as ConvVariant)])];
}

export function* conv2dCases(engine: Engine, shape: Shape, all: boolean): Generator<Case> {
  const { N, H, W, C, OH, OW, O, KH, KW, stride, pad_top, pad_left } = shape as Record<string, number> & ConvDims;
  const dims: ConvDims = { N, H, W, C, OH, OW, O, KH, KW, stride, pad_top, pad_left, WC: C, C0: 0, has_bias: 1, has_per_image: 0, has_residual: 0, accumulate: 0, splits: 1 };
  const random = (count: number): Slice => {
    const slice = engine.allocate(4 * count);
    engine.write(slice, noise(count));
    return slice;
  };
  const x = random(N * H * W * C), w = random(KH * KW * C * O), bias = random(O), dy = random(N * OH * OW * O);
  const y = engine.allocate(4 * N * OH * OW * O), dx = engine.allocate(4 * N * H * W * C), dw = engine.allocate(4 * KH * KW * C * O);
  const name = `${N}x${H}x${W} ${C}->${O} k${KH === KW ? KH : `${KH}x${KW}`}${stride > 1 ? ` s${stride}` : ''}`;
  const work = { flops: 2 * N * OH * OW * O * KH * KW * C, bytes: 4 * (N * H * W * C + KH * KW * C * O + N * OH * OW * O) };
  const launch = {
    forward: (v: ConvVariant) => () => forward(engine, { ...dims, x, w, bias, per_image: bias, residual: x, y }, { variant: v }),
    input: (v: ConvVariant) => () => backwardInput(engine, dims, dy, w, { slice: dx, accumulate: 0 }, { variant: v }),
    weight: (v: ConvVariant) => () => backwardWeight(engine, dims, x, dy, { slice: dw, accumulate: 0 }, null, { variant: v }),
  };
  const kinds = [
    ['forward', 'conv2d_forward', y, KH * KW * C],
    ['input', 'conv2d_backward_input', dx, KH * KW * O],
    ['weight', 'conv2d_backward_weight', dw, N * OH * OW],
  ] as const;
  for (const [direction, kernel, output, terms] of kinds)
    for (const v of variants(engine, dims, direction, all))
      yield { name: `${kernel}/${name}/${v}`, ...work, terms, output, run: launch[direction](v), ...(v === 'plain' ? {} : { reference: launch[direction]('plain') }) };
  for (const slice of [x, w, bias, dy, y, dx, dw]) engine.free(slice);
}
