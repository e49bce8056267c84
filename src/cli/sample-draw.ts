// The plain use of sample: a grid of new images, and on request their numbers and a film of how they came about.

import { DdpmError } from '../errors.ts';
import { encodeApng } from '../io/apng.ts';
import { writeAtomic } from '../io/files.ts';
import { encodePng } from '../io/png.ts';
import { safetensorsChunks } from '../io/safetensors.ts';
import { nhwcToNchw } from '../tensor.ts';
import { type BatchStep, drawSamples, sampleGrid, say } from './command.ts';
import { imageChannels } from './network.ts';
import { Bar, showCompiling } from './progress.ts';
import { Film } from './sample-film.ts';
import { readNoise } from './sample-inputs.ts';
import type { Ready, Written } from './sample-ready.ts';
import { describeSampler, openSampler } from './sampling.ts';

const ANIMATED = 16;

export async function drawGrid(ready: Ready): Promise<Written> {
  const { placed, settings, given, options } = ready, { unet, model } = placed;
  const noise = settings.noise === null ? null : await readNoise(settings.noise, imageChannels(unet, model.scheduler), unet.config.sample_size);
  if (noise && given.has('n') && settings.n !== noise.n)
    throw new DdpmError('E-USAGE', `--n is ${settings.n}, and ${settings.noise} has noise for ${noise.n} images. Leave out --n.`);
  const n = noise?.n ?? settings.n, image = noise?.image ?? ready.image();
  const { network, sampler } = openSampler(placed, image, options, { ...settings, n }), steps = sampler.rows.length;
  const what = [describeSampler(options, steps), `seed ${settings.seed}`, `${n} of ${image.join('×')} in batches of ${sampler.shape[0]}`, network.description];
  say('sampler', what.filter(Boolean).join(', '));
  await showCompiling((progress) => sampler.compile(progress));

  const bar = new Bar(n * steps);
  const film = settings.trajectory === null ? null : new Film(Math.min(n, ANIMATED), steps, image);
  const onStep = async (step: BatchStep): Promise<void> => {
    bar.draw(step.first * steps + step.rows * step.done);
    await film?.take(step);
  };
  const samples = await drawSamples(sampler, { n, seed: settings.seed, noise: noise?.data, onBatch: (first) => network.begin(first), onStep });
  say('time', bar.clear());

  const written: Written = [];
  const onNaN = (count: number): void => say('warning', `${count} values are not numbers, and black in the picture: the weights may be damaged or the training diverged`);
  await writeAtomic(settings.out, encodePng(sampleGrid(samples, image, { classes: network.classes, onNaN })));
  written.push(['grid', settings.out]);
  if (settings.raw !== null) {
    const [height, width, channels] = image;
    const x0 = { shape: [n, channels, height, width], data: nhwcToNchw(samples, [n, height, width, channels]) };
    const metadata = { sampler: options.method, steps: String(options.steps), eta: String(settings.eta), seed: String(settings.seed) };
    await writeAtomic(settings.raw, safetensorsChunks([['x_0', x0]], metadata));
    written.push(['raw', settings.raw]);
  }
  if (film) {
    await writeAtomic(settings.trajectory!, encodeApng(film.frames()));
    written.push(['film', settings.trajectory!]);
  }
  return written;
}
