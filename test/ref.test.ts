// The twins are proven before any kernel is held against them: by PyTorch, finite differences, the classic diffusion class, invariants.
import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readSafetensors } from '../src/io/safetensors.ts';
import { philox4x32, STREAM, unit } from '../src/philox.ts';
import { abs, assertClose, bound, poisoned, relativeL2, type Tolerance } from './helpers/close.ts';
import { attention, attentionBackward } from './ref/attention.ts';
import { conv2d, conv2dBackwardInput, conv2dBackwardWeight, sumPixels, sumRows, type ConvShape } from './ref/conv2d.ts';
import {
  batchGather, ddimCoef, ddimStep, mse, mseGrad, posteriorStep, posteriorTable, predictStart, qSample, scheduleGather,
} from './ref/diffusion.ts';
import { groupNorm, groupNormBackward, type GroupNorm } from './ref/group_norm.ts';
import { linear, linearBackward, matmul } from './ref/matmul.ts';
import { adamw, clipScale, emaDecay, globalNorm, sumSquares } from './ref/optim.ts';
import {
  accumulate, add, addPerImage, concatChannels, dropout, fill, hwioToOihw, nchwToNhwc, nhwcToNchw, oihwToHwio, silu, siluBackward, splitChannels,
  upsampleNearest2x, upsampleNearest2xBackward,
} from './ref/pointwise.ts';
import { coins, normals, permute, uniformInt, uniformInts, words } from './ref/random.ts';
import { softmax, softmaxBackward } from './ref/softmax.ts';
import { timestepEmbedding } from './ref/timestep_embedding.ts';
import { filtered, filteredBound, filteredWeight, filteredWeightBound } from './ref/winograd.ts';

const golden = (file: string) => {
  const { tensors } = readSafetensors(readFileSync(new URL(`./golden/${file}`, import.meta.url)), file);
  return (name: string): { data: Float64Array; shape: number[] } => {
    const tensor = tensors.get(name);
    if (!tensor) throw new Error(`${file} has no tensor ${name}`);
    return { data: Float64Array.from(tensor.data as ArrayLike<number | bigint>, Number), shape: tensor.shape };
  };
};

/** Random numbers for the tests: sample `id` of the stream that no test of random numbers uses. */
const random = (n: number, id: number): Float64Array => normals({ seed: 11, stream: STREAM.prior, step: 0, samples: [id], count: n });

/** Both float64, both a handful of operations an element: only the order of summation differs. */
function same(got: ArrayLike<number>, want: ArrayLike<number>, what: string): void {
  const size = Math.max(...abs(want));
  assertClose(got, want, { atol: 1e-12 * size, rtol: 1e-12, what });
}

/** Σ dy f(x) differentiated along each element of x by central differences of fourth order, against dx. */
function checkGradient(f: (x: Float64Array) => Float64Array, x: Float64Array, dy: Float64Array, dx: Float64Array, what: string): void {
  const h = 1e-3;
  const numeric = x.map((_, i) => {
    const at = (shift: number) => f(x.map((v, j) => (j === i ? v + shift : v))).reduce((sum, y, j) => sum + y * dy[j], 0);
    return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
  });
  assertClose(dx, numeric, { atol: 1e-8 * Math.max(1, ...abs(numeric)), what: `${what} by finite differences` });
}

// ------------------------------------------------------------------------------------------------------------------ against PyTorch
const torch = suite('twins against PyTorch');
const ops = golden('ops.safetensors');
const get = (name: string) => ops(name).data;
const nhwc = (name: string) => {
  const { data, shape } = ops(name);
  return nchwToNhwc(data, shape[0], shape[1], shape[2], shape[3]);
};
const hwio = (name: string) => {
  const { data, shape } = ops(name);
  return oihwToHwio(data, shape[0], shape[1], shape[2]);
};

const convShape = (name: string, stride: number, pad: [number, number]): ConvShape => {
  const [N, C, H, W] = ops(`${name}.x`).shape, [O, , K] = ops(`${name}.w`).shape, [, , OH, OW] = ops(`${name}.y`).shape;
  return { N, H, W, C, O, KH: K, KW: K, stride, pad, OH, OW };
};

