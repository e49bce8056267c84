// The kernels as sources: all of them compile, the generator refuses what breaks its rules, and compiler errors name file and line.
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { build, expand, kernels, reflect } from '../kernels/build.ts';
import type { Kernel } from '../src/gpu/kernel.ts';
import * as generated from '../src/gpu/kernels.gen.ts';
import { type OpenedEngine, openEngine } from '../src/node.ts';
import { normal4, philox4x32, unit } from '../src/philox.ts';
import { Tensor } from '../src/tensor.ts';
import { assertClose } from './helpers/close.ts';
import { assertError, gpuSuite, normalError, random, readWords, upload } from './helpers/gpu.ts';

const all: Kernel[] = Object.values(generated);
/** Those that the engine takes by itself, in place of others. */
const halves = new Set(all.map((k) => k.half));
const root = fileURLToPath(new URL('..', import.meta.url));
const read = (path: string): string => readFileSync(`${root}/${path}`, 'utf8');

/** A kernel that is no file: made from WGSL as kernels/build.ts does. */
function kernel<B extends string, D extends string = never>(name: string, source: string) {
  const { bindings, overrides, optional, dims, features } = reflect(`${name}.wgsl`, source);
  return { name, features, bindings: bindings as Record<B, 'read' | 'read_write'>, overrides: overrides as Record<never, string>, optional: optional as Record<never, string>, dims: dims as Record<D, string>, wgsl: expand(source) };
}

// ------------------------------------------------------------------------------------------------------------------------- compilation
const compilation = suite('kernels compile');

/** Dawn's null backend checks a shader as every other does and computes nothing. One a test: an error makes an engine unusable. */
async function withNull(test: (opened: OpenedEngine) => Promise<void>): Promise<void> {
  const opened = await openEngine({ backend: 'null', precision: 'f16' });
  try {
    await test(opened);
  } finally {
    await opened.device.queue.onSubmittedWorkDone();
    opened.device.destroy();
  }
}

compilation('every kernel, with every value of its overrides that is used', () =>
  withNull(async ({ engine }) => {
    const fits = ({ workgroupBytes = 0 }: Kernel) => workgroupBytes <= engine.device.limits.maxComputeWorkgroupStorageSize;
    const compiled = all.filter((k) => fits(k) && k.features.every((feature) => engine.device.features.has(feature as GPUFeatureName)));
    // Those that need more workgroup memory than there is are left out (the null backend has the default), on default limits those that need subgroups, and no others.
    assert.equal(all.filter((k) => !compiled.includes(k)), all.filter((k) => !fits(k) || (process.env['DDPM_TEST_LIMITS'] === 'default' && k.features.some((feature) => feature.includes('subgroup')))));
    const variants: Record<string, number[]> = { WG: [8, 64, 256], TRANSPOSED: [0, 1], TRANS_A: [0, 1], TRANS_B: [0, 1], TWO: [0, 1], STRIDED: [0, 1], SPLIT: [0, 1], DROP: [0, 1], G: [4, 7, 8], Q: [4, 8, 16], R: [1, 2, 4, 8], COLUMNS: [1, 2, 4, 8], BESIDE: [0, 1], WIDE: [0, 1], ROWS: [4, 8, 16], GROUPS: [1, 4], COLS: [1, 4, 6], LANES: [1, 32], TILE: [64], BN: [16, 32, 64] };
    // TILE 128 needs more workgroup memory than the null backend has; the kernels for tensor cores with it are compiled where they are emulated (test/ops/precision.test.ts).
    for (const k of compiled) {
      assert.equal(Object.keys(k.overrides), [], `${k.name}: no override without a default`);
      const entries = [engine.pipelines.get(k, {})];
      for (const name in k.optional) {
        assert.ok(variants[name], `${k.name}: say here which values of ${name} are used`);
        for (const value of variants[name]) entries.push(engine.pipelines.get(k, { [name]: value }));
      }
      await engine.pipelines.ahead(entries);
      assert.ok(entries.every((e) => e.compiled));
    }
    assert.ok(engine.pipelines.count > compiled.length);
    await engine.finished();
  }));

