// The sinusoidal timestep embedding, and embeddings that are learnt, against their float64 twins.
import * as assert from 'uvu/assert';
import { threads } from '../../src/autograd.ts';
import * as k from '../../src/gpu/kernels.gen.ts';
import { embedding as embed, type EmbeddingOptions, frequencies, placeFrequencies, timestepEmbedding } from '../../src/ops/embedding.ts';
import { add } from '../../src/ops/pointwise.ts';
import { abs, assertClose, bound } from '../helpers/close.ts';
import { destination, differentiate, gpuSuite, random, ULP, upload } from '../helpers/gpu.ts';
import * as learnt from '../ref/embedding.ts';
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

// ---------------------------------------------------------------------------------------------------------------- embeddings that are learnt
const table = gpuSuite('embedding');

/** Rows that are named once, often and never; an id past the end means the last row. */
const cases = [
  { K: 3, C: 5, ids: [2, 0, 0, 2, 2, 0, 2] },
  { K: 11, C: 12, ids: [10, 4, 4, 7, 99] },
  { K: 1, C: 1, ids: [0, 0, 0] },
  { K: 70, C: 33, ids: Array.from({ length: 129 }, (_, n) => (n * n) % 67) },
];
for (const { K, C, ids: list } of cases)
  table(`${K} rows of ${C}, ${list.length} ids`, async (engine) => {
    const ids = Uint32Array.from(list), N = ids.length, rows = random(K * C, 0), dy = random(N * C, 1), before = random(K * C, 2);
    const tids = upload(engine, [N], ids), weight = upload(engine, [K, C], rows);
    const { y, gradients } = await differentiate([weight], () => embed(tids, weight), dy);
    assert.equal([...y], [...learnt.embedding(rows, ids, K, C)], 'a copy is exact');
    const want = learnt.embeddingBackward(ids, dy, K, C), atol = bound(N, learnt.embeddingBackward(ids, abs(dy), K, C));
    assertClose(gradients[0], want, { atol, what: 'dtable' });
    for (let i = 0; i < K * C; i++) if (!list.some((id) => Math.min(id, K - 1) === Math.floor(i / C))) assert.is(gradients[0][i], 0, 'a row that no id names');
    const dtable = destination(engine, [K, C], before), tdy = upload(engine, [N, C], dy);
    engine.run(k.embedding_scatter, threads(K * C), { ids: tids.slice, dy: tdy.slice, dtable: dtable.slice, N, K, C, accumulate: 1 });
    const sum = want.map((v, i) => v + before[i]);
    assertClose(await dtable.read(), sum, { atol: atol.map((v, i) => v + bound(1, [Math.abs(sum[i])])[0]), what: 'dtable on top' });
  });

table('looked up twice, both gradients are summed', async (engine) => {
  const [a, b] = [Uint32Array.of(1, 0), Uint32Array.of(1, 1)], weight = upload(engine, [2, 3], random(6, 0)), dy = random(6, 1);
  const [ta, tb] = [upload(engine, [2], a), upload(engine, [2], b)];
  const { gradients } = await differentiate([weight], () => add(embed(ta, weight), embed(tb, weight)), dy);
  const [one, two] = [a, b].map((ids) => learnt.embeddingBackward(ids, dy, 2, 3));
  assertClose(gradients[0], one.map((v, i) => v + two[i]), { atol: bound(4, one.map((v, i) => Math.abs(v) + Math.abs(two[i]))), what: 'dtable' });
});
table.run();
