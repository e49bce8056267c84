// A model to sample from, on any engine: the averaged weights of a file, and chains of x_t and x_0 from them.
import { GaussianDiffusion } from '../../diffusion/gaussian.ts';
import { Sampler } from '../../diffusion/sampler.ts';
import { makeSchedule } from '../../diffusion/schedule.ts';
import { DdpmError } from '../../errors.ts';
import type { Engine } from '../../gpu/engine.ts';
import { parseConfig, readModel } from '../../io/model.ts';
import { readSafetensors } from '../../io/safetensors.ts';
import { readScheduler, type Scheduler } from '../../io/scheduler.ts';
import { type NamedTensors, Parameters } from '../../nn/parameters.ts';
import { UNet } from '../../nn/unet.ts';
import { normal4, philox4x32, STREAM } from '../../philox.ts';
import type { DrawRequest, Events, Floats, ModelFacts, ModelFiles } from './messages.ts';
import { configOf } from './models.ts';
import { decodeRun } from './run-file.ts';

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
    const unet = new UNet(run ? configOf(run.settings.model, run.data) : parseConfig(config!, 'config.json'), { dropout: 0 });
    const tensors: NamedTensors = run ? run.tensors.ema : readModel(weights, name);
    this.engine = engine;
    this.#unet = unet;
    this.scheduler = readScheduler(scheduler === null ? {} : parseConfig(scheduler, 'scheduler_config.json'));
    const schedule = run ? makeSchedule({ name: 'linear', T: run.settings.timesteps }) : this.scheduler.schedule;
    this.#parameters = Parameters.place(engine, unet, { training: false });
    this.#parameters.write('values', tensors, name);
    this.#diffusion = new GaussianDiffusion(engine, schedule, this.scheduler);
    const { sample_size: size, in_channels: channels } = unet.config;
    if (size === null) throw new DdpmError('E-MODEL', 'config.json has no sample_size, so the size of the images is not known. Add it, such as "sample_size": 32.');
    this.facts = { name, parameters: this.#parameters.count, shape: typeof size === 'number' ? [size, size, channels] : [size[0], size[1], channels], T: schedule.T };
  }

  /** Draws images, (n, H, W, C); `onStep` gets x_t and x_0 after every step and ends the drawing by throwing. */
  async draw(request: DrawRequest, onStep: (chain: Chain) => void): Promise<Floats> {
    const { method, eta, seed, n, interpolate, inpaint } = request, [H, W, C] = this.facts.shape;
    const { clipSample, setAlphaToOne, stepsOffset } = this.scheduler;
    const steps = Math.min(request.steps, this.facts.T);
    const options = { method, steps, clipDenoised: clipSample, setAlphaToOne, stepsOffset, ...(method === 'ddim' && { eta }) };
    const sampler = new Sampler((x, t) => this.#unet.forward(x, t), this.#diffusion, [n, H, W, C], options);
    try {
      await sampler.compile();
      const size = H * W * C;
      return await sampler.sample({
        seed, ...(interpolate && { noise: between(seed, n, size) }),
        onStep: async ({ done, steps: of, t, to, x, predXstart }) => {
          if (inpaint) this.engine.write(x.slice, this.#keepKnown(await x.read(), inpaint, { n, to, seed }));
          onStep({ done, steps: of, t, x: await x.read(), x0: await predXstart.read() });
        },
      });
    } finally {
      await sampler.destroy();
    }
  }

  /** Puts what is known, with the noise of timestep `to`, in place of what was drawn there (Lugmayr et al. 2022, eq. 8). */
  #keepKnown(x: Floats, { known, mask }: NonNullable<DrawRequest['inpaint']>, { n, to, seed }: { n: number; to: number; seed: number }): Floats {
    const [, , C] = this.facts.shape, { sqrtAlphasCumprod, sqrtOneMinusAlphasCumprod } = this.#diffusion.schedule;
    const a = to < 0 ? 1 : sqrtAlphasCumprod[to]!, b = to < 0 ? 0 : sqrtOneMinusAlphasCumprod[to]!;
    const size = known.length;
    for (let i = 0; i < n; i++) {
      const z = b === 0 ? null : normals(size, i, to, seed, STREAM.noise);
      for (let p = 0; p < size; p++) if (mask[Math.floor(p / C)]! > 0.5) x[i * size + p] = a * known[p]! + (z ? b * z[p]! : 0);
    }
    return x;
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

function normals(count: number, id: number, step: number, seed: number, stream: number): Floats {
  const z = new Float32Array(count);
  for (let i = 0; i < count; i += 4) z.set(normal4(philox4x32([i >> 2, id, step & 0xffff, 0], [seed, stream])).slice(0, Math.min(4, count - i)), i);
  return z;
}

/** Noise on the great circle from one sample's to another's (Song et al. 2020, appendix D.5): in between it is as long as at the ends, which a straight line's is not. */
export function between(seed: number, n: number, size: number): Floats {
  const a = normals(size, 0, 0, seed, STREAM.prior), b = normals(size, 1, 0, seed, STREAM.prior);
  let dot = 0, aa = 0, bb = 0;
  for (let i = 0; i < size; i++) {
    dot += a[i]! * b[i]!;
    aa += a[i]! ** 2;
    bb += b[i]! ** 2;
  }
  const angle = Math.acos(dot / Math.sqrt(aa * bb)), out = new Float32Array(n * size);
  for (let k = 0; k < n; k++) {
    const share = n === 1 ? 0 : k / (n - 1), p = Math.sin((1 - share) * angle) / Math.sin(angle), q = Math.sin(share * angle) / Math.sin(angle);
    for (let i = 0; i < size; i++) out[k * size + i] = p * a[i]! + q * b[i]!;
  }
  return out;
}