compilation('within the default limits, apart from features', () =>
  withNull(async () => {
    const { engine, device } = await openEngine({ backend: 'null', defaultLimits: true, without: ['subgroups'] });
    assert.is(engine.subgroupWidth, 0);
    for (const k of all) {
      if (k.features.length) await assertError(() => engine.pipelines.get(k, {}), 'E-LIMIT', new RegExp(`${k.name} needs the device feature "${k.features[0]}"`));
      else if (k.workgroupBytes) await assertError(() => engine.pipelines.get(k, {}), 'E-LIMIT', new RegExp(`${k.name} needs ${k.workgroupBytes} bytes of workgroup memory; this device was opened with 16384`));
      else await engine.pipelines.ahead([engine.pipelines.get(k, {})]);
    }
    await engine.finished();
    device.destroy();
  }));

const broken = kernel<'y'>('broken', [
  '// y = no such thing',
  '// One invocation.',
  '@group(0) @binding(0) var<storage, read_write> y: array<f32>; // (1)',
  '@compute @workgroup_size(1)',
  'fn main() { y[0] = missing; }',
].join('\n'));

compilation('an error names the file, the line and what stands there', () =>
  withNull(async ({ engine }) => {
    const plan = engine.capture(() => {
      const y = Tensor.empty(engine, [1]);
      engine.run(broken, [1], { y: y.slice });
    });
    await assertError(() => plan.compile(), 'E-KERNEL', /kernels\/broken\.wgsl did not compile as broken\n +line 5:20 error: .*missing.*\n +fn main\(\) \{ y\[0\] = missing; \}/);
  }));

compilation('without compile() it comes at the next submit', () =>
  withNull(async ({ engine }) => {
    engine.run(broken, [1], { y: engine.allocate(4) });
    await assertError(
      async () => {
        await engine.finished();
        await new Promise((resolve) => setTimeout(resolve, 20)); // the event may come after the work
        await engine.finished();
      },
      'E-ENGINE',
      /broken|missing/,
    );
  }));

compilation('src/gpu/kernels.gen.ts is what npm run kernels makes', () => {
  assert.ok(build() === read('src/gpu/kernels.gen.ts'), 'run npm run kernels');
  const files = readdirSync(`${root}/kernels`).filter((f) => f.endsWith('.wgsl'));
  const [vec4, factors, stored, lanes] = (['values', 'operands', 'stored', 'subgroup_8'] as const).map((shared) => files.filter((f) => new RegExp(`^#import ${shared}$`, 'm').test(read(`kernels/${f}`))).map((f) => f.slice(0, -5)));
  assert.ok([vec4, factors, stored, lanes].every((names) => names.length > 0));
  const once = [...files.map((f) => f.slice(0, -5)), ...vec4.map((name) => `${name}_vec4`), ...factors.map((name) => `${name}_f16`), ...lanes.flatMap((name) => [`${name}_lanes4`, `${name}_lanes16`])];
  assert.equal(all.map((k) => k.name).sort(), [...once, ...stored.flatMap((name) => [`${name}_stored_f16`, ...(vec4.includes(name) ? [`${name}_vec4_stored_f16`] : [])])].sort());
});

/** The words and signs of WGSL, each with its line. */
function tokens(wgsl: string): string[] {
  const found: string[] = [];
  let line = 1;
  for (const [text] of wgsl.matchAll(/\/\/.*|\s+|[\w.]+|[^]/g)) {
    if (!/^(\/\/|\s)/.test(text)) found.push(`${line} ${text}`);
    line += text.split('\n').length - 1;
  }
  return found;
}

compilation('src/gpu/kernels.gen.ts has the code of the complete files, line by line, and none of their comments', () => {
  for (const { name, wgsl } of kernels()) {
    const { wgsl: code } = all.find((k) => k.name === name)!;
    assert.ok(wgsl.startsWith('// ') && !/\/\/| $/m.test(code), name);
    assert.is(code.split('\n').length, wgsl.split('\n').length, name);
    assert.equal(tokens(code), tokens(wgsl), name);
  }
});

compilation('every file of kernels/shared is in a kernel', () => {
  const complete = kernels();
  for (const file of readdirSync(`${root}/kernels/shared`)) assert.ok(complete.some(({ wgsl }) => wgsl.includes(read(`kernels/shared/${file}`).split('\n')[0])), `nobody imports ${file}`);
});

compilation('every kernel is run by the library or by a test of its own', () => {
  const sources = ['src', 'test'].flatMap((folder) =>
    readdirSync(`${root}/${folder}`, { recursive: true, encoding: 'utf8' })
      .filter((f) => f.endsWith('.ts') && !f.endsWith('.gen.ts') && !f.endsWith('kernels.test.ts'))
      .map((f) => read(`${folder}/${f}`)),
  );
  for (const { name } of all.filter((k) => !halves.has(k))) assert.ok(sources.some((text) => new RegExp(`\\bk\\.${name}\\b|import \\{[^}]*\\b${name}\\b[^}]*\\} from '[^']*kernels\\.gen`).test(text)), `nobody runs ${name}`);
});

