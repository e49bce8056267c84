// Who may import whom: the layers as a table, no cycles, and nothing of Node in what a browser loads.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const src = fileURLToPath(new URL('../src', import.meta.url));

/** From the bottom up. A file imports from its own layer and from those above it in this list, which are below it in the building. */
const LAYERS: readonly (readonly string[])[] = [
  ['errors.ts', 'philox.ts', 'typed.ts'],
  ['gpu/', 'tensor.ts'], // an engine makes tensors over borrowed buffers
  ['clock.ts', 'variants.ts', 'folds.ts', 'autograd.ts'],
  ['ops/'],
  ['nn/'],
  ['optim/'],
  ['diffusion/'], // the training step binds model and optimizer together
  ['io/'],
  ['data/'], // its files are checked and read as io's are
  ['quality/'], // distances between sets of images
  ['node.ts'], // opens a device for the command line; a library user may bring one
  ['cli/', 'web/'], // the commands serve the pages, and the pages train with the settings of the commands
  ['index.ts', 'kernels.ts'], // says what is public; nobody inside goes through it
];

/** Cycles that types alone close, and that stay. */
const CYCLES: readonly (readonly string[])[] = [
  ['gpu/engine.ts', 'gpu/plan-pool.ts', 'gpu/plan.ts', 'gpu/profile.ts', 'gpu/usable.ts', 'tensor.ts'], // an engine makes tensors and plans, which know their engine
  ['diffusion/gaussian.ts', 'diffusion/sampler.ts'], // pSampleLoop draws with a Sampler, which is made for a GaussianDiffusion: all three names are public
];

interface Import {
  readonly of: string;
  readonly typeOnly: boolean;
}

