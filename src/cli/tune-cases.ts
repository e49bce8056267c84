// What `npm run tune` measures: for each op and shape the choices worth trying, and the work itself on numbers of its own.

import { Tape } from '../autograd.ts';
import type { Choice, Made } from '../gpu/choices.ts';
import type { Engine } from '../gpu/engine.ts';
import type { Slice } from '../gpu/kernel.ts';
import { convCandidates, type ConvDims } from '../ops/conv2d_choice.ts';
import { backwardInput, backwardWeight, forward } from '../ops/conv2d_kernels.ts';
import { groupNorm } from '../ops/group_norm.ts';
import { mse } from '../ops/loss.ts';
import { matmul, matmulTakes, type Operand } from '../ops/matmul.ts';
import { sumPixels } from '../ops/sum.ts';
import { Tensor } from '../tensor.ts';
import { MATMUL_VARIANTS, workgroupsOf } from '../variants.ts';

type Sizes = Readonly<Record<string, number>>;

/** Records the work and returns where its result is. */
export type Work = () => Slice;

/** One op at one shape. */
export interface Case {
  readonly candidates: readonly Choice[];
  /** The plain kernel, whose result any other must have; null where the op's own choice is as plain as any. */
  readonly plain: Choice | null;
  /** Products in the sum behind one number of the result: how far two orders of summation may differ. */
  readonly terms: number;
  /** For people: `28x28 16->32 3x3`. */
  readonly label: string;
  /** Multiplications and additions. */
  work(at: Sizes): number;
  /** Allocates the operands. */
  make(at: Sizes): Work;
}

/** Values in [-1, 1) without a pattern that a kernel's order of summation could meet (xorshift). */
export function noise(count: number): Float32Array {
  const out = new Float32Array(count);
  let state = 0x9e3779b9;
  for (let i = 0; i < count; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    out[i] = state / 2 ** 31;
  }
  return out;
}

/** Operands larger than this are copies of one stretch: their values have no part in the time. */
const STRETCH = 1 << 22;

function random(engine: Engine, count: number): Slice {
  const slice = engine.allocate(4 * count), values = noise(Math.min(count, STRETCH));
  for (let first = 0; first < count; first += STRETCH)
    engine.write({ buffer: slice.buffer, offset: slice.offset + 4 * first, bytes: 4 * Math.min(STRETCH, count - first) }, values.subarray(0, Math.min(STRETCH, count - first)));
  return slice;
}

/** The case of a choice that a plan asked for; null for an op that is not measured. */
export function caseOf(engine: Engine, { op, shape }: Pick<Made, 'op' | 'shape'>): Case | null {
  if (op.startsWith('conv2d_')) return convolution(engine, op, shape);
  if (op === 'matmul') return product(engine, shape);
  if (op.startsWith('group_norm_')) return norm(engine, op, shape);
  return op === 'sum_pixels' ? sum(engine, shape) : null;
}

function convolution(engine: Engine, op: string, shape: Sizes): Case {
  const direction = op === 'conv2d_forward' ? 'forward' : op === 'conv2d_backward_input' ? 'input' : 'weight';
  const dimsAt = (at: Sizes): ConvDims => ({ ...(shape as ConvDims), ...at, WC: shape['C']!, C0: 0, has_bias: 1, has_per_image: 0, has_residual: 0, accumulate: 0, splits: 1 });
  const { C, O, KH, KW, stride, H, W, N } = shape as ConvDims, taps = KH * KW, size = H ? `${N ? `${N}x` : ''}${H}x${W} ` : '';
  return {
    // The number of images has no part in what can be done, but for the weight's gradient, whose shape has it.
    candidates: convCandidates(engine, { ...dimsAt({}), N: N ?? 1 }, direction),
    plain: { variant: 'plain' },
    terms: direction === 'forward' ? taps * C : direction === 'input' ? taps * O : N * shape['OH']! * shape['OW']!,
    label: `${size}${C}->${O} ${KH}x${KW}${stride > 1 ? ` stride ${stride}` : ''}`,
    work: (at) => {
      const d = dimsAt(at);
      return 2 * d.N * d.OH * d.OW * d.O * taps * d.C;
    },
    make: (at) => {
      const d = dimsAt(at), x = d.N * d.H * d.W * d.C, y = d.N * d.OH * d.OW * d.O, w = taps * d.C * d.O;
      if (direction === 'forward') {
        const args = { ...d, x: random(engine, x), w: random(engine, w), bias: random(engine, d.O) }, out = engine.allocate(4 * y);
        return () => (forward(engine, { ...args, per_image: args.bias, residual: args.x, y: out }), out);
      }
      const dy = random(engine, y);
      if (direction === 'input') {
        const weights = random(engine, w), out = engine.allocate(4 * x);
        return () => (backwardInput(engine, d, dy, weights, { slice: out, accumulate: 0 }), out);
      }
      const input = random(engine, x), out = engine.allocate(4 * w), db = engine.allocate(4 * d.O);
      return () => (backwardWeight(engine, d, input, dy, { slice: out, accumulate: 0 }, { slice: db, accumulate: 0 }), out);
    },
  };
}