compilation.run();

// ---------------------------------------------------------------------------------------------------------------------------- the rules
const rules = suite('kernels/build.ts');

const good = [
  '// y = a x',
  '// One invocation computes one value.',
  'override WG: u32 = 64u;',
  'override MODE: u32;',
  'struct Dims { count: u32, a: f32, first: i32 }',
  '@group(0) @binding(0) var<storage, read> x: array<f32>;       // (count)',
  '@group(0) @binding(1) var<storage, read_write> y: array<f32>; // (count)',
  '@group(0) @binding(2) var<uniform> dims: Dims;',
  '',
  '@compute @workgroup_size(WG)',
  'fn main(@builtin(global_invocation_id) id: vec3u) { y[id.x] = dims.a * x[id.x]; }',
  '',
];
const without = (line: number): string[] => good.toSpliced(line, 1);
const replaced = (line: number, text: string): string[] => good.toSpliced(line, 1, text);

rules('read the interface out of the WGSL', () => {
  assert.equal(reflect('good.wgsl', good.join('\n')), {
    bindings: { x: 'read', y: 'read_write' },
    overrides: { MODE: 'u32' },
    optional: { WG: 'u32' },
    dims: { count: 'u32', a: 'f32', first: 'i32' },
    features: [],
    f16: [],
    workgroupBytes: 0,
  });
  assert.is(reflect('good.wgsl', good.toSpliced(8, 0, 'var<workgroup> a: array<vec4f, 30>;', 'var<workgroup> b: array<f32, 5>;').join('\n')).workgroupBytes, 500);
  // What a type stands for, and what an import brings: `lanes` has WG numbers.
  assert.is(reflect('good.wgsl', good.toSpliced(8, 0, 'alias V = vec4f;', 'struct S { a: V, b: V }', 'var<workgroup> a: array<S, 3>;', '#import lanes').join('\n')).workgroupBytes, 96 + 256);
  assert.equal(reflect('good.wgsl', good.toSpliced(2, 0, 'enable subgroups;', 'enable f16;').join('\n')).features, ['subgroups', 'shader-f16']);
});

for (const [what, lines, message] of [
  ['no first comment', without(0), /the first line must be the mathematics/],
  ['one line of comment', without(1), /the second what an invocation/],
  ['a trailing space', replaced(4, `${good[4]} `), /no tabs and no trailing spaces/],
  ['a tab', replaced(10, `\t${good[10]}`), /no tabs/],
  ['no entry point', good.slice(0, 9), /exactly one entry point/],
  ['two entry points', [...good, '@compute @workgroup_size(1)', 'fn other() {}'], /exactly one entry point/],
  ['an entry point of another name', replaced(10, 'fn other() {}'), /called main/],
  ['bindings out of order', replaced(6, good[6].replace('binding(1)', 'binding(3)')), /binding y: group 0 only, numbered in order/],
  ['another group', replaced(5, good[5].replace('group(0)', 'group(1)')), /binding x: group 0 only/],
  ['a binding without its shape', replaced(5, good[5].split(' //')[0].trimEnd()), /binding x needs its shape as a comment/],
  ['an output before an input', replaced(5, good[5].replace('storage, read', 'storage, read_write')).toSpliced(6, 1, good[6].replace('read_write', 'read')), /binding y: inputs come before outputs/],
  ['a binding over two lines', replaced(5, '@group(0) @binding(0)\nvar<storage, read> x: array<f32>; // (count)'), /cannot read the binding/],
  ['another access', replaced(5, good[5].replace('storage, read', 'storage, write')), /"storage, write" is not a storage access/],
  ['a uniform of another name', replaced(7, good[7].replace('dims', 'settings')), /the one uniform is called dims/],
  ['a binding after dims', good.toSpliced(8, 0, '@group(0) @binding(3) var<storage, read_write> z: array<f32>; // (count)'), /dims comes last/],
  ['Dims that is never bound', without(7), /struct Dims and the uniform dims come together/],
  ['a feature that nobody knows', good.toSpliced(2, 0, 'enable primitive_index;'), /enable primitive_index: say in kernels\/build.ts/],
  ['workgroup memory of a type that nobody knows', good.toSpliced(8, 0, 'var<workgroup> a: array<vec3h, 5>;'), /workgroup memory of type vec3h: say in kernels\/build.ts/],
  ['a comment within a line', replaced(10, good[10].replace('= ', '= /* y */ ')), /a comment begins with \/\/ and ends with its line/],
  ['dims without a struct', without(4), /struct Dims and the uniform dims come together/],
] as const) {
  rules(`refuse ${what}`, () => {
    assert.throws(() => reflect('bad.wgsl', lines.join('\n')), (error: Error) => error.message.startsWith('kernels/bad.wgsl: ') && message.test(error.message));
  });
}

