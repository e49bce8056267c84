// A small classifier whose features distances are measured between, for data sets that Inception was not made for: Fashion-MNIST is grey and 28 x 28.

import { Tape } from '../autograd.ts';
import { Clock } from '../clock.ts';
import { DdpmError } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import type { Plan } from '../gpu/plan.ts';
import { readSafetensors, safetensorsChunks } from '../io/safetensors.ts';
import { Conv2d, GroupNorm, Linear } from '../nn/layers.ts';
import { Module } from '../nn/parameter.ts';
import { type NamedTensors, Parameters } from '../nn/parameters.ts';
import { crossEntropy, gatherIntegers, meanPixels } from '../ops/classification.ts';
import { DeviceImages, shuffleIndices } from '../ops/random.ts';
import { AdamW, type StepLog } from '../optim/adamw.ts';
import { emaDecay, learningRate } from '../optim/schedules.ts';
import { Tensor } from '../tensor.ts';
import { typedAs } from '../typed.ts';
import { type Extractor, type Images, NetworkExtractor } from './extractor.ts';

/** The images that a classifier is for. */
export interface ClassifierShape {
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly classes: number;
}

/** Channels of the first convolution, the most that the next ones have, and those of the features. */
const FIRST = 32, MOST = 64, FEATURES = 96;
/** Images are halved, by the first convolution too, until they are no larger. */
const SMALLEST = 8;
const GROUPS = 8;

