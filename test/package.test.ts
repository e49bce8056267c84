// The npm package: built, packed, and installed by npm into five fresh projects: of Node (and TypeScript), Vite, esbuild, a page without a bundler, and a worker.
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import * as esbuild from 'esbuild';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { build } from 'vite';
import { apiPage, exportsOf } from '../src/cli/api.ts';
import { initialise } from '../src/nn/init.ts';
import { parametersOf } from '../src/nn/parameter.ts';
import { UNet } from '../src/nn/unet.ts';
import { writeSafetensors } from '../src/io/safetensors.ts';
import { browserSuite, resultOf } from './helpers/chromium.ts';
import { serve } from './helpers/serve.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const consumers = mkdtempSync(join(tmpdir(), 'ddpm-package-'));
process.on('exit', () => rmSync(consumers, { recursive: true, force: true }));
const project = join(consumers, 'node');
const run = async (command: string, args: readonly string[], cwd = project): Promise<string> => {
  const { stdout, stderr } = await promisify(execFile)(command, args, { cwd, maxBuffer: 1 << 26 }).catch((error: { stdout: string; stderr: string; message: string }) => {
    throw new Error(`${error.message}\n${error.stdout}\n${error.stderr}`);
  });
  return stdout + stderr;
};
const put = (name: string, text: string | Uint8Array): void => {
  mkdirSync(join(consumers, name, '..'), { recursive: true });
  writeFileSync(join(consumers, name), text);
};
const installed = (...path: string[]): string => join(project, 'node_modules/ddpm.wgsl', ...path);

let archive = '';
/** A project of its own, into which npm installs the archive. What is not ours to test is not fetched again: other packages are this checkout's. */
async function consumer(name: string, ...others: string[]): Promise<string> {
  const link = (other: string): [string, string] => [other, `file:${join(root, 'node_modules', other)}`];
  put(`${name}/package.json`, JSON.stringify({ name: `consumer-${name}`, type: 'module', private: true, dependencies: { 'ddpm.wgsl': `file:${archive}`, ...Object.fromEntries(['pngjs', ...others].map(link)) } }));
  await run('npm', ['install', '--offline', '--no-audit', '--no-fund', '--ignore-scripts'], join(consumers, name));
  return join(consumers, name);
}
const example = (name: string): string => readFileSync(join(root, `test/examples/${name}.ts`), 'utf8');
const asScript = async (name: string): Promise<string> => (await esbuild.transform(example(name), { loader: 'ts', target: 'es2022' })).code;

/** Types that signatures of API.md name and nobody else makes or takes: the engine's and the tape's own parts, variants of kernels, blocks of the U-Net; and those of TypeScript. */
const INSIDE = ['ArgsOf', 'Pipeline', 'Pipelines', 'PlanPool', 'Sizes', 'Segment', 'Node', 'CoreTile', 'HalfVariant', 'MatmulVariant', 'DownBlock', 'MidBlock', 'UpBlock', 'TimestepEmbedding'];
const TYPESCRIPT = ['ArrayLike', 'AsyncGenerator', 'ErrorOptions', 'Exclude', 'Iterable', 'Omit', 'Partial', 'Readonly', 'ReadonlyMap', 'ReadonlySet', 'Record', 'Required'];

/** Bytes that the package may have, so that growth is a decision: the archive, 430 kB of which are the classifiers of `eval`; the whole library and one kernel as esbuild makes them for a page, compressed. */
const BUDGET = { archive: 975_000, library: 108_000, kernel: 3_000 };
const sizes: string[] = [];
const within = (what: string, bytes: number, limit: number): void => {
  sizes.push(`${what} ${(bytes / 1000).toFixed(1)} of ${limit / 1000} kB`);
  assert.ok(bytes <= limit, `${what}: ${bytes} bytes, and the budget is ${limit}`);
};

