// The figures of eval: Fréchet distance, precision and recall of images against a data set, whose statistics are kept for the next time.

import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Dataset } from '../data/dataset.ts';
import { DdpmError } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import { readFileOr, writeAtomic } from '../io/files.ts';
import type { Extractor, Images } from '../quality/extractor.ts';
import { type Features, frechetDistance, type Statistics, statistics } from '../quality/frechet.ts';
import { precisionRecallOnDevice } from '../quality/precision_recall_device.ts';
import { readStatistics, statisticsFile } from '../quality/statistics_file.ts';
import { say } from './command.ts';
import { firstImages } from './eval-images.ts';
import { Bar } from './progress.ts';

/** Precision and recall look at every pair of images: two minutes of a core for 10,000, and the literature takes 10,000 to 50,000. */
const MOST = 10_000;
const NEIGHBOURS = 3;

export interface Figures {
  readonly frechet_distance: number;
  readonly precision?: number;
  readonly recall?: number;
}

/** What images are compared with: a data set, or statistics of one that somebody else computed. */
export type Real = { readonly data: Dataset; readonly split: string; readonly folder: string } | { readonly file: string };

type Shape = Pick<Images, 'height' | 'width' | 'channels'>;

/** @throws DdpmError E-SHAPE for images of another size than the data set's */
export function requireShape(images: Shape, data: Dataset): void {
  const shape = ({ height, width, channels }: Shape): string => `${height}×${width}×${channels}`;
  if (shape(images) !== shape(data)) throw new DdpmError('E-SHAPE', `the images are ${shape(images)} and those of ${data.name} are ${shape(data)}. Name the data that the model was trained on with --data.`);
}

/** What images will be compared with: read, as kept, or computed. */
export const statisticsOf = async (real: Real, extractor: Extractor): Promise<Statistics> => ('file' in real ? readStatistics(await readFileOr(real.file), real.file) : dataStatistics(real, extractor));

export async function measure(engine: Engine, images: Images, real: Real, known: Statistics, extractor: Extractor): Promise<{ figures: Figures; protocol: Record<string, string | number> }> {
  if ('data' in real) requireShape(images, real.data);
  const own = await extract(extractor, images), protocol = { images: images.count, features: extractor.protocol };
  const start = performance.now(), distance = frechetDistance(statistics(own), known);
  say('distance', `${((performance.now() - start) / 1000).toFixed(1)} s`);
  if ('file' in real) return { figures: { frechet_distance: distance }, protocol: { ...protocol, real: real.file } };
  const { data } = real;
  const pairs = Math.min(images.count, data.count, MOST);
  const described = { ...protocol, real: `${data.name}, ${real.split} split`, real_images: data.count };
  if (pairs <= NEIGHBOURS) return { figures: { frechet_distance: distance }, protocol: described };
  const few = own.count === pairs ? own : { ...own, count: pairs, data: own.data.subarray(0, pairs * own.width) };
  const others = await extract(extractor, firstImages(data, pairs));
  const bar = new Bar(1), { recomputed, ...manifold } = await precisionRecallOnDevice(engine, few, others, NEIGHBOURS, (done) => bar.draw(done));
  say('nearest', `${bar.clear()}; ${(100 * recomputed).toPrecision(2)} % of the pairs in float64`);
  return { figures: { frechet_distance: distance, ...manifold }, protocol: { ...described, precision_and_recall: `first ${pairs} images of both, k = ${NEIGHBOURS}` } };
}

async function extract(extractor: Extractor, images: Images): Promise<Features> {
  const bar = new Bar(images.count), features = await extractor.features(images, (done) => bar.draw(done));
  say('features', `${images.count} images in ${bar.clear()}`);
  return features;
}

/** Statistics of real images, from the file that an earlier measurement left. Its name says what they depend on, the content of images and weights included. */
async function dataStatistics({ data, split, folder }: { data: Dataset; split: string; folder: string }, extractor: Extractor): Promise<Statistics> {
  const hash = createHash('sha256').update(data.pixels).digest('hex').slice(0, 12);
  const path = join(folder, `${data.name.replace(/[^\w.-]+/g, '-')}-${split}-${data.count}-${hash}-${extractor.key}.npz`);
  // They can be computed again: neither a damaged file nor a full disk is a reason to end.
  const refused = (error: unknown): string => {
    if (!(error instanceof DdpmError && error.code === 'E-FILE')) throw error;
    return error.message;
  };
  if (existsSync(path)) {
    try {
      const kept = readStatistics(await readFileOr(path), path);
      say('real', `statistics of ${path}`);
      return kept;
    } catch (error) {
      say('warning', `the statistics are computed again: ${refused(error)}`);
    }
  }
  const computed = statistics(await extract(extractor, data));
  await writeAtomic(path, statisticsFile(computed)).then(() => say('real', `statistics kept in ${path}`), (error: unknown) => say('warning', `the statistics are not kept: ${refused(error)}`));
  return computed;
}
