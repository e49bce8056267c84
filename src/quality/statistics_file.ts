// Statistics of a set of images as pytorch-fid and others keep them: an .npz file with mu and sigma.

import { DdpmError } from '../errors.ts';
import { npzChunks, readNpz } from '../io/npz.ts';
import type { NpyArray } from '../io/npy.ts';
import type { Statistics } from './frechet.ts';

/** An .npz file with mu (width) and sigma (width, width) as float64. */
export const statisticsFile = ({ width, mu, sigma }: Statistics): Uint8Array[] =>
  npzChunks([['mu', { shape: [width], data: mu as Float64Array<ArrayBuffer> }], ['sigma', { shape: [width, width], data: sigma as Float64Array<ArrayBuffer> }]]);

/**
 * Reads mu and sigma, of either precision; other entries are passed over.
 *
 * @throws DdpmError E-FILE where they are missing, do not go together or are not floating point
 */
export function readStatistics(bytes: Uint8Array, name: string): Statistics {
  const arrays = readNpz(bytes, name, ['mu', 'sigma']);
  const get = (key: string): NpyArray => {
    const array = arrays.get(key);
    if (!array) throw new DdpmError('E-FILE', `${name} has no array ${key}; statistics are mu and sigma, as pytorch-fid saves them.`);
    if (!(array.data instanceof Float64Array || array.data instanceof Float32Array)) throw new DdpmError('E-FILE', `${key} in ${name} holds integers; it must be floating point.`);
    return array;
  };
  const mu = get('mu'), sigma = get('sigma'), width = mu.shape[0] ?? 0;
  if (mu.shape.length !== 1 || sigma.shape.join() !== `${width},${width}`)
    throw new DdpmError('E-FILE', `mu (${mu.shape.join(', ')}) and sigma (${sigma.shape.join(', ')}) in ${name} do not go together.`);
  return { width, mu: Float64Array.from(mu.data as Float64Array), sigma: Float64Array.from(sigma.data as Float64Array) };
}