for (const [name, stride, pad] of [
  ['conv3x3', 1, [1, 1]],
  ['conv1x1', 1, [0, 0]],
  ['conv_down', 2, [0, 0]],
  ['conv_down_odd', 2, [0, 0]],
  ['conv_stride2', 2, [1, 1]],
  ['conv_uneven', 1, [1, 2]],
] as [string, number, [number, number]][]) {
  torch(name, () => {
    const s = convShape(name, stride, pad), x = nhwc(`${name}.x`), w = hwio(`${name}.w`), dy = nhwc(`${name}.dy`);
    same(conv2d({ ...s, x, w, bias: get(`${name}.bias`) }), nhwc(`${name}.y`), 'y');
    same(conv2dBackwardInput({ ...s, dy, w }), nhwc(`${name}.dx`), 'dx');
    same(conv2dBackwardWeight({ ...s, x, dy }), hwio(`${name}.dw`), 'dw');
    same(sumRows(dy, s.N * s.OH * s.OW, s.O), get(`${name}.dbias`), 'dbias');
  });
}

torch('conv2d over a skip connection, with the epilogue of a residual block', () => {
  const s = convShape('conv_skip', 1, [1, 1]), C1 = ops('conv_skip.x2').shape[1], wC = s.C + C1;
  const x = nhwc('conv_skip.x'), x2 = nhwc('conv_skip.x2'), w = hwio('conv_skip.w'), dy = nhwc('conv_skip.dy');
  const residual = nhwc('conv_skip.residual'), perImage = get('conv_skip.perImage'), bias = get('conv_skip.bias');
  const second = { ...s, C: C1, wC, c0: s.C };
  const half = conv2d({ ...s, wC, x, w, bias, perImage });
  same(conv2d({ ...second, x: x2, w, residual: add(half, residual) }), nhwc('conv_skip.y'), 'y');
  same(conv2dBackwardInput({ ...s, wC, dy, w }), nhwc('conv_skip.dx'), 'dx');
  same(conv2dBackwardInput({ ...second, dy, w }), nhwc('conv_skip.dx2'), 'dx2');
  same(add(conv2dBackwardWeight({ ...s, wC, x, dy }), conv2dBackwardWeight({ ...second, x: x2, dy })), hwio('conv_skip.dw'), 'dw');
  same(sumPixels(dy, s.N, s.OH * s.OW, s.O), get('conv_skip.dperImage'), 'dperImage');
  same(sumRows(dy, s.N * s.OH * s.OW, s.O), get('conv_skip.dbias'), 'dbias');
  same(dy, nhwc('conv_skip.dresidual'), 'dresidual');
  same(hwioToOihw(w, s.O, wC, s.KH), get('conv_skip.w'), 'hwioToOihw');
  same(nhwcToNchw(x, s.N, s.C, s.H, s.W), get('conv_skip.x'), 'nhwcToNchw');
});

for (const name of ['group_norm', 'group_norm_skip', 'group_norm_silu', 'group_norm_silu_skip']) {
  torch(name, () => {
    const two = name.endsWith('skip');
    const [N, C0, H, W] = ops(`${name}.x`).shape, C1 = two ? ops(`${name}.x2`).shape[1] : 0;
    const a: GroupNorm = {
      x: nhwc(`${name}.x`), gamma: get(`${name}.gamma`), beta: get(`${name}.beta`), N, P: H * W, C0, C1,
      G: two ? 4 : 3, eps: two ? 1e-5 : 1e-6, silu: name.includes('silu'),
    };
    if (two) a.x2 = nhwc(`${name}.x2`);
    same(groupNorm(a).y, nhwc(`${name}.y`), 'y');
    const g = groupNormBackward({ ...a, dy: nhwc(`${name}.dy`) });
    same(g.dx, nhwc(`${name}.dx`), 'dx');
    if (two) same(g.dx2, nhwc(`${name}.dx2`), 'dx2');
    else assert.is(g.dx2.length, 0);
    same(g.dgamma, get(`${name}.dgamma`), 'dgamma');
    same(g.dbeta, get(`${name}.dbeta`), 'dbeta');
  });
}

torch('silu', () => {
  same(silu(get('silu.x')), get('silu.y'), 'y');
  same(siluBackward(get('silu.x'), get('silu.dy')), get('silu.dx'), 'dx');
});

torch('softmax', () => {
  const y = softmax(get('softmax.x'), 7, 11);
  same(y, get('softmax.y'), 'y');
  same(softmaxBackward(y, get('softmax.dy'), 7, 11), get('softmax.dx'), 'dx');
});

for (const heads of [1, 3]) {
  torch(`attention, heads = ${heads}`, () => {
    const name = `attention${heads}`, [N, T, C] = ops(`${name}.q`).shape;
    const a = { q: get(`${name}.q`), k: get(`${name}.k`), v: get(`${name}.v`), N, T, C, heads };
    same(attention(a).o, get(`${name}.y`), 'o');
    const g = attentionBackward({ ...a, dy: get(`${name}.dy`) });
    same(g.dq, get(`${name}.dq`), 'dq');
    same(g.dk, get(`${name}.dk`), 'dk');
    same(g.dv, get(`${name}.dv`), 'dv');
  });
}

