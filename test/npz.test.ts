// NumPy's files: read as numpy wrote them, written as numpy reads them, damaged in every way; and the figures of test/golden/quality.py.
import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type NpyArray, readNpy, writeNpy } from '../src/io/npy.ts';
import { npzChunks, readNpz } from '../src/io/npz.ts';
import { frechetDistance, statistics } from '../src/quality/frechet.ts';
import { precisionRecall } from '../src/quality/precision_recall.ts';
import { readStatistics, statisticsFile } from '../src/quality/statistics_file.ts';
import { assertClose } from './helpers/close.ts';
import { assertError } from './helpers/gpu.ts';

const golden = (name: string): Uint8Array => new Uint8Array(readFileSync(new URL(`./golden/${name}`, import.meta.url)));
const join = (chunks: Uint8Array[]): Uint8Array => Uint8Array.from(chunks.flatMap((chunk) => [...chunk]));

const npy = suite('.npy');

/** A file as numpy writes it, of any header. */
function file(header: string, body: Uint8Array = new Uint8Array(), version = 1): Uint8Array {
  const text = header.padEnd(128 - (version === 1 ? 11 : 13)) + '\n', bytes = [0x93, ...Buffer.from('NUMPY'), version, 0];
  const length = version === 1 ? [text.length & 255, text.length >> 8] : [text.length & 255, text.length >> 8, 0, 0];
  return Uint8Array.from([...bytes, ...length, ...Buffer.from(text), ...body]);
}

npy('every type and rank comes back', () => {
  const arrays: NpyArray[] = [
    { shape: [2, 3], data: Float64Array.of(1, -2, 5e-324, Infinity, 1e300, 6) }, { shape: [3], data: Float32Array.of(1, 2, 0.1) }, { shape: [], data: Uint8Array.of(255) },
    { shape: [1, 1, 2, 1], data: Int8Array.of(-128, 127) }, { shape: [2], data: Uint16Array.of(1, 65535) }, { shape: [2], data: Int16Array.of(-32768, 1) },
    { shape: [0, 7], data: Uint32Array.of() }, { shape: [1], data: Int32Array.of(-5) }, { shape: [1], data: BigInt64Array.of(-(2n ** 63n)) }, { shape: [1], data: BigUint64Array.of(2n ** 64n - 1n) },
  ];
  for (const array of arrays) assert.equal(readNpy(writeNpy(array), 'x.npy'), array);
});

npy('bytes are those of numpy.save', () => {
  const bytes = writeNpy({ shape: [3], data: Float32Array.of(1, 2, 3) });
  assert.is(Buffer.from(bytes.subarray(0, 128)).toString('latin1'), `\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }${' '.repeat(60)}\n`);
  assert.is(bytes.length, 140);
});

npy("Fortran's order, version 2, bytes that are not aligned, numbers of old Pythons", () => {
  const body = new Uint8Array(Float32Array.of(1, 4, 2, 5, 3, 6).buffer), header = "{'descr': '<f4', 'fortran_order': True, 'shape': (2L, 3L), }";
  const want = { shape: [2, 3], data: Float32Array.of(1, 2, 3, 4, 5, 6) };
  for (const version of [1, 2]) assert.equal(readNpy(file(header, body, version), 'x.npy'), want);
  const shifted = new Uint8Array([0, ...writeNpy(want)]).subarray(1);
  assert.equal(readNpy(shifted, 'x.npy'), want);
});

npy('refuses what it cannot read, by name', async () => {
  const good = writeNpy({ shape: [2], data: Float32Array.of(1, 2) });
  for (const [bytes, message] of [
    [new Uint8Array(), /an empty file/],
    [Uint8Array.from(Buffer.from('<html><body>not found</body></html>')), /x\.npy cannot be read .* HTML/],
    [good.subarray(0, 40), /header ends at byte 128 and the file at 40/],
    [good.subarray(0, 134), /2 values of <f4 take 8 bytes, and 6 follow/],
    [Uint8Array.from([...good, 0]), /and 9 follow/],
    [file("{'descr': '>f4', 'fortran_order': False, 'shape': (0,), }"), /values are >f4/],
    [file("{'descr': '|O', 'fortran_order': False, 'shape': (0,), }"), /values are \|O/],
    [file("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (0,), }"), /no plain type/],
    [file("{'descr': '<f4', 'shape': (0,), }"), /does not say its order/],
    [file("{'descr': '<f4', 'fortran_order': False, }"), /no shape/],
  ] as const) await assertError(() => readNpy(bytes, 'x.npy'), 'E-FILE', message);
});
npy.run();

const npz = suite('.npz');
const some: [string, NpyArray][] = [['mu', { shape: [2], data: Float64Array.of(1, 2) }], ['größe', { shape: [1], data: Uint8Array.of(7) }]];

