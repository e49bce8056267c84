// --from, --interpolate, --inpaint and --invert: pictures that show what was given beside what was made of it.

import type { SamplerOptions } from '../diffusion/sampler.ts';
import { samplerTable, visitedTimesteps } from '../diffusion/samplers/table.ts';
import { edit } from '../diffusion/uses/edit.ts';
import { fromStrength } from '../diffusion/uses/encode.ts';
import { inpaint, repaintPath, repeatMask } from '../diffusion/uses/inpaint.ts';
import { interpolate, interpolateLatents } from '../diffusion/uses/interpolate.ts';
import { invert, type InvertOptions } from '../diffusion/uses/invert.ts';
import { DdpmError } from '../errors.ts';
import { captionedGrid, type Cell } from '../io/caption.ts';
import { type Picture, toBytes } from '../io/picture.ts';
import { withSampling } from '../io/scheduler.ts';
import { say, scaleOf } from './command.ts';
import { readImages, readMask } from './sample-inputs.ts';
import { count, imageOf, joined, type Ready, repeated, withNetwork } from './sample-ready.ts';
import type { ImageShape } from './sampling.ts';

/** Versions of each image, unless --n says otherwise. */
const VERSIONS = 6;

/** Pictures of a set with one caption. */
const cells = (set: Float32Array, image: ImageShape, caption: (n: number) => string): Cell[] =>
  Array.from({ length: set.length / (image[0] * image[1] * image[2]) }, (_, n) => ({ image: toBytes(imageOf(set, n, image)), caption: caption(n) }));

const grid = (all: readonly (Cell | null)[], image: ImageShape, columns: number): Picture => captionedGrid(all, image, columns, { scale: scaleOf(image) });

/** How often a sampler with these timesteps asks the network. */
const evaluations = ({ placed: { diffusion }, options }: Ready, timesteps: readonly number[]): number =>
  samplerTable(diffusion.schedule, diffusion.prediction, { ...options, steps: timesteps.length, timesteps }).rows.length;

/** A row for each image: itself, with noise, and versions of it. */
export async function editing(ready: Ready, names: string): Promise<Picture> {
  const { placed, settings, options } = ready, image = ready.image(), { diffusion } = placed, each = count(ready, VERSIONS);
  const given = await readImages(names, '--from', image, placed, settings.data), starts = repeated(given.images, each, image), N = given.names.length * each;
  const strength = settings.strength ?? 0.6, steps = fromStrength(visitedTimesteps(diffusion.schedule, options), strength);
  return withNetwork(ready, N, evaluations(ready, steps), `${each} versions of ${given.names.join(', ')} from t = ${steps[0]} (strength ${strength})`, async ({ network, batches }) => {
    const { images, noised, t } = await edit(network.model, diffusion, starts, [N, ...image], { ...options, seed: settings.seed, strength, ...batches });
    const all = given.names.flatMap((name, i) => [
      ...cells(imageOf(given.images, i, image), image, () => label(name)),
      ...cells(imageOf(noised, i * each, image), image, () => `t=${t}`),
      ...cells(joined(Array.from({ length: each }, (_, j) => imageOf(images, i * each + j, image))), image, () => ''),
    ]);
    return grid(all, image, each + 2);
  });
}

/** Two rows between a and b: through x_t with one noise, and through DDIM's latents. */
export async function interpolating(ready: Ready, names: string): Promise<Picture> {
  const { placed, settings, options } = ready, image = ready.image(), { diffusion } = placed, n = count(ready, 8);
  const { names: two, images } = await readImages(names, '--interpolate', image, placed, settings.data);
  if (two.length !== 2) throw new DdpmError('E-USAGE', `--interpolate takes two images with a comma between them, such as --interpolate 12,97 or a.png,b.png; it got ${two.length}.`);
  const ends = [imageOf(images, 0, image), imageOf(images, 1, image)] as const, strength = settings.strength ?? 0.5;
  const steps = fromStrength(visitedTimesteps(diffusion.schedule, options), strength), walk = ddimSteps(ready), shape = [n, ...image] as const;
  return withNetwork(ready, n, evaluations(ready, steps) + 2 * ddimCount(ready, walk), `${two.join(' to ')} from t = ${steps[0]} (strength ${strength}) and through latents`, async ({ network, batches }) => {
    const through = await interpolate(network.model, diffusion, ends, shape, { ...options, seed: settings.seed, strength, ...batches });
    const latents = await interpolateLatents(network.model, diffusion, ends, shape, { ...walk, ...batches });
    const row = (set: Float32Array, caption: string): Cell[] => [
      ...cells(ends[0], image, () => label(two[0]!)), ...cells(set, image, (i) => `${caption} ${(i / (n - 1)).toFixed(2)}`), ...cells(ends[1], image, () => label(two[1]!)),
    ];
    return grid([...row(through, `t=${steps[0]}`), ...row(latents, 'ARC')], image, n + 2);
  });
}

