// A training run as the page has it, on any engine: train, preview, sample, save. It is the loop of `npm run train`, so its numbers are those of Node.
import { Network } from '../../cli/network.ts';
import { type Metrics, trainLoop } from '../../cli/train-loop.ts';
import { GaussianDiffusion } from '../../diffusion/gaussian.ts';
import { Sampler } from '../../diffusion/sampler.ts';
import { makeSchedule } from '../../diffusion/schedule.ts';
import { Training } from '../../diffusion/training.ts';
import { DdpmError } from '../../errors.ts';
import type { Engine } from '../../gpu/engine.ts';
import type { Plan } from '../../gpu/plan.ts';
import { Parameters } from '../../nn/parameters.ts';
import { UNet } from '../../nn/unet.ts';
import { DeviceImages } from '../../ops/random.ts';
import { normal4, philox4x32, STREAM } from '../../philox.ts';
import { Tensor } from '../../tensor.ts';
import { configOf } from './models.ts';
import { wholly } from './placing.ts';
import { classesIn, encodeRun, type RunSettings, type SavedRun, type TrainData } from './run-file.ts';

/** How many samples the page shows, and how they are drawn. */
const SAMPLES = 16, SAMPLE_STEPS = 20;
/** The preview: this many images, each at all of these shares of T. */
const SEEN = 4, LEVELS = [0.1, 0.3, 0.5, 0.7];

export interface Preview {
  readonly images: number;
  readonly levels: readonly number[];
  /** (images, levels, H, W, C): what the network saw, and the x_0 that it predicted from it. */
  readonly xt: Float32Array<ArrayBuffer>;
  readonly x0: Float32Array<ArrayBuffer>;
}

export interface Watch {
  readonly stop: { requested: boolean };
  readonly onMetrics: (line: Metrics) => void;
  readonly onPreview: (step: number, preview: Preview) => void;
  readonly onSamples: (step: number, samples: Float32Array<ArrayBuffer>) => void;
  readonly onSave: (bytes: Uint8Array, step: number) => Promise<void>;
  readonly onEvent: (text: string) => void;
}

/** What a run with classes draws: a class or `all` for each in turn, and w in uncond + w (cond - uncond). */
export interface Sampling {
  readonly label: string;
  readonly guidance: number;
}

export class Run {
  readonly engine: Engine;
  readonly data: TrainData;
  readonly settings: RunSettings;
  readonly unet: UNet;
  readonly parameters: Parameters;
  readonly losses: number[];
  readonly #training: Training;
  readonly #diffusion: GaussianDiffusion;
  readonly #images: DeviceImages;
  readonly #preview: { readonly xt: Tensor; readonly plan: Plan<Tensor>; readonly inputs: readonly Tensor[] };
  #drawing: { readonly sampler: Sampler; readonly network: Network; readonly of: Sampling } | null = null;
  /** For samples from the next ones on; of no effect without classes. */
  sampling: Sampling = { label: 'all', guidance: 1 };
  /** Steps done. */
  step: number;