rules('expand an import once, its own imports first', () => {
  const text = expand('#import philox\n#import philox\nfn main() {}');
  assert.is(text.match(/fn philox\(/g)?.length, 1);
  assert.not.match(text, '#import');
  assert.throws(() => expand('#import nowhere'), /nowhere/);
});

rules.run();

// ------------------------------------------------------------------------------------------------------------------------------- philox
const philox = gpuSuite('philox on the device');

const draws = kernel<'counters' | 'keys' | 'words' | 'units' | 'values'>('draws', [
  '// words = philox(counter, key), units and normals of them',
  '// One invocation draws once.',
  '#import philox',
  '@group(0) @binding(0) var<storage, read> counters: array<vec4u>;     // (N)',
  '@group(0) @binding(1) var<storage, read> keys: array<vec2u>;         // (N)',
  '@group(0) @binding(2) var<storage, read_write> words: array<vec4u>;  // (N)',
  '@group(0) @binding(3) var<storage, read_write> units: array<vec4f>;  // (N)',
  '@group(0) @binding(4) var<storage, read_write> values: array<vec4f>; // (N)',
  '@compute @workgroup_size(64)',
  'fn main(@builtin(global_invocation_id) id: vec3u) {',
  '  if (id.x >= arrayLength(&words)) { return; }',
  '  words[id.x] = philox(counters[id.x], keys[id.x]);',
  '  units[id.x] = unit(words[id.x]);',
  '  values[id.x] = normal4(words[id.x]);',
  '}',
].join('\n'));

philox('gives the words of Random123 and those of src/philox.ts bit for bit, and normals to the last digits', async (engine) => {
  const N = 1000, ones = 0xffffffff;
  const bits = new Uint32Array(random(6 * N, 0).buffer).map((v, i) => Math.imul(v, 0x9e3779b1) + i); // any words do
  const counters = bits.slice(0, 4 * N), keys = bits.slice(4 * N);
  counters.set([0, 0, 0, 0, ones, ones, ones, ones, 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344]);
  keys.set([0, 0, ones, ones, 0xa4093822, 0x299f31d0]);
  const [words, units, values] = [0, 1, 2].map(() => Tensor.empty(engine, [4 * N]));
  engine.run(draws, [Math.ceil(N / 64)], {
    counters: upload(engine, [4 * N], counters).slice, keys: upload(engine, [2 * N], keys).slice, words: words.slice, units: units.slice, values: values.slice,
  });
  const got = await readWords(words);
  assert.equal([...got.subarray(0, 12)].map((w) => w.toString(16).padStart(8, '0')).join(' '),
    '6627e8d5 e169c58d bc57ac4c 9b00dbd8 408f276d 41c83b0e a20bc7c6 6d5451fd d16cfe09 94fdcceb 5001e420 24126ea1');
  for (let i = 0; i < N; i++) {
    const [a, b, c, d] = counters.subarray(4 * i, 4 * i + 4), want = philox4x32([a, b, c, d], [keys[2 * i], keys[2 * i + 1]]);
    if (want.some((w, j) => w !== got[4 * i + j])) assert.equal([...got.subarray(4 * i, 4 * i + 4)], want, `draw ${i}`);
  }
  assert.equal(Float64Array.from(await units.read()), Float64Array.from(got, unit), 'unit is exact');

  const want = new Float64Array(4 * N), atol = new Float64Array(4 * N);
  for (let i = 0; i < 4 * N; i += 4) {
    want.set(normal4([...got.subarray(i, i + 4)]), i);
    for (let j = 0; j < 4; j++) atol[i + j] = normalError(got[i + (j & 2)]);
  }
  assertClose(await values.read(), want, { atol, what: 'normal4' });
});

philox.run();
