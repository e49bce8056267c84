// What sample is made of: moments of a chain with their right timesteps, captions, images by file and by number, masks, and networks with labels.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { drawSamples, sampleGrid } from '../src/cli/command.ts';
import { imageChannels, Network } from '../src/cli/network.ts';
import { labelOf } from '../src/cli/sample-label.ts';
import { moments, spread } from '../src/cli/sample-figures.ts';
import { dataSetOf, readImages, readMask } from '../src/cli/sample-inputs.ts';
import type { PlacedModel } from '../src/cli/sampling.ts';
import { makeShapes } from '../src/data/shapes.ts';
import { GaussianDiffusion } from '../src/diffusion/gaussian.ts';
import { Sampler } from '../src/diffusion/sampler.ts';
import { makeSchedule } from '../src/diffusion/schedule.ts';
import type { Engine } from '../src/gpu/engine.ts';
import { captionedGrid } from '../src/io/caption.ts';
import { toBytes } from '../src/io/picture.ts';
import { encodePng } from '../src/io/png.ts';
import type { UNetFields } from '../src/nn/config.ts';
import { parametersOf } from '../src/nn/parameter.ts';
import { Parameters } from '../src/nn/parameters.ts';
import { UNet } from '../src/nn/unet.ts';
import { Tensor } from '../src/tensor.ts';
import { assertClose } from './helpers/close.ts';
import { assertError, gpuSuite, random } from './helpers/gpu.ts';
import { perfect } from './helpers/perfect.ts';
import { Gaussian } from './ref/sampler.ts';

const sample = gpuSuite('sample');
const linear = makeSchedule({ name: 'linear', T: 1000 }), data = new Gaussian(linear, 0.3, 0.5);
const bits = (x: Float32Array): string => Buffer.from(x.buffer, x.byteOffset, x.byteLength).toString('base64');

sample('x_t and the x_0 that goes with it have the same t: one step later would be another noise', async (engine) => {
  const diffusion = new GaussianDiffusion(engine, linear), noise = random(24, 1);
  for (const method of ['ddpm', 'ddim'] as const) {
    const sampler = new Sampler(perfect(engine, data), diffusion, [3, 4, 2, 1], { method, steps: 20, clipDenoised: false });
    const chain = await moments(sampler, [0, 7, 18, 19], { seed: 3, noise });
    assert.equal(chain.moments.map((m) => m.t), [950, 600, 50, 0]);
    assert.is(bits(chain.moments[0]!.x), bits(noise), 'the first is x_T');
    for (const { t, x, start } of chain.moments) {
      const { factor, offset } = data.eps(t), acp = linear.alphasCumprod[t]!;
      const want = x.map((v) => (v - Math.sqrt(1 - acp) * (factor * v + offset)) / Math.sqrt(acp));
      assertClose(start, want, { atol: 3e-5 / Math.sqrt(acp), what: `${method}: x_0 from x at t = ${t}` });
    }
    // The last step goes to the x_0 that is predicted at t = 0, so what is shown at the end is that.
    assertClose(chain.end, chain.moments.at(-1)!.start, { atol: 1e-6, what: 'the end' });
    await sampler.destroy();
  }
  assert.equal([spread(1000, 12).length, spread(1000, 12)[0], spread(1000, 12).at(-1)], [12, 0, 999]);
  assert.equal([spread(3, 12), spread(1, 12)], [[0, 1, 2], [0]]);
});

sample('pixels are clamped, not wrapped', async () => {
  // (x + 1) 255 / 2 cast to a byte made -1.2 into 231 and 1.3 into 37.
  assert.equal([...toBytes(Float32Array.of(-1.2, 1.3, -1, 1, 0))], [0, 255, 0, 255, 128]);
});