torch('nearest upsampling', () => {
  const [N, C, H, W] = ops('upsample.x').shape;
  same(upsampleNearest2x(nhwc('upsample.x'), N, H, W, C), nhwc('upsample.y'), 'y');
  same(upsampleNearest2xBackward(nhwc('upsample.dy'), N, H, W, C), nhwc('upsample.dx'), 'dx');
});

torch('linear', () => {
  const x = get('linear.x'), w = get('linear.w'), dy = get('linear.dy');
  same(linear(x, w, get('linear.bias'), 4, 7, 5), get('linear.y'), 'y');
  const g = linearBackward(x, w, dy, 4, 7, 5);
  same(g.dx, get('linear.dx'), 'dx');
  same(g.dw, get('linear.dw'), 'dw');
  same(g.dbias, get('linear.dbias'), 'dbias');
  // the same as three calls of matmul
  same(matmul({ a: x, b: w, bias: get('linear.bias'), M: 4, N: 5, K: 7, transB: true }), get('linear.y'), 'y by matmul');
  same(matmul({ a: dy, b: w, M: 4, N: 7, K: 5 }), get('linear.dx'), 'dx by matmul');
  same(matmul({ a: dy, b: x, M: 5, N: 7, K: 4, transA: true }), get('linear.dw'), 'dw by matmul');
});

torch('batched matmul', () => {
  const a = get('bmm.a'), b = get('bmm.b'), dy = get('bmm.dy'), s = { batch: 3, alpha: 0.5 };
  same(matmul({ ...s, a, b, M: 4, N: 6, K: 5 }), get('bmm.y'), 'y');
  same(matmul({ ...s, a: dy, b, M: 4, N: 5, K: 6, transB: true }), get('bmm.da'), 'da');
  same(matmul({ ...s, a, b: dy, M: 5, N: 6, K: 4, transA: true }), get('bmm.db'), 'db');
});

torch('mean squared error', () => {
  same([mse(get('mse.x'), get('mse.target'))], get('mse.loss'), 'loss');
  same(mseGrad(get('mse.x'), get('mse.target')), get('mse.dx'), 'dx');
});

torch('timestep embedding', () => {
  const t = get('embedding.t');
  same(timestepEmbedding(t, 16), get('embedding.ddpm'), 'sin | cos, shift 1');
  same(timestepEmbedding(t, 16, { flipSinToCos: true, downscaleFreqShift: 0 }), get('embedding.flipped'), 'cos | sin, shift 0');
  same(timestepEmbedding(t, 9), get('embedding.odd'), 'odd dim');
});

torch('AdamW and EMA under one clipped norm, three steps', () => {
  let state = [0, 1].map((i) => {
    const param = get(`adamw.param${i}`);
    return { param, m: fill(param.length, 0), v: fill(param.length, 0), ema: param };
  });
  for (const step of [1, 2, 3]) {
    const grads = [0, 1].map((i) => get(`adamw.${step}.grad${i}`)), norm = globalNorm(...grads);
    same([norm], get(`adamw.${step}.norm`), 'norm');
    state = state.map((s, i) =>
      adamw({ ...s, grad: grads[i], step, lr: 3e-2, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1, emaDecay: 0.75, maxNorm: 1, norm }),
    );
    for (const i of [0, 1])
      for (const key of ['param', 'm', 'v', 'ema'] as const) same(state[i][key], get(`adamw.${step}.${key}${i}`), `step ${step}: ${key}${i}`);
  }
});

torch.run();

// ------------------------------------------------------------------------------------------------------------ finite differences
const differences = suite('twins by finite differences');

