// Kernels checked on this device against their float64 twins: one table that the page runs in a browser and a test runs in Node.
import { pointwise, threads } from '../../autograd.ts';
import { Clock } from '../../clock.ts';
import type { Engine } from '../../gpu/engine.ts';
import { grid, type Slice } from '../../gpu/kernel.ts';
import * as k from '../../gpu/kernels.gen.ts';
import { matmul } from '../../ops/attention.ts';
import { backwardInput, backwardWeight, forward } from '../../ops/conv2d_kernels.ts';
import { groupNorm } from '../../ops/group_norm.ts';
import { normal4, philox4x32, STREAM } from '../../philox.ts';
import { Tensor } from '../../tensor.ts';
import * as conv from '../../../test/ref/conv2d.ts';
import * as norm from '../../../test/ref/group_norm.ts';
import * as product from '../../../test/ref/matmul.ts';
import * as optim from '../../../test/ref/optim.ts';
import * as point from '../../../test/ref/pointwise.ts';
import * as random from '../../../test/ref/random.ts';
import * as soft from '../../../test/ref/softmax.ts';

type Floats = ArrayLike<number>;

/** What a kernel gave, what its twin says, and how far each value may be off. */
interface Compared {
  readonly got: Floats;
  readonly want: Floats;
  readonly tolerance: Floats;
  readonly shape: string;
}

export interface CheckResult {
  readonly kernel: string;
  readonly shape: string;
  readonly values: number;
  /** Largest difference, and largest share of its tolerance that a value took: at most 1 where all is well. */
  readonly error: number;
  readonly share: number;
  readonly ok: boolean;
  readonly ms: number;
}

export interface Check {
  /** File and name of the twin in test/ref. */
  readonly twin: readonly [file: string, name: string];
  readonly run: (engine: Engine) => Promise<Compared>;
}

/** Half a unit in the last place of 1, in float32. */
const ULP = 2 ** -24;
/** Errors of sums of `n` products, as test/helpers/close.ts derives them: they grow as sqrt(n) times the sum of the absolute products. */
const sumError = (n: number, absolute: number): number => 4 * Math.sqrt(n) * ULP * absolute + n * 2 ** -126;
/** exp() may be off by 3 + 2 |x| units in WGSL; what follows it adds a few. */
const expError = (x: number): number => (8 + 2 * Math.abs(x)) * 2 * ULP;

/** Standard normals of a counter: the same numbers on every device. */
function values(count: number, stream: number): Float32Array {
  const out = new Float32Array(count);
  for (let i = 0; i < count; i += 4) out.set(normal4(philox4x32([i, 0, 0, 7], [11, stream])).slice(0, Math.min(4, count - i)), i);
  return out;
}

const abs = (x: Floats): Float64Array => Float64Array.from(x, Math.abs);
const upload = (engine: Engine, data: Float32Array): Slice => Tensor.from(engine, [data.length], data).slice;
/** Room for a result, full of NaN: what is not written shows. */
function room(engine: Engine, count: number): Slice {
  const slice = engine.allocate(4 * count);
  engine.run(k.fill, grid(Math.ceil(count / 256)), { y: slice, value: NaN });
  return slice;
}

const read = async (engine: Engine, slice: Slice, count: number): Promise<Float32Array> => (await engine.read(slice)).subarray(0, count);

