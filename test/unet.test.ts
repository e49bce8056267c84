// The U-Net: its names, its config, its initialisation, its files, and the memory it leaves behind. Its numbers are in test/pytorch.test.ts.
import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Tape } from '../src/autograd.ts';
import { Clock } from '../src/clock.ts';
import { modelConfig } from '../src/cli/presets.ts';
import type { Engine } from '../src/gpu/engine.ts';
import type { Args, Grid, Kernel } from '../src/gpu/kernel.ts';
import { modelFile, modernNames, readModel } from '../src/io/model.ts';
import { readSafetensors, writeSafetensors } from '../src/io/safetensors.ts';
import { readConfig } from '../src/nn/config.ts';
import { Module, type Parameter, parametersOf } from '../src/nn/parameter.ts';
import { BUFFERS, Parameters } from '../src/nn/parameters.ts';
import { UNet } from '../src/nn/unet.ts';
import { linear } from '../src/ops/conv2d.ts';
import { mse } from '../src/ops/loss.ts';
import { AdamW } from '../src/optim/adamw.ts';
import { STREAM } from '../src/philox.ts';
import { ParameterTensor, Tensor } from '../src/tensor.ts';
import { relativeL2 } from './helpers/close.ts';
import { assertError, gpuSuite, random, upload } from './helpers/gpu.ts';

type Named = Map<string, { readonly shape: readonly number[]; readonly data: ArrayLike<number> }>;

const text = (name: string): string => readFileSync(new URL(`golden/${name}`, import.meta.url), 'utf8');
const bits = (data: Float32Array): string => Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('base64');
const norm = (data: ArrayLike<number>): number => relativeL2(data, new Float64Array(data.length));

/** Small, and with everything in it: attention with two heads, a change of width, both resamplings, skips. */
const SMALL = {
  sample_size: 8, in_channels: 1, out_channels: 1, block_out_channels: [8, 16], down_block_types: ['DownBlock2D', 'AttnDownBlock2D'], up_block_types: ['AttnUpBlock2D', 'UpBlock2D'],
  layers_per_block: 1, norm_num_groups: 4, norm_eps: 1e-6, freq_shift: 1, flip_sin_to_cos: false, downsample_padding: 0, attention_head_dim: 8,
};

/** A model with weights that are nowhere zero: those of a fresh one make it predict 0 and most gradients vanish. */
function lively(engine: Engine, options: { chunkBytes?: number; config?: object } = {}): { unet: UNet; parameters: Parameters } {
  const unet = new UNet({ ...SMALL, ...options.config });
  const parameters = Parameters.place(engine, unet, options.chunkBytes ? { chunkBytes: options.chunkBytes } : {});
  const all = parametersOf(unet);
  parameters.write('values', new Map(all.map((p, i) => [p.name, { shape: p.shape, data: random(p.size, i).map((v) => v * 0.2 + Number(p.name.endsWith('norm.weight'))) }])), 'test');
  return { unet, parameters };
}

const inputs = (engine: Engine, N: number): { x: Tensor; t: Tensor; goal: Tensor } => ({
  x: upload(engine, [N, 8, 8, 1], random(N * 64, 1000)),
  t: upload(engine, [N], Uint32Array.from({ length: N }, (_, i) => (i * 389 + 7) % 1000)),
  goal: upload(engine, [N, 8, 8, 1], random(N * 64, 1001)),
});

// ------------------------------------------------------------------------------------------------------------------ names and config
const config = suite('unet config');

const CIFAR = modelConfig('ddpm-cifar10', { channels: 3, height: 32, width: 32 });

config('google/ddpm-cifar10-32: all 328 tensor names and shapes, 35,746,307 parameters', () => {
  const want = text('ddpm-cifar10-32-keys.txt').trim().split('\n').sort();
  const all = parametersOf(new UNet({ ...CIFAR, _diffusers_version: '0.0.4', dropout: 0 }));
  assert.is(want.length, 328);
  assert.equal(all.map((p) => `${p.name} [${p.shape.join(', ')}]`).sort(), want);
  assert.is(all.reduce((sum, p) => sum + p.size, 0), 35_746_307);
});