function product(engine: Engine, shape: Sizes): Case {
  const { M, N, K, inner } = shape as Record<'M' | 'N' | 'K' | 'inner', number>;
  return {
    candidates: MATMUL_VARIANTS.filter((variant) => matmulTakes(engine, shape)[variant] && (variant !== 'tiled64' || engine.deviceClass === 'gpu')).map((variant) => ({ variant })),
    plain: { variant: 'tiled' },
    terms: K,
    label: `${M}x${N}, sums of ${K}${shape['trans_a'] ? ', a turned' : ''}${shape['trans_b'] ? ', b turned' : ''}`,
    work: ({ batch }) => 2 * batch! * M * N * K,
    make: ({ batch }) => {
      const operand = (which: 'a' | 'b' | 'c', rows: number, columns: number): Operand => {
        const [ld, outer, step] = [shape[`ld${which}`]!, shape[`outer_${which}`]!, shape[`inner_${which}`]!];
        const values = (batch! / inner - 1) * outer + (inner - 1) * step + (rows - 1) * ld + Math.max(columns, Math.min(ld, 4 * Math.ceil(columns / 4)));
        return { slice: which === 'c' ? engine.allocate(4 * values) : random(engine, values), ld, outer, inner: step };
      };
      const turned = (which: 'a' | 'b', rows: number, columns: number): Operand => (shape[`trans_${which}`] ? { ...operand(which, columns, rows), transposed: true } : operand(which, rows, columns));
      const a = turned('a', M, K), b = turned('b', K, N), c = operand('c', M, N);
      engine.clear(c.slice);
      return () => (matmul(engine, M, N, K, a, b, c, { batch: batch!, inner }), c.slice);
    },
  };
}

function norm(engine: Engine, op: string, shape: Sizes): Case {
  const { P, C0, C1, G } = shape as Record<'P' | 'C0' | 'C1' | 'G', number>, C = C0 + C1, back = op === 'group_norm_backward';
  // A column is four channels where these allow it.
  const narrow = (C / G) % 4 || C0 % 4 ? 4 : 1;
  return {
    candidates: workgroupsOf(engine.deviceClass).flatMap((workgroup): Choice[] => (engine.deviceClass === 'gpu' ? [2, 4, 8].map((columns) => ({ workgroup, columns: columns * narrow })).filter(({ columns }) => 2 * columns <= workgroup) : [{ workgroup }])),
    plain: null,
    terms: (P * C) / G,
    label: `${P} pixels, ${C0}${C1 ? `+${C1}` : ''} channels in ${G} groups`,
    work: ({ N }) => (back ? 45 : 15) * N! * P * C,
    make: ({ N }) => {
      const tensor = (...sizes: number[]): Tensor => new Tensor(engine, sizes, random(engine, sizes.reduce((a, b) => a * b)));
      const x = tensor(N!, P, 1, C0), x2 = C1 ? tensor(N!, P, 1, C1) : null, gamma = tensor(C), beta = tensor(C), goal = tensor(N!, P, 1, C);
      const input = x2 ? ([x, x2] as const) : x, apply = (): Tensor => groupNorm(input, gamma, beta, { groups: G, silu: true });
      if (!back) return () => engine.scope(apply).slice;
      for (const each of [x, x2, gamma, beta]) if (each) each.requiresGrad = true;
      // With the forward pass and a loss, since nothing goes backwards alone: what is gained on the way back shows less, never more.
      return () => {
        const tape = new Tape(engine), loss = tape.record(() => mse(apply(), goal));
        tape.backward(loss);
        for (const each of [x2, gamma, beta]) if (each) tape.gradient(each).free();
        return tape.gradient(x).slice;
      };
    },
  };
}

function sum(engine: Engine, { P, C }: Sizes): Case {
  const shapes = workgroupsOf(engine.deviceClass).flatMap((workgroup) => [1, 8].filter((columns) => columns <= workgroup).map((columns) => ({ workgroup, columns })));
  return {
    candidates: shapes,
    plain: null,
    terms: P!,
    label: `${P} x ${C}`,
    work: ({ N }) => N! * P! * C!,
    make: ({ N }) => {
      const x = random(engine, N! * P! * C!), y = engine.allocate(4 * N! * C!);
      return () => (sumPixels(engine, x, N!, P!, C!, { slice: y, accumulate: 0 }), y);
    },
  };
}
