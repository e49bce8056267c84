// eval --nll: the variational bound of real images under a model, in bits a dimension, with its curve by t as JSON and PNG.

import { join } from 'node:path';
import type { Dataset } from '../data/dataset.ts';
import { Likelihood } from '../diffusion/likelihood.ts';
import { DdpmError } from '../errors.ts';
import { requireWritable, writeAtomic } from '../io/files.ts';
import { plotLogarithmic } from '../io/plot.ts';
import { encodePng } from '../io/png.ts';
import type { Clip } from '../ops/clip.ts';
import { Tensor } from '../tensor.ts';
import type { Parsed } from './flags.ts';
import { classRows, forwardOf, imageChannels } from './network.ts';
import { Bar, showCompiling } from './progress.ts';
import { BATCH, chainTimesteps, type PlacedModel } from './sampling.ts';
import type { EVAL } from './settings.ts';

/** Images measured unless --n says how many: all timesteps of each take a while. */
const IMAGES = 64;

export interface Measurement {
  /** What is printed and kept: numbers by name. */
  readonly figures: Readonly<Record<string, number>>;
  readonly protocol: Readonly<Record<string, string | number>>;
  /** The mean term at every t of the chain, rising, and what the network is told there. */
  readonly byT: readonly number[];
  readonly timesteps: readonly number[];
}

export interface LikelihoodSettings {
  readonly n: number;
  readonly seed: number;
  readonly batchSize: number;
  readonly split: string;
  /** Those of a respaced chain; null is the chain that the model was trained on. */
  readonly timesteps?: readonly number[] | null;
}

/** Measures `n` images of the data, from the first. The batches are as even as they can be, since a plan has one size. */
export async function measureLikelihood({ unet, diffusion, model }: PlacedModel, data: Dataset, { n, seed, batchSize, split, timesteps = null }: LikelihoodSettings): Promise<Measurement> {
  const { height, width, channels, pixels } = data, size = height * width * channels, count = Math.min(n, data.count), T = timesteps?.length ?? diffusion.T;
  const { clipSample } = model.scheduler, own = imageChannels(unet, diffusion), forward = forwardOf(unet, own), rows = classRows(unet);
  if (channels !== own) throw new DdpmError('E-SHAPE', `the model takes ${own} channels, and the images of ${data.name} have ${channels}. Choose others with --data.`);
  const odd = rows && data.labels ? data.labels.subarray(0, count).findIndex((label) => label >= rows) : -1;
  if (odd >= 0) throw new DdpmError('E-DATA', `image ${odd} of ${data.name} is of class ${data.labels![odd]}, and the model knows the classes 0 to ${rows - 1}. Measure it on the data that it was trained on.`);
  const batch = Math.min(batchSize, count), totals = new Float64Array(count), byT = new Float64Array(T), prior = new Float64Array(count);
  // Each image with its own label, or with that of no class where the data have none. x_t has no step before it to be conditioned on.
  const labels = rows ? Tensor.empty(diffusion.engine, [batch]) : null, none = rows - 1;
  const likelihood = new Likelihood((x, t) => forward(x, t, null, labels), diffusion, [batch, height, width, channels], { clipDenoised: clipSample, timesteps });
  await showCompiling((progress) => likelihood.compile(progress));
  const bar = new Bar(Math.ceil(count / batch) * T);
  for (let first = 0, done = 0; first < count; first += batch, done += T) {
    // The last batch goes over the first images again where they do not divide; those are left out.
    const x0 = Float32Array.from({ length: batch * size }, (_, i) => pixels[((first + Math.floor(i / size)) % count) * size + (i % size)]! / 127.5 - 1);
    labels?.engine.write(labels.slice, Uint32Array.from({ length: batch }, (_, i) => data.labels?.[(first + i) % count] ?? none));
    const bits = await likelihood.measure(x0, { seed, firstId: first, onTerm: (terms) => bar.draw(done + terms) });
    for (let i = 0; i < Math.min(batch, count - first); i++) {
      totals[first + i] = bits.total[i]!;
      prior[first + i] = bits.prior[i]!;
      for (let t = 0; t < T; t++) byT[t]! += bits.terms[t * batch + i]! / count;
    }
  }
  bar.clear();
  await likelihood.destroy();
  labels?.free();
  const mean = (values: Float64Array): number => values.reduce((a, b) => a + b, 0) / values.length, average = mean(totals);
  const deviation = Math.sqrt(totals.reduce((sum, v) => sum + (v - average) ** 2, 0) / Math.max(1, count - 1) / count);
  return {
    figures: { bits_per_dim: average, standard_error: deviation, L_T: mean(prior), L_1_to_T_minus_1: byT.reduce((a, b) => a + b, 0) - byT[0]!, L_0: byT[0]! },
    protocol: {
      weights: model.file, images: `the first ${count} of ${data.name}, ${split}, not mirrored`, timesteps: timesteps ? `${T} of ${diffusion.T}, ${brief(likelihood.timesteps)}; the bound of that chain, its betas recomputed` : T, predicts: diffusion.prediction, variance: diffusion.variance,
      noise: `one draw of each x_t, seed ${seed}`, ...(rows && { labels: data.labels ? 'those of the images' : 'none' }), decoder: '256 levels, tanh approximation of the normal distribution', x_0: describeClip(clipSample),
    },
    byT: Array.from(byT),
    timesteps: likelihood.timesteps,
  };
}

