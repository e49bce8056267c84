// The sinusoidal timestep embedding against its float64 twin.
import * as assert from 'uvu/assert';
import { type EmbeddingOptions, frequencies, placeFrequencies, timestepEmbedding } from '../../src/ops/embedding.ts';
import { assertClose } from '../helpers/close.ts';
import { gpuSuite, ULP, upload } from '../helpers/gpu.ts';
import * as twin from '../ref/timestep_embedding.ts';

const embedding = gpuSuite('timestep embedding');

for (const [size, flipSinToCos, freqShift] of [[16, false, 1], [16, true, 0], [9, false, 1], [7, true, 0], [128, false, 1], [256, true, 0]] as const)
  embedding(`size ${size}, ${flipSinToCos ? 'cos first' : 'sin first'}, shift ${freqShift}`, async (engine) => {
    const options: EmbeddingOptions = { size, flipSinToCos, freqShift };
    // Sines of large arguments are where implementations part: every t below 4096 must do.
    const t = Uint32Array.of(0, 1, 2, 10, 499, 500, 998, 999, 1000, 2047, 4001, 4095), half = Math.floor(size / 2);
    const want = twin.timestepEmbedding(t, size, { flipSinToCos, downscaleFreqShift: freqShift });
    const y = await timestepEmbedding(upload(engine, [t.length], t), placeFrequencies(engine, options), options).read();
    // In turns: two numbers below 1 are added (2^-24), and the low part has 24 bits of what the high part's 12 left (2^-36 t f). Then three roundings of a sine.
    const atol = want.map((_, i) => {
      const column = i % size % half, f = Math.exp((-Math.log(10000) * column) / (half - freqShift));
      return i % size === 2 * half ? 0 : 2 * Math.PI * 2 ** -24 + t[Math.floor(i / size)] * f * 2 ** -36 + 2 * ULP;
    });
    assertClose(y, want, { atol, what: 'y' });
  });

embedding('the high part of every frequency has 12 bits', () => {
  const pairs = frequencies({ size: 64, flipSinToCos: false, freqShift: 1 });
  const bits = new Uint32Array(pairs.buffer);
  for (let i = 0; i < 32; i++) {
    assert.is(bits[2 * i] & 0xfff, 0, `frequency ${i}`);
    const f = Math.exp((-Math.log(10000) * i) / 31) / (2 * Math.PI);
    assert.ok(Math.abs(pairs[2 * i] + pairs[2 * i + 1] - f) <= f * 2 ** -36);
  }
});
embedding.run();
