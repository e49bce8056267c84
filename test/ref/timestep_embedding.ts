// Float64 twin of diffusers' get_timestep_embedding: sines and cosines of t at geometric frequencies.

export interface TimestepEmbedding {
  flipSinToCos?: boolean; // [cos | sin] instead of [sin | cos]
  downscaleFreqShift?: number;
  maxPeriod?: number;
}

/** t (N) → (N,dim); an odd dim ends in a zero. The defaults are those of the function, which are DDPM's, not UNet2DModel's. */
export function timestepEmbedding(t: ArrayLike<number>, dim: number, options: TimestepEmbedding = {}): Float64Array {
  const { flipSinToCos = false, downscaleFreqShift = 1, maxPeriod = 10000 } = options;
  const half = Math.floor(dim / 2), out = new Float64Array(t.length * dim);
  for (let n = 0; n < t.length; n++)
    for (let i = 0; i < half; i++) {
      const angle = t[n] * Math.exp((-Math.log(maxPeriod) * i) / (half - downscaleFreqShift));
      out[n * dim + i] = flipSinToCos ? Math.cos(angle) : Math.sin(angle);
      out[n * dim + half + i] = flipSinToCos ? Math.sin(angle) : Math.cos(angle);
    }
  return out;
}
