// Choices of kernels by shape: what is given is taken where the device can, and remembered; what cannot be done falls back to the table.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Choices } from '../src/gpu/choices.ts';
import { deviceClass } from '../src/gpu/device-class.ts';
import { Engine } from '../src/gpu/engine.ts';
import { paperDevice } from '../src/gpu/paper.ts';
import { groupNorm } from '../src/ops/group_norm.ts';
import { convCandidates, convChoice, type ConvDims, convTile, gemmTile } from '../src/ops/conv2d_choice.ts';
import { CORE_BYTES, HALF } from '../src/ops/half.ts';
import { Tensor } from '../src/tensor.ts';
import type { ConvDirection } from '../src/variants.ts';

const tests = suite('choices');
const dims = { N: 2, H: 14, W: 14, C: 16, OH: 14, OW: 14, O: 32, KH: 3, KW: 3, stride: 1, pad_top: 1, pad_left: 1, WC: 16, C0: 0, has_bias: 0, has_per_image: 0, has_residual: 0, accumulate: 0, splits: 1 };
const key = (op: string): string => `${op}${op.endsWith('weight') ? ' N=2' : ''} H=14 W=14 OH=14 OW=14 C=16 O=32 KH=3 KW=3 stride=1 pad_top=1 pad_left=1`;
const on = (width: number, choices = {}): Engine => new Engine(paperDevice(width), { choices });

tests('the table is by class of device', () => {
  assert.equal([8, 32].map((width) => deviceClass(paperDevice(width))), ['cpu-subgroups', 'gpu']);
  assert.is(deviceClass(paperDevice(4, { architecture: 'swiftshader' })), 'swiftshader');
  assert.is(deviceClass(paperDevice(0, { description: 'llvmpipe: Mesa 25' })), 'cpu');
  assert.equal([4, 16].map((width) => [{ description: 'llvmpipe: Mesa 25' }, {}].map((info) => deviceClass(paperDevice(width, info)))), [['cpu-subgroups', 'gpu'], ['cpu-subgroups', 'gpu']], 'on ARM and on x86 without AVX or with AVX-512; else it is a GPU');
  assert.is(deviceClass(paperDevice(0, { vendor: '', isFallbackAdapter: true })), 'cpu', 'Firefox, which gives no names');
  for (const [width, variant] of [[8, 'subgroup3x3'], [32, 'tiled3x3'], [0, 'tiled3x3']] as const) assert.is(convChoice(on(width), dims, 'forward').variant, variant);
});

tests('what was given is taken and remembered with all its numbers', () => {
  const engine = on(8, { [key('conv2d_forward')]: { variant: 'subgroup' }, [key('conv2d_backward_weight')]: { variant: 'subgroup3x3', splits: 3 } });
  assert.equal(convChoice(engine, dims, 'forward'), { variant: 'subgroup' });
  assert.equal(convChoice(engine, dims, 'input'), { variant: 'subgroup3x3', rows: 7 });
  assert.equal(convChoice(engine, dims, 'weight'), { variant: 'subgroup3x3', splits: 3 });
  assert.equal([...engine.choices.made.values()].map((made) => made.given), [true, false, true]);
  // Given again, nothing is left to the table.
  const again = on(8, JSON.parse(JSON.stringify(engine.choices.table())));
  for (const direction of ['forward', 'input', 'weight'] as const) assert.equal(convChoice(again, dims, direction), convChoice(engine, dims, direction));
  assert.ok([...again.choices.made.values()].every((made) => made.given));
});

tests('what this device cannot do, or what is no choice, is refused', () => {
  const bad = [{ variant: 'subgroup' }, { variant: 'fastest' }, { variant: 'tiled', splits: 2.5 }, { variant: 'tiled', splits: 0 }, { variant: 'tiled', rows: 9 }, { variant: 'padded' }, { size: 4 }, { variant: 'toString' }, { variant: 'subgroup3x3' }];
  for (const choice of bad) {
    const engine = on(32, { [key('conv2d_backward_weight')]: choice });
    assert.is(convChoice(engine, dims, 'weight').variant, 'tiled3x3');
    assert.equal([...engine.choices.refused], [[key('conv2d_backward_weight'), choice]], JSON.stringify(choice));
  }
  for (const [workgroup, taken] of [[16, true], [24, false], ['8', false], [512, false]] as const) {
    const engine = on(8, { 'group_norm_forward P=9 C0=8 C1=0 G=2': { workgroup } });
    groupNorm(Tensor.empty(engine, [2, 3, 3, 8]), Tensor.empty(engine, [8]), Tensor.empty(engine, [8]), { groups: 2 });
    assert.is(engine.choices.refused.size, taken ? 0 : 1);
  }
});