/** silu(norm(conv(x))) */
class Block extends Module {
  readonly conv: Conv2d;
  readonly norm: GroupNorm;
  readonly #stride: 1 | 2;
  constructor(inChannels: number, outChannels: number, stride: 1 | 2) {
    super();
    this.conv = new Conv2d(inChannels, outChannels, 3);
    this.norm = new GroupNorm(GROUPS, outChannels, 1e-5);
    this.#stride = stride;
  }
  forward(x: Tensor): Tensor {
    return this.norm.forward(this.conv.forward(x, { stride: this.#stride, padding: [1, 1, 1, 1] }), true);
  }
}

export class Classifier extends Module {
  readonly blocks: readonly Block[];
  readonly head: Linear;
  readonly #shape: ClassifierShape;

  constructor(shape: ClassifierShape) {
    super();
    let size = Math.max(shape.height, shape.width), width = FIRST;
    const blocks = [new Block(shape.channels, FIRST, size > SMALLEST ? 2 : 1)];
    for (size = Math.ceil(size / 2); size > SMALLEST; size = Math.ceil(size / 2)) {
      const to = Math.min(MOST, 2 * width);
      blocks.push(new Block(width, to, 2));
      width = to;
    }
    blocks.push(new Block(width, width, 1), new Block(width, FEATURES, 2));
    this.blocks = blocks;
    this.head = new Linear(FEATURES, shape.classes);
    this.#shape = shape;
  }

  get shape(): ClassifierShape {
    return this.#shape;
  }

  /** x (N, H, W, C) in [-1, 1] -> (N, 96): what the head reads. */
  features(x: Tensor): Tensor {
    return x.engine.scope(() => meanPixels(this.blocks.reduce((h, block) => x.engine.scope(() => block.forward(h)), x)));
  }

  /** x (N, H, W, C) in [-1, 1] -> (N, classes), before the softmax. */
  logits(x: Tensor): Tensor {
    return x.engine.scope(() => this.head.forward(this.features(x)));
  }
}

export type Labelled = Images & { readonly labels: Uint8Array | Uint16Array };

export interface ClassifierOptions {
  readonly steps: number;
  readonly batchSize: number;
  readonly seed: number;
  readonly lr?: number;
}

/** Trains by AdamW on every image in turn; the step is one plan and a pure function of parameters, step number and seed, as that of Training. */
export class ClassifierTraining {
  readonly options: Required<ClassifierOptions>;
  readonly #optimizer: AdamW;
  readonly #plan: Plan<Tensor>;
  readonly #clock: Clock;

  constructor(classifier: Classifier, parameters: Parameters, data: Labelled, options: ClassifierOptions) {
    const { engine } = parameters;
    this.options = { lr: 3e-3, ...options };
    const images = new DeviceImages(engine, data, false), labels = Tensor.from(engine, [data.count], Uint32Array.from(data.labels));
    this.#optimizer = new AdamW(parameters, { weightDecay: 0.01, lossScaling: engine.precision === 'f16' });
    const clock = (this.#clock = new Clock(engine));
    this.#plan = engine.capture(() => {
      const tape = new Tape(engine);
      const loss = tape.record(() => {
        const index = shuffleIndices(options.batchSize, data.count, clock);
        return crossEntropy(classifier.logits(images.gather(index, clock)), gatherIntegers(labels, index));
      });
      tape.backward(loss, null, { scaleBy: this.#optimizer.lossScale });
      this.#optimizer.step(loss, clock);
      return loss;
    });
  }

  compile(progress?: (done: number, total: number) => void): Promise<void> {
    return this.#plan.compile(progress);
  }

  /** The learning rate of a step (from 0). */
  lr(step: number): number {
    const { lr, steps } = this.options;
    return learningRate(step, { lr, warmup: Math.min(100, Math.floor(steps / 10)), steps, schedule: 'cosine' });
  }

  run(step: number): void {
    this.#clock.set({ seed: this.options.seed, step, lr: this.lr(step), emaDecay: emaDecay(step, 0.999) });
    this.#plan.run();
  }

  read(from: number, to: number): Promise<StepLog[]> {
    return this.#optimizer.read(from, to);
  }
}

/** The share of images whose largest logit is that of their class. */
export async function accuracy(engine: Engine, classifier: Classifier, data: Labelled): Promise<number> {
  const { classes } = classifier.shape;
  const network = new NetworkExtractor(engine, { name: 'classifier', key: '', protocol: '', width: classes, shape: classifier.shape, forward: (x) => classifier.logits(x) });
  const logits = await network.features(data);
  await network.destroy();
  let right = 0;
  for (let n = 0; n < data.count; n++) {
    const row = logits.data.subarray(n * classes, (n + 1) * classes);
    if (row.indexOf(Math.max(...row)) === data.labels[n]) right++;
  }
  return right / data.count;
}

const KIND = 'ddpm.wgsl classifier';

/** A classifier as a safetensors file: the tensors, and in the metadata the shape and whatever is told about its making. */
export function classifierFile(classifier: Classifier, tensors: Map<string, { shape: readonly number[]; data: Float32Array<ArrayBuffer> }>, told: Readonly<Record<string, string>>): Uint8Array[] {
  const shape = Object.entries(classifier.shape).map(([key, value]) => [key, String(value)]);
  return safetensorsChunks(tensors, { format: 'pt', kind: KIND, ...Object.fromEntries(shape), ...told });
}

/**
 * Reads a file of `classifierFile`.
 *
 * @throws DdpmError E-FILE where it is not one
 */
export function readClassifier(bytes: Uint8Array, name: string): { classifier: Classifier; tensors: NamedTensors; metadata: Readonly<Record<string, string>> } {
  const { tensors, metadata } = readSafetensors(bytes, name);
  const number = (key: string): number => Number(metadata[key]);
  const shape = { height: number('height'), width: number('width'), channels: number('channels'), classes: number('classes') };
  if (metadata['kind'] !== KIND || !Object.values(shape).every((v) => Number.isInteger(v) && v > 0))
    throw new DdpmError('E-FILE', `${name} is not a classifier of this program. Train one: ${typedAs('eval')} --train-features --data NAME --out FILE.safetensors`);
  return { classifier: new Classifier(shape), tensors: tensors as unknown as NamedTensors, metadata };
}

/** Puts a classifier on the device and makes its features an extractor. */
export function classifierExtractor(engine: Engine, { classifier, tensors }: { classifier: Classifier; tensors: NamedTensors }, source: string, { key, protocol }: { key: string; protocol: string }): Extractor {
  const parameters = Parameters.place(engine, classifier, { training: false, initial: false });
  parameters.write('values', tensors, source);
  return new NetworkExtractor(engine, { name: 'classifier', key, protocol, width: FEATURES, shape: classifier.shape, forward: (x) => classifier.features(x) });
}
