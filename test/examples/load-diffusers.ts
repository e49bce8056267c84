// A model that diffusers saved (config.json and diffusion_pytorch_model.safetensors, from a URL, a dropped file, anywhere) on a device of one's own.
import { Engine, GaussianDiffusion, makeSchedule, Parameters, parseConfig, type Prediction, readModel, Sampler, UNet } from 'ddpm.wgsl';

/** What a caller may choose; scheduler_config.json says what the network predicts: `epsilon` is eps here, `v_prediction` v (as `tiny` of `npm run train` does), `sample` x0. */
interface Options {
  readonly n?: number;
  readonly size?: number;
  readonly steps?: number;
  readonly seed?: number;
  readonly prediction?: Prediction;
  readonly signal?: AbortSignal;
}

/** Images (n, H, W, C), about [-1, 1]. */
export async function sample(device: GPUDevice, config: string, weights: Uint8Array, { n = 1, size = 28, steps = 50, seed = 0, prediction = 'eps', signal }: Options = {}): Promise<Float32Array> {
  await using engine = new Engine(device); // what is its own is destroyed at the end; the device is yours
  const unet = new UNet(parseConfig(config, 'config.json'));
  const parameters = Parameters.place(engine, unet, { training: false, initial: false });
  parameters.write('values', readModel(weights, 'diffusion_pytorch_model.safetensors'), 'diffusion_pytorch_model.safetensors');

  const diffusion = new GaussianDiffusion(engine, makeSchedule({ name: 'linear', T: 1000 }), { prediction });
  const sampler = new Sampler((x, t) => unet.forward(x, t), diffusion, [n, size, size, unet.config.in_channels], { method: 'ddim', steps });
  await sampler.compile();
  return await sampler.sample({ seed, ...(signal && { signal }) }); // awaited here, or the engine would be destroyed before
}