config('what a config.json leaves out has the defaults of diffusers, not those of DDPM', () => {
  const { block_out_channels, freq_shift, flip_sin_to_cos, downsample_padding, attention_head_dim, norm_eps, norm_num_groups } = new UNet({}).config;
  assert.equal(
    { block_out_channels, freq_shift, flip_sin_to_cos, downsample_padding, attention_head_dim, norm_eps, norm_num_groups },
    { block_out_channels: [224, 448, 672, 896], freq_shift: 0, flip_sin_to_cos: true, downsample_padding: 1, attention_head_dim: 8, norm_eps: 1e-5, norm_num_groups: 32 },
  );
  assert.equal(readConfig(JSON.parse(JSON.stringify(readConfig(SMALL)))), readConfig(SMALL), 'a config that was written and read is the same');
});

const refused: readonly [string, object, RegExp][] = [
  ['an unknown field', { block_out_channel: [8, 16] }, /"block_out_channel" is not known/],
  ['a class of another model', { _class_name: 'UNet2DConditionModel' }, /_class_name = "UNet2DConditionModel" is not implemented; "UNet2DModel" is/],
  ['a time embedding that is not implemented', { time_embedding_type: 'fourier' }, /time_embedding_type = "fourier" is not implemented; "positional" is/],
  ['an activation that is not implemented', { act_fn: 'mish' }, /act_fn = "mish" is not implemented; "silu" or "swish" is/],
  ['centred input', { center_input_sample: true }, /center_input_sample = true is not implemented/],
  ['a way to use the time embedding that is not implemented', { resnet_time_scale_shift: 'ada_group' }, /resnet_time_scale_shift = "ada_group" is not implemented; "default" or "scale_shift" is/],
  ['a class embedding that is not implemented', { class_embed_type: 'projection' }, /class_embed_type = "projection" is not implemented; null or "timestep" or "identity" is/],
  ['no classes', { num_class_embeds: 0 }, /num_class_embeds must be a whole number of at least 1, not 0/],
  ['a block type that is not implemented', { down_block_types: ['DownBlock2D', 'SkipDownBlock2D'] }, /block type "SkipDownBlock2D" is not implemented; DownBlock2D and AttnDownBlock2D are/],
  ['an up block among the down blocks', { down_block_types: ['UpBlock2D', 'DownBlock2D'] }, /block type "UpBlock2D" is not implemented/],
  ['lists of different lengths', { block_out_channels: [8, 16, 16] }, /must be lists of one length/],
  ['a width that does not divide into groups', { block_out_channels: [8, 18] }, /block_out_channels\[1\] = 18 is not a multiple of norm_num_groups = 4/],
  ['a width that does not divide into heads', { attention_head_dim: 12 }, /block_out_channels\[0\] = 8 does not divide into heads of 12/],
  ['no layers', { layers_per_block: 0 }, /layers_per_block must be a whole number of at least 1, not 0/],
  ['more layers than can be built', { layers_per_block: 1e9 }, /layers_per_block must be 1,000 at most, not 1000000000/],
  ['a width that is text', { in_channels: '3' }, /in_channels must be a whole number of at least 1, not "3"/],
  ['dropout of everything', { dropout: 1 }, /dropout must be in \[0, 1\), not 1/],
  ['an epsilon of zero', { norm_eps: 0 }, /norm_eps must be positive/],
];
for (const [what, fields, message] of refused) config(`refuses ${what}, by name`, () => assertError(() => new UNet({ ...SMALL, ...fields }), 'E-MODEL', message));