/** What a source imports, statically or not. */
function importsOf(source: string): Import[] {
  const found: Import[] = [];
  for (const [, type, of] of source.matchAll(/^\s*(?:import|export)\s+(type\s)?[^;'"]*?from\s+['"]([^'"]+)['"]/gm)) found.push({ of: of!, typeOnly: !!type });
  for (const [, of] of source.matchAll(/^\s*import\s+['"]([^'"]+)['"]/gm)) found.push({ of: of!, typeOnly: false });
  for (const [, of] of source.matchAll(/\bimport\(\s*['"]([^'"]+)['"]\s*\)/g)) found.push({ of: of!, typeOnly: false });
  return found;
}

const files = readdirSync(src, { recursive: true, encoding: 'utf8' })
  .map((f) => f.replaceAll('\\', '/'))
  .filter((f) => /\.(ts|mjs)$/.test(f));
const imports = new Map(files.map((f) => [f, importsOf(readFileSync(join(src, f), 'utf8'))]));

const layerOf = (file: string): number => LAYERS.findIndex((entries) => entries.some((entry) => (entry.endsWith('/') ? file.startsWith(entry) : file === entry)));
/** The checks of the page run the tests' float64 twins: nothing else of the source looks into the tests. */
const isTwin = (file: string, of: string): boolean => file.startsWith('web/site/checks') && /^(\.\.\/)+test\/ref\//.test(of);
/** The file that an import means, or null where it is a package's. */
const target = (file: string, of: string): string | null => (of.startsWith('.') && !isTwin(file, of) ? normalize(join(dirname(file), of)).replaceAll('\\', '/') : null);

const architecture = suite('architecture');

architecture('imports are found, of every form', () => {
  const source = "import a from './a.ts';\nimport {\n  b,\n} from './b.ts';\nimport type { C } from './c.ts';\nexport * from './d.ts';\nexport type { E } from './e.ts';\nimport './f.ts';\nconst g = await import('./g.ts');\nconst s = 'from';\n";
  assert.equal(importsOf(source).map((i) => i.of).sort(), ['a', 'b', 'c', 'd', 'e', 'f', 'g'].map((f) => `./${f}.ts`));
  assert.equal(importsOf(source).filter((i) => i.typeOnly).map((i) => i.of), ['./c.ts', './e.ts']);
  assert.ok(imports.get('ops/conv2d.ts')?.some((i) => i.of === '../autograd.ts'));
});

architecture('every file belongs to a layer, and imports exist', () => {
  for (const [file, list] of imports) {
    assert.ok(layerOf(file) >= 0, `src/${file} is in no layer: put it into the table of test/architecture.test.ts`);
    for (const { of } of list) {
      const to = target(file, of);
      if (to) assert.ok(imports.has(to), `src/${file} imports ${of}, which is no file of src/`);
    }
  }
});

architecture('imports go one way', () => {
  for (const [file, list] of imports)
    for (const { of } of list) {
      const to = target(file, of);
      if (to) assert.ok(layerOf(to) <= layerOf(file), `src/${file} (layer ${LAYERS[layerOf(file)].join(', ')}) imports src/${to} of a higher layer`);
    }
});

architecture('no file depends on itself, types apart', () => {
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): void => {
    assert.not(path.includes(file), `a cycle: ${[...path.slice(path.indexOf(file)), file].join(' -> ')}`);
    if (done.has(file)) return;
    for (const { of, typeOnly } of imports.get(file) ?? []) {
      const to = target(file, of);
      if (to && !typeOnly) visit(to, [...path, file]);
    }
    done.add(file);
  };
  for (const file of files) visit(file, []);
});

architecture('with types no file depends on itself either, but for the cycles that are known', () => {
  const targets = (file: string): string[] => (imports.get(file) ?? []).flatMap(({ of }) => target(file, of) ?? []);
  const reached = new Map(files.map((file) => {
    const found = new Set(targets(file));
    for (const each of found) for (const to of targets(each)) found.add(to);
    return [file, found];
  }));
  const cycles = new Set(files.map((file) => files.filter((other) => reached.get(file)!.has(other) && reached.get(other)!.has(file)).sort().join(', ')));
  cycles.delete('');
  assert.equal([...cycles].sort(), CYCLES.map((known) => known.join(', ')).sort());
});

architecture('src/index.ts, the pages and all that they reach need neither Node nor a package', () => {
  const roots = ['index.ts', 'web/view/main.ts', 'web/site/main.ts', 'web/site/worker.ts'];
  const from = new Map<string, string>(roots.map((f) => [f, '']));
  for (const file of from.keys())
    for (const { of, typeOnly } of imports.get(file) ?? []) {
      if (typeOnly || isTwin(file, of)) continue;
      const to = target(file, of), way = `${from.get(file)}${file} -> `;
      assert.ok(to, `${way}${of}: a browser has neither Node's modules nor packages`);
      if (to && !from.has(to)) from.set(to, way);
    }
  assert.ok(from.size > 15, 'it reaches the library');
  for (const file of from.keys()) {
    if (!file.startsWith('web/')) assert.not.match(readFileSync(join(src, file), 'utf8'), /^\s*(await )?using /m, `src/${file}: TypeScript would put its helpers for using, 2 kB, into it: withTensor of src/tensor.ts`);
    assert.not.match(readFileSync(join(src, file), 'utf8'), /\b(process|Buffer)\.\w/, `src/${file} uses a global of Node's`);
    assert.not.match(readFileSync(join(src, file), 'utf8'), /\bGPU(BufferUsage|ShaderStage|MapMode|TextureUsage)\b/, `src/${file} uses a global of WebGPU's, which Node lacks: src/gpu/constants.ts has them`);
  }
});

architecture('messages name a command as it is typed, in a clone and where the package is installed', () => {
  const commands = [...readFileSync(join(src, 'cli/main.ts'), 'utf8').matchAll(/^ {2}(\w+): \{ help/gm)].map(([, name]) => name);
  assert.ok(commands.includes('train') && commands.length > 5, `${commands}`);
  for (const file of files.filter((f) => f.endsWith('.ts')))
    for (const line of readFileSync(join(src, file), 'utf8').split('\n'))
      // A line that speaks of clones, or is a comment, may say how it is there.
      if (!/^\s*(\/\/|\/?\*)|clone/.test(line)) assert.not.match(line.replace(/\/\/ .*/, ''), new RegExp(`(npm run|ddpm-wgsl) (${commands.join('|')})\\b`), `src/${file}: use typedAs of src/typed.ts`);
});

architecture("only src/node.ts imports 'webgpu'", () => {
  const importers = [...imports].filter(([, list]) => list.some((i) => i.of === 'webgpu')).map(([file]) => file);
  assert.equal(importers, ['node.ts']);
});

architecture('packages are those that package.json ships', () => {
  const { dependencies, peerDependencies } = JSON.parse(readFileSync(join(src, '../package.json'), 'utf8')) as Record<'dependencies' | 'peerDependencies', Record<string, string>>;
  const shipped = [...Object.keys(dependencies), ...Object.keys(peerDependencies)];
  for (const [file, list] of imports)
    for (const { of } of list) {
      // Pages and the doctor are bundled before they are shipped, and by nothing that ships.
      if (of.startsWith('.') || of.startsWith('node:') || (['web/build.ts', 'cli/build.ts'].includes(file) && of === 'esbuild')) continue;
      assert.ok(shipped.includes(of), `src/${file} imports ${of}`);
    }
});

architecture.run();