/** A small model as diffusers would have saved it, with weights that are nowhere zero. */
const CONFIG = {
  sample_size: 8, in_channels: 1, out_channels: 1, block_out_channels: [8, 8], down_block_types: ['DownBlock2D', 'DownBlock2D'], up_block_types: ['UpBlock2D', 'UpBlock2D'],
  layers_per_block: 1, norm_num_groups: 4, norm_eps: 1e-6, freq_shift: 1, flip_sin_to_cos: false, downsample_padding: 0, attention_head_dim: null,
};
const SCHEDULER = { _class_name: 'DDIMScheduler', num_train_timesteps: 500, prediction_type: 'sample', beta_schedule: 'squaredcos_cap_v2' };
const WEIGHTS = writeSafetensors(
  parametersOf(new UNet(CONFIG)).map((p, i) => [p.name, { shape: p.shape, data: p.name === 'conv_out.weight' ? Float32Array.from({ length: p.size }, (_, j) => Math.sin(j) / 8) : Float32Array.from(p.toFile(Float32Array.from(initialise(p.init, p.shape, 1, i)))) }] as const),
);

// ------------------------------------------------------------------------------------------------------------------------ build and pack
const pack = suite('package');

pack('is built, and packed within its budget', async () => {
  await run(process.execPath, ['--import', 'tsx', 'src/cli/build.ts'], root);
  const [{ filename, size, files }] = JSON.parse((await promisify(execFile)('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', consumers], { cwd: root })).stdout) as [{ filename: string; size: number; files: { path: string }[] }];
  within('archive', size, BUDGET.archive);
  assert.equal(files.map((f) => f.path).filter((path) => !path.startsWith('dist/')).sort(), ['LICENSE', 'README.md', 'package.json']);
  archive = join(consumers, filename);
  await consumer('node', 'webgpu');
  assert.ok(existsSync(installed('dist/index.js')));
});