config('names of the first year of diffusers become those of today, and 1 x 1 convolutions of attention become matrices', () => {
  const old = ['group_norm.weight', 'query.weight', 'query.bias', 'key.weight', 'value.weight', 'proj_attn.weight', 'proj_attn.bias'];
  const shape = (name: string): number[] => (name.startsWith('key') ? [16, 16, 1, 1] : name.endsWith('bias') || name.startsWith('group') ? [16] : [16, 16]);
  const got = modernNames(['down_blocks.1.attentions.0', 'mid_block.attentions.0'].flatMap((path) => old.map((name) => [`${path}.${name}`, { shape: shape(name) }] as const)));
  const today = ['group_norm.weight', 'to_q.weight', 'to_q.bias', 'to_k.weight', 'to_v.weight', 'to_out.0.weight', 'to_out.0.bias'];
  assert.equal([...got.keys()], ['down_blocks.1.attentions.0', 'mid_block.attentions.0'].flatMap((path) => today.map((name) => `${path}.${name}`)));
  assert.equal(got.get('mid_block.attentions.0.to_k.weight')!.shape, [16, 16]);
  assert.equal([...modernNames(got).keys()], [...got.keys()], 'names of today stay');
  // Only attention has such tensors: a 1 x 1 convolution elsewhere stays one.
  assert.equal(modernNames([['down_blocks.1.resnets.0.conv_shortcut.weight', { shape: [16, 8, 1, 1] }]]).get('down_blocks.1.resnets.0.conv_shortcut.weight')!.shape, [16, 8, 1, 1]);
});
config.run();

// ------------------------------------------------------------------------------------------------------------------------ parameters
const parameters = gpuSuite('parameters');

parameters('in chunks: eps and all gradients are bit-equal to those of one buffer', async (engine) => {
  const results: string[][] = [];
  for (const chunkBytes of [undefined, 24_000, 65_536]) {
    const model = lively(engine, chunkBytes ? { chunkBytes } : {});
    assert.is(model.parameters.chunks.length > 1, chunkBytes !== undefined, `${model.parameters.chunks.length} chunks of ${chunkBytes} bytes`);
    for (const { count } of model.parameters.chunks) assert.ok(4 * count <= (chunkBytes ?? Infinity));
    const { x, t, goal } = inputs(engine, 2), tape = new Tape(engine);
    const [loss, eps] = tape.record(() => {
      const y = model.unet.forward(x, t);
      return [mse(y, goal), y];
    });
    tape.backward(loss, eps);
    const grads = await model.parameters.read('grads');
    results.push([bits(await eps.read()), bits(await loss.read()), ...[...grads].map(([name, { data }]) => `${name} ${bits(data)}`)]);
    assert.ok([...grads].every(([, { data }]) => data.every(Number.isFinite)));
  }
  assert.equal(results[1], results[0]);
  assert.equal(results[2], results[0]);
});

parameters('every element of the flat buffers has a name, across chunks', (engine) => {
  const { parameters: p, unet } = lively(engine, { chunkBytes: 24_000 });
  const found = new Map<string, number>();
  const total = p.chunks.reduce((sum, chunk) => sum + chunk.count, 0);
  for (let i = 0; i < total; i++) found.set(p.nameAt(i), (found.get(p.nameAt(i)) ?? 0) + 1);
  assert.equal([...found.keys()], p.names);
  // Each has its own elements and less than 64 of padding.
  for (const { name, size } of parametersOf(unet)) assert.ok(found.get(name)! >= size && found.get(name)! < size + 64, name);
  assert.is(p.nameAt(total), `element ${total}`);
  assert.is(p.count, parametersOf(unet).reduce((sum, q) => sum + q.size, 0));
});

parameters('a parameter larger than a chunk may be is refused by name', async (engine) => {
  await assertError(() => Parameters.place(engine, new UNet(SMALL), { chunkBytes: 1024 }), 'E-LIMIT', /time_embedding\.linear_2\.weight has 1024 values; this device binds at most 256/);
});