const shapes: Record<string, ConvShape> = {
  '3x3': { N: 1, H: 4, W: 3, C: 2, O: 3, KH: 3, KW: 3, stride: 1, pad: [1, 1], OH: 4, OW: 3 },
  '3x3 on channels 1 and 2 of 4': { N: 2, H: 3, W: 3, C: 2, O: 2, KH: 3, KW: 3, stride: 1, pad: [1, 1], OH: 3, OW: 3, wC: 4, c0: 1 },
  '1x3': { N: 1, H: 3, W: 4, C: 2, O: 2, KH: 1, KW: 3, stride: 1, pad: [0, 1], OH: 3, OW: 4 },
  'stride 2, padded at the bottom and right': { N: 2, H: 5, W: 4, C: 2, O: 2, KH: 3, KW: 3, stride: 2, pad: [0, 0], OH: 3, OW: 2 },
};
for (const [what, s] of Object.entries(shapes)) {
  differences(`conv2d ${what}`, () => {
    const x = random(s.N * s.H * s.W * s.C, 0), w = random(s.KH * s.KW * (s.wC ?? s.C) * s.O, 1);
    const dy = random(s.N * s.OH * s.OW * s.O, 2);
    checkGradient((v) => conv2d({ ...s, x: v, w }), x, dy, conv2dBackwardInput({ ...s, dy, w }), 'dx');
    checkGradient((v) => conv2d({ ...s, x, w: v }), w, dy, conv2dBackwardWeight({ ...s, x, dy }), 'dw');
    checkGradient((v) => conv2d({ ...s, x, w, bias: v }), random(s.O, 3), dy, sumRows(dy, s.N * s.OH * s.OW, s.O), 'dbias');
    checkGradient((v) => conv2d({ ...s, x, w, perImage: v }), random(s.N * s.O, 3), dy, sumPixels(dy, s.N, s.OH * s.OW, s.O), 'dperImage');
  });
}

for (const withSilu of [false, true]) {
  differences(`group norm on two inputs${withSilu ? ', with SiLU' : ''}`, () => {
    const [N, P, C0, C1] = [2, 3, 3, 1], C = C0 + C1;
    const shape = { N, P, C0, C1, G: 2, eps: 1e-3, silu: withSilu };
    const a = { ...shape, x: random(N * P * C0, 0), x2: random(N * P * C1, 1), gamma: random(C, 2), beta: random(C, 3) };
    const dy = random(N * P * C, 4), g = groupNormBackward({ ...a, dy });
    checkGradient((v) => groupNorm({ ...a, x: v }).y, a.x, dy, g.dx, 'dx');
    checkGradient((v) => groupNorm({ ...a, x2: v }).y, a.x2, dy, g.dx2, 'dx2');
    checkGradient((v) => groupNorm({ ...a, gamma: v }).y, a.gamma, dy, g.dgamma, 'dgamma');
    checkGradient((v) => groupNorm({ ...a, beta: v }).y, a.beta, dy, g.dbeta, 'dbeta');
  });
}

differences('pointwise', () => {
  const x = random(24, 0), dy = random(24, 1), big = random(96, 2);
  checkGradient(silu, x, dy, siluBackward(x, dy), 'silu');
  checkGradient((v) => upsampleNearest2x(v, 2, 2, 3, 2), x, big, upsampleNearest2xBackward(big, 2, 2, 3, 2), 'upsampling');
  const bits = words({ seed: 1, stream: STREAM.dropout, step: 0, samples: [0], count: 24 });
  checkGradient((v) => dropout(v, bits, 0.3), x, dy, dropout(dy, bits, 0.3), 'dropout');
  const [da, db] = splitChannels(dy, 4, 4, 2), a = random(16, 3), b = random(8, 4);
  checkGradient((v) => concatChannels(v, b, 4, 4, 2), a, dy, da, 'concatenation, first');
  checkGradient((v) => concatChannels(a, v, 4, 4, 2), b, dy, db, 'concatenation, second');
  checkGradient((v) => addPerImage(x, v, 2, 4, 3), random(6, 5), dy, sumPixels(dy, 2, 4, 3), 'addPerImage');
  same(addPerImage(x, [1, 2, 3, 4, 5, 6], 2, 4, 3).subarray(15, 18), add(x.subarray(15, 18), [4, 5, 6]), 'addPerImage, second image');
  checkGradient((v) => Float64Array.of(mse(v, dy)), x, Float64Array.of(3), mseGrad(x, dy, 3), 'mse');
});

differences('linear, softmax, attention', () => {
  const x = random(12, 0), w = random(8, 1), dy = random(6, 2), g = linearBackward(x, w, dy, 3, 4, 2);
  checkGradient((v) => linear(v, w, undefined, 3, 4, 2), x, dy, g.dx, 'linear dx');
  checkGradient((v) => linear(x, v, undefined, 3, 4, 2), w, dy, g.dw, 'linear dw');
  checkGradient((v) => linear(x, w, v, 3, 4, 2), random(2, 3), dy, g.dbias, 'linear dbias');
  const rows = random(12, 4);
  checkGradient((v) => softmax(v, 3, 4), x, rows, softmaxBackward(softmax(x, 3, 4), rows, 3, 4), 'softmax');
  const a = { q: random(24, 5), k: random(24, 6), v: random(24, 7), N: 2, T: 3, C: 4, heads: 2 }, dout = random(24, 8);
  const ga = attentionBackward({ ...a, dy: dout });
  checkGradient((q) => attention({ ...a, q }).o, a.q, dout, ga.dq, 'dq');
  checkGradient((k) => attention({ ...a, k }).o, a.k, dout, ga.dk, 'dk');
  checkGradient((v) => attention({ ...a, v }).o, a.v, dout, ga.dv, 'dv');
});