export const CHECKS: Readonly<Record<string, Check>> = {
  silu_forward: {
    twin: ['pointwise', 'silu'],
    run: async (engine) => {
      const n = 1030, x = values(n, 1).map((v) => 4 * v), y = room(engine, n), want = point.silu(x);
      engine.run(k.silu_forward, pointwise(n), { x: upload(engine, x), y });
      return { got: await read(engine, y, n), want, tolerance: want.map((v, i) => Math.abs(v) * expError(x[i]!) + 2 ** -126), shape: `(${n})` };
    },
  },
  silu_backward: {
    twin: ['pointwise', 'siluBackward'],
    run: async (engine) => {
      const n = 1030, x = values(n, 1).map((v) => 4 * v), dy = values(n, 2), dx = room(engine, n), want = point.siluBackward(x, dy);
      engine.run(k.silu_backward, pointwise(n), { x: upload(engine, x), dy: upload(engine, dy), dx, accumulate: 0 });
      // The two terms of 1 + x (1 - s) may cancel: their own sizes bound the error.
      return { got: await read(engine, dx, n), want, tolerance: want.map((_, i) => Math.abs(dy[i]!) * (1 + Math.abs(x[i]!)) * expError(x[i]!)), shape: `(${n})` };
    },
  },
  add_forward: {
    twin: ['pointwise', 'addPerImage'],
    run: async (engine) => {
      const N = 3, P = 35, C = 7, n = N * P * C, a = values(n, 1), b = values(N * C, 2), y = room(engine, n), want = point.addPerImage(a, b, N, P, C);
      engine.run(k.add_forward, threads(n), { a: upload(engine, a), b: upload(engine, b), y, N, P, C, per_image: 1 });
      return { got: await read(engine, y, n), want, tolerance: want.map((v) => ULP * Math.abs(v)), shape: `(${N}, ${P}, ${C}) + (${N}, ${C})` };
    },
  },
  fill: {
    twin: ['pointwise', 'fill'],
    run: async (engine) => {
      const n = 1000, y = room(engine, n);
      engine.run(k.fill, grid(Math.ceil(n / 256)), { y, value: 0.25 });
      return { got: await read(engine, y, n), want: point.fill(n, 0.25), tolerance: new Float64Array(n), shape: `(${n})` };
    },
  },
  accumulate: {
    twin: ['pointwise', 'accumulate'],
    run: async (engine) => {
      const n = 1030, x = values(n, 1), before = values(n, 2), y = upload(engine, before), want = point.accumulate(before, x);
      engine.run(k.accumulate, pointwise(n), { x: upload(engine, x), y, copy: 0 });
      return { got: await read(engine, y, n), want, tolerance: want.map((v) => ULP * Math.abs(v)), shape: `(${n})` };
    },
  },
  upsample_forward: {
    twin: ['pointwise', 'upsampleNearest2x'],
    run: async (engine) => {
      const [N, H, W, C] = [2, 5, 3, 7] as const, n = N * H * W * C, x = values(n, 1), y = room(engine, 4 * n);
      engine.run(k.upsample_forward, threads(n), { x: upload(engine, x), y, N, H, W, C });
      return { got: await read(engine, y, 4 * n), want: point.upsampleNearest2x(x, N, H, W, C), tolerance: new Float64Array(4 * n), shape: `(${N}, ${H}, ${W}, ${C})` };
    },
  },
  upsample_backward: {
    twin: ['pointwise', 'upsampleNearest2xBackward'],
    run: async (engine) => {
      const [N, H, W, C] = [2, 5, 3, 7] as const, n = N * H * W * C, dy = values(4 * n, 1), dx = room(engine, n);
      engine.run(k.upsample_backward, threads(n), { dy: upload(engine, dy), dx, N, H, W, C, accumulate: 0 });
      const tolerance = point.upsampleNearest2xBackward(abs(dy), N, H, W, C).map((v) => sumError(4, v));
      return { got: await read(engine, dx, n), want: point.upsampleNearest2xBackward(dy, N, H, W, C), tolerance, shape: `(${N}, ${H}, ${W}, ${C})` };
    },
  },
  softmax_forward: {
    twin: ['softmax', 'softmax'],
    run: async (engine) => {
      const rows = 37, size = 49, x = values(rows * size, 1).map((v) => 3 * v), y = room(engine, rows * size), want = soft.softmax(x, rows, size);
      engine.run(k.softmax_forward, threads(rows), { x: upload(engine, x), y, rows, size, ld: size });
      // exp(x - max): the difference reaches some twenty; the sum adds sqrt(size) roundings.
      return { got: await read(engine, y, rows * size), want, tolerance: want.map((v) => v * (2 * expError(24) + 4 * Math.sqrt(size) * ULP) + 2 ** -126), shape: `(${rows}, ${size})` };
    },
  },
  softmax_backward: {
    twin: ['softmax', 'softmaxBackward'],
    run: async (engine) => {
      const rows = 37, size = 49, n = rows * size, y = Float32Array.from(soft.softmax(values(n, 1), rows, size)), dy = values(n, 2), dx = room(engine, n);
      engine.run(k.softmax_backward, threads(rows), { y: upload(engine, y), dy: upload(engine, dy), dx, rows, size, ld: size });
      const dot = (r: number): number => Array.from({ length: size }, (_, i) => Math.abs(y[r * size + i]! * dy[r * size + i]!)).reduce((p, q) => p + q, 0);
      const tolerance = Float64Array.from({ length: n }, (_, i) => y[i]! * (sumError(size, dot(Math.floor(i / size))) + 4 * ULP * Math.abs(dy[i]!)) + 2 ** -126);
      return { got: await read(engine, dx, n), want: soft.softmaxBackward(y, dy, rows, size), tolerance, shape: `(${rows}, ${size})` };
    },
  },
  matmul: {
    twin: ['matmul', 'matmul'],
    run: async (engine) => {
      const [M, N, K] = [33, 50, 70] as const, a = values(M * K, 1), b = values(K * N, 2), c = room(engine, M * N);
      matmul(engine, M, N, K, { slice: upload(engine, a), ld: K, outer: 0, inner: 0 }, { slice: upload(engine, b), ld: N, outer: 0, inner: 0 }, { slice: c, ld: N, outer: 0, inner: 0 });
      const tolerance = product.matmul({ a: abs(a), b: abs(b), M, N, K }).map((v) => sumError(K, v));
      return { got: await read(engine, c, M * N), want: product.matmul({ a, b, M, N, K }), tolerance, shape: `(${M}, ${K}) (${K}, ${N})` };
    },
  },
  conv2d_forward: { twin: ['conv2d', 'conv2d'], run: (engine) => convolution(engine, 3, 5, 'plain') },
  conv2d_tiled: { twin: ['conv2d', 'conv2d'], run: (engine) => convolution(engine, 8, 12, 'tiled') },
  conv2d_backward_input: {
    twin: ['conv2d', 'conv2dBackwardInput'],
    run: async (engine) => {
      const { dims, shape, xs, ys, ws } = shapeOf(3, 5), dy = values(ys, 1), w = values(ws, 2), dx = room(engine, xs);
      backwardInput(engine, dims, upload(engine, dy), upload(engine, w), { slice: dx, accumulate: 0 }, 'plain');
      const tolerance = conv.conv2dBackwardInput({ ...shape, dy: abs(dy), w: abs(w) }).map((v) => sumError(9 * 5, v));
      return { got: await read(engine, dx, xs), want: conv.conv2dBackwardInput({ ...shape, dy, w }), tolerance, shape: '(2, 9, 7, 5) to (2, 9, 7, 3)' };
    },
  },
  conv2d_backward_weight: {
    twin: ['conv2d', 'conv2dBackwardWeight'],
    run: async (engine) => {
      const { dims, shape, xs, ys, ws } = shapeOf(3, 5), x = values(xs, 1), dy = values(ys, 2), dw = room(engine, ws);
      backwardWeight(engine, dims, upload(engine, x), upload(engine, dy), { slice: dw, accumulate: 0 }, null, 'plain');
      const tolerance = conv.conv2dBackwardWeight({ ...shape, x: abs(x), dy: abs(dy) }).map((v) => sumError(2 * 9 * 7, v));
      return { got: await read(engine, dw, ws), want: conv.conv2dBackwardWeight({ ...shape, x, dy }), tolerance, shape: '(3, 3, 3, 5) from 126 pixels' };
    },
  },
  adamw: {
    twin: ['optim', 'adamw'],
    run: async (engine) => {
      const n = 100, param = values(n, 1), grad = values(n, 2), m = values(n, 3).map((v) => 0.1 * v), v = values(n, 4).map((z) => 0.01 * z * z), ema = values(n, 5);
      const beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weightDecay = 0.01, step = 7, lr = 0.01, emaDecay = 0.9, clock = new Clock(engine);
      clock.set({ seed: 0, step: step - 1, lr, correction1: 1 - beta1 ** step, correction2: 1 - beta2 ** step, emaDecay });
      const w = upload(engine, param);
      engine.run(k.adamw, pointwise(n), {
        clock: clock.slice, state: upload(engine, Float32Array.of(1, 1, 0, 0)), g: upload(engine, grad), w, m: upload(engine, m), v: upload(engine, v), e: upload(engine, ema), beta1, beta2, eps, weight_decay: weightDecay,
      });
      const { param: want } = optim.adamw({ param, grad, m, v, ema, step, lr, beta1, beta2, eps, weightDecay, emaDecay }), got = await read(engine, w, n);
      engine.free(clock.slice);
      // The weight is rounded twice; the step, of a few lr, has the errors of its moments' terms, which may cancel, and of a root and two divisions.
      const tolerance = want.map((p, i) => 4 * ULP * Math.abs(p) + 64 * ULP * lr * (1 + (Math.abs(m[i]!) + Math.abs(grad[i]!)) / Math.sqrt(v[i]! + 1e-3 * grad[i]! ** 2)));
      return { got, want, tolerance, shape: `(${n})` };
    },
  },
  random_integers: {
    twin: ['random', 'uniformInts'],
    run: async (engine) => {
      const N = 70, high = 1000, clock = new Clock(engine), out = engine.allocate(4 * N);
      clock.set({ seed: 5, step: 9, first: 4 });
      engine.run(k.random_integers, threads(N), { clock: clock.slice, k: out, N, high, stream: STREAM.time });
      const got = new Uint32Array(await engine.readBytes(out), 0, N), samples = Array.from({ length: N }, (_, i) => 4 + i);
      engine.free(clock.slice);
      return { got, want: random.uniformInts({ seed: 5, stream: STREAM.time, step: 9, samples, count: 1 }, high), tolerance: new Float64Array(N), shape: `(${N}) below ${high}` };
    },
  },
  group_norm_forward: {
    twin: ['group_norm', 'groupNorm'],
    run: async (engine) => {
      const [N, H, W, C, G] = [2, 7, 5, 12, 4] as const, n = N * H * W * C, x = values(n, 1), gamma = values(C, 2), beta = values(C, 3), eps = 1e-6;
      const tensor = (shape: readonly number[], data: Float32Array): Tensor => Tensor.from(engine, shape, data);
      const y = groupNorm(tensor([N, H, W, C], x), tensor([C], gamma), tensor([C], beta), { groups: G, eps, silu: true });
      const { y: want } = norm.groupNorm({ x, gamma, beta, N, P: H * W, C0: C, G, eps, silu: true });
      // The moments are means over 105 values of size 1; scaling, shifting and SiLU, whose slope stays below 1.1, follow.
      const tolerance = want.map((_, i) => 1.1 * (sumError(H * W * (C / G), 2) * Math.abs(gamma[i % C]!) + 8 * ULP * (4 * Math.abs(gamma[i % C]!) + Math.abs(beta[i % C]!))) + 16 * expError(8) * ULP + 4 * expError(8));
      return { got: await y.read(), want, tolerance, shape: `(${N}, ${H}, ${W}, ${C}), ${G} groups` };
    },
  },
  random_normal: {
    twin: ['random', 'normals'],
    run: async (engine) => {
      const N = 3, size = 50, z = room(engine, N * size), clock = new Clock(engine);
      clock.set({ seed: 5, step: 9, first: 4 });
      engine.run(k.random_normal, threads(N * Math.ceil(size / 4)), { clock: clock.slice, z, N, size, stream: STREAM.noise });
      const want = random.normals({ seed: 5, stream: STREAM.noise, step: 9, samples: [4, 5, 6], count: size });
      engine.free(clock.slice);
      // sin and cos of an angle up to 2 pi are good to 2^-11 in WGSL's letter and to a few units in practice; log and sqrt to three units.
      return { got: await read(engine, z, N * size), want, tolerance: want.map(() => 6 * 2 ** -18), shape: `(${N}, ${size})` };
    },
  },
};