parameters('write and read are bit-exact for every buffer, through a file, whatever the chunks', async (engine) => {
  const from = lively(engine, {}), to = lively(engine, { chunkBytes: 24_000 });
  for (const [i, buffer] of BUFFERS.entries()) {
    const all = parametersOf(from.unet);
    const want = new Map(all.map((p, j) => [p.name, { shape: p.shape, data: random(p.size, 200 * (i + 1) + j) }]));
    from.parameters.write(buffer, want, 'test');
    const { tensors, metadata } = modelFile(await from.parameters.read(buffer));
    const file = writeSafetensors(tensors, metadata);
    assert.is(readSafetensors(file, 'file').metadata.format, 'pt');
    to.parameters.write(buffer, readModel(file, 'file'), 'file');
    for (const [name, { shape, data }] of await to.parameters.read(buffer)) {
      assert.equal(shape, want.get(name)!.shape);
      assert.is(bits(data), bits(want.get(name)!.data), `${buffer} ${name}`);
    }
  }
});

parameters('the tensors of another model are refused, the first three named with both shapes, and nothing is written', async (engine) => {
  const { parameters: p } = lively(engine);
  const before = await p.read('values');
  const other = new Map(before) as unknown as Map<string, { shape: number[]; data: Float32Array }>;
  other.set('conv_in.weight', { shape: [8, 3, 3, 3], data: new Float32Array(216) });
  other.delete('conv_out.bias');
  other.set('conv_aux.bias', { shape: [2], data: new Float32Array(2) });
  other.set('conv_aux.weight', { shape: [2, 2], data: new Float32Array(4) });
  await assertError(
    () => p.write('values', other, 'checkpoint x'), 'E-MODEL',
    /^checkpoint x is of another model: 4 tensors differ\.\n  conv_in\.weight: \(8, 3, 3, 3\) there, \(8, 1, 3, 3\) in the model\n  conv_out\.bias: missing, the model has \(1\)\n  conv_aux\.bias: \(2\) there, not in the model\n  and 1 more$/,
  );
  const after = await p.read('values');
  for (const [name, { data }] of before) assert.is(bits(after.get(name)!.data), bits(data), name);
});

parameters('use(\'ema\') runs with the averaged weights and then puts the weights back', async (engine) => {
  const { unet, parameters: p } = lively(engine), { x, t } = inputs(engine, 1);
  const first = await unet.forward(x, t).read();
  p.write('ema', new Map([...(await p.read('values'))].map(([name, { shape, data }]) => [name, { shape, data: data.map((v) => 0.5 * v) }])), 'test');
  const averaged = await p.use('ema', () => unet.forward(x, t)).read();
  assert.ok(relativeL2(averaged, first) > 0.1);
  assert.is(bits(await unet.forward(x, t).read()), bits(first));
  await assertError(() => p.use('ema', () => unet.forward(x.view([1, 8, 4, 2]), t)), 'E-SHAPE', /channels/);
  assert.is(bits(await unet.forward(x, t).read()), bits(first), 'also after an error');
  p.write('values', await p.read('ema'), 'test');
  assert.is(bits(await unet.forward(x, t).read()), bits(averaged));
});

parameters('a module\'s parameters are named by the path of fields, those of arrays by index', () => {
  class Pair extends Module {
    readonly unets = [new UNet(SMALL)];
    readonly title = 'not a parameter';
  }
  const names = parametersOf(new Pair()).map((p: Parameter) => p.name);
  assert.ok(names.includes('unets.0.down_blocks.1.attentions.0.to_out.0.weight') && names.every((name) => name.startsWith('unets.0.')), names[0]);
  assert.is(new Set(names).size, names.length);
});
parameters.run();

// -------------------------------------------------------------------------------------------------------------------- initialisation
const init = gpuSuite('initialisation');