differences.run();

// ------------------------------------------------------------------------------------------------------------------ filtering
const filtering = suite('Winograd twin');
for (const rows of [4, 7, 8]) {
  filtering(`tiles of ${rows} rows give the convolution`, () => {
    const s: ConvShape = { N: 2, H: 10, W: 3, C: 2, O: 3, KH: 3, KW: 3, stride: 1, pad: [1, 1], OH: 10, OW: 3, wC: 5, c0: 2 };
    const x = random(s.N * s.H * s.W * s.C, 0), w = random(9 * 5 * s.O, 1), want = conv2d({ ...s, x, w });
    same(filtered({ ...s, x, w }, rows), want, 'y');
    assert.ok(filteredBound({ ...s, x, w }, rows).every((v, i) => v > bound(9 * s.C, conv2d({ ...s, x: abs(x), w: abs(w) }))[i]), 'more roundings than of the sum of products');
  });
}
filtering('and its gradient by the weight, over groups of 4 rows', () => {
  const s: ConvShape = { N: 2, H: 10, W: 3, C: 2, O: 3, KH: 3, KW: 3, stride: 1, pad: [1, 1], OH: 10, OW: 3, wC: 5, c0: 2 };
  const x = random(s.N * s.H * s.W * s.C, 0), dy = random(s.N * s.H * s.W * s.O, 1), want = conv2dBackwardWeight({ ...s, x, dy });
  same(filteredWeight({ ...s, x, dy }), want, 'dw');
  assert.ok(filteredWeightBound({ ...s, x, dy }).every((v, i) => want[i] === 0 || v > bound(s.N * s.H * s.W, conv2dBackwardWeight({ ...s, x: abs(x), dy: abs(dy) }))[i]), 'more roundings than of the sum of products');
});
filtering.run();

// ------------------------------------------------------------------------------------------------------------------- matmul, strides
const strides = suite('matmul twin');

strides('leading dimensions, batch strides, transposes: equal to a copy of each block', () => {
  const [M, N, K, lda, ldb, ldc, batch] = [3, 2, 4, 6, 7, 5, 2];
  for (const transA of [false, true])
    for (const transB of [false, true]) {
      const a = random(60, 0), b = random(60, 1), c = random(60, 2), bias = random(N, 3);
      const got = matmul({ a, b, c, bias, M, N, K, lda, ldb, ldc, batch, strideA: 30, strideB: 0, strideC: 20, transA, transB, alpha: 2 });
      const want = Float64Array.from(c.subarray(0, got.length));
      for (let i = 0; i < batch; i++)
        for (let m = 0; m < M; m++)
          for (let n = 0; n < N; n++) {
            const row = Float64Array.from({ length: K }, (_, k) => a[30 * i + (transA ? k * lda + m : m * lda + k)]);
            const column = Float64Array.from({ length: K }, (_, k) => b[transB ? n * ldb + k : k * ldb + n]);
            want[20 * i + m * ldc + n] += 2 * row.reduce((sum, v, k) => sum + v * column[k], 0) + bias[n];
          }
      same(got, want, `transA ${transA}, transB ${transB}`);
    }
});

strides('attention as two products with heads as the inner batch', () => {
  const [N, T, C, heads] = [2, 5, 6, 3], D = C / heads, q = random(N * T * C, 0), k = random(N * T * C, 1), v = random(N * T * C, 2);
  const heads_ = { heads, batch: N }, inA = { lda: C, strideA: T * C, headStrideA: D }, inB = { ldb: C, strideB: T * C, headStrideB: D };
  const s = matmul({ a: q, b: k, M: T, N: T, K: D, transB: true, alpha: 1 / Math.sqrt(D), ...heads_, ...inA, ...inB });
  const p = softmax(s, N * heads * T, T), want = attention({ q, k, v, N, T, C, heads });
  same(p, want.p, 'p');
  same(matmul({ a: p, b: v, M: T, N: D, K: T, ...heads_, ...inB, ldc: C, strideC: T * C, headStrideC: D }), want.o, 'o');
});

strides.run();

// --------------------------------------------------------------------------------------------------------------------------- random
const rng = suite('random twins');