npz('comes back, the same bytes every time, and only what is wanted', () => {
  const bytes = join(npzChunks(some));
  assert.equal([...readNpz(bytes, 'x.npz')], some);
  assert.equal(join(npzChunks(some)), bytes);
  assert.equal([...readNpz(bytes, 'x.npz', ['mu']).keys()], ['mu']);
  assert.equal([...readNpz(join(npzChunks([])), 'x.npz')], []);
});

npz('as numpy wrote it: stored, deflated, in Fortran\'s order', () => {
  const all = readNpz(golden('quality.npz'), 'quality.npz');
  assert.equal(all.get('real')!.shape, [61, 10]);
  assert.equal(all.get('frechet')!.shape, []);
  const { mu, sigma, width } = readStatistics(golden('quality-statistics.npz'), 'quality-statistics.npz');
  assert.is(width, 10);
  assert.equal([mu, sigma], [all.get('mu_real')!.data, all.get('sigma_real')!.data]);
});

npz('refuses what is damaged', async () => {
  const bytes = join(npzChunks(some)), deflated = golden('quality-statistics.npz');
  const changed = (of: Uint8Array, at: number, value: number): Uint8Array => of.map((byte, i) => (i === at ? value : byte));
  const directory = bytes.length - 22 - bytes.subarray(bytes.length - 10)[0] - 256 * bytes.subarray(bytes.length - 9)[0];
  for (const [damaged, message] of [
    [new Uint8Array(), /x\.npz cannot be read as \.npz: it is no complete zip archive; it looks like an empty file/],
    [bytes.subarray(0, bytes.length - 30), /no complete zip archive/],
    [changed(bytes, 170, 9), /mu\.npy is damaged: its checksum/],
    [changed(bytes, 0, 0), /mu\.npy is not where the directory says/],
    [changed(bytes, directory, 0), /its directory is damaged/],
    [changed(bytes, directory + 8, 1), /mu\.npy is encrypted/],
    [changed(bytes, directory + 10, 12), /packed by method 12/],
    [changed(deflated, 80, deflated[80]! ^ 255), /does not unpack|checksum/],
  ] as const) await assertError(() => readNpz(damaged, 'x.npz'), 'E-FILE', message);
});

npz('statistics: written for pytorch-fid, read from it, checked', async () => {
  const { data, shape } = readNpz(golden('quality.npz'), 'quality.npz').get('generated')!;
  const own = statistics({ count: shape[0], width: shape[1], data: data as Float32Array });
  assert.equal(readStatistics(join(statisticsFile(own)), 'x.npz'), own);
  const f4 = (values: number[], ...sizes: number[]): NpyArray => ({ shape: sizes, data: Float32Array.from(values) });
  assert.equal(readStatistics(join(npzChunks([['mu', f4([0.5], 1)], ['sigma', f4([2], 1, 1)]])), 'x'), { width: 1, mu: Float64Array.of(0.5), sigma: Float64Array.of(2) });
  for (const [arrays, message] of [
    [[['mu', f4([1], 1)]], /x has no array sigma/],
    [[['mu', f4([1], 1)], ['sigma', f4([1, 2, 3, 4], 2, 2)]], /mu \(1\) and sigma \(2, 2\) in x do not go together/],
    [[['mu', { shape: [1], data: Int32Array.of(1) }], ['sigma', f4([1], 1, 1)]], /holds integers/],
  ] as const) await assertError(() => readStatistics(join(npzChunks(arrays as unknown as [string, NpyArray][])), 'x'), 'E-FILE', message);
});

npz("figures are numpy's", () => {
  const all = readNpz(golden('quality.npz'), 'quality.npz');
  const set = (name: string) => ({ count: all.get(name)!.shape[0], width: all.get(name)!.shape[1], data: all.get(name)!.data as Float32Array });
  const number = (name: string): number => all.get(name)!.data[0] as number;
  const [real, generated] = [statistics(set('real')), statistics(set('generated'))];
  for (const [got, name] of [[real, 'real'], [generated, 'generated']] as const) {
    assertClose(got.mu, all.get(`mu_${name}`)!.data as Float64Array, { atol: 1e-15, rtol: 1e-14, what: `mu of ${name}` });
    assertClose(got.sigma, all.get(`sigma_${name}`)!.data as Float64Array, { atol: 1e-13, rtol: 1e-13, what: `sigma of ${name}` });
  }
  assertClose([frechetDistance(real, generated)], [number('frechet')], { rtol: 1e-12, what: 'Fréchet distance' });
  assert.equal(precisionRecall(set('generated'), set('real')), { precision: number('precision'), recall: number('recall') });
  assert.ok(number('precision') > 0.2 && number('precision') < 1 && number('recall') > 0.2 && number('recall') < 1);
});
npz.run();