const describeClip = (clip: Clip): string =>
  clip === false ? 'not clipped' : typeof clip === 'object' ? `clipped to its quantile ${clip.ratio}, from 1 to ${clip.max}, and divided by it` : `clipped to [-${Number(clip)}, ${Number(clip)}]`;
const brief = (list: readonly number[]): string => (list.length < 6 ? list : [list[0], list[1], '…', list.at(-1)]).join(', ');

/** Measures, prints, and writes FILE.json and the curve beside it; returns what was written. */
export async function reportLikelihood(placed: PlacedModel, data: Dataset, { settings, given }: Parsed<typeof EVAL>, environment: object): Promise<Measurement> {
  const short = (['sampleSteps', 'spacing', 'timesteps'] as const).some((flag) => given.has(flag)) ? chainTimesteps(settings, given, placed.model.scheduler) : null;
  const path = settings.out ?? (placed.from && join(placed.from.run.path, short ? `nll-${short.length}.json` : 'nll.json'));
  if (!path) throw new DdpmError('E-USAGE', 'where shall the curve go? A model that is not of a run has no folder of its own: say it with --out FILE.json.');
  const options = { n: given.has('n') ? settings.n : IMAGES, seed: settings.seed, batchSize: settings.batchSize ?? BATCH, split: settings.split, timesteps: short };
  const picture = path.replace(/(\.json)?$/, '.png');
  for (const file of [path, picture]) await requireWritable(file);
  const measured = await measureLikelihood(placed, data, options);
  await writeAtomic(path, `${JSON.stringify({ ...measured.figures, protocol: measured.protocol, environment, bits_per_dim_by_t: measured.byT, ...(short && { timesteps: measured.timesteps }) }, null, 1)}\n`);
  await writeAtomic(picture, encodePng(plotLogarithmic(measured.byT, { xLabel: short ? `t of the ${short.length} timesteps` : 't', yLabel: 'bits/dim' })));
  const print = (name: string, value: string | number): void => void process.stdout.write(`${name.replaceAll('_', ' ').padEnd(22)}${value}\n`);
  for (const [name, value] of Object.entries(measured.protocol)) print(name, value);
  for (const [name, value] of Object.entries(measured.figures)) print(name === 'bits_per_dim' ? 'bits/dim, at most' : name, Number(value.toPrecision(5)));
  print('by t', path);
  print('curve', picture);
  return measured;
}
