// The U-Net against PyTorch: eps, loss and every gradient of small models with everything in them, and google/ddpm-cifar10-32 at its full size.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { Tape } from '../src/autograd.ts';
import { loadModelFolder } from '../src/io/checkpoint.ts';
import { modernNames } from '../src/io/model.ts';
import { readSafetensors, type SafeTensor, safetensorsChunks } from '../src/io/safetensors.ts';
import { Parameters } from '../src/nn/parameters.ts';
import { UNet } from '../src/nn/unet.ts';
import { mse } from '../src/ops/loss.ts';
import type { Engine } from '../src/gpu/engine.ts';
import { nchwToNhwc, nhwcToNchw, type Tensor } from '../src/tensor.ts';
import { relativeL2 } from './helpers/close.ts';
import { gpuSuite, upload } from './helpers/gpu.ts';

type Shape4 = readonly [number, number, number, number];
type Named = Map<string, { readonly shape: readonly number[]; readonly data: ArrayLike<number> }>;

const norm = (data: ArrayLike<number>): number => relativeL2(data, new Float64Array(data.length));

/** A file of test/golden: its tensors, as they are and on the device. */
function golden(engine: Engine, name: string) {
  const { tensors, metadata } = readSafetensors(readFileSync(new URL(`golden/${name}.safetensors`, import.meta.url)), name);
  const tensor = (key: string): SafeTensor => tensors.get(key)!;
  return {
    tensor, metadata,
    group: (prefix: string): Named => modernNames([...tensors].filter(([key]) => key.startsWith(prefix)).map(([key, value]) => [key.slice(prefix.length), value] as const)) as unknown as Named,
    image: (key: string): Tensor => {
      const [N, C, H, W] = tensor(key).shape as unknown as Shape4;
      return upload(engine, [N, H, W, C], nchwToNhwc(tensor(key).data as Float32Array, [N, C, H, W]));
    },
    integers: (key: string): Tensor => upload(engine, tensor(key).shape, Uint32Array.from(tensor(key).data as ArrayLike<number>, Number)),
  };
}

/** Forward and backward of the mean squared error. */
async function differentiated(engine: Engine, forward: () => Tensor, goal: Tensor): Promise<{ eps: Float32Array; loss: number }> {
  const tape = new Tape(engine);
  const [loss, eps] = tape.record(() => {
    const y = forward();
    return [mse(y, goal), y];
  });
  tape.backward(loss, eps);
  return { eps: nhwcToNchw(await eps.read(), eps.shape as unknown as Shape4), loss: (await loss.read())[0] };
}

/**
 * A softmax ignores what is added to all its logits, so the gradient of to_k.bias is exactly zero and both sides hold only rounding.
 * db = 1^T dk is like a row of dW = h^T dk with h = 1, and h, out of a group norm, is of the order of 1: a row of dW says how large the
 * terms are that cancel in db. Within the tolerance of a gradient, of that scale, it must be zero.
 */
function assertZeroBias(key: string, bias: ArrayLike<number>, weightNorm: number): number {
  const row = weightNorm / Math.sqrt(bias.length);
  assert.ok(norm(bias) <= 5e-5 * row, `${key} should be zero: ${norm(bias)} where a row of the weight's gradient is ${row}`);
  return norm(bias) / row;
}

const small = gpuSuite('unet against PyTorch'), onGpu = gpuSuite('unet against PyTorch, with the kernels of GPUs', { as: 'gpu' });

// The third has classes, scale and shift, up to four heads, learned variances, and reads a pair of images.
for (const [name, on] of [['unet-dev-rgb16', small], ['unet-dev-gray28', small], ['unet-dev-classes', small], ['unet-dev-classes', onGpu]] as const)
  on(`${name}: eps, loss, every gradient`, async (engine) => {
    const { tensor, metadata, group, image, integers } = golden(engine, name);
    const unet = new UNet(JSON.parse(metadata.config));
    const parameters = Parameters.place(engine, unet);
    parameters.write('values', group('weights.'), name);
    const x = image('x'), t = integers('t'), conditional = name.endsWith('classes');
    assert.is(unet.conditional, conditional);
    const start = conditional ? image('start') : null, labels = conditional ? integers('labels') : null;
    const { eps, loss } = await differentiated(engine, () => unet.forward(start ? [x, start] : x, t, { labels }), image('target'));

    const epsError = relativeL2(eps, tensor('eps').data as Float32Array);
    const lossError = Math.abs(loss - Number(tensor('loss').data[0]));
    const got = await parameters.read('grads'), want = group('grads.');
    assert.equal([...want.keys()].sort(), [...got.keys()].sort());
    let worst = ['', 0] as [string, number], floor = 0;
    for (const [key, { data }] of want) {
      const mine = got.get(key)!.data;
      if (key.endsWith('to_k.bias')) {
        floor = Math.max(floor, assertZeroBias(key, mine, norm(want.get(key.replace('bias', 'weight'))!.data)));
        continue;
      }
      const error = relativeL2(mine, data);
      if (error > worst[1]) worst = [key, error];
    }
    console.log(`  ${name}: eps ${epsError.toExponential(1)}, loss ${lossError.toExponential(1)}, gradients ${worst[1].toExponential(1)} (${worst[0]}), to_k.bias ${floor.toExponential(1)}`);
    assert.ok(epsError <= 5e-6, `eps is off by ${epsError}`);
    assert.ok(lossError <= 1e-5, `the loss is off by ${lossError}`);
    assert.ok(worst[1] <= 5e-5, `the gradient of ${worst[0]} is off by ${worst[1]}`);
  });
