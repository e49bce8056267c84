// Inception-v3 as the Fréchet Inception Distance uses it (Szegedy et al., 2016; Heusel et al., 2017): the graph of TensorFlow's 2015 weights, under the
// names of their PyTorch port (pt_inception-2015-12-05), whose pooling differs from torchvision's. Batch norm is folded into the convolutions when weights
// are read. Forward only.

import { DdpmError } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import { zeros } from '../nn/init.ts';
import { Module, Parameter } from '../nn/parameter.ts';
import { type NamedTensors, Parameters } from '../nn/parameters.ts';
import { meanPixels } from '../ops/classification.ts';
import { conv2d } from '../ops/conv2d.ts';
import { averagePool, concatenate, maxPool, relu, resizeBilinear } from '../ops/pool.ts';
import type { Tensor } from '../tensor.ts';
import { type Extractor, type Images, NetworkExtractor } from './extractor.ts';

/** Features: the means of the last channels. */
export const INCEPTION_WIDTH = 2048;
const SIDE = 299;
const BATCH_NORM_EPS = 1e-3;

type Kernel = number | readonly [height: number, width: number];

/** Its weights come from a file: how they start does not matter. */
class Convolution extends Module {
  readonly weight: Parameter;
  readonly bias: Parameter;
  constructor(inChannels: number, outChannels: number, [height, width]: readonly [number, number]) {
    super();
    this.weight = new Parameter([outChannels, inChannels, height, width], 'conv', zeros);
    this.bias = new Parameter([outChannels], 'plain', zeros);
  }
}

