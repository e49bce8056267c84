// Another WebGPU than Dawn's: in Firefox (wgpu, naga) every kernel agrees with its float64 twin, and a tab trains and draws what Node does.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import * as esbuild from 'esbuild';
import * as assert from 'uvu/assert';
import * as kernels from '../src/gpu/kernels.gen.ts';
import { openEngine } from '../src/node.ts';
import { siteFiles } from '../src/web/build.ts';
import type { CheckResult } from '../src/web/site/checks.ts';
import { type Device, losses, NOT_RUN, type Trained } from './helpers/firefox-page.ts';
import { firefoxSuite, type Visit, visit } from './helpers/firefox.ts';
import { goldenDraw, goldenTolerance } from './helpers/golden-draw.ts';

const here = fileURLToPath(new URL('.', import.meta.url));
const firefox = firefoxSuite('firefox');

/** On two cores that others use as well; a page that takes longer has failed. */
const PATIENCE = 600;

let opened: Promise<Visit> | undefined;
async function part<T>(name: string): Promise<T> {
  return (await (opened ??= open())).part<T>(name);
}
async function open(): Promise<Visit> {
  const contents = "import { main } from './helpers/firefox-page.ts'; void main(part, say);";
  const { outputFiles } = await esbuild.build({ stdin: { contents, loader: 'ts', resolveDir: here }, bundle: true, write: false, format: 'esm', target: 'es2022', logLevel: 'silent' });
  return visit(here, { '/script.js': outputFiles[0]!.text, '/worker.js': (await siteFiles()).get('worker.js')! }, PATIENCE);
}
firefox.after(async () => (await opened)?.end());

firefox('a CPU that plays a GPU is known for what it is, and what is read is there at once', async () => {
  const { info, deviceClass, reads } = await part<Device>('device');
  if (info.isFallbackAdapter) assert.is(deviceClass, 'cpu');
  // Left to itself, Firefox looks for finished work every 100 ms.
  assert.ok(Math.min(...reads) < 60, `reads took ${reads.map((ms) => ms.toFixed(0)).join(', ')} ms`);
});

firefox('every kernel that the device allows agrees with its float64 twin', async () => {
  const { features } = await part<Device>('device'), results = await part<CheckResult[]>('kernels');
  // Its subgroups are of several widths or none; of the other features a kernel needs all.
  const wanted = Object.values(kernels).filter((kernel) => kernel.features.every((feature: string) => feature !== 'subgroups' && features.includes(feature)));
  assert.ok(wanted.length >= 75, `${wanted.length} kernels`);
  const ran = results.filter(({ skipped }) => skipped === null);
  assert.equal(wanted.map(({ name }) => name).filter((name) => !ran.some(({ kernel }) => kernel === name)).sort(), [...NOT_RUN].sort());
  assert.is(NOT_RUN.length, 6);
  assert.equal(await part('pipelines'), NOT_RUN, 'these are compiled');
  for (const { kernel, values, ok, error, share } of ran) assert.ok(ok && values > 0, `${kernel}: off by ${error}, ${share} of what is allowed`);
});

firefox('the worker of the pages, whose device is lost on the way, gives the losses of Node; and drawing its image', async () => {
  const { losses: got, notes } = await part<Trained>('trained'), drawn = await part<number[]>('sample'), { engine, close } = await openEngine();
  const want = await losses(engine), image = await goldenDraw(engine, readFileSync(new URL('golden/unet-dev-gray28.safetensors', import.meta.url))), allowed = goldenTolerance(image.length);
  await close();
  assert.match(notes.join(), /^the GPU device was lost; the run goes on from step \d+, its last save$/);
  assert.is(got.length, want.length);
  got.forEach((loss, i) => assert.ok(Math.abs(loss - want[i]!) < 1e-4, `step ${i + 1}: ${loss} in the tab, ${want[i]} in Node`));
  assert.ok(new Set(want.map((loss) => loss.toFixed(3))).size > 4, 'losses that differ');
  assert.is(drawn.length, image.length);
  drawn.forEach((v, i) => assert.ok(Math.abs(v - image[i]!) < allowed[i]!, `value ${i}: ${v} in the tab, ${image[i]} in Node`));
});

firefox('a device that is lost is E-DEVICE-LOST, though what was asked of it fails before it says so', async () => {
  const [reading, ...later] = await part<string[]>('lost');
  assert.ok(reading === 'none' || reading === 'E-DEVICE-LOST', reading); // it may have been read before
  assert.equal(later, ['E-DEVICE-LOST', 'E-DEVICE-LOST']);
});

firefox.run();