sample('captions stand under their images, in letters that differ', async () => {
  const [h, w, scale] = [2, 12, 2], image = new Uint8Array(h * w).fill(99);
  const picture = captionedGrid([{ image, caption: 't=1' }, null, { image, caption: '' }], [h, w, 1], 2, { scale, pad: 1 });
  assert.equal([picture.width, picture.height], [2 * (24 + 1) + 1, 2 * (4 + 7 + 1) + 1]);
  const at = (x: number, y: number): number => picture.data[y * picture.width + x]!;
  assert.equal([at(1, 1), at(24, 4), at(25, 4), at(30, 3)], [99, 99, 255, 255]);
  // t is a bar with a cross: the middle column of its first row.
  assert.equal([at(1, 6), at(2, 6), at(3, 6)], [255, 0, 255]);
  assert.ok(picture.data.every((v, i) => v === 99 || v === 255 || i < 13 * picture.width), 'no caption, no ink');
  const ink = (caption: string): string => captionedGrid([{ image, caption }], [h, w, 1], 1).data.join();
  const letters = [...'0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZtx=-+.,:/%()_^'];
  assert.is(new Set(letters.map(ink)).size, letters.length);
  assert.is(ink('ab'), ink('AB'));
  // Colour, and text that does not fit.
  assert.is(captionedGrid([{ image: new Uint8Array(12), caption: 'far too long' }], [2, 2, 3], 1).width, 10);
  await assertError(() => captionedGrid([{ image, caption: '' }], [3, 3, 1], 1), 'E-SHAPE', /24 bytes in a grid of 3×3×1/);
});

const inFolder = async (f: (path: (name: string) => string) => Promise<void>): Promise<void> => {
  const folder = mkdtempSync(join(tmpdir(), 'ddpm-sample-'));
  try {
    await f((name) => join(folder, name));
  } finally {
    rmSync(folder, { recursive: true });
  }
};
const placedOf = (config: object | null): PlacedModel => ({ from: config && { run: { config: () => config, file: (name: string) => name } } }) as unknown as PlacedModel;

sample('images come from files and from the data set', () => inFolder(async (path) => {
  const shapes = makeShapes({ count: 5, seed: 0 }), size = 28 * 28, picture = (channels: 1 | 3, fill: (i: number) => number) => ({ width: 28, height: 28, channels, data: Uint8Array.from({ length: size * channels }, (_, i) => fill(i)) });
  writeFileSync(path('grey.png'), encodePng(picture(1, (i) => i % 256)));
  writeFileSync(path('colour.png'), encodePng(picture(3, (i) => [255, 0, 0][i % 3]!)));
  writeFileSync(path('small.png'), encodePng({ width: 2, height: 3, channels: 1, data: new Uint8Array(6) }));
  const run = placedOf({ data: 'shapes' }), read = (names: string, placed = run) => readImages(names, '--from', [28, 28, 1], placed, null);
  const { names, images } = await read(`3, ${path('grey.png')},${path('colour.png')}`);
  assert.equal([names.length, images.length], [3, 3 * size]);
  assert.equal(images.slice(0, size), Float32Array.from(shapes.pixels.subarray(3 * size, 4 * size), (b) => b / 127.5 - 1));
  assert.equal([images[size], images[size + 255], images[size + 256]], [-1, 1, -1]);
  assert.is(images[2 * size], Math.fround(76 / 127.5 - 1), "red's luma");
  assert.is((await readImages(path('grey.png'), '--from', [28, 28, 3], run, null)).images.length, 3 * size);
  await assertError(() => read(path('small.png')), 'E-SHAPE', /is 3×2, and the model makes 28×28\. Resize/);
  await assertError(() => read('9999999'), 'E-USAGE', /shapes has images 0 to 9999/);
  await assertError(() => read(','), 'E-USAGE', /names no image/);
  await assertError(() => read(path('none.png')), 'E-FILE', /no such file.*--from takes PNG files, or numbers/);
  await assertError(() => read('3', placedOf(null)), 'E-USAGE', /name it with --data/);
  await assertError(() => readImages('3', '--from', [32, 32, 3], run, null), 'E-SHAPE', /28×28×1, and the model makes 32×32×3/);
  assert.is(dataSetOf(run, 'fashion-mnist'), 'fashion-mnist');
}));

