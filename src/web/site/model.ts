// A model to sample from, on any engine: the averaged weights of a file, and chains of x_t and x_0 from them.
import { classRows, imageChannels, Network } from '../../cli/network.ts';
import { GaussianDiffusion } from '../../diffusion/gaussian.ts';
import { Sampler, type SampleStep } from '../../diffusion/sampler.ts';
import { inpaint } from '../../diffusion/uses/inpaint.ts';
import { slerp } from '../../diffusion/uses/interpolate.ts';
import { DdpmError } from '../../errors.ts';
import type { Engine } from '../../gpu/engine.ts';
import { parseConfig, readClassNames, readModel, withOldNorm } from '../../io/model.ts';
import { readSafetensors } from '../../io/safetensors.ts';
import { readScheduler, type Scheduler, schedulerConfig, withSampling } from '../../io/scheduler.ts';
import { type NamedTensors, Parameters } from '../../nn/parameters.ts';
import { UNet } from '../../nn/unet.ts';
import { normal4, philox4x32, STREAM } from '../../philox.ts';
import type { DrawRequest, Events, Floats, ModelFacts, ModelFiles } from './messages.ts';
import { configOf } from './models.ts';
import { wholly } from './placing.ts';
import { classesIn, decodeRun } from './run-file.ts';

type Chain = Events['chain'];

export class Model {
  readonly engine: Engine;
  readonly facts: ModelFacts;
  readonly scheduler: Scheduler;
  readonly #unet: UNet;
  readonly #parameters: Parameters;
  readonly #diffusion: GaussianDiffusion;

  /** @throws DdpmError E-FILE, E-MODEL: the files are damaged, or do not belong together */
  constructor(engine: Engine, { name, weights, config, scheduler }: ModelFiles) {
    const run = config === null ? runIn(weights, name) : null;
    const tensors: NamedTensors = run ? run.tensors.ema : readModel(weights, name);
    const unet = new UNet(run ? configOf(run.settings.model, run.data, classesIn(run.settings, { labels: run.labels, classes: run.data.classes })) : withOldNorm(parseConfig(config!, 'config.json'), tensors), { dropout: 0 });
    const { sample_size: size, in_channels: into, out_channels: out } = unet.config;
    if (size === null) throw new DdpmError('E-MODEL', 'config.json has no sample_size, so the size of the images is not known. Add it, such as "sample_size": 32.');
    this.engine = engine;
    this.#unet = unet;
    this.scheduler = readScheduler(run ? schedulerConfig({ name: 'linear', T: run.settings.timesteps }, { prediction: run.settings.predict }) : scheduler === null ? {} : parseConfig(scheduler, 'scheduler_config.json'));
    const channels = imageChannels(unet, this.scheduler), [height = 0, width = height] = [size].flat() as number[];
    if (![height, width].every((side) => Number.isInteger(side) && side > 0)) throw new DdpmError('E-MODEL', `config.json has the sample_size ${JSON.stringify(size)}; it must be a whole number such as 32, or two, for height and width.`);
    if ((channels !== 1 && channels !== 3) || (into !== channels && into !== 2 * channels))
      throw new DdpmError('E-MODEL', `the network takes ${into} channels and gives ${out}, and this page draws images of 1 or 3. With a learned variance, which scheduler_config.json says, a network gives twice as many.`);
    const { schedule } = this.scheduler;
    [this.#parameters, this.#diffusion] = wholly(engine, () => {
      const parameters = Parameters.place(engine, unet, { training: false, initial: false });
      parameters.write('values', tensors, name);
      return [parameters, new GaussianDiffusion(engine, schedule, this.scheduler)];
    });
    this.facts = { name, parameters: this.#parameters.count, shape: [height, width, channels], T: schedule.T, classes: classRows(unet), classNames: run ? run.data.classes : readClassNames(weights, name) };
  }

  /** Draws images, (n, H, W, C); `onStep` gets x_t and x_0 after every step and ends the drawing by throwing. */
  async draw(request: DrawRequest, onStep: (chain: Chain) => void): Promise<Floats> {
    const { method, eta, seed, n, interpolate, label, guidance, inpaint: open } = request, [H, W, C] = this.facts.shape, shape = [n, H, W, C] as const;
    const steps = Math.min(request.steps, this.facts.T), { schedule } = this.#diffusion;
    const options = withSampling({ method, steps, ...(method === 'ddim' && { eta }) }, { ...this.scheduler, schedule });
    const network = new Network(this.engine, this.#unet, shape, { label, guidance });
    const watch = async ({ done, steps: of, t, x, predXstart }: SampleStep): Promise<void> => onStep({ done, steps: of, t, x: await x.read(), x0: await predXstart.read() });
    let sampler: Sampler | null = null;
    try {
      if (!open) {
        sampler = new Sampler(network.model, this.#diffusion, shape, options);
        await sampler.compile();
        return await sampler.sample({ seed, onStep: watch, ...(interpolate && { noise: between(seed, n, H * W * C) }) });
      }
      const jumpLength = Math.max(1, Math.floor(steps / 10)), resamples = steps > 1 ? open.resamples : 1;
      return await inpaint(network.model, this.#diffusion, repeat(open.known, n), repeat(open.mask, n), shape, { ...options, seed, jumpLength, resamples, onStep: watch });
    } finally {
      await sampler?.destroy();
      network.free();
    }
  }

  async destroy(): Promise<void> {
    await this.engine.finished();
    for (const { slices } of this.#parameters.chunks) for (const slice of new Set(Object.values(slices))) this.engine.free(slice);
    this.#diffusion.destroy();
  }
}

/** The run in a file that came without a config.json. */
function runIn(weights: Uint8Array, name: string): ReturnType<typeof decodeRun> {
  const { metadata } = readSafetensors(weights, name);
  if (!('ddpm.wgsl.run' in metadata)) throw new DdpmError('E-FILE', `${name} holds weights, and config.json says what network they are of: give both. It lies beside the weights; scheduler_config.json too.`);
  return decodeRun(weights, name);
}

/** The noise that the sampler would give an image of this number. */
function prior(seed: number, id: number, size: number): Floats {
  const z = new Float32Array(size);
  for (let i = 0; i < size; i += 4) z.set(normal4(philox4x32([i >> 2, id, 0, 0], [seed, STREAM.prior])).slice(0, Math.min(4, size - i)), i);
  return z;
}

/** (n, size): noise along the arc from sample 0's to sample 1's. */
export function between(seed: number, n: number, size: number): Floats {
  const [a, b] = [prior(seed, 0, size), prior(seed, 1, size)], out = new Float32Array(n * size);
  for (let k = 0; k < n; k++) out.set(slerp(a, b, n === 1 ? 0 : k / (n - 1)), k * size);
  return out;
}

function repeat(values: Floats, n: number): Floats {
  const out = new Float32Array(n * values.length);
  for (let k = 0; k < n; k++) out.set(values, k * values.length);
  return out;
}