small.run();
onGpu.run();

// ------------------------------------------------------------------------------------------------------------ google/ddpm-cifar10-32
/** The weights of test/golden/unet_cifar10.py: an integer hash, scaled by the fan-in. */
function hashed(index: number, shape: readonly number[], name: string): Float32Array<ArrayBuffer> {
  const size = shape.reduce((a, b) => a * b, 1), out = new Float32Array(size), start = Math.imul(index, 0x9e3779b9);
  const scale = shape.length > 1 ? Math.sqrt(3 / (size / shape[0])) : 0.1, one = name.includes('norm') && name.endsWith('weight') ? 1 : 0;
  for (let i = 0; i < size; i++) {
    let x = (i + start) | 0;
    x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
    x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
    x ^= x >>> 16;
    out[i] = (((x >>> 0) + 0.5) / 2 ** 31 - 1) * scale + one;
  }
  return out;
}

/** The folder as it lies on the hub: config.json of diffusers 0.0.4, the names of attention's tensors of that time, scheduler_config.json. */
function hubFolder(folder: string, config: string): void {
  const keys = readFileSync(new URL('golden/ddpm-cifar10-32-keys.txt', import.meta.url), 'utf8').trim().split('\n');
  const old = (name: string): string => name.replace('.to_q.', '.query.').replace('.to_k.', '.key.').replace('.to_v.', '.value.').replace('.to_out.0.', '.proj_attn.');
  const tensors = keys.map((line, i) => {
    const [name, shape] = [line.slice(0, line.indexOf(' ')), JSON.parse(line.slice(line.indexOf(' '))) as number[]];
    return [old(name), { shape, data: hashed(i, shape, name) }] as const;
  });
  assert.is(tensors.filter(([name]) => /\.(query|key|value|proj_attn)\./.test(name)).length, 6 * 8);
  writeFileSync(join(folder, 'config.json'), config);
  writeFileSync(join(folder, 'scheduler_config.json'), JSON.stringify({
    _class_name: 'DDPMScheduler', _diffusers_version: '0.1.1', beta_end: 0.02, beta_schedule: 'linear', beta_start: 0.0001, clip_sample: true, num_train_timesteps: 1000,
    trained_betas: null, variance_type: 'fixed_large',
  }));
  const file = join(folder, 'diffusion_pytorch_model.safetensors');
  writeFileSync(file, '');
  for (const chunk of safetensorsChunks(tensors)) writeFileSync(file, chunk, { flag: 'a' });
}

const cifar = gpuSuite('google/ddpm-cifar10-32 against PyTorch');

cifar('a folder as on the hub, at full size: eps, loss and the gradient of one image', async (engine) => {
  const { tensor, metadata, image, integers } = golden(engine, 'unet-cifar10');
  const folder = mkdtempSync(join(tmpdir(), 'ddpm-cifar10-'));
  try {
    hubFolder(folder, metadata.config);
    const model = await loadModelFolder(folder);
    assert.is(model.scheduler.variance, 'fixed_large');
    const unet = new UNet(model.config), parameters = Parameters.place(engine, unet, { initial: false });
    assert.is(parameters.count, 35_746_307);
    parameters.write('values', model.tensors, model.file);
    const x = image('x'), t = integers('t');
    const { eps, loss } = await differentiated(engine, () => unet.forward(x, t), image('target'));
    const epsError = relativeL2(eps, tensor('eps').data as Float32Array), lossError = Math.abs(loss - Number(tensor('loss').data[0]));

    const grads = await parameters.read('grads'), want = tensor('grad_norms').data as Float64Array;
    let worst = ['', 0] as [string, number];
    (JSON.parse(metadata.names) as string[]).forEach((key, i) => {
      const mine = grads.get(key)!.data;
      if (key.endsWith('to_k.bias')) return assertZeroBias(key, mine, norm(grads.get(key.replace('bias', 'weight'))!.data));
      const error = Math.abs(norm(mine) / want[i] - 1);
      if (error > worst[1]) worst = [key, error];
    });
    const first = relativeL2(grads.get('conv_in.weight')!.data, tensor('grads.conv_in.weight').data as Float32Array);
    console.log(`  eps ${epsError.toExponential(1)}, loss ${lossError.toExponential(1)}, gradient norms ${worst[1].toExponential(1)} (${worst[0]}), conv_in ${first.toExponential(1)}`);
    assert.ok(epsError <= 1e-5, `eps is off by ${epsError}`);
    assert.ok(lossError <= 1e-5, `the loss is off by ${lossError}`);
    assert.ok(worst[1] <= 5e-5, `the norm of the gradient of ${worst[0]} is off by ${worst[1]}`);
    assert.ok(first <= 5e-5, `the gradient of conv_in.weight is off by ${first}`);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
cifar.run();