sample('masks are boxes, or what is bright', () => inFolder(async (path) => {
  const box = await readMask('1,0,2,3', [4, 5, 1]);
  assert.equal([...box], [0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0]);
  const mask = (width: number, height: number, values: number[]): string => (writeFileSync(path('m.png'), encodePng({ width, height, channels: 1, data: Uint8Array.from(values) })), path('m.png'));
  assert.equal([...(await readMask(mask(2, 2, [0, 255, 127, 128]), [2, 2, 3]))], [0, 1, 0, 1]);
  await assertError(() => readMask(mask(2, 2, [0, 0, 0, 0]), [2, 2, 1]), 'E-USAGE', /all dark/);
  await assertError(() => readMask(mask(3, 2, [0, 0, 0, 0, 0, 255]), [2, 2, 1]), 'E-SHAPE', /is 2×3, and the images are 2×2/);
  for (const bad of ['1,0,5,3', '1,0,0,3', '1,0,2', '1,0,2,3,4', '1,,2,3', '1 0,0,2,3']) await assertError(() => readMask(bad, [4, 5, 1]), 'E-USAGE', /a box is x,y,width,height within 5×4/);
}));

// ---- networks
function placed(engine: Engine, fields: UNetFields): PlacedModel {
  const unet = new UNet({
    in_channels: 1, out_channels: 1, block_out_channels: [8], down_block_types: ['DownBlock2D'], up_block_types: ['UpBlock2D'], layers_per_block: 1, norm_num_groups: 4, attention_head_dim: null, ...fields,
  });
  const parameters = Parameters.place(engine, unet, { training: false }), diffusion = new GaussianDiffusion(engine, makeSchedule({ name: 'quadratic', T: 20 }));
  parameters.write('values', new Map(parametersOf(unet).map((p, i) => [p.name, { shape: p.shape, data: random(p.size, i).map((v) => 0.3 * v + Number(p.name.endsWith('norm.weight'))) }])), 'test');
  return { unet, parameters, diffusion } as unknown as PlacedModel;
}

const IMAGE = [4, 4, 1] as const, PAIR = [2, ...IMAGE] as const;

async function drawn(model: PlacedModel, batch: number, settings: { label: string | null; guidance: number }, firsts: readonly number[]): Promise<string[]> {
  const shape = [batch, ...IMAGE] as const, network = new Network(model.diffusion.engine, model.unet, shape, settings), sampler = new Sampler(network.model, model.diffusion, shape, { method: 'ddim', steps: 3 }), out: string[] = [];
  for (const firstId of firsts) {
    network.begin(firstId);
    const x = await sampler.sample({ seed: 1, firstId });
    for (let n = 0; n < batch; n++) out.push(bits(x.slice(16 * n, 16 * (n + 1))));
  }
  await sampler.destroy();
  network.free();
  return out;
}

sample('classes go by sample id, whatever the batch; guidance asks twice', async (engine) => {
  const model = placed(engine, { num_class_embeds: 4 });
  const whole = await drawn(model, 6, { label: 'all', guidance: 1 }, [0]);
  assert.equal(await drawn(model, 2, { label: null, guidance: 1 }, [0, 2, 4]), whole);
  // Class 3 stands for none: classes 0, 1, 2 take turns.
  for (const k of [0, 1, 2]) {
    const one = await drawn(model, 6, { label: String(k), guidance: 1 }, [0]);
    assert.equal(one.map((image, i) => image === whole[i]), [0, 1, 2, 3, 4, 5].map((i) => i % 3 === k), `class ${k}`);
  }
  const guided = await drawn(model, 6, { label: 'all', guidance: 3 }, [0]);
  assert.ok(guided.every((image, i) => image !== whole[i]));
  assert.equal(await drawn(model, 3, { label: 'all', guidance: 3 }, [0, 3]), guided);
  assert.is(new Network(engine, model.unet, PAIR, { label: '2', guidance: 3 }).description, 'class 2, guidance 3');
  assert.equal([null, 'all', '2', 'none'].map((label) => new Network(engine, model.unet, PAIR, { label, guidance: 1 }).classes), [3, 3, 1, 1]);
  for (const label of ['4', '-1', '1.5', '0x1', '1e0', 'shoe', '']) await assertError(() => new Network(engine, model.unet, PAIR, { label, guidance: 1 }), 'E-USAGE', /a class from 0 to 2, all or none/);
  // What stands for no class, by its name or its row.
  assert.equal(await drawn(model, 6, { label: 'none', guidance: 1 }, [0]), await drawn(model, 6, { label: '3', guidance: 1 }, [0]));
  assert.is(new Network(engine, model.unet, PAIR, { label: 'none', guidance: 1 }).description, 'no class');
  const plain = placed(engine, {});
  await assertError(() => new Network(engine, plain.unet, PAIR, { label: '1', guidance: 1 }), 'E-USAGE', /--label is for models with classes/);
  await assertError(() => new Network(engine, plain.unet, PAIR, { label: null, guidance: 2 }), 'E-USAGE', /--guidance is for models with classes/);
});

