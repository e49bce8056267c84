// A model that diffusers saved (config.json, scheduler_config.json and diffusion_pytorch_model.safetensors, from URLs, dropped files, anywhere) on a device of one's own.
import { Engine, GaussianDiffusion, Parameters, parseConfig, readModel, readScheduler, Sampler, UNet, withSampling } from 'ddpm.wgsl';

/** The texts and bytes of the files. */
interface Files {
  readonly config: string;
  /** The schedule, what the network predicts, and how it is to be sampled. */
  readonly scheduler: string;
  readonly weights: Uint8Array;
}

interface Options {
  readonly n?: number;
  readonly size?: number;
  readonly steps?: number;
  readonly seed?: number;
  readonly signal?: AbortSignal;
}

/** Images (n, H, W, C), about [-1, 1]. */
export async function sample(device: GPUDevice, { config, scheduler, weights }: Files, { n = 1, size = 28, steps = 50, seed = 0, signal }: Options = {}): Promise<Float32Array> {
  await using engine = new Engine(device); // what is its own is destroyed at the end; the device is yours
  const unet = new UNet(parseConfig(config, 'config.json'));
  const parameters = Parameters.place(engine, unet, { training: false, initial: false });
  parameters.write('values', readModel(weights, 'diffusion_pytorch_model.safetensors'), 'diffusion_pytorch_model.safetensors');

  const sampling = readScheduler(parseConfig(scheduler, 'scheduler_config.json')), diffusion = new GaussianDiffusion(engine, sampling.schedule, sampling);
  const sampler = new Sampler((x, t) => unet.forward(x, t), diffusion, [n, size, size, unet.config.in_channels], withSampling({ method: 'ddim', steps }, sampling));
  await sampler.compile();
  return await sampler.sample({ seed, ...(signal && { signal }) }); // awaited here, or the engine would be destroyed before
}