/** A row for each image: itself, what is left of it, and versions of it. */
export async function inpainting(ready: Ready, names: string): Promise<Picture> {
  const { placed, settings, options } = ready, image = ready.image(), { diffusion } = placed, each = count(ready, VERSIONS), [height, width, channels] = image;
  if (settings.mask === null) throw new DdpmError('E-USAGE', `--inpaint needs a mask: --mask FILE.png, white where to paint, or a box --mask x,y,width,height, such as --mask 0,0,${Math.floor(width / 2)},${height}.`);
  const { names: list, images } = await readImages(names, '--inpaint', image, placed, settings.data), mask = await readMask(settings.mask, image), N = list.length * each;
  // The default is for long chains; what is asked for is taken as it is, or refused.
  const jumpLength = ready.given.has('jumpLength') ? settings.jumpLength : Math.min(settings.jumpLength, Math.max(1, options.steps - 1));
  const { resamples } = settings, total = repaintPath(options.steps, jumpLength, resamples).length;
  return withNetwork(ready, N, total, `${each} versions of ${list.join(', ')}, ${total} evaluations with ${resamples} ${resamples === 1 ? 'pass' : 'passes'}`, async ({ network, batches }) => {
    const painted = await inpaint(network.model, diffusion, repeated(images, each, image), repeatMask(mask, N), [N, ...image], { ...options, seed: settings.seed, jumpLength, resamples, ...batches });
    const open = images.map((v, i) => (mask[Math.floor(i / channels) % (height * width)] ? 0 : v)); // grey where to paint
    const all = list.flatMap((name, i) => [
      ...cells(imageOf(images, i, image), image, () => label(name)), ...cells(imageOf(open, i, image), image, () => 'KNOWN'),
      ...cells(joined(Array.from({ length: each }, (_, j) => imageOf(painted, i * each + j, image))), image, () => ''),
    ]);
    return grid(all, image, each + 2);
  });
}

/** A row for each image: itself, its latent, what comes back, and the difference, four times as large. */
export async function inverting(ready: Ready, names: string): Promise<Picture> {
  const { placed, settings } = ready, image = ready.image(), { diffusion } = placed, { names: list, images } = await readImages(names, '--invert', image, placed, settings.data), N = list.length;
  const walk = ddimSteps(ready);
  return withNetwork(ready, N, 2 * ddimCount(ready, walk), `up and down again without noise or clipping`, async ({ network, batches }) => {
    const { latents, images: back, errors } = await invert(network.model, diffusion, images, [N, ...image], { ...walk, ...batches });
    errors.forEach((error, i) => process.stdout.write(`error    ${list[i]}  rms ${(127.5 * error).toFixed(2)} of 255, ${(-20 * Math.log10(error / 2)).toFixed(1)} dB\n`));
    const difference = back.map((v, i) => 4 * (v - images[i]!));
    const all = list.flatMap((name, i) => [
      ...cells(imageOf(images, i, image), image, () => label(name)), ...cells(imageOf(latents, i, image), image, () => 'LATENT'),
      ...cells(imageOf(back, i, image), image, () => 'BACK'), ...cells(imageOf(difference, i, image), image, () => '4 DIFF'),
    ]);
    return grid(all, image, 4);
  });
}

/** DDIM's walk up and down: the timesteps that were asked for, if it was for ddim; otherwise as many as ddim takes, as the scheduler has them. */
function ddimSteps({ options, settings, placed: { model } }: Ready): InvertOptions {
  const { steps, spacing, timesteps, stepsOffset, setAlphaToOne } = options.method === 'ddim' ? options : withSampling<SamplerOptions>({ method: 'ddim' }, model.scheduler);
  if (options.method === 'ddim' && settings.eta > 0) say('note', 'the walk through latents draws no noise: it does not use --eta');
  const visited = timesteps ? { timesteps } : { ...(steps !== undefined && { steps }), ...(spacing && { spacing }), ...(stepsOffset !== undefined && { stepsOffset }) };
  return { ...visited, ...(setAlphaToOne !== undefined && { setAlphaToOne }) };
}

const ddimCount = ({ placed }: Ready, walk: InvertOptions): number => visitedTimesteps(placed.diffusion.schedule, { ...walk, method: 'ddim' }).length;

/** A name as a caption: a number in the data set, or the end of a file's name. */
const label = (name: string): string => (/^\d+$/.test(name) ? `NO ${name}` : name.replace(/^.*[\\/]/, '').replace(/\.png$/i, '').toUpperCase());