init('a fresh model predicts 0: its loss against noise is the mean square of the noise, about 1', async (engine) => {
  const unet = new UNet(SMALL);
  Parameters.place(engine, unet, { seed: 3 });
  const { x, t, goal } = inputs(engine, 16);
  const eps = unet.forward(x, t);
  const loss = (await mse(eps, goal).read())[0], square = norm(await goal.read()) ** 2 / goal.size;
  assert.ok(Math.max(...(await eps.read()).map(Math.abs)) < 1e-3);
  assert.ok(Math.abs(loss - square) < 1e-3 && Math.abs(loss - 1) < 0.15, `${loss}, mean square ${square}`);
});

init('weights are uniform on the bound of variance scaling, the last layer of every branch nearly zero, biases zero, norms one', async (engine) => {
  const unet = new UNet({ ...CIFAR, block_out_channels: [32, 64, 64, 64], norm_num_groups: 8 });
  const values = await Parameters.place(engine, unet, { training: false }).read('values');
  let checked = 0, nearlyZero = 0;
  for (const [name, { shape, data }] of values) {
    if (name.endsWith('.bias')) assert.ok(data.every((v) => v === 0), name);
    else if (shape.length === 1) assert.ok(data.every((v) => v === 1), name);
    else {
      const last = /conv2\.weight$|to_out\.0\.weight$|^conv_out\.weight$/.test(name);
      const [out, into, height = 1, width = 1] = shape as [number, number, number?, number?];
      const bound = Math.sqrt((6 * (last ? 1e-10 : 1)) / ((into + out) * height * width));
      const n = data.length, mean = data.reduce((a, b) => a + b, 0) / n, variance = data.reduce((a, b) => a + b * b, 0) / n;
      const largest = Math.max(...data.map(Math.abs));
      assert.ok(largest <= bound && largest > bound * (1 - 20 / n), `${name}: largest ${largest}, bound ${bound}`);
      // Five standard deviations of the mean and of the mean square of n uniform numbers (their fourth moment is bound^4 / 5).
      assert.ok(Math.abs(mean) < (5 * bound) / Math.sqrt(3 * n), `${name}: mean ${mean / bound}`);
      assert.ok(Math.abs(variance - bound ** 2 / 3) < 5 * bound ** 2 * Math.sqrt((1 / 5 - 1 / 9) / n), `${name}: variance ${variance / bound ** 2}`);
      if (last) nearlyZero++;
      checked++;
    }
  }
  assert.is(nearlyZero, 22 + 6 + 1); // resnets: 4 x 2 down, 2 in the middle, 4 x 3 up; attentions: 2, 1, 3; conv_out
  assert.ok(checked > 100);
});

init('the seed decides, no two parameters start alike, and the average starts at the weights', async (engine) => {
  const place = async (seed: number): Promise<Map<string, string>> => {
    const p = Parameters.place(engine, new UNet(SMALL), { seed });
    const values = await p.read('values'), ema = await p.read('ema');
    for (const [name, { data }] of values) assert.is(bits(ema.get(name)!.data), bits(data), name);
    for (const buffer of ['grads', 'm', 'v'] as const) for (const [name, { data }] of await p.read(buffer)) assert.ok(data.every((v) => v === 0), `${buffer} ${name}`);
    return new Map([...values].map(([name, { data }]) => [name, bits(data)]));
  };
  const [a, b, c] = [await place(1), await place(1), await place(2)];
  assert.equal([...a], [...b]);
  const drawn = [...a].filter(([name]) => name.endsWith('weight') && !name.includes('norm'));
  for (const [name, data] of drawn) assert.is.not(c.get(name), data, name);
  assert.is(new Set(drawn.map(([, data]) => data.slice(0, 64))).size, drawn.length);
});
init('placed without training, a gradient reaches the input and no weight is written; what trains says so', async (engine) => {
  const backward = async (options: object): Promise<[number[], Parameters]> => {
    const unet = new UNet(SMALL), parameters = Parameters.place(engine, unet, options), { x, t, goal } = inputs(engine, 16);
    x.requiresGrad = true;
    const tape = new Tape(engine), loss = tape.record(() => mse(unet.forward(x, t), goal));
    tape.backward(loss);
    return [[...(await tape.gradient(x).read())], parameters];
  };
  const fresh = await Parameters.place(engine, new UNet(SMALL)).read('values'), [want] = await backward({}), [got, frozen] = await backward({ training: false });
  assert.ok(want.some((v) => v !== 0));
  assert.equal(got, want);
  for (const [name, { data }] of await frozen.read('values')) assert.is(bits(data), bits(fresh.get(name)!.data), name);
  await assertError(() => frozen.read('ema'), 'E-USAGE', /ema needs more than the weights, and the model was placed with training: false/);
  await assertError(() => frozen.write('m', fresh, 'test'), 'E-USAGE', /m needs more than the weights/);
  await assertError(() => new AdamW(frozen), 'E-USAGE', /AdamW needs more than the weights/);
});
init.run();

