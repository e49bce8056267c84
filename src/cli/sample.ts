// npm run sample: pictures, numbers and an animation from a run, a checkpoint or any folder with a model that diffusers wrote.

import { GaussianDiffusion } from '../diffusion/gaussian.ts';
import { Sampler } from '../diffusion/sampler.ts';
import { DdpmError } from '../errors.ts';
import { encodeApng } from '../io/apng.ts';
import { loadModelFolder } from '../io/checkpoint.ts';
import { readFileOr, writeAtomic } from '../io/files.ts';
import type { Picture } from '../io/picture.ts';
import { encodePng } from '../io/png.ts';
import { readSafetensors, safetensorsChunks } from '../io/safetensors.ts';
import { openEngine } from '../node.ts';
import { Parameters } from '../nn/parameters.ts';
import { UNet } from '../nn/unet.ts';
import { nchwToNhwc, nhwcToNchw, sizeOf } from '../tensor.ts';
import { type BatchStep, describeDevice, drawSamples, runCommand, sampleGrid, say } from './command.ts';
import { type Command, helpText, parseFlags } from './flags.ts';
import { Bar } from './progress.ts';
import { BATCH, describeSampler, type ImageShape, imageShape, largestSampler, modelPath, samplerOptions } from './sampling.ts';
import { SAMPLE } from './settings.ts';

const COMMAND: Command = { name: 'sample', help: 'Draws images with a trained model.', positional: '<run | checkpoint | folder with config.json>' };

const FRAMES = 40;
const ANIMATED = 16;

async function sample(): Promise<number> {
  const { settings, given, positional } = parseFlags(SAMPLE, COMMAND, process.argv.slice(2), { env: process.env });
  if (settings.help) {
    process.stdout.write(`${helpText(SAMPLE, COMMAND)}\n`);
    return 0;
  }
  const model = await loadModelFolder(modelPath(positional!), { weights: settings.weights });
  const { scheduler } = model;
  const unet = new UNet(model.config, { dropout: 0 });
  const noise = settings.noise === null ? null : await readNoise(settings.noise, unet);
  if (noise && given.has('n') && settings.n !== noise.n)
    throw new DdpmError('E-USAGE', `--n is ${settings.n}, and ${settings.noise} has noise for ${noise.n} images. Leave out --n.`);
  const n = noise?.n ?? settings.n;
  const image = noise?.image ?? imageShape(unet, model.folder);

  const options = samplerOptions(settings, given, scheduler), { T } = scheduler.schedule, { method } = options;

  const opened = await openEngine(settings.gpu === null ? {} : { gpu: settings.gpu });
  const { engine } = opened;
  const parameters = Parameters.place(engine, unet, { training: false });
  parameters.write('values', model.tensors, model.file);
  const diffusion = new GaussianDiffusion(engine, scheduler.schedule, scheduler);
  const make = (batch: number): Sampler => new Sampler((x, t) => unet.forward(x, t), diffusion, [batch, ...image], options);
  const sampler = settings.batchSize === null ? largestSampler(make, Math.min(n, BATCH)) : make(Math.min(settings.batchSize, n));
  say('device', describeDevice(opened));
  say('model', `${model.file}  ${parameters.count} parameters`);
  say('schedule', `${T} timesteps, ${scheduler.variance}  ${model.schedulerFile ?? "nothing said, so DDPM's own: linear from 0.0001 to 0.02"}`);
  const steps = sampler.rows.length;
  say('sampler', `${describeSampler(options, steps)}, seed ${settings.seed}, ${n} of ${image.join('×')} in batches of ${sampler.shape[0]}`);
  await sampler.compile();

  const bar = new Bar(n * steps);
  const film = settings.trajectory === null ? null : new Film(Math.min(n, ANIMATED), steps, image);
  const onStep = async (step: BatchStep): Promise<void> => {
    bar.draw(step.first * steps + step.rows * step.done);
    await film?.take(step);
  };
  const samples = await drawSamples(sampler, { n, seed: settings.seed, noise: noise?.data, onStep });
  say('time', bar.clear());

  const written: [string, string][] = [];
  const onNaN = (count: number): void => say('warning', `${count} values are not numbers, and black in the picture: the weights may be damaged or the training diverged`);
  await writeAtomic(settings.out, encodePng(sampleGrid(samples, image, onNaN)));
  written.push(['grid', settings.out]);
  if (settings.raw !== null) {
    const [height, width, channels] = image;
    const x0 = { shape: [n, channels, height, width], data: nhwcToNchw(samples, [n, height, width, channels]) };
    const metadata = { sampler: method, steps: String(options.steps), eta: String(settings.eta), seed: String(settings.seed) };
    await writeAtomic(settings.raw, safetensorsChunks([['x_0', x0]], metadata));
    written.push(['raw', settings.raw]);
  }
  if (film) {
    await writeAtomic(settings.trajectory!, encodeApng(film.frames()));
    written.push(['film', settings.trajectory!]);
  }
  for (const [what, path] of written) process.stdout.write(`${what.padEnd(9)}${path}\n`);
  await opened.close();
  return 0;
}

/** x_T of a file, turned to NHWC. The image size is the file's, which must be the model's where the model has one. */
async function readNoise(path: string, unet: UNet): Promise<{ n: number; image: ImageShape; data: Float32Array }> {
  const { tensors } = readSafetensors(await readFileOr(path), path);
  const tensor = tensors.get('x_T');
  if (!tensor) throw new DdpmError('E-FILE', `${path} has no tensor x_T; it has ${[...tensors.keys()].slice(0, 5).join(', ') || 'none'}.`);
  const { shape, data, dtype } = tensor;
  const { sample_size, in_channels } = unet.config;
  const [n, channels, height, width] = shape as [number, number, number, number];
  const wanted = sample_size === null ? ['H', 'W'] : typeof sample_size === 'number' ? [sample_size, sample_size] : sample_size;
  const fits = shape.length === 4 && n > 0 && channels === in_channels && (sample_size === null || (height === wanted[0] && width === wanted[1]));
  if (!fits) throw new DdpmError('E-SHAPE', `x_T in ${path} has the shape (${shape.join(', ')}); this model takes (N, ${in_channels}, ${wanted.join(', ')}).`);
  if (!(data instanceof Float32Array)) throw new DdpmError('E-FILE', `x_T in ${path} is ${dtype}; it must be float32.`);
  return { n, image: [height, width, channels], data: nchwToNhwc(data, [n, channels, height, width]) };
}

/** Collects x_t of the first samples at some of the steps. */
class Film {
  readonly #shown: number;
  readonly #image: ImageShape;
  readonly #at: readonly number[];
  readonly #frames: readonly Float32Array[];

  constructor(shown: number, steps: number, image: ImageShape) {
    this.#shown = shown;
    this.#image = image;
    const count = Math.min(FRAMES, steps);
    // Evenly spread, ending with the last step.
    this.#at = Array.from({ length: count }, (_, i) => steps - Math.floor(((count - 1 - i) * steps) / count));
    this.#frames = this.#at.map(() => new Float32Array(shown * sizeOf(image)));
  }

  async take({ first, rows, done, x }: BatchStep): Promise<void> {
    const frame = this.#at.indexOf(done), count = Math.min(rows, this.#shown - first);
    if (frame < 0 || count <= 0) return;
    const size = sizeOf(this.#image);
    this.#frames[frame]!.set((await x.read()).subarray(0, count * size), first * size);
  }

  frames(): Picture[] {
    return this.#frames.map((frame) => sampleGrid(frame, this.#image));
  }
}

await runCommand(sample);