rng('a number depends on its sample id and element, not on the batch or the count', () => {
  const draw = { seed: 3, stream: STREAM.noise, step: 9 };
  const all = normals({ ...draw, samples: [4, 5, 6], count: 10 });
  assert.equal(normals({ ...draw, samples: [6], count: 7 }), all.slice(20, 27));
  const bits = words({ ...draw, samples: [5], count: 10 });
  assert.equal([...bits.subarray(4, 8)], philox4x32([1, 5, 9, 0], [3, STREAM.noise]));
  assert.not.equal(words({ ...draw, samples: [5], count: 10, stream: STREAM.prior }), bits);
  assert.equal(coins({ ...draw, samples: [5], count: 10 }), bits.map((word) => word & 1));
});

rng('uniform integers fill [0, n) evenly', () => {
  assert.equal([0, 0x7fffffff, 0x80000000, 0xffffffff].map((w) => uniformInt(w, 2)), [0, 0, 1, 1]);
  assert.equal([0, 0xffffffff].map((w) => uniformInt(w, 60000)), [0, 59999]);
  const counts = fill(7, 0);
  for (const i of uniformInts({ seed: 1, stream: STREAM.time, step: 0, samples: [0], count: 70000 }, 7)) counts[i]++;
  assert.ok(counts.every((c) => Math.abs(c - 10000) < 400), `${counts}`); // four standard deviations
});

rng('dropout keeps 1 - p of the elements and the mean', () => {
  const bits = words({ seed: 1, stream: STREAM.dropout, step: 0, samples: [0], count: 40000 });
  const y = dropout(fill(40000, 1), bits, 0.1);
  assert.equal([...new Set(y)].sort(), [0, 1 / 0.9]);
  assert.is(y.filter((v) => v > 0).length, bits.filter((w) => unit(w) >= 0.1).length);
  assert.ok(Math.abs(y.reduce((s, v) => s + v, 0) / 40000 - 1) < 0.0067, 'the mean stays 1'); // four standard deviations
  assert.equal(dropout([1, 2], [0, 0xffffffff], 0), Float64Array.of(1, 2));
});

rng('permute is a bijection of [0, n), another one each epoch and seed', () => {
  for (const n of [1, 2, 7, 60, 1000, 60000])
    for (const epoch of [0, 1, 2]) {
      const seen = new Uint8Array(n);
      for (let i = 0; i < n; i++) seen[permute(i, n, { seed: 5, epoch })]++;
      assert.ok(seen.every((times) => times === 1), `n = ${n}, epoch ${epoch}`);
    }
  const order = (seed: number, epoch: number) => Array.from({ length: 60 }, (_, i) => permute(i, 60, { seed, epoch }));
  assert.equal(order(5, 0).slice(0, 12), [29, 28, 5, 18, 3, 20, 16, 35, 34, 57, 8, 43]); // a changed order would change every resumed run
  assert.not.equal(order(5, 0), order(5, 1));
  assert.not.equal(order(5, 0), order(6, 0));
});

rng('permute leaves no trace of the order', () => {
  // The correlation of i with its place has standard deviation 1 / sqrt(n).
  const n = 1000;
  for (const epoch of [0, 1, 2]) {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += (i - (n - 1) / 2) * (permute(i, n, { seed: 0, epoch }) - (n - 1) / 2);
    const correlation = (12 * sum) / (n * (n * n - 1));
    assert.ok(Math.abs(correlation) < 4 / Math.sqrt(n), `epoch ${epoch}: ${correlation}`);
  }
});

rng.run();

// ------------------------------------------------------------------------------------------------------------------------- diffusion
const diffusion = suite('diffusion twins');
const classic = golden('gaussian-diffusion-T1000.safetensors');