// --------------------------------------------------------------------------------------------------------------------------- forward
const memory = gpuSuite('unet memory', { watched: false });

memory('leaves nothing behind but its result, and a tape nothing but the loss', async (engine) => {
  const { unet } = lively(engine), { x, t, goal } = inputs(engine, 2);
  const { live } = engine.memory();
  const eps = unet.forward(x, t);
  assert.is(engine.memory().live - live, 512, 'eps is 2 x 8 x 8 float32');
  eps.free();
  const tape = new Tape(engine);
  const loss = tape.record(() => mse(unet.forward(x, t), goal));
  tape.backward(loss);
  assert.is(engine.memory().live - live, 256, 'a loss is the smallest buffer');
  loss.free();
  assert.is(engine.memory().live, live);
});
memory.run();

const forward = gpuSuite('unet forward');

forward('an image\'s eps does not depend on the batch it is in, bit for bit', async (engine) => {
  const { unet } = lively(engine), { x, t } = inputs(engine, 5);
  const all = await unet.forward(x, t).read();
  const images = await x.read(), steps = new Uint32Array(await engine.readBytes(t.slice));
  for (const [from, to] of [[0, 1], [3, 4], [2, 5]] as const) {
    const part = unet.forward(upload(engine, [to - from, 8, 8, 1], images.slice(64 * from, 64 * to)), upload(engine, [to - from], steps.slice(from, to)));
    assert.is(bits(await part.read()), bits(all.subarray(64 * from, 64 * to)), `images ${from} to ${to - 1}`);
  }
});

forward('dropout is on with a clock only, and is a function of the clock', async (engine) => {
  const { unet } = lively(engine, { config: { dropout: 0.3 } }), { x, t } = inputs(engine, 2);
  const clock = new Clock(engine);
  const at = async (step: number, seed = 5): Promise<string> => {
    clock.set({ seed, step });
    return bits(await unet.forward(x, t, { clock }).read());
  };
  const plain = bits(await unet.forward(x, t).read()), first = await at(0);
  assert.is.not(first, plain);
  assert.is.not(await at(1), first);
  assert.is.not(await at(0, 6), first);
  assert.is(await at(0), first);
  assert.is(bits(await unet.forward(x, t).read()), plain);

  // Each block drops by a stream of its own: with one for all, blocks of one shape would share a mask.
  const streams: number[] = [], { run } = engine;
  engine.run = function <K extends Kernel>(this: Engine, kernel: K, grid: Grid, args: Args<K>): void {
    const { DROP, stream } = args as unknown as { DROP?: number; stream: number };
    if (DROP) streams.push(stream);
    run.call(this, kernel, grid, args);
  };
  try {
    unet.forward(x, t, { clock });
  } finally {
    delete (engine as Partial<Engine>).run; // the method of the class shows again
  }
  assert.is(streams.length, 8, 'two blocks down, two in the middle, four up');
  assert.is(new Set([...streams, ...Object.values(STREAM)]).size, 8 + Object.keys(STREAM).length);
});