tests('the filtered kernels for GPUs need workgroup memory and a 3 x 3 convolution that keeps the size; without, it is the plain GEMM', () => {
  const paper = paperDevice(32), small = Object.create(paper, { limits: { value: { ...paper.limits, maxComputeWorkgroupStorageSize: 16384 } } }) as GPUDevice;
  for (const direction of ['forward', 'input', 'weight'] as const) {
    const of = (device: GPUDevice, changes: object, choices = {}) => convChoice(new Engine(device, { choices }), { ...dims, ...changes }, direction).variant;
    assert.equal([of(paper, {}), of(small, {})], ['tiled3x3', 'tiled']);
    const others = [{ stride: 2, OH: 7, OW: 7, pad_top: 0, pad_left: 0 }, { KH: 1, KW: 1, pad_top: 0, pad_left: 0 }, { KH: 5, KW: 5, pad_top: 2, pad_left: 2 }, { pad_top: 2, pad_left: 0 }, { OH: 12, OW: 12, pad_top: 0, pad_left: 0 }];
    for (const other of others) assert.is(of(paper, other), 'tiled', JSON.stringify(other));
    const taken = convCandidates(new Engine(paper), dims, direction).map(({ variant }) => variant), less = convCandidates(new Engine(small), dims, direction).map(({ variant }) => variant);
    assert.equal([taken.includes('tiled3x3'), less.includes('tiled3x3'), less.includes('tiled')], [true, false, true]);
    for (const other of others) assert.not(convCandidates(new Engine(paper), { ...dims, ...other }, direction).some(({ variant }) => variant === 'tiled3x3'));
  }
  const given = new Engine(small, { choices: { [key('conv2d_forward')]: { variant: 'tiled3x3' } } });
  assert.is(convChoice(given, dims, 'forward').variant, 'tiled');
  assert.is(given.choices.refused.size, 1);
});

tests('on GPUs the sums of small images are left in parts, by the image and its channels alone; a file may say how many, and one that says nothing means one', () => {
  const small = { ...dims, H: 4, W: 4, OH: 4, OW: 4, C: 256, O: 512, WC: 256 }, of = (engine: Engine, changes: object, direction: 'forward' | 'input' = 'forward') => convChoice(engine, { ...small, ...changes }, direction);
  for (const N of [1, 128]) assert.equal([of(on(32), { N }), of(on(32), { N }, 'input'), of(on(32), { N, H: 8, W: 8, OH: 8, OW: 8 })], [6, 8, 1].map((splits) => ({ variant: 'tiled3x3', splits })));
  assert.equal(of(on(0), {}), { variant: 'tiled3x3', splits: 6 }, 'a GPU without subgroups');
  assert.equal(of(new Engine(paperDevice(0, { description: 'llvmpipe' })), {}), { variant: 'tiled3x3', splits: 1 });
  const name = 'conv2d_forward H=4 W=4 OH=4 OW=4 C=256 O=512 KH=3 KW=3 stride=1 pad_top=1 pad_left=1', given = (choice: object) => on(32, { [name]: choice });
  assert.equal([{ variant: 'tiled3x3', splits: 3 }, { variant: 'tiled3x3' }].map((choice) => of(given(choice), {})), [{ variant: 'tiled3x3', splits: 3 }, { variant: 'tiled3x3' }]);
  for (const choice of [{ variant: 'tiled3x3', splits: 0 }, { variant: 'tiled3x3', splits: 65 }, { variant: 'tiled', splits: 2 }]) assert.equal(of(given(choice), {}), { variant: 'tiled3x3', splits: 6 });
});

tests('tensor cores leave the sums of small images in parts as well, of convolutions that keep the size', () => {
  const engine = on(32), small = { ...dims, H: 4, W: 4, OH: 4, OW: 4, C: 256, O: 512, WC: 256 };
  for (const kernel of ['conv2d_subgroup_matrix', 'conv2d_backward_weight_subgroup_matrix']) engine.half.add(kernel);
  for (const N of [1, 128]) {
    assert.equal((['forward', 'input'] as const).map((direction) => convChoice(engine, { ...small, N }, direction)), [4, 8].map((splits) => ({ variant: 'subgroup_matrix', splits })));
    const rest = [{ H: 8, W: 8, OH: 8, OW: 8 }, { KH: 1, KW: 1, pad_top: 0, pad_left: 0 }, { N: 1, H: N, W: 1, OH: N, OW: 1, KH: 1, KW: 1, pad_top: 0, pad_left: 0 }];
    assert.equal(rest.map((changes) => convChoice(engine, { ...small, N, ...changes }, 'forward')), rest.map(() => ({ variant: 'subgroup_matrix', splits: 1 })));
  }
  assert.equal(convChoice(engine, small, 'weight'), { variant: 'subgroup_matrix' });
});