for (const schedule of ['linear', 'quadratic', 'cosine', 'sigmoid']) {
  diffusion(`the classic class, ${schedule}`, () => {
    const d = (name: string) => classic(`${schedule}.${name}`).data;
    const x0 = d('in.x0'), xt = d('in.xt'), eps = d('in.eps'), z = d('in.z'), t = d('in.t');
    // 1 / acp - 1 and 1 - acp lose digits where acp is nearly 1, whoever computes them
    const near = { rtol: 1e-10, atol: 1e-10 };
    const gather = (first: string, second: string) => {
      const a = d(first), b = d(second);
      return scheduleGather(Float64Array.from({ length: 2 * a.length }, (_, i) => (i % 2 ? b : a)[i >> 1]), t, 2);
    };
    const noising = gather('sqrt_alphas_cumprod', 'sqrt_one_minus_alphas_cumprod');
    assertClose(qSample(x0, eps, noising), d('out.q_sample'), { ...near, what: 'qSample' });
    const start = gather('sqrt_recip_alphas_cumprod', 'sqrt_recipm1_alphas_cumprod');
    assertClose(predictStart(xt, eps, start), d('out.pred_x0'), { ...near, what: 'predictStart' });
    for (const [variance, name] of [['fixed_small', 'small'], ['fixed_large', 'large']] as const) {
      const coef = scheduleGather(posteriorTable(d('betas'), variance), t, 6), last = t.map((v) => (v === 0 ? 1 : 0));
      const { prev, x0: clipped } = posteriorStep({ xt, output: eps, z, coef, clip: true, last });
      assertClose(prev, d(`out.p_sample_${name}`), { ...near, what: `posteriorStep, ${name}` });
      assertClose(clipped, predictStart(xt, eps, start, true), { ...near, what: 'clipped x0' });
      assert.ok(Math.abs(coef[4] - Math.log(d('posterior_variance')[1])) < 1e-10, 'index 0 takes the variance of index 1');
      const mean = posteriorStep({ xt, output: eps, z: fill(z.length, 0), coef, clip: false, last });
      assertClose(mean.prev, d('out.posterior_mean_from_eps'), { rtol: 1e-9, atol: 1e-9, what: 'mean without clipping' });
    }
  });
}

for (const [name, schedule, clip] of [
  ['ddim50-leading', 'linear', true],
  ['ddim20-noclip', 'linear', false],
  ['ddim50-cosine', 'cosine', true],
] as const) {
  diffusion(`diffusers' trajectory ${name}`, () => {
    const file = golden('samplers-diffusers.safetensors');
    const timesteps = file(`${name}.timesteps`).data, want = file(`${name}.trajectory`).data, acp = classic(`${schedule}.alphas_cumprod`).data;
    let x = file('x_T').data;
    timesteps.forEach((t, i) => {
      const eps = x.map((v) => 0.3 * v + 0.1 * Math.sin(5 * v) * (t / 1000)), before = t - 1000 / timesteps.length;
      const coef = ddimCoef(acp[t], before < 0 ? 1 : acp[before], 0);
      x = ddimStep({ xt: x, eps, z: fill(x.length, 0), coef: Float64Array.of(...coef, ...coef), clip, useClippedModelOutput: false }).prev;
      const error = relativeL2(x, want.subarray(i * x.length, (i + 1) * x.length));
      assert.ok(error < 2e-6, `step ${i}: ${error}`); // diffusers works in float32, tables included
    });
  });
}

diffusion('DDIM with eta = 1 is DDPM with the posterior variance, clipped or not', () => {
  const betas = classic('linear.betas').data, acp = classic('linear.alphas_cumprod').data, table = posteriorTable(betas, 'fixed_small');
  const xt = random(30, 0), eps = random(30, 1), z = random(30, 2), t = [1, 400, 999];
  for (const clip of [false, true]) {
    const ddpm = posteriorStep({ xt, output: eps, z, coef: scheduleGather(table, t, 6), clip });
    const ddim = ddimStep({ xt, eps, z, coef: Float64Array.from(t.flatMap((i) => [...ddimCoef(acp[i], acp[i - 1], 1)])), clip });
    assertClose(ddim.prev, ddpm.prev, { atol: 1e-9, rtol: 1e-9, what: `clip ${clip}` });
  }
});

diffusion('each image has its own timestep, and the last one gets no noise', () => {
  assert.equal(scheduleGather([1, 2, 3, 4, 5, 6], [2, 0], 2), Float64Array.of(5, 6, 1, 2));
  assert.equal(qSample([1, 1, 1, 1], [1, 2, 3, 4], [1, 0, 0, 1]), Float64Array.of(1, 1, 3, 4));
  const coef = [1, 0, 1, 0, 0, 0, 1, 0, 1, 0, Math.log(4), 0], a = { xt: [0, 0], output: [0, 0], z: [5, 5], coef, clip: true };
  assert.equal(posteriorStep({ ...a, last: [0, 1] }).prev, Float64Array.of(5, 0));
  assert.equal(posteriorStep(a).prev, Float64Array.of(5, 10));
});