forward('labels: rows of a table, times, or embeddings, added to the embedding of t', async (engine) => {
  const { x, t } = inputs(engine, 3), ids = Uint32Array.of(2, 0, 2), labels = upload(engine, [3], ids);
  const plain = lively(engine), same = await plain.unet.forward(x, t).read();
  const values: Named = await plain.parameters.read('values');
  // A table of zeros changes nothing; the identity of the same rows is the table.
  const rows: ArrayLike<number> = random(3 * 32, 7);
  for (const [what, weight] of [['zeros', new Float32Array(96)], ['rows', rows]] as const) {
    const unet = new UNet({ ...SMALL, num_class_embeds: 3 });
    Parameters.place(engine, unet).write('values', new Map([...values, ['class_embedding.weight', { shape: [3, 32], data: weight }]]), 'test');
    const identity = new UNet({ ...SMALL, class_embed_type: 'identity' });
    Parameters.place(engine, identity).write('values', values, 'test');
    const got = await unet.forward(x, t, { labels }).read();
    const given = upload(engine, [3, 32], Float32Array.from({ length: 96 }, (_, i) => weight[ids[Math.floor(i / 32)] * 32 + (i % 32)]));
    assert.is(bits(await identity.forward(x, t, { labels: given }).read()), bits(got), what);
    if (what === 'zeros') assert.is(bits(got), bits(same));
    else assert.ok(relativeL2(got, same) > 1e-3);
    await assertError(() => unet.forward(x, t), 'E-SHAPE', /the model has classes \(num_class_embeds = 3\): forward\(\) needs labels, one for each of the 3 images/);
    await assertError(() => unet.forward(x, t, { labels: given }), 'E-SHAPE', /labels of shape \(3, 32\) for 3 images; the model takes \(3\)/);
  }
  await assertError(() => plain.unet.forward(x, t, { labels }), 'E-SHAPE', /the model has no classes/);

  // Labels as times: with the weights of the time embedding and t for labels, the sum is twice the embedding of t.
  const times = new UNet({ ...SMALL, class_embed_type: 'timestep' }), doubled = new Map(values);
  for (const [name, value] of values) if (name.startsWith('time_embedding.')) doubled.set(name.replace('time', 'class'), value);
  Parameters.place(engine, times).write('values', doubled, 'test');
  for (const name of ['time_embedding.linear_2.weight', 'time_embedding.linear_2.bias']) doubled.set(name, { ...values.get(name)!, data: Float32Array.from(values.get(name)!.data, (v) => 2 * v) });
  for (const name of doubled.keys()) if (name.startsWith('class_')) doubled.delete(name);
  plain.parameters.write('values', doubled, 'test');
  assert.is(bits(await times.forward(x, t, { labels: t }).read()), bits(await plain.unet.forward(x, t).read()));
});

forward('a pair is read as one tensor, and a start that is missing is zeros', async (engine) => {
  const { unet, parameters: p } = lively(engine, { config: { in_channels: 2 } }), { x, t, goal: start } = inputs(engine, 2);
  const pair = await x.read(), other = await start.read();
  const joined = upload(engine, [2, 8, 8, 2], Float32Array.from({ length: 256 }, (_, i) => (i % 2 ? other : pair)[i >> 1]));
  const both = await unet.forward([x, start], t).read();
  assert.ok(relativeL2(both, await unet.forward(joined, t).read()) < 1e-5);
  const zeros = upload(engine, [2, 8, 8, 1], new Float32Array(128)), alone = await unet.forward(x, t).read();
  assert.is(bits(await unet.forward([x, zeros], t).read()), bits(alone));
  assert.is(bits(await unet.forward([x, null], t).read()), bits(alone));
  assert.ok(relativeL2(alone, both) > 1e-2);
  // The weights of the start get a gradient: zero where the start is.
  const grads = async (second: Tensor | null): Promise<Float32Array[]> => {
    const tape = new Tape(engine), loss = tape.record(() => mse(unet.forward([x, second], t), start));
    tape.backward(loss);
    const { data } = (await p.read('grads')).get('conv_in.weight')!;
    return [0, 1].map((half) => data.filter((_, i) => Math.floor(i / 9) % 2 === half));
  };
  assert.ok((await grads(null))[1].every((v) => v === 0) && (await grads(start)).every((half) => norm(half) > 0));
  await assertError(() => unet.forward([x, joined], t), 'E-SHAPE', /the model takes 2 channels; the images have 1 and what goes with them 2/);
});

