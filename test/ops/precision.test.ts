// Products with float16 factors: the rounding, each kernel against the twin of the rounded factors, what is chosen, and the self-test before it.
import { readFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { reflect } from '../../kernels/build.ts';
import { pointwise, Tape } from '../../src/autograd.ts';
import type { Engine } from '../../src/gpu/engine.ts';
import type { Slice } from '../../src/gpu/kernel.ts';
import * as k from '../../src/gpu/kernels.gen.ts';
import { engineRequirements } from '../../src/gpu/requirements.ts';
import { openEngine } from '../../src/node.ts';
import { normal, varianceScaling } from '../../src/nn/init.ts';
import { Module, Parameter, parametersOf } from '../../src/nn/parameter.ts';
import { Parameters } from '../../src/nn/parameters.ts';
import { roundWeights } from '../../src/nn/rounded.ts';
import { attention } from '../../src/ops/attention.ts';
import { matmul } from '../../src/ops/matmul.ts';
import { cast, castInto } from '../../src/ops/cast.ts';
import { conv2d } from '../../src/ops/conv2d.ts';
import type { ConvDims } from '../../src/ops/conv2d_choice.ts';
import { backwardInput, backwardWeight, forward, forwardTwo } from '../../src/ops/conv2d_kernels.ts';
import { CORE_BYTES } from '../../src/ops/half.ts';
import { mse } from '../../src/ops/loss.ts';
import { usePrecision } from '../../src/ops/precision.ts';
import { Tensor } from '../../src/tensor.ts';
import { abs, assertClose, bound } from '../helpers/close.ts';
import { assertError, destination, differentiate, gpuSuite, openOptions, random, upload } from '../helpers/gpu.ts';
import { emulating } from '../helpers/subgroup_matrix.ts';
import * as twin from '../ref/conv2d.ts';
import { half, roundToHalf } from '../ref/half.ts';
import { matmul as matmulTwin } from '../ref/matmul.ts';
import { add } from '../ref/pointwise.ts';

type Floats = ArrayLike<number>;
const halves = gpuSuite('float16 factors', { precision: 'f16' });

halves('the twin of the rounding: every float16 number is itself, what lies between goes to the nearer one, halfway to the even one', () => {
  const value = (bits: number): number => (bits < 1024 ? bits * 2 ** -24 : (1024 + (bits & 1023)) * 2 ** ((bits >> 10) - 25));
  for (let bits = 0; bits < 0x7bff; bits++) {
    const here = value(bits), next = value(bits + 1), middle = (here + next) / 2;
    const got = [here, -here, middle, here + (next - here) / 4, here + (3 * (next - here)) / 4].map(roundToHalf), even = bits % 2 ? next : here;
    if (got.some((v, i) => v !== [here, -here, even, here, next][i])) assert.equal(got, [here, -here, even, here, next], `${bits}`);
  }
  assert.equal([65504, 65519, 65520, -1e9, Infinity].map(roundToHalf), [65504, 65504, Infinity, -Infinity, Infinity]);
  assert.ok(Number.isNaN(roundToHalf(NaN)));
});

halves('round_half is the twin, bit for bit, and infinite or NaN where that is', async (engine) => {
  const x = Float32Array.from([0.1, -1 / 3, 1e-6, 3e-8, 2 ** -25, 65519, 65520, -1e9, NaN, Infinity, -Infinity, 2049, 2051, -2049, 0, 6.1e-5, ...random(4000, 0)]), y = Tensor.empty(engine, [x.length]);
  engine.run(k.round_half, pointwise(x.length), { x: upload(engine, [x.length], x).slice, y: y.slice });
  assert.equal([...(await y.read())], [...half(x)]);
});

/** Compares with the twin of rounded factors, and sees that the twin of unrounded ones would be found wrong: `twin` gets what to make of each factor. */
function assertRounded(got: Float32Array, terms: number, of: (round: (v: Floats) => Floats, size: (v: Floats) => Floats) => Floats, what: string): void {
  const same = (v: Floats): Floats => v, atol = bound(terms, of(half, abs));
  assertClose(got, of(half, same), { atol, what });
  const exact = of(same, same);
  assert.ok(got.some((v, i) => Math.abs(v - exact[i]) > atol[i]), `${what}: the factors are rounded`);
}

// DDPM_TEST_TENSOR_CORES=1 npm test -- test/ops/precision: also those for tensor cores, with their matrices emulated, since nothing here has such. llvmpipe takes a minute to compile them.
const VARIANTS = process.env['DDPM_TEST_TENSOR_CORES'] === '1' ? (['tiled_f16', 'subgroup_matrix'] as const) : (['tiled_f16'] as const);
if (VARIANTS.length < 2) console.log('  SKIPPED  emulated tensor cores: they take a minute to compile (DDPM_TEST_TENSOR_CORES=1)');

/** Channels as a kernel takes them: in fours, on tensor cores in eights. */
const channels = (variant: (typeof VARIANTS)[number], fours: number): number => (variant === 'subgroup_matrix' ? 8 : 4) * fours;

// Channels in fours: those of x, of y, of the weight, and of the weight before x's.
for (const [what, N, H, W, inputs, outputs, K, stride, all, first] of [
  ['ragged in all directions', 2, 9, 7, 9, 17, 3, 1, 9, 0], ['stride 2, part of the channels', 2, 10, 6, 2, 3, 3, 2, 4, 1], ['1 x 1, and pixels in splits', 2, 24, 20, 2, 5, 1, 1, 2, 0],
  ['several tiles of 128 each way', 1, 11, 13, 33, 35, 1, 1, 33, 0], ['many channels to few', 1, 5, 7, 35, 5, 1, 1, 35, 0],
] as const)
  for (const variant of VARIANTS) halves(`conv2d, ${variant}: ${what}`, (engine) => emulating(engine, async () => {
    const [C, O, wC, c0] = [inputs, outputs, all, first].map((fours) => channels(variant, fours)) as [number, number, number, number];
    const pad = stride === 2 ? 0 : (K - 1) / 2, OH = Math.floor(H / stride), OW = Math.floor(W / stride), s = { N, H, W, C, O, KH: K, KW: K, stride, pad: [pad, pad] as const, OH, OW, wC, c0 };
    const [x, w, dy, bias] = [N * H * W * C, K * K * wC * O, N * OH * OW * O, O].map((n, i) => random(n, i)), before = random(Math.max(x.length, w.length, dy.length), 9);
    const [tx, tw, tdy, tb] = [x, w, dy, bias].map((v) => upload(engine, [v.length], v).slice);
    const dims = { N, H, W, C, OH, OW, O, KH: K, KW: K, stride, pad_top: pad, pad_left: pad, WC: wC, C0: c0, has_bias: 1, has_per_image: 0, has_residual: 1, accumulate: 0, splits: 1 };

    // What is added to the products is not rounded. Tensor cores leave sums in parts too; of 18 turns, and of 27 of dy, seven are shorter or empty.
    for (const splits of variant === 'subgroup_matrix' && K === 3 && stride === 1 ? [1, 7] : [1]) {
      const y = Tensor.empty(engine, [dy.length]);
      forward(engine, { ...dims, x: tx, w: tw, bias: tb, per_image: tb, residual: tdy, y: y.slice }, { variant, splits });
      assertRounded(await y.read(), K * K * C + 1 + splits, (round, size) => twin.conv2d({ ...s, x: size(round(x)), w: size(round(w)), bias: size(bias), residual: size(dy) }), `y in ${splits}`);

      const dx = destination(engine, [x.length], before.subarray(0, x.length));
      backwardInput(engine, dims, tdy, tw, { slice: dx.slice, accumulate: 1 }, { variant, splits });
      assertRounded(await dx.read(), K * K * O + splits, (round, size) => add(twin.conv2dBackwardInput({ ...s, dy: size(round(dy)), w: size(round(w)) }), size(before)), `dx in ${splits}`);
    }

    const dw = destination(engine, [w.length], before.subarray(0, w.length)), db = Tensor.empty(engine, [O]);
    backwardWeight(engine, dims, tx, tdy, { slice: dw.slice, accumulate: 1 }, { slice: db.slice, accumulate: 0 }, { variant });
    assertRounded(await dw.read(), N * OH * OW + 1, (round, size) => add(twin.conv2dBackwardWeight({ ...s, x: size(round(x)), dy: size(round(dy)) }), size(before)), 'dw');
    assertRounded(await db.read(), N * OH * OW, (round, size) => twin.sumRows(size(round(dy)), N * OH * OW, O), 'db');
  }));

for (const variant of VARIANTS) halves(`conv2d of two inputs in one dispatch, ${variant}`, (engine) => emulating(engine, async () => {
  const [C, C2, O] = [3, 6, 5].map((fours) => channels(variant, fours)) as [number, number, number], pixels = 30, x = random(pixels * C, 0), x2 = random(pixels * C2, 1), w = random((C + C2) * O, 2);
  const [tx, tx2, tw] = [x, x2, w].map((v) => upload(engine, [v.length], v).slice), y = Tensor.empty(engine, [pixels * O]);
  const dims = { N: 1, H: pixels, W: 1, C, OH: pixels, OW: 1, O, KH: 1, KW: 1, stride: 1, pad_top: 0, pad_left: 0, WC: C + C2, C0: 0, has_bias: 0, has_per_image: 0, has_residual: 0, accumulate: 0, splits: 1 };
  forwardTwo(engine, { ...dims, x: tx, w: tw, bias: tx, per_image: tx, residual: tx, y: y.slice }, tx2, variant);
  const product = (v: Floats, first: number, count: number, m: Floats) => matmulTwin({ a: v, b: Float64Array.from(m).subarray(first * O, (first + count) * O), M: pixels, N: O, K: count });
  assertRounded(await y.read(), C + C2, (round, size) => add(product(size(round(x)), 0, C, size(round(w))), product(size(round(x2)), C, C2, size(round(w)))), 'y');
}));

// Rows of whole vec4s, and others; on tensor cores several tiles of 64, and of 128.
for (const variant of VARIANTS) for (const [M, N, K] of [[33, 37, 21], [68, 72, 20], [45, 150, 70], [150, 130, 45]]) halves(`matmul of ${M} x ${K} by ${K} x ${N} in all transposes, batched, on top, ${variant}`, (engine) => emulating(engine, async () => {
  const batch = 2, a = random(batch * M * K, 0), b = random(batch * K * N, 1), c = random(batch * M * N, 2);
  /** Rows for tensor cores begin at whole vec4s, here with NaN between them. */
  const padded = (v: Float32Array, columns: number): [Tensor, number] => {
    const ld = variant === 'subgroup_matrix' ? 4 * Math.ceil(columns / 4) : columns;
    return [upload(engine, [(v.length / columns) * ld], Float32Array.from({ length: (v.length / columns) * ld }, (_, i) => (i % ld < columns ? v[Math.floor(i / ld) * columns + (i % ld)] : NaN))), ld];
  };
  for (const transA of [false, true])
    for (const transB of [false, true]) {
      const [[ta, lda], [tb, ldb], [out, ldc]] = [padded(a, transA ? M : K), padded(b, transB ? K : N), padded(c, N)];
      matmul(engine, M, N, K, { slice: ta.slice, ld: lda, outer: (transA ? K : M) * lda, inner: 0, transposed: transA }, { slice: tb.slice, ld: ldb, outer: (transB ? N : K) * ldb, inner: 0, transposed: transB },
        { slice: out.slice, ld: ldc, outer: M * ldc, inner: 0 }, { alpha: 0.5, batch, accumulate: 1, variant });
      const got = (await out.read()).filter((_, i) => i % ldc < N);
      assertRounded(got, K + 1, (round, size) => matmulTwin({ a: size(round(a)), b: size(round(b)), c: size(c), M, N, K, alpha: 0.5, batch, transA, transB }), `transposed ${transA}, ${transB}`);
    }
}));

/** The kernels that fn launches. */
function launched(engine: Engine, fn: () => unknown): Set<string> {
  const plan = engine.capture(fn);
  void plan.destroy();
  return new Set(plan.commands.flatMap((c) => (c.kind === 'dispatch' ? [c.pipeline.kernel.name] : [])));
}

halves('on a CPU the float32 kernels get rounded copies: the same as rounded on the way', async (engine) => {
  if (engine.deviceClass === 'gpu') return;
  assert.equal([...engine.half], ['round_half']);
  const [N, H, W, C, O] = [2, 5, 6, 12, 8], x = random(N * H * W * C, 0), w = random(9 * C * O, 1), dy = random(N * H * W * O, 2), s = { N, H, W, C, O, KH: 3, KW: 3, stride: 1, pad: [1, 1] as const, OH: H, OW: W };
  const t = [upload(engine, [N, H, W, C], x), upload(engine, [3, 3, C, O], w)], { y, gradients } = await differentiate(t, () => conv2d(t[0], t[1], null), dy);
  assertRounded(y, 9 * C, (round, size) => twin.conv2d({ ...s, x: size(round(x)), w: size(round(w)) }), 'y');
  assertRounded(gradients[0], 9 * O, (round, size) => twin.conv2dBackwardInput({ ...s, dy: size(round(dy)), w: size(round(w)) }), 'dx');
  assertRounded(gradients[1], N * H * W, (round, size) => twin.conv2dBackwardWeight({ ...s, x: size(round(x)), dy: size(round(dy)) }), 'dw');
  const [a, b] = [random(33 * 21, 3), random(21 * 37, 4)], [ta, tb] = [a, b].map((v) => upload(engine, [v.length], v).slice), c = Tensor.empty(engine, [33, 37]);
  matmul(engine, 33, 37, 21, { slice: ta, ld: 21, outer: 0, inner: 0 }, { slice: tb, ld: 37, outer: 0, inner: 0 }, { slice: c.slice, ld: 37, outer: 0, inner: 0 });
  assertRounded(await c.read(), 21, (round, size) => matmulTwin({ a: size(round(a)), b: size(round(b)), M: 33, N: 37, K: 21 }), 'c');
});

halves('without the feature it is refused, in words that help, and the device does not stay open', async () => {
  const { instances } = (globalThis as unknown as { ddpmDawn: { instances: Map<string, GPU> } }).ddpmDawn, opened: GPUDevice[] = [];
  const adapters = Object.getPrototypeOf(await [...instances.values()][0]!.requestAdapter()) as GPUAdapter, { requestDevice } = adapters;
  adapters.requestDevice = async function (...of) {
    opened.push(await requestDevice.apply(this, of));
    return opened[0]!;
  };
  try {
    await assertError(() => openEngine({ ...openOptions, precision: 'f16', without: ['shader-f16'] }), 'E-LIMIT', /float16 needs the device feature "shader-f16".*engineRequirements\(adapter, \{ precision: "f16" \}\)/);
  } finally {
    adapters.requestDevice = requestDevice;
  }
  assert.is((await Promise.race([opened[0]!.lost, null]))?.reason, 'destroyed');
});

halves('as on a GPU: what was seen to be right is chosen; the self-test names a kernel that is wrong, by how much, and leaves it out', async () => {
  const { engine, close } = await openEngine({ ...openOptions, precision: 'f16' });
  // llvmpipe is slow at these kernels and chooses them never.
  (engine as { deviceClass: Engine['deviceClass'] }).deviceClass = 'gpu';
  assert.equal(await usePrecision(engine, 'f16'), []);
  assert.is(engine.precision, 'f16');
  const x = upload(engine, [1, 4, 4, 8], random(128, 0)), w = upload(engine, [3, 3, 8, 8], random(576, 1)), flat = x.view([1, 16, 8]);
  const all = () => launched(engine, () => (conv2d(x, w, null), conv2d([x, x], upload2, null), attention(flat, flat, flat, 2)));
  const upload2 = upload(engine, [3, 3, 16, 8], random(1152, 2));
  assert.ok(all().has('conv2d_tiled_f16') && all().has('matmul_f16') && !all().has('conv2d_tiled'), [...all()].join());
  engine.half.delete('conv2d_tiled_f16');
  assert.ok(!all().has('conv2d_tiled_f16') && all().has('matmul_f16'), [...all()].join());
  engine.half.add('conv2d_tiled_f16');

  const { run } = engine, { half: right } = engine;
  assert.equal([...right].sort(), ['conv2d_backward_weight_tiled_f16', 'conv2d_tiled_f16', 'matmul_f16']);
  // A driver that loses the last term of every sum, or that rounds to three digits.
  for (const [kernel, damage, message] of [
    [k.matmul_f16, (args: object) => ({ ...args, K: 51 }), /^matmul_f16 is not right on this device \(product: value \d+ of 9240 is \S+, and \S+ in float32; rounding allows nothing here\): it is not used$/],
    [k.matmul_f16, (args: object) => ({ ...args, alpha: 1.004 }), /^matmul_f16 is not right on this device/],
    [k.conv2d_tiled_f16, (args: { TRANSPOSED: number }) => (args.TRANSPOSED ? { ...args, pad_left: 0 } : args), /^conv2d_tiled_f16 .*\(gradient by the input: value/],
  ] as const) {
    engine.run = ((which, grid, args) => run.call(engine, which, grid, which.name === kernel.name ? (damage as (args: object) => object)(args) as never : args)) as typeof run;
    try {
      const warnings = await usePrecision(engine, 'f16');
      assert.equal(warnings.slice(1), ['activations stay float32 on this device: not every product has a kernel with float16 factors that is right']);
      assert.match(warnings[0], message);
      assert.not(engine.half.has(kernel.name));
      assert.is(engine.half.size, 2);
    } finally {
      engine.run = run;
    }
  }
  assert.equal(await usePrecision(engine, 'f32'), []);
  assert.is(engine.precision, 'f32');
  await close();
});

/** Dawn's null backend as a GPU with tensor cores: it compiles and computes nothing. */
async function withTensorCores(test: (engine: Engine) => Promise<void>): Promise<void> {
  const { engine, device } = await openEngine({ backend: 'null', precision: 'f16' });
  if (!device.features.has('subgroups')) return device.destroy(); // on default limits, where there are no such cores
  Object.assign(engine, { deviceClass: 'gpu', subgroupWidth: 32 });
  await test(engine);
  await device.queue.onSubmittedWorkDone();
  device.destroy();
}
const MATRIX = ['conv2d_subgroup_matrix', 'conv2d_backward_weight_subgroup_matrix', 'matmul_subgroup_matrix'];

halves('tensor cores: forward and backward of convolutions and attention are compiled for them, none of it in float32', () =>
  withTensorCores(async (engine) => {
    for (const kernel of [...MATRIX, 'conv2d_tiled_f16', 'conv2d_backward_weight_tiled_f16', 'matmul_f16']) engine.half.add(kernel);
    const x = upload(engine, [1, 8, 8, 32], random(2048, 0)), w = upload(engine, [3, 3, 64, 32], random(18432, 1)), target = upload(engine, [1, 64, 32], random(2048, 2));
    x.requiresGrad = w.requiresGrad = true;
    const plan = engine.capture(() => {
      const tape = new Tape(engine);
      const loss = tape.record(() => {
        const two = conv2d([x, x], w, null, { residual: x }).view([1, 64, 32]);
        return mse(attention(two, two, two, 2), target);
      });
      tape.backward(loss);
    });
    await plan.compile();
    const names = plan.commands.flatMap((c) => (c.kind === 'dispatch' ? [c.pipeline.label] : []));
    for (const label of ['conv2d_subgroup_matrix(TILE=64, TRANSPOSED=0, STRIDED=0, TWO=1, SPLIT=0)', 'conv2d_subgroup_matrix(TILE=64, TRANSPOSED=1, STRIDED=0, TWO=0, SPLIT=0)', 'conv2d_backward_weight_subgroup_matrix(TILE=64)', 'matmul_subgroup_matrix(TILE=64, TRANS_A=1, TRANS_B=0)']) assert.ok(names.includes(label), `${label} in ${names.join(', ')}`);
    assert.equal(names.filter((name) => /^(conv2d|matmul)/.test(name) && !name.includes('subgroup_matrix')), []);
  }));

halves('tensor cores that give wrong results are not used, nor float16 that does, and each is named', () =>
  withTensorCores(async (engine) => {
    const warnings = await usePrecision(engine, 'f16');
    assert.equal(warnings.map((text) => text.split(' ')[0]), [...MATRIX, 'conv2d_tiled_f16', 'conv2d_backward_weight_tiled_f16', 'matmul_f16', 'activations']);
    assert.is(engine.precision, 'f32');
  }));

/** float16 as float32. */
function wide(engine: Engine, x: Slice): Slice {
  const y = engine.allocate(2 * x.bytes);
  castInto(engine, x.bytes / 2, x, y);
  return y;
}

/** On a device as of tensor cores, opened with so much workgroup memory, with the plain kernels in place of theirs: `seen` gets each launch that would be theirs. */
async function withStandIns(bytes: number, seen: (kernel: string, tile: number, stored: boolean) => object, test: (engine: Engine) => Promise<void>): Promise<void> {
  const { engine, device, close } = await openEngine({ ...openOptions, precision: 'f16' });
  const limits = new Proxy(device.limits, { get: (of, name) => (name === 'maxComputeWorkgroupStorageSize' ? bytes : Reflect.get(of, name, of)) });
  const shown: Readonly<Record<string | symbol, unknown>> = { limits, features: new Set([...device.features, 'chromium-experimental-subgroup-matrix']) };
  const paper = new Proxy(device, { get: (of, name) => { const value = shown[name] ?? Reflect.get(of, name, of); return typeof value === 'function' ? value.bind(of) : value; } });
  const { run } = engine, plain = { [MATRIX[0]]: k.conv2d_tiled_f16, [MATRIX[1]]: k.conv2d_backward_weight_tiled_f16, [MATRIX[2]]: k.matmul_f16 };
  Object.assign(engine, { deviceClass: 'gpu', subgroupWidth: 32, device: paper });
  engine.run = ((kernel, grid, args) => {
    const standIn = plain[kernel.name], given = args as unknown as Record<string, number & { type?: string }>;
    if (!standIn) return run.call(engine, kernel, grid, args);
    // The weight is always float16 there, and float32 for the stand-in.
    const { w, ...others } = given, damaged = seen(kernel.name, given['TILE'], Object.values(others).some((v) => v?.type === 'f16'));
    const weight = kernel.name === MATRIX[0] ? wide(engine, w as unknown as Slice) : null;
    // Its tiles are smaller; workgroups that find nothing to do end.
    return run.call(engine, standIn, [(kernel.name === MATRIX[2] ? 16 : 2) * grid[0]], { ...given, trans_a: given['TRANS_A'], trans_b: given['TRANS_B'], ...(weight && { w: weight }), ...damaged } as never);
  }) as typeof run;
  try {
    await test(engine);
  } finally {
    await close();
  }
}

halves('tensor cores compute in tiles of 128 where the device was opened with room for them, in those of 64 elsewhere, and both self-tests try what will be used', async () => {
  for (const [bytes, tiles] of [[CORE_BYTES - 1, [64]], [CORE_BYTES, [64, 128]]] as const) {
    const tried = new Set<string>(), used = new Set<string>();
    let into = tried;
    // A driver that is wrong at the larger tile, on float16 alone, and where the self-test has tried all others before.
    const damage = (kernel: string, TILE: number, stored: boolean): object => (kernel === MATRIX[1] && TILE === 128 && stored ? { pad_left: 0 } : {});
    await withStandIns(bytes, (kernel, TILE, stored) => (into.add(`${kernel} ${TILE} ${stored}`), damage(kernel, TILE, stored)), async (engine) => {
      const warnings = await usePrecision(engine, 'f16'), wrong = tiles.length === 2;
      assert.is(warnings.length, Number(wrong), warnings.join('\n'));
      if (wrong) assert.match(warnings[0], /^activations stay float32 on this device: gradient by the weight in tiles of 128 on float16 is not right \(/);
      assert.equal([engine.storage, ...MATRIX.filter((name) => engine.half.has(name))], [wrong ? 'f32' : 'f16', ...MATRIX]);
      assert.equal([...tried].sort(), MATRIX.flatMap((kernel) => tiles.flatMap((tile) => [`${kernel} ${tile} false`, `${kernel} ${tile} true`])).sort(), `${bytes} bytes`);
      into = used;
      await captureLarge(engine);
      assert.equal([...used].sort(), MATRIX.map((kernel) => `${kernel} ${tiles.at(-1)} true`).sort(), `${bytes} bytes`);
    });
  }
});

halves('a model\'s weights are rounded in one pass for as long as they are read, where each begins at a multiple of 256 bytes', async (engine) => {
  class Net extends Module {
    readonly first = new Parameter([40, 9, 1, 1], 'conv', varianceScaling(1));
    readonly bias = new Parameter([40], 'plain', normal);
    readonly second = new Parameter([33, 40], 'linear', varianceScaling(1));
  }
  for (const cores of [true, false]) {
    if (cores) engine.half.add(MATRIX[0]!);
    const net = new Net(), parameters = Parameters.place(engine, net, { seed: 3 }), { first, second } = net, tensors = [first.tensor, second.tensor];
    engine.half.delete(MATRIX[0]!);
    const plan = engine.capture(() => {
      const rounded = roundWeights(engine, parametersOf(net));
      return rounded(() => {
        const seen = tensors.map(({ rounded: slice, shape }) => slice && cast(new Tensor(engine, shape, slice), 'f32'));
        // As blocks do that backward will run again.
        rounded(() => assert.equal(tensors.map(({ rounded: slice }) => !!slice), [true, cores]));
        assert.equal(tensors.map(({ rounded: slice }) => !!slice), [true, cores], 'still');
        return seen;
      });
    });
    assert.equal(tensors.map((tensor) => tensor.rounded), [null, null]);
    await plan.compile();
    const written = await parameters.read('values');
    for (const [i, p] of [first, second].entries()) {
      if (!plan.result[i]) continue;
      const want = new Float32Array(p.size);
      p.toDevice(written.get(p.name)!.data, want);
      plan.run();
      assert.equal([...(await plan.result[i]!.read())], [...half(want)], `${p.name}, ${cores}`);
      // The next pass rounds what the weights are then.
      parameters.write('values', new Map([...written].map(([name, { shape, data }]) => [name, { shape, data: data.map((v) => 2 * v) }])), 'twice');
      plan.run();
      assert.equal([...(await plan.result[i]!.read())], [...half(want.map((v) => 2 * v))]);
      parameters.write('values', written, 'as before');
    }
    await plan.destroy();
  }
});

/** Captures shapes that fill tiles of 128. */
async function captureLarge(engine: Engine): Promise<void> {
  const dims: ConvDims = { N: 3, H: 64, W: 64, C: 128, OH: 64, OW: 64, O: 128, KH: 1, KW: 1, stride: 1, pad_top: 0, pad_left: 0, WC: 128, C0: 0, has_bias: 0, has_per_image: 0, has_residual: 0, accumulate: 0, splits: 1 };
  const plan = engine.capture(() => {
    const [x, y] = [0, 1].map(() => Tensor.empty(engine, [dims.N, dims.H, dims.W, dims.C], 'f16')) as [Tensor, Tensor], w = Tensor.empty(engine, [dims.C, dims.O]), dw = Tensor.empty(engine, [dims.C, dims.O]);
    forward(engine, { ...dims, x: x.slice, w: w.slice, y: y.slice, bias: w.slice, per_image: w.slice, residual: x.slice });
    backwardWeight(engine, dims, x.slice, y.slice, { slice: dw.slice, accumulate: 0 });
    const rows = { ld: 128, outer: 0, inner: 0 };
    matmul(engine, 128, 128, 128, { ...rows, slice: x.slice }, { ...rows, slice: x.slice }, { ...rows, slice: y.slice });
  });
  await plan.destroy();
}

halves('tiles of 128 take as much workgroup memory as is asked of the device for them', () => {
  const most = MATRIX.map((name) => reflect(`${name}.wgsl`, readFileSync(new URL(`../../kernels/${name}.wgsl`, import.meta.url), 'utf8').replace('TILE: u32 = 64u', 'TILE: u32 = 128u')).workgroupBytes);
  assert.is(Math.max(...most), CORE_BYTES, most.join());
});

halves('tensor cores are asked for where they multiply 16 x 16 float16 matrices into float32', () => {
  const config = { componentType: 'f16', resultComponentType: 'f32', M: 16, N: 16, K: 16 };
  const asked = (configs: object[], precision: 'f32' | 'f16' = 'f16') =>
    engineRequirements({ limits: {}, info: { subgroupMatrixConfigs: configs }, features: new Set(['subgroups', 'shader-f16', 'chromium-experimental-subgroup-matrix']) } as unknown as GPUAdapter, { precision }).requiredFeatures as string[];
  assert.equal(asked([{ ...config, N: 8 }, config]), ['subgroups', 'shader-f16', 'chromium-experimental-subgroup-matrix']);
  for (const other of [{ ...config, resultComponentType: 'f16' }, { ...config, K: 8 }, { ...config, componentType: 'f32' }]) assert.equal(asked([other]), ['subgroups', 'shader-f16']);
  assert.equal(asked([config], 'f32'), ['subgroups']);
});
halves.run();