diffusion('batch gather picks, flips and scales', () => {
  const data = Uint8Array.of(0, 255, 51, 102, 10, 20, 30, 40, 50, 60, 70, 80);
  const unscale = (x: Float64Array) => [...x].map((v) => Math.round((v + 1) * 127.5));
  same(batchGather(data, [0], [0], 2, 2, 1), [-1, 1, -0.6, -0.2], 'scale');
  assert.equal(unscale(batchGather(data, [2, 1], [0, 1], 2, 2, 1)), [50, 60, 70, 80, 20, 10, 40, 30]);
  assert.equal(unscale(batchGather(data, [1], [1], 1, 3, 2)), [70, 80, 50, 60, 30, 40]);
});

diffusion.run();

// ------------------------------------------------------------------------------------------------------------- optimizer, comparisons
const rest = suite('optimizer twins and comparisons');

/** What assertClose says. */
function message(got: ArrayLike<number>, want: ArrayLike<number>, tolerance: Omit<Tolerance, 'what'>): string {
  try {
    assertClose(got, want, { ...tolerance, what: 'y' });
  } catch (error) {
    return (error as Error).message;
  }
  return 'passed';
}

rest('a gradient that is not finite changes nothing', () => {
  const before = { param: [1, 2], m: [0.1, 0.2], v: [0.3, 0.4], ema: [3, 4] };
  const settings = { step: 1, lr: 1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1, emaDecay: 0.5, maxNorm: 1 };
  for (const bad of [NaN, Infinity, -Infinity]) {
    const after = adamw({ ...before, ...settings, grad: [1, bad] });
    assert.ok(after.skipped);
    for (const key of ['param', 'm', 'v', 'ema'] as const) assert.equal([...after[key]], before[key]);
  }
  assert.not(adamw({ ...before, ...settings, grad: [1, 1] }).skipped);
});

rest('norms, clipping and the warm-up of the EMA', () => {
  assert.is(sumSquares([3, 4]), 25);
  assert.is(globalNorm([3], [4, 12]), 13);
  assert.is(clipScale(0.5, 1), 1);
  assert.is(clipScale(4, 1), 1 / (4 + 1e-6));
  assert.equal([emaDecay(0, 0.9999), emaDecay(10, 0.9999), emaDecay(1e6, 0.9999)], [0.1, 11 / 20, 0.9999]);
  assert.equal(accumulate([1, 2], [10, 20]), Float64Array.of(11, 22));
});

rest('assertClose says what is wrong', () => {
  assert.is(message([1, 2.01, 3], [1, 2, 3], { rtol: 0.01 }), 'passed');
  assert.is(
    message([1, 2.03, 3.06], [1, 2, 3], { rtol: 0.01 }),
    'y: 2 of 3 elements too far off; worst is element 2: got 3.06, wanted 3, 200.0 % of the tolerance',
  );
  assert.is(message([1.5, 2], [1, 2], {}), 'y: 1 of 2 elements too far off; worst is element 0: got 1.5, wanted 1, no tolerance at all');
  assert.is(message([1], [1, 2], { atol: 9 }), 'y: 1 elements, wanted 2');
  assert.is(message([1, NaN], [1, 2], { atol: 9 }), 'y: element 1 of 2 is NaN, wanted 2');
  assert.match(message([1, 2], [1, NaN], { atol: 9 }), 'no tolerance at all');
  assert.match(message([1, Infinity], [1, 2], { atol: 9 }), 'too far off');
  assert.is(message([1, Infinity], [1, Infinity], {}), 'passed');
  assert.is(message([1, 2.5], [1, 2], { atol: [0, 1] }), 'passed');
  assert.is(message([1, 2], [1, 2], { atol: [0] }), 'y: 1 tolerances for 2 elements');
  assert.is(message(poisoned(3), [1, 2, 3], { atol: 9 }), 'y: element 0 of 3 was never written');
  assert.is(relativeL2([3, 4], [3, 0]), 4 / 3);
});

rest('bound holds for float32 sums in order, and sees a lost product', () => {
  const f = Math.fround;
  for (const k of [1, 27, 288, 4608]) {
    const rows = 200, x = Float32Array.from(random(rows * k, 0)), w = Float32Array.from(random(rows * k, 1));
    const s = { M: 1, N: 1, K: k, batch: rows };
    const want = matmul({ ...s, a: x, b: w }), tolerance = bound(k, matmul({ ...s, a: abs(x), b: abs(w) }));
    const inOrder = want.map((_, r) => {
      let sum = 0;
      for (let i = r * k; i < (r + 1) * k; i++) sum = f(sum + f(x[i] * w[i]));
      return sum;
    });
    assertClose(inOrder, want, { atol: tolerance, what: `k = ${k}` });
    const lost = want.map((v, r) => v - x[r * k] * w[r * k]);
    assert.match(message(lost, want, { atol: tolerance }), 'too far off');
  }
});

rest.run();