tests('tensor cores take channels in eights and kernels of up to 16 taps each way, plain float16 the rest', () => {
  const engine = on(32), variants = (changes: object) => (['forward', 'input', 'weight'] as const).map((direction) => convChoice(engine, { ...dims, ...changes }, direction).variant);
  for (const product of Object.values(HALF)) for (const kernel of Object.values(product)) engine.half.add(kernel.name);
  for (const changes of [{}, { C: 24, WC: 40, C0: 16 }, { KH: 1, KW: 16 }]) assert.equal(variants(changes), Array(3).fill('subgroup_matrix'), JSON.stringify(changes));
  for (const changes of [{ C: 20, WC: 20 }, { O: 36 }, { WC: 20 }, { WC: 28, C0: 12 }, { KH: 17 }, { KW: 17 }]) assert.equal(variants(changes), Array(3).fill('tiled_f16'), JSON.stringify(changes));
});

tests('which tiles a GPU takes is measured, and may be said in a file, forward and for the input\'s gradient', () => {
  const stride2 = { ...dims, stride: 2, OH: dims.H / 2, OW: dims.W / 2, pad_top: 0, pad_left: 0 }, tilesOf = (engine: Engine, of: ConvDims, direction: ConvDirection) => convCandidates(engine, of, direction).map(({ tile }) => tile ?? 0).filter(Boolean);
  assert.equal((['forward', 'input', 'weight'] as const).map((direction) => tilesOf(on(32), stride2, direction)), [[64, 32, 16], [64, 32, 16], []]);
  assert.equal([tilesOf(on(32), dims, 'forward'), tilesOf(on(8), dims, 'forward')], [[64, 32, 16, 64, 32, 16], []], 'of both kernels; on a CPU neither');
  const said = (op: string, choice: object, direction: ConvDirection) => convChoice(on(32, { [key(op)]: choice }), dims, direction);
  for (const variant of ['tiled', 'tiled3x3']) assert.equal(said('conv2d_forward', { variant, tile: 32 }, 'forward'), { variant, tile: 32 });
  for (const choice of [{ variant: 'tiled', tile: 128 }, { variant: 'tiled', tile: '32' }, { variant: 'plain', tile: 32 }]) assert.is(said('conv2d_forward', choice, 'forward').variant, 'tiled3x3', JSON.stringify(choice));
  assert.is(said('conv2d_backward_weight', { variant: 'tiled', tile: 32 }, 'weight').variant, 'tiled3x3');
});

tests('a GPU computes products in smaller tiles where there are few of them, or few channels; a CPU does not', () => {
  const of = (engine: Engine, channels: number, counts: readonly number[]) => counts.map((n) => gemmTile(engine, channels, (tile) => n * (64 / tile) ** 2));
  assert.equal(of(on(32), 64, [1, 20, 21, 127, 128, 4096]), [16, 16, 32, 32, 64, 64]);
  assert.equal(of(on(32), 32, [20, 21, 4096]), [16, 32, 32]);
  assert.equal(of(new Engine(paperDevice(0, { description: 'llvmpipe' })), 64, [1, 128]), [64, 64]);
});

tests('tiles on tensor cores are the larger ones where they, with the parts of their sums, keep a large GPU busy', () => {
  const engine = (bytes: number) => new Engine(paperDevice(32, {}, ['subgroups'], { maxComputeWorkgroupStorageSize: bytes }));
  assert.equal([1, 2, 3].map((splits) => convTile(engine(CORE_BYTES), 2048, 256, splits)), [64, 64, 128]);
  assert.is(convTile(engine(CORE_BYTES - 1), 2048, 256, 3), 64);
});

tests('nothing is kept of a choice that another shape asked for', () => {
  const choices = new Choices({ 'op N=1': { variant: 'a' } });
  const ask = (N: number) => choices.of('op', { N }, {}, () => ({ variant: 'b' }), () => true).variant;
  assert.equal([ask(1), ask(2), ask(1)], ['a', 'b', 'a']);
  assert.equal(choices.table(), { 'op N=1': { variant: 'a' }, 'op N=2': { variant: 'b' } });
});

tests('the batch has no part in what computes an image, or its gradient', () => {
  const engine = on(8), of = (N: number) => (['forward', 'input', 'weight'] as const).map((direction) => (convChoice(engine, { ...dims, N }, direction), engine.choices.made.size));
  assert.equal([of(2), of(5)], [[1, 2, 3], [3, 3, 4]]);
  const rows = (H: number) => convChoice(engine, { ...dims, N: 1, H, W: 1, OH: H, OW: 1, KH: 1, KW: 1, pad_top: 0, pad_left: 0 }, 'forward');
  assert.is(rows(3), rows(7));
  assert.equal([...engine.choices.made.get(key('conv2d_forward'))!.at.values()], [{ N: 2 }, { N: 5 }]);
});

tests.run();