sample('where classes take turns, each has columns of its own in a grid that is nearly square; where there are too many it is square', () => {
  const columns = (n: number, classes: number): number => (sampleGrid(new Float32Array(n), [1, 1, 1], { classes }).width / 64 - 2) / 3;
  for (const [n, classes, want] of [[64, 1, 8], [60, 1, 8], [64, 10, 10], [80, 10, 10], [25, 10, 10], [24, 10, 5], [64, 2, 8], [64, 3, 9], [9, 3, 3], [64, 100, 8], [4, 10, 2], [1, 1, 1]]) assert.is(columns(n!, classes!), want, `${n} of ${classes} classes`);
});

sample('more images than can be held at once are refused before one is drawn', async () => {
  await assertError(() => drawSamples({ shape: [1, 32, 32, 3] } as unknown as Sampler, { n: 1e6, seed: 0 }), 'E-LIMIT', /1000000 images of 3072 values are more than 8 GiB\. Draw at most 699050 at once with --n/);
});

sample('a class goes by its name, in whatever case where that says which', async () => {
  const names = ['T-shirt/top', 'Trouser', 'Bag', 'cat', 'Cat', 'É'];
  assert.equal([null, 'all', 'none', '2', 'Bag', 'bag', 'TROUSER', 't-shirt/TOP', 'cat', 'Cat', 'é'].map((label) => labelOf(label, names)), [null, 'all', 'none', '2', '2', '2', '1', '0', '3', '4', '5']);
  assert.is(labelOf('Bag', null), 'Bag', 'a model that does not say its names');
  await assertError(() => labelOf('CAT', names), 'E-USAGE', /has the classes cat and Cat\. Write the one/);
  await assertError(() => labelOf('trousers', names), 'E-USAGE', /classes are T-shirt\/top, Trouser.*all or none will do as well\. Did you mean Trouser\?$/);
  await assertError(() => labelOf('NONE', names), 'E-USAGE', /Did you mean none\?$/);
  await assertError(() => labelOf('qqqqqqqq', names), 'E-USAGE', /will do as well\.$/);
  await assertError(() => labelOf('x', Array.from({ length: 100 }, (_, i) => `n${i}`)), 'E-USAGE', /n18, n19 and 80 more\. A number/);
});

sample('a network that is conditioned on itself gets what it predicted; its images have the channels of its output', async (engine) => {
  const model = placed(engine, { in_channels: 2 }), seen: (Tensor | null)[] = [];
  const inner = model.unet.forward.bind(model.unet);
  model.unet.forward = (x, t, options) => {
    seen.push(x instanceof Tensor ? null : x[1]);
    return inner(x, t, options);
  };
  const network = new Network(engine, model.unet, PAIR, { label: null, guidance: 1 }), sampler = new Sampler(network.model, model.diffusion, PAIR, { method: 'ddim', steps: 3 });
  let predicted: Tensor | null = null;
  await sampler.sample({ seed: 0, onStep: (step) => void (predicted = step.predXstart) });
  assert.is(seen[0], predicted, 'the very tensor that the step writes its prediction into');
  const unet = { config: { in_channels: 2, out_channels: 2 } } as unknown as UNet;
  assert.is(imageChannels(unet, { variance: 'learned_range' } as never), 1);
  assert.is(imageChannels(unet, { variance: 'fixed_small' } as never), 2);
  await sampler.destroy();
});
sample.run();
