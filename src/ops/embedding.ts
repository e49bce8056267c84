// The sinusoidal timestep embedding, as diffusers' get_timestep_embedding, and embeddings that are learnt.
import { record, threads } from '../autograd.ts';
import type { Engine } from '../gpu/engine.ts';
import * as k from '../gpu/kernels.gen.ts';
import { requireShapes, Tensor } from '../tensor.ts';

/** A sinusoidal timestep embedding of `size` values (Vaswani et al., 2017, section 3.5), in diffusers' terms. */
export interface EmbeddingOptions {
  readonly size: number;
  /** cos before sin. */
  readonly flipSinToCos: boolean;
  /** Subtracted from the number of frequencies: 1 for DDPM. */
  readonly freqShift: number;
}

/** f_i / 2 pi as pairs (high, low) of float32: high has 12 bits, so that t * high is exact for every t below 4096. */
export function frequencies({ size, freqShift }: EmbeddingOptions): Float32Array {
  const half = Math.floor(size / 2);
  const pairs = new Float32Array(2 * half);
  for (let i = 0; i < half; i++) {
    const f = Math.exp((-Math.log(10000) * i) / (half - freqShift)) / (2 * Math.PI);
    const unit = 2 ** (Math.ceil(Math.log2(f)) - 12);
    pairs[2 * i] = Math.round(f / unit) * unit;
    pairs[2 * i + 1] = f - pairs[2 * i]!;
  }
  return pairs;
}

/** Uploads the frequencies once; a model keeps the result. */
export const placeFrequencies = (engine: Engine, options: EmbeddingOptions): Tensor => Tensor.from(engine, [Math.floor(options.size / 2), 2], frequencies(options));

/** t (N) uint32 -> (N, size): sines and cosines of t times each frequency, of placeFrequencies with the same options. No gradient. */
export function timestepEmbedding(t: Tensor, freq: Tensor, { size, flipSinToCos }: EmbeddingOptions): Tensor {
  const N = t.size;
  requireShapes(freq.shape.join() === `${Math.floor(size / 2)},2`, 'timestepEmbedding', `frequencies (${Math.floor(size / 2)}, 2), those of placeFrequencies for this size`, { freq });
  const y = Tensor.empty(t.engine, [N, size]);
  t.engine.run(k.timestep_embedding, threads(y.size), { t: t.slice, freq: freq.slice, y: y.slice, N, half: Math.floor(size / 2), size, flip: Number(flipSinToCos) });
  return y;
}

/** table (K, C), ids (N, uint32) -> (N, C): row ids[n] of the table. An id past the end reads the last row. */
export function embedding(ids: Tensor, table: Tensor): Tensor {
  const { engine } = table;
  requireShapes(table.shape.length === 2, 'embedding', 'a table (K, C)', { table });
  const N = ids.size, [K, C] = table.shape as [number, number];
  const y = Tensor.empty(engine, [N, C]);
  engine.run(k.embedding_gather, threads(N * C), { table: table.slice, ids: ids.slice, y: y.slice, N, K, C });
  return record(y, [table], (dy, [dtable]) =>
    dtable && engine.run(k.embedding_scatter, threads(K * C), { ids: ids.slice, dy, dtable: dtable.slice, N, K, C, accumulate: dtable.accumulate }));
}