/** A 3 x 3 convolution of C to O channels: as the launchers take it, as the twins do, and the sizes of x, y and w. */
function shapeOf(C: number, O: number) {
  const [N, H, W, K] = [2, 9, 7, 3] as const, shape = { N, H, W, C, O, KH: K, KW: K, stride: 1, OH: H, OW: W };
  const dims = { ...shape, pad_top: 1, pad_left: 1, WC: C, C0: 0, has_bias: 0, has_per_image: 0, has_residual: 0, accumulate: 0, splits: 1 };
  return { dims, shape: { ...shape, pad: [1, 1] as const }, xs: N * H * W * C, ys: N * H * W * O, ws: K * K * C * O };
}

async function convolution(engine: Engine, C: number, O: number, variant: 'plain' | 'tiled'): Promise<Compared> {
  const { dims, shape, xs, ys, ws } = shapeOf(C, O), x = values(xs, 1), w = values(ws, 2), bias = values(O, 3), y = room(engine, ys);
  const [sx, sw, sb] = [upload(engine, x), upload(engine, w), upload(engine, bias)];
  forward(engine, { ...dims, has_bias: 1, x: sx, w: sw, bias: sb, per_image: sx, residual: sx, y }, variant);
  const tolerance = conv.conv2d({ ...shape, x: abs(x), w: abs(w), bias: abs(bias) }).map((v) => sumError(9 * C + 1, v));
  return { got: await read(engine, y, ys), want: conv.conv2d({ ...shape, x, w, bias }), tolerance, shape: `(2, 9, 7, ${C}) * (3, 3, ${C}, ${O})` };
}

/** Runs one check. All that it allocates is freed. */
export async function check(engine: Engine, name: string): Promise<CheckResult> {
  const start = performance.now(), scope = engine.openScope(false);
  let result: Compared;
  try {
    result = await CHECKS[name]!.run(engine);
  } finally {
    engine.closeScope(scope);
  }
  const { got, want, tolerance, shape } = result;
  let error = 0, share = 0;
  for (let i = 0; i < want.length; i++) {
    const off = Math.abs(got[i]! - want[i]!);
    error = Math.max(error, Number.isNaN(off) ? Infinity : off);
    share = Math.max(share, off === 0 ? 0 : Number.isNaN(off) ? Infinity : off / tolerance[i]!);
  }
  return { kernel: name, shape, values: want.length, error, share, ok: share <= 1 && got.length === want.length, ms: performance.now() - start };
}