/** relu(conv(x)), the batch norm being part of conv. */
class Unit extends Module {
  readonly conv: Convolution;
  readonly #stride: 1 | 2;
  readonly #padding: readonly [number, number, number, number];
  /** Padding keeps the size, except where the stride is 2 or `padded` is false. */
  constructor(inChannels: number, outChannels: number, kernel: Kernel, { stride = 1, padded = stride === 1 }: { stride?: 1 | 2; padded?: boolean } = {}) {
    super();
    const [h, w] = typeof kernel === 'number' ? [kernel, kernel] : kernel;
    this.conv = new Convolution(inChannels, outChannels, [h, w]);
    this.#stride = stride;
    this.#padding = padded ? [(h - 1) / 2, (h - 1) / 2, (w - 1) / 2, (w - 1) / 2] : [0, 0, 0, 0];
  }
  forward(x: Tensor): Tensor {
    return x.engine.scope(() => relu(conv2d(x, this.conv.weight.tensor, this.conv.bias.tensor, { stride: this.#stride, padding: this.#padding })));
  }
}

/** Applies units in turn. */
const chain = (x: Tensor, ...units: readonly Unit[]): Tensor => x.engine.scope(() => units.reduce((h, unit) => unit.forward(h), x));
const average3 = (x: Tensor): Tensor => averagePool(x, { kernel: 3, padding: 1 });
const halved = (x: Tensor): Tensor => maxPool(x, { kernel: 3, stride: 2 });

abstract class Block extends Module {
  abstract branches(x: Tensor): readonly Tensor[];
  forward(x: Tensor): Tensor {
    return x.engine.scope(() => concatenate(this.branches(x)));
  }
}

class InceptionA extends Block {
  readonly branch1x1: Unit;
  readonly branch5x5_1: Unit;
  readonly branch5x5_2 = new Unit(48, 64, 5);
  readonly branch3x3dbl_1: Unit;
  readonly branch3x3dbl_2 = new Unit(64, 96, 3);
  readonly branch3x3dbl_3 = new Unit(96, 96, 3);
  readonly branch_pool: Unit;
  constructor(channels: number, pooled: number) {
    super();
    this.branch1x1 = new Unit(channels, 64, 1);
    this.branch5x5_1 = new Unit(channels, 48, 1);
    this.branch3x3dbl_1 = new Unit(channels, 64, 1);
    this.branch_pool = new Unit(channels, pooled, 1);
  }
  branches(x: Tensor): Tensor[] {
    return [
      this.branch1x1.forward(x),
      chain(x, this.branch5x5_1, this.branch5x5_2),
      chain(x, this.branch3x3dbl_1, this.branch3x3dbl_2, this.branch3x3dbl_3),
      this.branch_pool.forward(average3(x)),
    ];
  }
}

/** Halves the image. */
class InceptionB extends Block {
  readonly branch3x3 = new Unit(288, 384, 3, { stride: 2 });
  readonly branch3x3dbl_1 = new Unit(288, 64, 1);
  readonly branch3x3dbl_2 = new Unit(64, 96, 3);
  readonly branch3x3dbl_3 = new Unit(96, 96, 3, { stride: 2 });
  branches(x: Tensor): Tensor[] {
    return [this.branch3x3.forward(x), chain(x, this.branch3x3dbl_1, this.branch3x3dbl_2, this.branch3x3dbl_3), halved(x)];
  }
}

class InceptionC extends Block {
  readonly branch1x1 = new Unit(768, 192, 1);
  readonly branch7x7_1: Unit;
  readonly branch7x7_2: Unit;
  readonly branch7x7_3: Unit;
  readonly branch7x7dbl_1: Unit;
  readonly branch7x7dbl_2: Unit;
  readonly branch7x7dbl_3: Unit;
  readonly branch7x7dbl_4: Unit;
  readonly branch7x7dbl_5: Unit;
  readonly branch_pool = new Unit(768, 192, 1);
  constructor(width: number) {
    super();
    this.branch7x7_1 = new Unit(768, width, 1);
    this.branch7x7_2 = new Unit(width, width, [1, 7]);
    this.branch7x7_3 = new Unit(width, 192, [7, 1]);
    this.branch7x7dbl_1 = new Unit(768, width, 1);
    this.branch7x7dbl_2 = new Unit(width, width, [7, 1]);
    this.branch7x7dbl_3 = new Unit(width, width, [1, 7]);
    this.branch7x7dbl_4 = new Unit(width, width, [7, 1]);
    this.branch7x7dbl_5 = new Unit(width, 192, [1, 7]);
  }
  branches(x: Tensor): Tensor[] {
    return [
      this.branch1x1.forward(x),
      chain(x, this.branch7x7_1, this.branch7x7_2, this.branch7x7_3),
      chain(x, this.branch7x7dbl_1, this.branch7x7dbl_2, this.branch7x7dbl_3, this.branch7x7dbl_4, this.branch7x7dbl_5),
      this.branch_pool.forward(average3(x)),
    ];
  }
}

/** Halves the image. */
class InceptionD extends Block {
  readonly branch3x3_1 = new Unit(768, 192, 1);
  readonly branch3x3_2 = new Unit(192, 320, 3, { stride: 2 });
  readonly branch7x7x3_1 = new Unit(768, 192, 1);
  readonly branch7x7x3_2 = new Unit(192, 192, [1, 7]);
  readonly branch7x7x3_3 = new Unit(192, 192, [7, 1]);
  readonly branch7x7x3_4 = new Unit(192, 192, 3, { stride: 2 });
  branches(x: Tensor): Tensor[] {
    return [chain(x, this.branch3x3_1, this.branch3x3_2), chain(x, this.branch7x7x3_1, this.branch7x7x3_2, this.branch7x7x3_3, this.branch7x7x3_4), halved(x)];
  }
}

class InceptionE extends Block {
  readonly branch1x1: Unit;
  readonly branch3x3_1: Unit;
  readonly branch3x3_2a = new Unit(384, 384, [1, 3]);
  readonly branch3x3_2b = new Unit(384, 384, [3, 1]);
  readonly branch3x3dbl_1: Unit;
  readonly branch3x3dbl_2 = new Unit(448, 384, 3);
  readonly branch3x3dbl_3a = new Unit(384, 384, [1, 3]);
  readonly branch3x3dbl_3b = new Unit(384, 384, [3, 1]);
  readonly branch_pool: Unit;
  readonly #pool: (x: Tensor) => Tensor;
  constructor(channels: number, pool: (x: Tensor) => Tensor) {
    super();
    this.branch1x1 = new Unit(channels, 320, 1);
    this.branch3x3_1 = new Unit(channels, 384, 1);
    this.branch3x3dbl_1 = new Unit(channels, 448, 1);
    this.branch_pool = new Unit(channels, 192, 1);
    this.#pool = pool;
  }
  branches(x: Tensor): Tensor[] {
    const single = this.branch3x3_1.forward(x), double = chain(x, this.branch3x3dbl_1, this.branch3x3dbl_2);
    return [
      this.branch1x1.forward(x),
      this.branch3x3_2a.forward(single),
      this.branch3x3_2b.forward(single),
      this.branch3x3dbl_3a.forward(double),
      this.branch3x3dbl_3b.forward(double),
      this.branch_pool.forward(this.#pool(x)),
    ];
  }
}

export class Inception extends Module {
  readonly Conv2d_1a_3x3 = new Unit(3, 32, 3, { stride: 2 });
  readonly Conv2d_2a_3x3 = new Unit(32, 32, 3, { padded: false });
  readonly Conv2d_2b_3x3 = new Unit(32, 64, 3);
  readonly Conv2d_3b_1x1 = new Unit(64, 80, 1);
  readonly Conv2d_4a_3x3 = new Unit(80, 192, 3, { padded: false });
  readonly Mixed_5b = new InceptionA(192, 32);
  readonly Mixed_5c = new InceptionA(256, 64);
  readonly Mixed_5d = new InceptionA(288, 64);
  readonly Mixed_6a = new InceptionB();
  readonly Mixed_6b = new InceptionC(128);
  readonly Mixed_6c = new InceptionC(160);
  readonly Mixed_6d = new InceptionC(160);
  readonly Mixed_6e = new InceptionC(192);
  readonly Mixed_7a = new InceptionD();
  readonly Mixed_7b = new InceptionE(1280, average3);
  // The last block takes the maximum: a slip in the graph of 2015 that every published distance was measured with.
  readonly Mixed_7c = new InceptionE(2048, (x) => maxPool(x, { kernel: 3, padding: 1 }));

  /** x (N, H, W, 3) in [-1, 1], sides of at least 75 -> (N, 2048). */
  forward(x: Tensor): Tensor {
    const { engine } = x;
    const blocks: readonly ((x: Tensor) => Tensor)[] = [
      (h) => chain(h, this.Conv2d_1a_3x3, this.Conv2d_2a_3x3, this.Conv2d_2b_3x3),
      halved,
      (h) => chain(h, this.Conv2d_3b_1x1, this.Conv2d_4a_3x3),
      halved,
      ...[this.Mixed_5b, this.Mixed_5c, this.Mixed_5d, this.Mixed_6a, this.Mixed_6b, this.Mixed_6c, this.Mixed_6d, this.Mixed_6e, this.Mixed_7a, this.Mixed_7b, this.Mixed_7c].map((block) => (h: Tensor) => block.forward(h)),
      meanPixels,
    ];
    return engine.scope(() => {
      let h = x;
      for (const block of blocks) {
        const next = block(h);
        // Nothing here is needed for a way back.
        if (h !== x) h.free();
        h = next;
      }
      return h;
    });
  }
}

/**
 * The weights of pt_inception-2015-12-05 as Parameters.write takes them: conv(x) w and batch norm become one convolution with a bias,
 * w gamma / sqrt(variance + 0.001) and beta - mean gamma / sqrt(variance + 0.001), in float64. The head (fc) is left out.
 *
 * @throws DdpmError E-MODEL where a convolution has no batch norm
 */
export function foldBatchNorm(tensors: NamedTensors, source: string): Map<string, { readonly shape: readonly number[]; readonly data: Float32Array }> {
  const folded = new Map<string, { readonly shape: readonly number[]; readonly data: Float32Array }>();
  for (const [name, weight] of tensors) {
    if (/^(fc|AuxLogits)\.|\.bn\./.test(name)) continue;
    const unit = /^(.+)\.conv\.weight$/.exec(name)?.[1];
    if (unit === undefined) {
      folded.set(name, { shape: weight.shape, data: Float32Array.from(weight.data) }); // unknown: Parameters.write names it
      continue;
    }
    const [gamma, beta, mean, variance] = ['weight', 'bias', 'running_mean', 'running_var'].map((part) => {
      const tensor = tensors.get(`${unit}.bn.${part}`), channels = weight.shape[0];
      if (tensor?.data.length !== channels) throw new DdpmError('E-MODEL', `${source}: ${unit}.bn.${part} ${tensor ? `has ${tensor.data.length} values, not ${channels}` : 'is missing'}; these are not the weights of pt_inception-2015-12-05.`);
      return tensor!.data;
    }) as [ArrayLike<number>, ArrayLike<number>, ArrayLike<number>, ArrayLike<number>];
    const scale = Float64Array.from(gamma, (g, o) => g / Math.sqrt(variance[o]! + BATCH_NORM_EPS)), size = weight.data.length / scale.length;
    folded.set(name, { shape: weight.shape, data: Float32Array.from(weight.data, (w, i) => w * scale[Math.floor(i / size)]!) });
    folded.set(`${unit}.conv.bias`, { shape: [scale.length], data: Float32Array.from(scale, (s, o) => beta[o]! - mean[o]! * s) });
  }
  return folded;
}

/** Puts Inception on the device; its extractor takes images of any size, grey ones too, as pytorch-fid does. */
export function inceptionExtractor(engine: Engine, tensors: NamedTensors, source: string, key: string): Extractor {
  const network = new Inception(), parameters = Parameters.place(engine, network, { training: false, initial: false });
  parameters.write('values', foldBatchNorm(tensors, source), source);
  const networks = new Map<string, NetworkExtractor>();
  const protocol = `Inception-v3 (${source}, SHA-256 ${key.split('-').at(-1)}), 2048 features, resized to ${SIDE}×${SIDE} bilinearly`;
  const features = (images: Images, onProgress?: (done: number) => void) => {
    const { height, width } = images, shape = { height, width, channels: 3 }, size = `${height}×${width}`;
    const forward = (x: Tensor): Tensor => engine.scope(() => network.forward(resizeBilinear(x, SIDE, SIDE)));
    const extractor = networks.get(size) ?? new NetworkExtractor(engine, { name: 'inception', key, protocol, width: INCEPTION_WIDTH, shape, batchSize: Math.min(8, images.count), forward });
    networks.set(size, extractor);
    return extractor.features(coloured(images), onProgress);
  };
  return { name: 'inception', key, protocol, features };
}

/** Grey images as three equal channels. */
function coloured(images: Images): Images {
  if (images.channels === 3) return images;
  const pixels = new Uint8Array(3 * images.pixels.length);
  for (let i = 0; i < pixels.length; i++) pixels[i] = images.pixels[Math.floor(i / 3)]!;
  return { ...images, channels: 3, pixels };
}