forward('gradient checkpointing: the same bits from less memory, with dropout and classes, and nothing is left behind', async (engine) => {
  const config = { ...SMALL, block_out_channels: [8, 16, 16], down_block_types: ['DownBlock2D', 'AttnDownBlock2D', 'DownBlock2D'], up_block_types: ['UpBlock2D', 'AttnUpBlock2D', 'UpBlock2D'], num_class_embeds: 3, dropout: 0.3, layers_per_block: 2 };
  const { x, t, goal } = inputs(engine, 2), labels = upload(engine, [2], Uint32Array.of(2, 0)), clock = new Clock(engine);
  clock.set({ seed: 5, step: 3 });
  const results: string[][] = [], peaks: number[] = [], live: number[] = [];
  for (const checkpointBlocks of [false, true]) {
    const unet = new UNet(config, { checkpointBlocks }), p = Parameters.place(engine, unet), all = parametersOf(unet);
    p.write('values', new Map(all.map((each, i) => [each.name, { shape: each.shape, data: random(each.size, i).map((v) => v * 0.2 + Number(each.name.endsWith('norm.weight'))) }])), 'test');
    x.requiresGrad = true;
    const before = engine.memory().live, tape = new Tape(engine), loss = tape.record(() => mse(unet.forward(x, t, { clock, labels }), goal));
    peaks.push(engine.memory().live - before);
    tape.backward(loss);
    live.push(engine.memory().live - before);
    const dx = await tape.gradient(x).read(), grads = await p.read('grads');
    results.push([bits(await loss.read()), bits(dx), ...[...grads].map(([name, { data }]) => `${name} ${bits(data)}`)]);
    assert.ok([...grads].every(([, { data }]) => data.every(Number.isFinite)));
    // Without a tape it changes nothing.
    results.at(-1)!.push(bits(await unet.forward(x, t, { labels }).read()));
  }
  assert.equal(results[1], results[0]);
  assert.is(live[1], live[0]);
  assert.ok(peaks[1] < 0.6 * peaks[0], `${peaks[1]} bytes of activations where ${peaks[0]} are kept without`);
});

forward('shapes that do not fit are refused', async (engine) => {
  const { unet } = lively(engine), { t } = inputs(engine, 1);
  const x = (...shape: number[]): Tensor => Tensor.empty(engine, shape);
  await assertError(() => unet.forward(x(1, 8, 8, 3), t), 'E-SHAPE', /the model takes 1 channels; the images have 3/);
  await assertError(() => unet.forward(x(1, 8, 9, 1), t), 'E-SHAPE', /images of 8 x 9 do not halve 1 times: height and width must be multiples of 2/);
  await assertError(() => new UNet(SMALL).forward(x(1, 8, 8, 1), t), 'E-ENGINE', /call Parameters\.place/);
  assert.ok(parametersOf(unet)[0].tensor instanceof ParameterTensor);
  await assertError(() => linear(x(1, 8), parametersOf(unet)[0].tensor, null), 'E-SHAPE', /do not fit the weight/);
});
forward.run();