pack('API.md describes everything that is exported, and nothing else', async () => {
  const page = apiPage(installed('dist'));
  const [, ...parts] = page.split(/^## /m);
  assert.equal(parts.map((part) => part.split('\n')[0]), ['ddpm.wgsl', 'ddpm.wgsl/node', 'ddpm.wgsl/kernels']);
  const names = (part: string): string[] => [...part.matchAll(/^### (\w+)$/gm)].map(([, name]) => name!);
  for (const [i, entry] of ['index', 'nn/index', 'diffusion/index', 'node'].entries()) {
    const values = Object.keys(await import(pathToFileURL(join(root, `src/${entry}.ts`)).href)).filter((name) => name !== 'kernels');
    const described = names(i === 3 ? parts[1]! : parts[0]!);
    assert.equal(values.filter((name) => !described.includes(name)), [], `exports of src/${entry}.ts without a description`);
    const types = exportsOf(installed('dist'), `${entry}.d.ts`).map((e) => e.name);
    assert.equal(types.filter((name) => !described.includes(name)), []);
    if (entry === 'index' || entry === 'node') assert.equal(described.filter((name) => !types.includes(name)), []);
  }
  assert.match(page, /### engineRequirements\n\nMerge the result[\s\S]*?```ts\nfunction engineRequirements\(adapter: GPUAdapter/);
  assert.match(page, /class Engine \{[\s\S]*?borrow\(buffer: GPUBuffer, shape: readonly number\[\]/);
  assert.not.match(page, '#private');
  assert.equal([...page.matchAll(/^### (\w+)\n\n```ts/gm)].map(([, name]) => name), [], 'exports without a docstring');
  const code = [...page.matchAll(/```ts\n([\s\S]*?)```/g)].map(([, block]) => block!.replace(/\/\*\*[\s\S]*?\*\/|'[^']*'|"[^"]*"/g, '')).join('\n'), described = [...names(page), ...INSIDE, ...TYPESCRIPT];
  const unknown = [...new Set(code.match(/\b[A-Z]\w*[a-z]\w*\b/g))].filter((name) => !described.includes(name) && !(name in globalThis) && !name.startsWith('GPU'));
  assert.equal(unknown, [], 'types that signatures name and the page does not describe');
  for (const [, link] of page.matchAll(/\]\(#([\w-]+)\)/g)) assert.match(page, new RegExp(`^### ${link!.replace(/-\d$/, '')}$`, 'im'));
  // The page that readers of the repository see; its docstrings may be older, its exports may not.
  assert.equal(names(readFileSync(join(root, 'src/API.md'), 'utf8')), names(page), 'src/API.md is out of date: npm run api');
});

pack('publint has nothing to say', async () => {
  const { messages, pkg } = await publint({ pkgDir: installed(), pack: false, strict: true });
  assert.equal(messages.map((m) => formatMessage(m, pkg!)), []);
});

pack('Node: every subpath, no global, and the same result from the library, one kernel and a loaded model', async () => {
  for (const name of ['one-kernel', 'custom-op', 'load-diffusers', 'inpaint']) put(`node/${name}.mjs`, await asScript(name));
  put('node/config.json', JSON.stringify(CONFIG));
  put('node/scheduler_config.json', JSON.stringify(SCHEDULER));
  put('node/model.safetensors', WEIGHTS);
  put('node/app.mjs', `
    const before = Object.getOwnPropertyNames(globalThis);
    const { Engine, silu, Tensor, kernels } = await import('ddpm.wgsl');
    const { UNet } = await import('ddpm.wgsl/nn');
    const { Sampler } = await import('ddpm.wgsl/diffusion');
    const { silu_forward, dispatch } = await import('ddpm.wgsl/kernels');
    const globals = Object.getOwnPropertyNames(globalThis).filter((name) => !before.includes(name));
    import { readFileSync } from 'node:fs';
    import { createRequire } from 'node:module';
    import { openEngine, makeShapes } from 'ddpm.wgsl/node';
    const raw = readFileSync(createRequire(import.meta.url).resolve('ddpm.wgsl/kernels/conv2d_forward.wgsl'), 'utf8');
    const opened = await openEngine(), { device, engine } = opened;
    const module = device.createShaderModule({ code: raw });
    const info = await module.getCompilationInfo();
    const y = await silu(Tensor.from(engine, [2], new Float32Array([1, -1]))).read();
    const { sample } = await import('./load-diffusers.mjs');
    const x0 = await sample(device, { config: readFileSync('config.json', 'utf8'), scheduler: readFileSync('scheduler_config.json', 'utf8'), weights: readFileSync('model.safetensors') }, { size: 8, steps: 3 });
    const { repaint } = await import('./inpaint.mjs'), known = Float32Array.from({ length: 64 }, (_, i) => Math.sin(i)), mask = Float32Array.from({ length: 64 }, (_, i) => Number(i > 40));
    const painted = await repaint('.', known, mask, [1, 8, 8, 1], { steps: 12, resamples: 2 }), left = painted.every((v, i) => mask[i] || v === known[i]);
    console.log('RESULT' + JSON.stringify({ globals, painted: left && painted.every(Number.isFinite), raw: info.messages.length, comments: [raw, kernels.conv2d_forward.wgsl].map((wgsl) => wgsl.includes('//')), same: silu_forward === kernels.silu_forward, y: [...y], x0: [...x0], shapes: makeShapes({ count: 2, size: 8 }).count,
      types: [Engine, UNet, Sampler, dispatch].map((f) => typeof f) }));
    process.exit(0);`);
  const out = await run(process.execPath, ['app.mjs']);
  const result = JSON.parse(out.slice(out.indexOf('RESULT') + 6).split('\n')[0]!) as { globals: string[]; painted: boolean; raw: number; comments: boolean[]; same: boolean; y: number[]; x0: number[]; shapes: number; types: string[] };
  assert.equal({ ...result, y: null, x0: null }, { globals: [], painted: true, raw: 0, comments: [true, false], same: true, y: null, x0: null, shapes: 2, types: ['function', 'function', 'function', 'function'] });
  assert.ok(Math.abs(result.y[0]! - 1 / (1 + Math.exp(-1))) < 1e-6);
  assert.ok(result.x0.length === 64 && result.x0.every(Number.isFinite) && Math.max(...result.x0) - Math.min(...result.x0) > 0.1);
  inNode = result.x0;
});
let inNode: number[] = [];

pack('TypeScript finds the types, with the WebGPU types of lib.dom or of @webgpu/types', async () => {
  const program = (rest: string): string => `import { Engine, Tensor } from 'ddpm.wgsl';\nimport { UNet } from 'ddpm.wgsl/nn';\nimport { Sampler } from 'ddpm.wgsl/diffusion';\nimport { conv2d_forward, dispatch } from 'ddpm.wgsl/kernels';\n${rest}\n`;
  put('node/types/good.ts', program('export const f = (device: GPUDevice): Tensor => Tensor.empty(new Engine(device), [1]);\nexport { UNet, Sampler, conv2d_forward, dispatch };'));
  const check = (...flags: string[]): Promise<string> => run(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2023', ...flags]);
  const dom = ['--lib', 'es2023,esnext.disposable,dom', '--types', ''];
  await check(...dom, 'types/good.ts');
  for (const name of ['@webgpu', '@types']) symlinkSync(join(root, 'node_modules', name), join(project, 'node_modules', name));
  await check('--lib', 'es2023,esnext.disposable', '--types', '@webgpu/types,node', '--skipLibCheck', 'types/good.ts');
  put('node/types/bad.ts', program('export const f = (e: Engine, y: Tensor): void => e.run(conv2d_forward, [1], { y: y.slice });\nexport { UNet, Sampler, dispatch };'));
  const error = await check(...dom, 'types/bad.ts').then(() => '', (e: Error) => e.message);
  assert.match(error, /missing the following properties.*: x, w, bias/);
});

pack('its command is ddpm-wgsl', async () => {
  const command = join(project, 'node_modules/.bin/ddpm-wgsl');
  const commands = [...(await run(command, [])).matchAll(/^ {2}ddpm-wgsl (\w+)/gm)].map(([, name]) => name!);
  await Promise.all(commands.map(async (name) => assert.match(await run(command, [name, '--help']), new RegExp(`^ddpm-wgsl ${name} [^]*\\n  --help `), name)));
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> };
  for (const [name, script] of Object.entries(scripts)) if (/tsx src\/cli\/\w+\.ts$/.test(script) && !['build', 'web'].includes(name)) assert.ok(commands.includes(name), `npm run ${name} has no counterpart in src/cli/main.ts`);
  assert.match(await run(command, ['doctor']), /\n\d+ kernels agree with their float64 twins; \d+ need what this device was opened without/);
  assert.match(await run(command, ['web']).then(() => '', (e: Error) => e.message), /E-USAGE web needs what only a clone of the repository has/);
  const wrong = await run(command, ['trian']).then(() => '', (e: Error) => e.message);
  assert.match(wrong, /E-USAGE there is no command "trian"/);
  const out = await run(command, ['train', '--data', 'shapes', '--limit', '16', '--steps', '2', '--batch-size', '2', '--samples', '1', '--preset', 'tiny']);
  assert.match(out, /ddpm-wgsl sample/);
});

pack('esbuild shakes away the kernels that nobody uses', async () => {
  const folder = await consumer('esbuild');
  const bundle = async (text: string): Promise<string> =>
    (await esbuild.build({ stdin: { contents: text, resolveDir: folder }, bundle: true, write: false, format: 'esm', minify: true, target: 'es2022', legalComments: 'none' })).outputFiles[0]!.text;
  const one = await bundle("import { dispatch, silu_forward } from 'ddpm.wgsl/kernels'; globalThis.used = [dispatch, silu_forward];");
  assert.match(one, 'silu_forward');
  assert.not.match(one, /softmax|philox|webgpu/);
  within('one kernel', gzipSync(one).length, BUDGET.kernel);
  const op = await bundle("import { Engine, silu } from 'ddpm.wgsl'; globalThis.used = [Engine, silu];");
  assert.not.match(op, /conv2d|softmax|philox/);
  const all = await bundle("import * as all from 'ddpm.wgsl'; globalThis.used = all;");
  assert.not.match(all, /node:|['"]webgpu['"]/);
  within('library', gzipSync(all).length, BUDGET.library);
});

pack.after(() => console.log(`\n  sizes: ${sizes.join(', ')}`));
pack.run();

// ------------------------------------------------------------------------------------------------------------------------------ browsers
const browser = browserSuite('package in a browser');

const BOILERPLATE = `
  const device = await (await navigator.gpu.requestAdapter()).requestDevice(); // WebGPU's default limits
  const said = [];
  device.addEventListener('uncapturederror', (e) => said.push(e.error.message));`;
const near = (got: readonly number[], want: readonly number[], atol: number): void => {
  assert.is(got.length, want.length);
  got.forEach((v, i) => assert.ok(Math.abs(v - want[i]!) <= atol, `value ${i}: ${v}, wanted ${want[i]}`));
};

browser('no bundler: an import map; a loaded diffusers model samples what it does in Node', async () => {
  const folder = await consumer('page');
  for (const name of ['one-kernel', 'load-diffusers']) put(`page/${name}.mjs`, await asScript(name));
  put('page/config.json', JSON.stringify(CONFIG));
  put('page/scheduler_config.json', JSON.stringify(SCHEDULER));
  put('page/model.safetensors', WEIGHTS);
  const { exports } = JSON.parse(readFileSync(join(folder, 'node_modules/ddpm.wgsl/package.json'), 'utf8')) as { exports: Record<string, { default?: string }> };
  const map = Object.fromEntries(Object.entries(exports).flatMap(([path, to]) => (to.default ? [[`ddpm.wgsl${path.slice(1)}`, `/node_modules/ddpm.wgsl${to.default.slice(1)}`]] : [])));
  const served = await serve(folder, {
    '/': `<script type="importmap">${JSON.stringify({ imports: map })}</script><script type="module">${BOILERPLATE}
      const { sample } = await import('/load-diffusers.mjs'), { normalise } = await import('/one-kernel.mjs');
      const text = async (file) => await (await fetch(file)).text();
      const files = { config: await text('/config.json'), scheduler: await text('/scheduler_config.json'), weights: new Uint8Array(await (await fetch('/model.safetensors')).arrayBuffer()) };
      const x0 = await sample(device, files, { size: 8, steps: 3 });
      const buffer = (data) => { const b = device.createBuffer({ size: 256, usage: 0x8c }); device.queue.writeBuffer(b, 0, new Float32Array(data)); return b; };
      const b = { x: buffer([1, 2, 3, 4, 5, 6, 7, 8]), gamma: buffer([1, 1]), beta: buffer([0, 0]), y: buffer([]), stats: buffer([]) };
      normalise(device, b, [1, 4, 2, 1]);
      const back = device.createBuffer({ size: 32, usage: 9 }), e = device.createCommandEncoder();
      e.copyBufferToBuffer(b.y, 0, back, 0, 32); device.queue.submit([e.finish()]); await back.mapAsync(1);
      window.result = { x0: [...x0], y: [...new Float32Array(back.getMappedRange())], said };
    </script>`,
  });
  try {
    const { x0, y, said } = await resultOf<{ x0: number[]; y: number[]; said: string[] }>(`${served.url}/`, { seconds: 120 });
    assert.equal(said, []);
    near(x0, inNode, 1e-4);
    const sd = Math.sqrt(5.25 + 1e-5);
    near(y, [1, 2, 3, 4, 5, 6, 7, 8].map((v) => (v - 4.5) / sd).map((v) => v / (1 + Math.exp(-v))), 1e-5);
  } finally {
    served.close();
  }
});

browser('Vite: a page draws its own buffer as it is denoised, without a copy', async () => {
  const site = await consumer('vite');
  put('vite/denoise-page.ts', example('denoise-page'));
  put('vite/public/config.json', JSON.stringify(CONFIG));
  put('vite/public/model.safetensors', WEIGHTS);
  put('vite/index.html', '<body style="margin:0"><canvas id="canvas" width="8" height="8" style="width:64px;height:64px;image-rendering:pixelated"></canvas><script type="module" src="./main.ts"></script>');
  put('vite/main.ts', `import { denoise } from './denoise-page.ts';${BOILERPLATE}
    const image = device.createBuffer({ size: 256, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC });
    await denoise(device, document.querySelector('canvas'), image, await (await fetch('/config.json')).text(), new Uint8Array(await (await fetch('/model.safetensors')).arrayBuffer()), 6);
    // The engine is gone, and device and buffer are ours still.
    const back = device.createBuffer({ size: 256, usage: 9 }), e = device.createCommandEncoder();
    e.copyBufferToBuffer(image, 0, back, 0, 256); device.queue.submit([e.finish()]); await back.mapAsync(1);
    window.result = { x0: [...new Float32Array(back.getMappedRange())], said };`);
  await build({ root: site, logLevel: 'silent', build: { outDir: 'out', target: 'esnext', emptyOutDir: true } });
  const script = readdirSync(join(site, 'out/assets')).find((f) => f.endsWith('.js'))!;
  assert.not.match(readFileSync(join(site, 'out/assets', script), 'utf8'), 'adamw');
  const served = await serve(join(site, 'out'));
  try {
    let shot: Buffer | undefined;
    const { x0, said } = await resultOf<{ x0: number[]; said: string[] }>(`${served.url}/index.html`, { seconds: 120, afterwards: async (page) => void (shot = await page.screenshot({ clip: { x: 0, y: 0, width: 64, height: 64 } })) });
    assert.equal(said, []);
    const { PNG } = await import('pngjs');
    const { data } = PNG.sync.read(shot!);
    x0.forEach((v, i) => {
      const at = 4 * ((8 * (i >> 3) + 4) * 64 + 8 * (i & 7) + 4), want = 255 * Math.min(1, Math.max(0, v * 0.5 + 0.5));
      assert.ok(Math.abs(data[at]! - want) <= 1.5, `pixel ${i}: ${data[at]}, and the buffer says ${want}`);
    });
    assert.ok(new Set(x0.map((v) => v.toFixed(3))).size > 20);
  } finally {
    served.close();
  }
});

browser('a worker: training lowers the loss and gives back its weights', async () => {
  const folder = await consumer('worker');
  const { outputFiles } = await esbuild.build({
    stdin: { contents: example('train-worker'), loader: 'ts', resolveDir: folder }, bundle: true, write: false, format: 'esm', minify: true, target: 'es2022',
  });
  const served = await serve(folder, {
    '/worker.js': outputFiles[0]!.text,
    '/': `<script type="module">
      const worker = new Worker('/worker.js', { type: 'module' }), losses = [];
      worker.onerror = (e) => { throw new Error('worker: ' + e.message); };
      worker.onmessage = ({ data }) => { if (data.weights) window.result = { losses, bytes: data.weights.length }; else losses.push(data.loss); };
      worker.postMessage({ steps: 12 });
    </script>`,
  });
  try {
    const { losses, bytes } = await resultOf<{ losses: number[]; bytes: number }>(`${served.url}/`, { seconds: 180 });
    assert.is(losses.length, 12);
    const mean = (values: number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
    assert.ok(mean(losses.slice(-4)) < mean(losses.slice(0, 4)), losses.join(' '));
    assert.ok(bytes > 5_000);
  } finally {
    served.close();
  }
});
browser.run();