  private constructor(engine: Engine, data: TrainData, settings: RunSettings, saved: SavedRun | null) {
    this.engine = engine;
    this.data = data;
    this.settings = settings;
    this.step = saved?.step ?? 0;
    this.losses = [...(saved?.losses ?? [])];
    const { labelDropout } = settings;
    if (labelDropout !== null && !data.labels) throw new DdpmError('E-DATA', `${data.name} has no labels to learn classes from. Choose data that have them, or train without classes.`);
    if (labelDropout !== null && !(labelDropout >= 0 && labelDropout < 1)) throw new DdpmError('E-USAGE', `the label dropout is ${labelDropout}; it must be at least 0 and less than 1, such as 0.1.`);
    this.unet = new UNet(configOf(settings.model, data, classesIn(settings, data)));
    this.parameters = Parameters.place(engine, this.unet, { seed: settings.seed });
    if (saved) for (const buffer of ['values', 'ema', 'm', 'v'] as const) this.parameters.write(buffer, saved.tensors[buffer], 'the saved run');
    this.#diffusion = new GaussianDiffusion(engine, makeSchedule({ name: 'linear', T: settings.timesteps }), { prediction: settings.predict });
    const { batchSize, steps, lr, seed, timeSampling } = settings;
    const warmup = Math.min(200, Math.floor(steps / 10));
    this.#images = new DeviceImages(engine, labelDropout === null ? { ...data, labels: null } : data, settings.flip);
    this.#training = new Training(this.unet, this.parameters, this.#diffusion, this.#images, {
      batchSize, steps, lr, warmup, seed, lrSchedule: 'cosine', ema: 0.999, snrGamma: settings.predict === 'v' ? 5 : null, timeSampling, ...(labelDropout !== null && { labelDropout }),
    });
    if (saved) {
      this.#training.peakLr = saved.lr;
      this.#training.optimizer.restore(saved.optimizer, 'the saved run');
    }
    this.#preview = this.#makePreview();
  }

  /** Places the model and compiles its kernels. @throws DdpmError E-MODEL where the images do not suit the model */
  static async open(engine: Engine, data: TrainData, settings: RunSettings, { saved = null as SavedRun | null, progress = (_done: number, _total: number): void => {} } = {}): Promise<Run> {
    const run = wholly(engine, () => new Run(engine, data, settings, saved));
    await run.#training.plan.compile(progress);
    return run;
  }

  get lr(): number {
    return this.#training.peakLr;
  }

  set lr(value: number) {
    this.#training.peakLr = value;
  }

  get config(): object {
    return this.unet.config;
  }

  /** Trains to the end, or until `stop` is requested; returns the steps done. What comes after a stop goes on as if there had been none. */
  async train(watch: Watch): Promise<number> {
    const { previewEvery, sampleEvery, saveEvery } = this.settings;
    const every = (step: number, n: number): boolean => n > 0 && step % n === 0;
    this.step = await trainLoop({
      training: this.#training, images: this.data.count, from: this.step, logEvery: 5, saveEvery, sampleEvery: previewEvery, stop: watch.stop,
      onMetrics: (line) => {
        this.losses[(line['step'] as number) - 1] = line['loss'] as number;
        watch.onMetrics(line);
      },
      onProgress: () => {},
      onEvent: watch.onEvent,
      save: async (step) => {
        this.step = step;
        await watch.onSave(await this.encode(), step);
      },
      sample: async (step) => {
        watch.onPreview(step, await this.preview());
        if (every(step, sampleEvery)) watch.onSamples(step, await this.samples());
      },
    });
    return this.step;
  }

  /** What the averaged weights make of a few images of the data at fixed noise: it sharpens as the training goes on. */
  async preview(): Promise<Preview> {
    this.#preview.plan.run();
    return { images: SEEN, levels: LEVELS.map((l) => Math.floor(l * this.settings.timesteps)), xt: await this.#preview.xt.read(), x0: await this.#preview.plan.result.read() };
  }

  /** Samples of the averaged weights, always of the same seed, (16, H, W, C); by class where the model has classes. */
  async samples(): Promise<Float32Array<ArrayBuffer>> {
    const { height, width, channels } = this.data, { sampling: of } = this, shape = [SAMPLES, height, width, channels] as const;
    if (this.#drawing?.of !== of) {
      await this.#stopDrawing();
      const asked = this.unet.conditional ? of : { label: null, guidance: 1 }, network = new Network(this.#diffusion.engine, this.unet, shape, asked);
      const options = { method: 'ddim', steps: Math.min(SAMPLE_STEPS, this.settings.timesteps) } as const;
      const sampler = this.parameters.use('ema', () => new Sampler(network.model, this.#diffusion, shape, options));
      this.#drawing = { sampler, network, of };
      await sampler.compile();
    }
    return this.#drawing!.sampler.sample({ seed: this.settings.seed });
  }

  async #stopDrawing(): Promise<void> {
    await this.#drawing?.sampler.destroy();
    this.#drawing?.network.free();
    this.#drawing = null;
  }

  /** The run as a file. */
  async encode(): Promise<Uint8Array> {
    const { pixels, labels, ...data } = this.data;
    const [values, ema, m, v] = [await this.parameters.read('values'), await this.parameters.read('ema'), await this.parameters.read('m'), await this.parameters.read('v')];
    return encodeRun({ step: this.step, settings: this.settings, lr: this.lr, data, losses: this.losses.slice(0, this.step), tensors: { values, ema, m, v }, optimizer: await this.#training.optimizer.state(), labels, pixels });
  }

  /** Frees what the run holds on the device. */
  async destroy(): Promise<void> {
    await this.engine.finished();
    await this.#training.destroy();
    await this.#stopDrawing();
    await this.#preview.plan.destroy();
    for (const tensor of [this.#preview.xt, ...this.#preview.inputs]) tensor.free();
    this.#images.free();
    this.#diffusion.destroy();
    for (const { slices } of this.parameters.chunks) for (const slice of Object.values(slices)) this.engine.free(slice);
  }

  #makePreview(): { xt: Tensor; plan: Plan<Tensor>; inputs: readonly Tensor[] } {
    const { engine } = this, { height, width, channels, pixels, labels, count } = this.data;
    const size = height * width * channels, N = SEEN * LEVELS.length;
    const x0 = new Float32Array(N * size), z = new Float32Array(N * size), t = new Uint32Array(N), y = new Uint32Array(N);
    for (let n = 0; n < N; n++) {
      const image = (Math.floor(n / LEVELS.length) * Math.max(1, Math.floor(count / SEEN))) % count;
      y[n] = labels?.[image] ?? 0;
      t[n] = Math.floor(LEVELS[n % LEVELS.length]! * this.settings.timesteps);
      for (let i = 0; i < size; i++) x0[n * size + i] = pixels[image * size + i]! / 127.5 - 1;
      for (let i = 0; i < size; i += 4) z.set(normal4(philox4x32([i >> 2, n, 0, 0], [this.settings.seed, STREAM.noise])).slice(0, Math.min(4, size - i)), n * size + i);
    }
    const shape = [N, height, width, channels];
    const at = Tensor.from(engine, [N], t), xt = engine.scope(() => this.#diffusion.qSample(Tensor.from(engine, shape, x0), at, Tensor.from(engine, shape, z)));
    const classes = this.unet.conditional ? Tensor.from(engine, [N], y) : null;
    const plan = this.parameters.use('ema', () => engine.capture(() => engine.scope(() => this.#diffusion.pMeanVariance((x, s) => this.unet.forward(x, s, { labels: classes }), xt, at).predXstart)));
    return { xt, plan, inputs: classes ? [at, classes] : [at] };
  }
}
