// The pages in a browser: what the tab trains and draws is what Node does, whatever happens on the way; and what goes wrong is said.
import { execFileSync } from 'node:child_process';
import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Page } from 'playwright-core';
import * as assert from 'uvu/assert';
import { kernels as complete } from '../kernels/build.ts';
import { makeReport, openView } from '../src/cli/view-server.ts';
import { openWeb } from '../src/cli/web.ts';
import { makeShapes } from '../src/data/shapes.ts';
import * as kernels from '../src/gpu/kernels.gen.ts';
import { openEngine } from '../src/node.ts';
import { LONG } from '../src/web/site/checks.ts';
import { Run } from '../src/web/site/run.ts';
import { decodeRun, type RunSettings, type TrainData } from '../src/web/site/run-file.ts';
import { browser, browserSuite, browserWithoutWebGpu } from './helpers/chromium.ts';
import { goldenDraw, goldenFiles, goldenTolerance } from './helpers/golden-draw.ts';

const pages = browserSuite('pages');
const folder = mkdtempSync(join(tmpdir(), 'ddpm-pages-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

/** SwiftShader beside other work is slow; a test that waits this long for a page has failed. */
const PATIENCE = 240_000;

const SETTINGS: RunSettings = { model: 'mini', steps: 0, batchSize: 1, lr: 0.004, timesteps: 1000, predict: 'v', timeSampling: 'weighted', seed: 0, flip: false, labelDropout: null, saveEvery: 0, previewEvery: 0, sampleEvery: 0 };

function shapes(count: number): TrainData {
  const { name, height, width, channels, pixels, labels, classes } = makeShapes({ count, size: 16 });
  return { name, count, height, width, channels, pixels: new Uint8Array(pixels), labels, classes };
}

/** An IDX file of square grey images. */
function idx(count: number, size: number): Uint8Array {
  const bytes = Uint8Array.from({ length: 16 + count * size * size }, (_, i) => (37 * i) & 255);
  bytes.set([0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, size, 0, 0, 0, size]);
  return bytes;
}

let site: ReturnType<typeof openWeb> | undefined;

/** A page of the site in a browser without memory, and whatever it did not catch. `before` is put before the worker's script. */
async function open(hash: string, { missing, before }: { missing?: string; before?: string } = {}): Promise<{ page: Page; done: () => Promise<void> }> {
  const { url } = await (site ??= openWeb(0)), context = await (await browser()).newContext({ viewport: { width: 1280, height: 900 } }), page = await context.newPage();
  const errors: string[] = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  page.setDefaultTimeout(PATIENCE);
  if (missing) await page.route(`**/${missing}`, (route) => route.abort());
  if (before) await page.route('**/worker.js', async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: `${before};${await response.text()}` });
  });
  await page.goto(`${url}#${hash}`);
  return {
    page,
    done: async () => {
      await context.close();
      assert.equal(errors, []);
    },
  };
}

/** Waits until an expression of the page is true; where it never is, the message has what the page says. */
async function until(page: Page, expression: string): Promise<void> {
  try {
    await page.waitForFunction(expression);
  } catch (error) {
    throw new Error(`never true: ${expression}\nthe page says:\n${await page.innerText('body')}`, { cause: error });
  }
}

const step = 'Number(document.querySelector("#numbers dd").textContent.split(" ")[0])';
const said = (page: Page): Promise<string> => page.locator('[role=alert]:visible').first().innerText();

pages('training that is paused, reloaded and loses its device ends with the losses of Node', async () => {
  const { page, done } = await open('train');
  await page.selectOption('#size', '16');
  await page.selectOption('#model', 'mini');
  for (const [id, value] of [['steps', '30'], ['batch', '2'], ['lr', '0.004']] as const) await page.fill(`#${id}`, value);
  assert.is(await page.innerText('#data-about'), '2,000 images of 16 × 16, 5 classes');
  await page.check('#by-class');
  await page.fill('#label-dropout', '0.2');
  await page.click('summary:has-text("More")');
  await page.fill('#preview', '15');
  await page.click('#start');
  await until(page, `${step} >= 3`);
  await page.click('#pause');
  await until(page, 'document.querySelector("#start").textContent === "Go on"');
  const at = Number(await page.evaluate(step));
  assert.ok(at >= 3 && at < 30, `paused after ${at} steps`);

  await page.reload();
  await page.click('#resume');
  await until(page, `${step} > ${Math.max(at, 11)}`);
  await page.selectOption('#samples-class', { label: 'ring' });
  await until(page, 'document.querySelector("#drawn-of").textContent === "from the next samples on"');
  await page.evaluate('document.querySelector("#lose").click()');
  await until(page, '/the GPU device was lost; the run goes on from step \\d+/.test(document.body.innerText)');
  await until(page, `${step} === 30 && !document.querySelector("#save").disabled`);
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#save')]);
  const saved = decodeRun(readFileSync(await download.path()), 'the saved run');
  assert.equal(await page.evaluate('[document.querySelector("#samples").width, document.querySelector("#x0").height]'), [4 * 17 + 1, 4 * 17 + 1]);
  assert.is(await page.innerText('#drawn-of'), 'ring', 'what was asked for outlives the device');
  await page.click('nav a[href="#sample"]');
  await page.click('#use-kept');
  await until(page, '!document.querySelector("#draw").disabled');
  assert.equal(await page.locator('#label option').allInnerTexts(), ['each in turn', 'disc', 'square', 'triangle', 'cross', 'ring', 'none']);
  await done();

  const { engine, close } = await openEngine(), settings: RunSettings = { ...SETTINGS, steps: 30, batchSize: 2, labelDropout: 0.2 };
  const losses = async (lr: number): Promise<readonly number[]> => {
    const run = await Run.open(engine, shapes(2000), { ...settings, lr });
    await run.train({ stop: { requested: false }, onMetrics: () => {}, onPreview: () => {}, onSamples: () => {}, onSave: async () => {}, onEvent: () => {} });
    return run.losses;
  };
  const want = await losses(settings.lr), untrained = await losses(1e-9);
  await close();
  assert.is(saved.step, 30);
  assert.is(saved.losses.length, 30);
  saved.losses.forEach((loss, i) => assert.ok(Math.abs(loss - want[i]!) < 1e-4, `step ${i + 1}: ${loss} in the tab, ${want[i]} in Node`));
  const mean = (losses: readonly number[]): number => losses.reduce((a, b) => a + b, 0) / losses.length;
  // Steps differ most in their t: they are held against the same ones of a model that learns nothing.
  assert.ok(mean(saved.losses.slice(-8)) < 0.8 * mean(untrained.slice(-8)), 'the loss has fallen');
});

pages('a run from a file goes on in the tab, and its learning rate is changed while it trains', async () => {
  const { engine, close } = await openEngine();
  const run = await Run.open(engine, shapes(50), { ...SETTINGS, steps: 400, batchSize: 1 });
  writeFileSync(join(folder, 'run.safetensors'), await run.encode());
  run.step = 150;
  writeFileSync(join(folder, 'long.safetensors'), await run.encode());
  await close();
  const { page, done } = await open('train');
  await page.setInputFiles('#run-file', join(folder, 'run.safetensors'));
  await until(page, 'document.querySelector("#numbers dd").textContent === "0 / 400" && document.querySelector("#start").textContent === "Go on" && !document.querySelector("#start").disabled');
  await page.click('#start');
  await until(page, `${step} >= 2`);
  await page.setInputFiles('#run-file', join(folder, 'run.safetensors'));
  await until(page, '/E-USAGE.*a run is training/.test(document.body.innerText)');
  await page.click('summary:has-text("While it trains")');
  await page.fill('#rate', '0.00001');
  await page.click('#set-rate');
  await page.click('nav a[href="#doctor"]');
  await page.click('#bench');
  await until(page, '/E-USAGE.*a run is training, which would be in what is measured/.test(document.body.innerText)');
  await page.click('nav a[href="#train"]');
  await until(page, 'Number([...document.querySelectorAll("#numbers dd")][3]?.textContent) <= 0.00001');
  await page.click('#pause');
  await until(page, '!document.querySelector("#save").disabled');
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#save')]), saved = decodeRun(readFileSync(await download.path()), 'the run that was loaded');
  assert.equal([saved.lr, saved.settings.steps], [0.00001, 400]);
  assert.ok(saved.step >= 2 && saved.step < 400 && saved.losses.length === saved.step);
  assert.is(download.suggestedFilename(), `run-step-${saved.step}.safetensors`);

  // A run that was trained for long does not give way to another without a word.
  await page.setInputFiles('#run-file', join(folder, 'long.safetensors'));
  await until(page, 'document.querySelector("#numbers dd").textContent === "150 / 400" && !document.querySelector("#start").disabled');
  await page.click('#start');
  await until(page, `${step} > 150`);
  await page.click('#pause');
  await until(page, '!document.querySelector("#save").disabled');
  const at = await page.innerText('#numbers dd >> nth=0');
  const asked = page.waitForEvent('dialog'), given = page.setInputFiles('#run-file', join(folder, 'run.safetensors')), question = await asked;
  await question.dismiss();
  await given;
  assert.match(question.message(), new RegExp(`the one of ${at.split(' ')[0]} steps`));
  await until(page, '!document.querySelector("#start").disabled');
  assert.is(await page.innerText('#numbers dd >> nth=0'), at);
  // Neither does a number that a field does not take.
  await page.click('#stop');
  await page.fill('#batch', '0');
  await page.click('#start');
  await until(page, '/E-USAGE.*Batch size is 0: it must be a whole number from 1 to 512/.test(document.body.innerText)');
  await page.fill('#batch', '1');
  await page.click('summary:has-text("More")');
  await page.fill('#timesteps', '20'); // the schedule of the page takes no fewer than 21
  await page.click('#start');
  await until(page, '/E-USAGE.*Noise levels T is 20: it must be a whole number from 21/.test(document.body.innerText)');
  await done();
});

pages('a run that is stopped is kept, gives way to a new one or goes on; its weights keep the names of its classes', async () => {
  const { page, done } = await open('train');
  await page.selectOption('#size', '16');
  await page.selectOption('#model', 'mini');
  for (const [id, value] of [['steps', '5000'], ['batch', '1']] as const) await page.fill(`#${id}`, value);
  await page.check('#by-class');
  await page.click('#start');
  await until(page, `${step} >= 2`);
  assert.ok(await page.isDisabled('#steps'));
  await page.click('#stop');
  const stopped = '!document.querySelector("#resume").hidden && document.querySelector("#stop").disabled && !document.querySelector("#start").disabled && !document.querySelector("#steps").disabled';
  await until(page, stopped);
  const at = Number(await page.evaluate(step));
  assert.ok(at >= 2 && at < 5000, `stopped after ${at} steps`);
  assert.is(await page.innerText('#start'), 'Train');

  const files: string[] = [], all = new Promise<void>((found) => page.on('download', (download) => {
    const path = join(folder, `stopped-${download.suggestedFilename()}`);
    void download.saveAs(path).then(() => files.push(path) === 3 && found());
  }));
  await page.click('#export');
  await all;
  // While a run is placed nothing else can be done with it.
  assert.equal(await page.evaluate('document.querySelector("#resume").click(), ["start", "resume", "stop", "draw-now"].map((id) => document.getElementById(id).disabled)'), [true, true, true, true]);
  await until(page, `${step} > ${at}`);
  await page.click('#pause');
  await until(page, 'document.querySelector("#start").textContent === "Go on"');
  // Who has paused may stop as well.
  await page.click('#stop');
  await until(page, stopped);

  await page.click('nav a[href="#sample"]');
  await page.setInputFiles('#model-files', files);
  await until(page, '!document.querySelector("#draw").disabled');
  assert.equal(await page.locator('#label option').allInnerTexts(), ['each in turn', 'disc', 'square', 'triangle', 'cross', 'ring', 'none']);
  await done();
});

pages('a run trains, is saved and goes on where the browser keeps nothing, the device refuses something or is lost, or another run cannot be placed', async () => {
  const { page, done } = await open('train', { before: `
    IDBObjectStore.prototype.put = () => { throw new DOMException('the disk is full', 'QuotaExceededError'); };
    const make = GPUDevice.prototype.createBuffer;
    let bad = 1;
    GPUDevice.prototype.createBuffer = function (of) { return make.call(this, of.size > 4096 && bad-- > 0 ? { ...of, usage: 0 } : of); }` });
  // Of images this small the samples that end a run take a quarter of the time.
  writeFileSync(join(folder, 'small-images-idx3-ubyte'), idx(40, 8));
  await page.selectOption('#source', 'fashion-mnist');
  await page.setInputFiles('#idx-files', join(folder, 'small-images-idx3-ubyte'));
  await until(page, 'document.querySelector("#data-about").textContent === "40 images of 8 × 8"');
  await page.selectOption('#model', 'mini');
  for (const [id, value] of [['steps', '30'], ['batch', '1']] as const) await page.fill(`#${id}`, value);
  await page.click('#start');
  await until(page, '/E-ENGINE/.test(document.body.innerText) && !document.querySelector("#start").disabled');
  await page.click('#start');
  await until(page, `${step} >= 12`);
  assert.match(await said(page), /does not keep the run \(the disk is full\): save it as a file/);
  assert.is(await page.innerText('#numbers dd >> nth=4'), '–', 'saved at');
  await page.evaluate('document.querySelector("#lose").click()');
  await until(page, '/the GPU device was lost; the run goes on from step \\d+/.test(document.body.innerText)');
  await until(page, `${step} === 30 && !document.querySelector("#save").disabled`);
  assert.match(await page.innerText('#status'), /^small-images-idx3-ubyte, [\d,]+ parameters$/, 'no kernels are compiled any more');

  writeFileSync(join(folder, 'odd-images-idx3-ubyte'), idx(2, 30));
  await page.setInputFiles('#idx-files', join(folder, 'odd-images-idx3-ubyte'));
  await until(page, 'document.querySelector("#data-about").textContent === "2 images of 30 × 30"');
  await page.click('#start');
  await until(page, '/E-MODEL/.test(document.body.innerText) && !document.querySelector("#save").disabled');
  assert.match(await said(page), /multiples of 4, and these are 30 × 30\. Choose others/);
  const [question] = await Promise.all([page.waitForEvent('dialog'), page.close({ runBeforeUnload: true })]);
  assert.is(question.type(), 'beforeunload');
  await question.dismiss();
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#save')]);
  assert.is(decodeRun(readFileSync(await download.path()), 'the saved run').step, 30);
  await done();
});

pages('the run that the browser keeps is of one tab at a time; a device that is lost in a pause is no end', async () => {
  const { page, done } = await open('train'), other = await page.context().newPage();
  other.setDefaultTimeout(PATIENCE);
  await page.selectOption('#size', '16');
  await page.selectOption('#model', 'mini');
  for (const [id, value] of [['steps', '5000'], ['batch', '1']] as const) await page.fill(`#${id}`, value);
  await page.click('#start');
  await until(page, `${step} >= 2`);
  await page.click('#pause');
  await until(page, 'document.querySelector("#start").textContent === "Go on" && !document.querySelector("#start").disabled');
  const at = Number(await page.evaluate(step));
  await other.goto(page.url());
  await other.click('#resume');
  await until(other, '/E-USAGE.*another tab/.test(document.body.innerText)');
  await page.evaluate('((lose) => { lose.disabled = false; lose.click(); })(document.querySelector("#lose"))');
  await page.click('#start');
  await until(page, `${step} > ${at}`);
  await page.close();
  await other.click('#resume');
  await until(other, `${step} > ${at}`);
  await done();
});

pages('weights, config and schedule that are dropped in give the samples of Node', async () => {
  const golden = readFileSync(new URL('golden/unet-dev-gray28.safetensors', import.meta.url)), { weights, config, scheduler } = goldenFiles(golden);
  const files = { 'diffusion_pytorch_model.safetensors': weights, 'config.json': config, 'scheduler_config.json': scheduler };
  for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);

  const { page, done } = await open('sample');
  writeFileSync(join(folder, 'notes.safetensors'), '<!doctype html><p>not found');
  await page.setInputFiles('#model-files', [join(folder, 'notes.safetensors'), join(folder, 'config.json')]);
  await until(page, '/E-FILE.*notes.safetensors.*HTML/s.test(document.body.innerText)');
  writeFileSync(join(folder, 'odd.json'), JSON.stringify({ ...(JSON.parse(config) as object), norm_num_groups: 3 }));
  await page.setInputFiles('#model-files', [join(folder, 'diffusion_pytorch_model.safetensors'), join(folder, 'odd.json')]);
  await until(page, '/E-MODEL.*multiple of norm_num_groups/s.test(document.body.innerText)');

  // What the schedule is, its file says.
  writeFileSync(join(folder, 'scheduler_config.json'), JSON.stringify({ ...(JSON.parse(scheduler) as object), num_train_timesteps: 50 }));
  await page.setInputFiles('#model-files', Object.keys(files).map((name) => join(folder, name)));
  await until(page, '/noise levels\\s*50$/.test(document.querySelector("#model").innerText)');
  writeFileSync(join(folder, 'scheduler_config.json'), scheduler);

  // As they lie in a folder of diffusers, among others.
  writeFileSync(join(folder, 'a_model_index.json'), '{}');
  await page.setInputFiles('#model-files', ['a_model_index.json', ...Object.keys(files)].map((name) => join(folder, name)));
  await until(page, '/noise levels\\s*1,000$/.test(document.querySelector("#model").innerText) && !document.querySelector("#draw").disabled');
  for (const [id, value] of [['sample-steps', '3'], ['count', '1'], ['sample-seed', '7']] as const) await page.fill(`#${id}`, value);
  await page.click('#draw');
  await until(page, '!document.querySelector("#png").disabled && document.querySelector("#scrub").max === "2"');
  const got = (await page.evaluate('Array.from(ddpm.samples)')) as number[];
  await page.locator('#scrub').press('ArrowLeft');
  assert.match(await page.innerText('#at'), /step 2 of 3/);
  const [film] = await Promise.all([page.waitForEvent('download'), page.click('#apng')]);
  assert.ok(readFileSync(await film.path()).includes('acTL'), 'an animated PNG');
  assert.ok(await page.isHidden('#label'), 'a model without classes');

  await page.click('#inpaint');
  assert.is(await page.evaluate('document.querySelector("#under").width'), 28, 'pixel under pixel');
  assert.equal(await page.locator('.over .pad').boundingBox(), await page.locator('#under').boundingBox());
  await page.fill('#resamples', '1');
  await page.click('#anew');
  await until(page, '/E-USAGE.*Nothing is brushed over/.test(document.body.innerText)');
  await page.locator('.over .pad').scrollIntoViewIfNeeded();
  const box = (await page.locator('.over .pad').boundingBox())!, middle = [box.x + box.width / 2, box.y + box.height / 2] as const;
  await page.mouse.move(middle[0] - 20, middle[1]);
  await page.mouse.down();
  await page.mouse.move(middle[0] + 20, middle[1], { steps: 4 });
  await page.mouse.up();
  await page.click('#draw');
  await until(page, '!document.querySelector("#png").disabled');
  const painted = (await page.evaluate('Array.from(ddpm.samples)')) as number[];
  const changed = painted.flatMap((v, i) => (v === got[i] ? [] : [i]));
  assert.ok(changed.length > 0, `what the brush covered is drawn anew: ${changed.length} pixels`);
  for (const i of changed) assert.ok(Math.abs(Math.floor(i / 28) - 13.5) < 6, `pixel ${i} is kept`);

  // Files that come while it draws are refused, and the drawing goes on until it is stopped.
  await page.click('#leave');
  await page.fill('#sample-steps', '200');
  await page.click('#draw');
  await until(page, 'Number(document.querySelector("#scrub").max) >= 1');
  assert.ok(await page.isDisabled('#inpaint'), 'there is no image to paint in yet');
  await page.setInputFiles('#model-files', Object.keys(files).map((name) => join(folder, name)));
  await until(page, '/E-USAGE.*images are being drawn/.test(document.body.innerText)');
  const last = Number(await page.getAttribute('#scrub', 'max'));
  await until(page, `Number(document.querySelector("#scrub").max) > ${last}`);
  await page.click('#cancel');
  await until(page, 'document.querySelector("#drawn").textContent.startsWith("stopped") && !document.querySelector("#draw").disabled');
  await done();

  const { engine, close } = await openEngine();
  const want = await goldenDraw(engine, golden), allowed = goldenTolerance(want.length);
  await close();
  assert.is(got.length, want.length);
  got.forEach((v, i) => assert.ok(Math.abs(v - want[i]!) < allowed[i]!, `value ${i}: ${v} in the tab, ${want[i]} in Node`));
});

pages('images are dropped in and drawn; what does not decode is said, and the rest is taken', async () => {
  const { page, done } = await open('train');
  const two = idx(2, 8);
  writeFileSync(join(folder, 'two-images-idx3-ubyte'), two);
  await page.selectOption('#source', 'fashion-mnist');
  await page.setInputFiles('#idx-files', join(folder, 'two-images-idx3-ubyte'));
  await until(page, 'document.querySelector("#data-about").textContent === "2 images of 8 × 8"');
  assert.ok(await page.isHidden('#by-class'), 'without labels there is no class to learn');
  writeFileSync(join(folder, 'two-labels-idx1-ubyte'), Uint8Array.of(0, 0, 8, 1, 0, 0, 0, 2, 0, 3));
  await page.setInputFiles('#idx-files', join(folder, 'two-labels-idx1-ubyte'));
  await until(page, 'document.querySelector("#data-about").textContent === "2 images of 8 × 8, 4 classes"');
  assert.ok(await page.isVisible('#by-class'));
  writeFileSync(join(folder, 'three-labels-idx1-ubyte'), Uint8Array.of(0, 0, 8, 1, 0, 0, 0, 3, 0, 3, 1));
  await page.setInputFiles('#idx-files', join(folder, 'three-labels-idx1-ubyte'));
  await until(page, '/E-DATA.*3 labels.*2 images/s.test(document.body.innerText)');
  writeFileSync(join(folder, 'cut-images-idx3-ubyte'), two.subarray(0, 40));
  await page.setInputFiles('#idx-files', join(folder, 'cut-images-idx3-ubyte'));
  await until(page, '/E-DATA.*cut off/s.test(document.body.innerText)');

  two[3] = 4; // with a fourth size that is none: seven channels
  writeFileSync(join(folder, 'odd-images-idx4-ubyte'), Uint8Array.from([...two.subarray(0, 16), 0, 0, 0, 7, ...new Uint8Array(2 * 64 * 7)]));
  await page.setInputFiles('#idx-files', join(folder, 'odd-images-idx4-ubyte'));
  await until(page, '/E-DATA.*2 × 8 × 8 × 7, and images need/s.test(document.body.innerText)');
  assert.is(await page.innerText('#data-about'), '2 images of 8 × 8, 4 classes', 'what was there stays');

  await page.selectOption('#source', 'cifar');
  writeFileSync(join(folder, 'data_batch_1.bin'), Uint8Array.from({ length: 2 * 3073 }, (_, i) => (i % 3073 ? i & 255 : 7)));
  await page.setInputFiles('#cifar-files', join(folder, 'data_batch_1.bin'));
  await until(page, 'document.querySelector("#data-about").textContent === "2 images of 32 × 32, colour, 10 classes"');
  execFileSync('tar', ['czf', join(folder, 'cifar-10-binary.tar.gz'), '-C', folder, 'data_batch_1.bin']);
  await page.selectOption('#source', 'images');
  await page.selectOption('#source', 'cifar');
  await page.setInputFiles('#cifar-files', join(folder, 'cifar-10-binary.tar.gz'));
  await until(page, 'document.querySelector("#data-about").textContent === "2 images of 32 × 32, colour, 10 classes"');
  // A folder may be dropped anywhere.
  await page.selectOption('#source', 'images');
  await page.selectOption('#source', 'cifar');
  await page.evaluate(`((batch) => {
    const given = { isFile: true, fullPath: '/bin/' + batch.name, file: (done) => done(batch) }, other = { ...given, file: (done) => done(new File(['hello'], 'readme.html')) }, rest = [[given, other], []];
    const item = { webkitGetAsEntry: () => ({ isFile: false, createReader: () => ({ readEntries: (done) => done(rest.shift()) }) }) };
    document.querySelector('.drop').dispatchEvent(Object.assign(new Event('drop', { cancelable: true }), { dataTransfer: { types: ['Files'], files: [new File([], 'bin')], items: [item] } }));
  })(new File([new Uint8Array(3 * 3073)], 'data_batch_1.bin'))`);
  await until(page, 'document.querySelector("#data-about").textContent === "3 images of 32 × 32, colour, 10 classes"');
  // What is still read when other data are wanted is not shown as these.
  await page.setInputFiles('#cifar-files', join(folder, 'cifar-10-binary.tar.gz'));
  await page.evaluate('((source) => { source.value = "shapes"; source.dispatchEvent(new Event("change")); })(document.querySelector("#source"))');
  await page.waitForTimeout(500);
  assert.match(await page.innerText('#data-about'), /^2,000 images/);
  await page.selectOption('#source', 'cifar');
  writeFileSync(join(folder, 'data_batch_2.bin'), new Uint8Array(3000));
  await page.setInputFiles('#cifar-files', join(folder, 'data_batch_2.bin'));
  await until(page, '/E-DATA.*data_batch_2.bin has 3000 bytes/s.test(document.body.innerText)');

  await page.selectOption('#source', 'images');
  await page.selectOption('#size', '16');
  for (const name of ['broken.png', 'torn.png']) writeFileSync(join(folder, name), 'no picture');
  writeFileSync(join(folder, 'clear.png'), Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAQAAAAECAYAAACp8Z5+AAAADElEQVR4nGNgoBwAAABEAAHX40j9AAAAAElFTkSuQmCC', 'base64')); // 4 × 4, transparent
  await page.setViewportSize({ width: 390, height: 500 });
  await page.setInputFiles('#image-files', [join(folder, 'clear.png'), join(folder, 'broken.png'), join(folder, 'torn.png')]);
  await until(page, 'document.querySelector("#data-about").textContent === "1 image of 16 × 16"');
  assert.match(await said(page), /E-DATA.*broken\.png is no image.* It and 1 more were left out/);
  // A page scrolls by whole pixels.
  assert.ok(await page.evaluate('((box) => box.top > -1 && box.bottom < innerHeight + 1)([...document.querySelectorAll("[role=alert]")].find((e) => e.checkVisibility()).getBoundingClientRect())'), 'what went wrong is in sight');
  await page.setViewportSize({ width: 1280, height: 900 });
  assert.equal(await page.evaluate('[...document.querySelector("canvas").getContext("2d").getImageData(8, 8, 1, 1).data]'), [255, 255, 255, 255], 'transparent is white, as in a command');
  const picture = readFileSync(new URL('../bench/results/tiny-fashion-mnist.png', import.meta.url));
  for (const path of ['train/cat/1.png', 'train/dog/1.png', 'train/dog/2.png', 'test/cat/9.png']) {
    mkdirSync(join(folder, 'animals', path, '..'), { recursive: true });
    writeFileSync(join(folder, 'animals', path), picture);
  }
  await page.setInputFiles('#image-files-folder', join(folder, 'animals'));
  await until(page, 'document.querySelector("#data-about").textContent === "3 images of 16 × 16, 2 classes"');

  await page.selectOption('#source', 'drawings');
  assert.ok(await page.isDisabled('#start'), 'nothing to train on');
  await page.click('#add-drawing');
  assert.match(await said(page), /E-DATA.*nothing is drawn on the pad/);
  const box = (await page.locator('.pad').boundingBox())!;
  await page.mouse.move(box.x + 40, box.y + 40);
  await page.mouse.down();
  await page.mouse.move(box.x + 120, box.y + 160, { steps: 4 });
  await page.mouse.up();
  await page.fill('#drawing-class', 'line');
  await page.click('#add-drawing');
  await page.fill('#drawing-class', 'dot');
  await page.focus('.pad');
  const pen = 'getComputedStyle(document.querySelector(".pad")).backgroundPosition', before = await page.evaluate(pen);
  await page.keyboard.press('Shift+ArrowRight');
  assert.not.equal(await page.evaluate(pen), before, 'the pen is seen to move');
  for (const key of ['ArrowRight', 'ArrowRight', 'ArrowDown', ' ']) await page.keyboard.press(key);
  await page.click('#add-drawing');
  assert.is(await page.innerText('#data-about'), '2 images of 16 × 16, 2 classes');
  assert.ok(await page.isEnabled('#start'));
  // Another size keeps what was drawn and what was chosen.
  await page.selectOption('#size', '32');
  await until(page, 'document.querySelector("#data-about").textContent === "2 images of 32 × 32, 2 classes"');
  await page.selectOption('#source', 'images');
  await until(page, 'document.querySelector("#data-about").textContent === "3 images of 32 × 32, 2 classes"');
  await done();
});

pages('kernels are checked on the GPU of the browser, beside their twins', async () => {
  const { page, done } = await open('kernels/conv2d_forward');
  assert.match(await page.innerText('main'), /export function conv2d[\s\S]*@compute @workgroup_size/);
  const [mathematics, ...lines] = complete().find(({ name }) => name === 'conv2d_forward')!.wgsl.split('\n');
  assert.is(`// ${await page.innerText('.mathematics')}`, mathematics);
  assert.is(await page.locator('pre').last().textContent(), lines.join('\n').trim(), 'with its comments');
  await page.click('#run-check');
  await until(page, '/agrees|DIFFERS|E-/.test(document.querySelector("#result").innerText)');
  assert.match(await page.innerText('#result'), /^agrees/);
  await page.click('#check-all');
  const names = Object.keys(kernels), more = Object.values(kernels).filter(({ name, features }) => (features.length > 0 && !name.endsWith('_lanes4')) || LONG.has(name)).length, rest = names.length - more;
  // SwiftShader's subgroups are four wide, it has no float16, and a compiler that takes minutes for the longest kernels.
  await until(page, `document.querySelector("#checked").textContent === "${rest} of ${rest} agree with their float64 twins on this GPU; ${more} need what it does not have" || document.querySelector("[role=alert]")?.checkVisibility()`);
  assert.match(await page.innerText('#checked'), new RegExp(`^${rest} of ${rest} agree`));
  await page.click('a[href="#kernels/matmul_subgroup"]');
  await until(page, 'document.querySelector("h1").textContent === "matmul_subgroup"'); // the address changes before the page does
  assert.equal(await page.locator('a[aria-current]').allInnerTexts(), ['Kernels', 'matmul_subgroup']);
  assert.is(await page.evaluate('document.activeElement.textContent'), 'matmul_subgroup', 'the keyboard goes on from its heading');
  await page.click('#run-check');
  await until(page, 'document.querySelector("#result").innerText.startsWith("not run: needs subgroups of 8")');
  await page.click('nav a[href="#doctor"]');
  await until(page, '/swiftshader[\\s\\S]*maxStorageBuffersPerShaderStage/.test(document.body.innerText)');
  await done();
});

pages('a kernel that does not compile ends the test of the doctor, which says so', async () => {
  const { page, done } = await open('doctor', { before: `
    const make = GPUDevice.prototype.createShaderModule;
    let left = 3;
    Object.defineProperty(GPUAdapter.prototype, 'info', { value: undefined });
    GPUDevice.prototype.createShaderModule = function (of) { return make.call(this, left-- > 0 ? of : { ...of, code: 'no WGSL' }); }` });
  await until(page, 'document.querySelector("#device").textContent === "unnamed GPU"'); // a browser that says nothing of it
  await page.click('#self-test');
  await until(page, '/the test ended/.test(document.querySelector("#tested").textContent)');
  assert.match(await page.innerText('#tested'), /^\d kernels agree with their float64 twins; .*the test ended at \w+: .*WGSL/);
  assert.is(await page.getAttribute('#tested', 'class'), 'bad');
  await done();
});

pages('without WebGPU the page says so, and what to do', async () => {
  const { url } = await (site ??= openWeb(0)), other = await browserWithoutWebGpu(), page = await other.newPage();
  page.setDefaultTimeout(PATIENCE);
  await page.goto(url);
  await until(page, 'document.querySelector("#device").textContent === "no WebGPU"');
  assert.match(await said(page), /WebGPU.*(chrome:\/\/gpu|--enable-unsafe-webgpu)/s);
  await other.close();
});

pages('a worker that is not there is said to whoever asks, then and later', async () => {
  const { page, done } = await open('train', { missing: 'worker.js' });
  await until(page, 'document.querySelector("#device").textContent === "computes nothing"');
  assert.match(await said(page), /worker\.js, could not be loaded/);
  await page.click('#start');
  await until(page, '[...document.querySelectorAll("main [role=alert]")].some((e) => /E-ENGINE.*worker\\.js, could not be loaded/.test(e.innerText))');
  assert.ok(await page.isEnabled('#start'));
  await done();
});

pages('what the worker sends and the browser cannot read is the end of it, which is said', async () => {
  const { page, done } = await open('train');
  await page.addInitScript('globalThis.Worker = class extends Worker { constructor(...of) { super(...of); globalThis.worker = this; } }');
  await page.reload();
  await page.evaluate('worker.dispatchEvent(new MessageEvent("messageerror"))');
  await page.click('#start');
  await until(page, '[...document.querySelectorAll("main [role=alert]")].some((e) => /E-ENGINE.*could not read/.test(e.innerText))');
  assert.ok(await page.isEnabled('#start'));
  await done();
});

pages('any address gives a page', async () => {
  const { page, done } = await open('kernels/%');
  assert.is(await page.innerText('h1'), 'silu_forward');
  assert.ok(await page.evaluate('(() => { const dataTransfer = new DataTransfer(); dataTransfer.items.add(new File(["x"], "x.txt")); return !document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true })); })()'), 'a file beside the drop zones is not opened');
  await page.evaluate('location.hash = "toString"');
  await until(page, 'document.querySelector("nav a[aria-current]").textContent === "Train" && document.querySelector("#start").checkVisibility()');
  // Also on the narrowest screens, and with the text twice as large, as wide as the screen.
  await page.setViewportSize({ width: 320, height: 640 });
  for (const size of ['100%', '200%'])
    for (const [name, heading] of [['train', 'Train a model in this tab'], ['sample', 'Sample from a model'], ['kernels', 'silu_forward'], ['doctor', 'Check this device']] as const) {
      await page.evaluate(`document.documentElement.style.fontSize = "${size}"; location.hash = "${name}"`);
      await until(page, `document.querySelector("nav a[aria-current]").textContent.toLowerCase() === "${name}"`);
      assert.is(await page.evaluate('document.scrollingElement.scrollWidth'), 320, `${name} at ${size}`);
      assert.equal(await page.getByRole('heading', { level: 1 }).allInnerTexts(), [heading]);
    }
  await done();
});

pages('the view of a run grows with it; runs lie over one another, live and as a report', async () => {
  const run = join(folder, 'run'), line = (step: number): string => `${JSON.stringify({ step, epoch: 1, loss: 1 / step, grad_norm: 1, lr: 1e-3, ms: 10, images_per_s: 400 })}\n`;
  mkdirSync(run);
  writeFileSync(join(run, 'config.json'), JSON.stringify({ 'ddpm.wgsl': 1, steps: 50, batch_size: 4 }));
  writeFileSync(join(run, 'metrics.jsonl'), line(1) + line(2));
  writeFileSync(join(run, 'env.json'), JSON.stringify({ memory: { weights: 2 ** 20, odd: '1; background: url(http://127.0.0.1:9/)' } }));
  const { url, close } = await openView(run, 0), page = await (await browser()).newPage();
  page.setDefaultTimeout(PATIENCE);
  // A server that does not answer at first is asked again.
  await page.route('**/api/runs', (route) => route.abort(), { times: 1 });
  await page.goto(url);
  await until(page, 'document.querySelector("main").innerText.includes("does not answer")');
  await until(page, 'document.querySelector(".numbers dd")?.textContent === "2 / 50"');
  assert.equal([await page.innerText('.legend span >> nth=0'), await page.locator('.stacked span').count()], ['memory 1.0 MiB', 1], 'what is no number is left out');
  appendFileSync(join(run, 'metrics.jsonl'), line(3) + '{"step":4');
  await until(page, 'document.querySelector(".numbers dd").textContent === "3 / 50"');
  // Something is drawn in the colour of the line.
  const drawn = 'new Set(document.querySelector("canvas").getContext("2d").getImageData(0, 0, 400, 200).data).size > 3';
  await until(page, drawn);
  // What a pointer finds in a chart, or a step that comes, is no news for a screen reader; what the arrow keys find is.
  assert.is(await page.locator('[aria-live] .readout, [role=status] .readout, .readout[aria-live], .readout[role=status]').count(), 0);
  const chart = page.locator('.chart canvas').first();
  await chart.hover();
  await until(page, 'document.querySelector(".readout").textContent.includes("step")');
  assert.is(await chart.getAttribute('aria-valuetext'), 'nothing yet');
  await chart.press('Home');
  await until(page, 'document.querySelector(".chart canvas").getAttribute("aria-valuetext") === "1 · step 1"');
  await close();

  // Two runs over one another, and as a report that opens from a disk.
  const two = ['one', 'two'].map((name) => join(folder, 'runs', name));
  for (const [i, path] of two.entries()) {
    mkdirSync(path, { recursive: true });
    writeFileSync(join(path, 'config.json'), JSON.stringify({ 'ddpm.wgsl': 1, steps: 50, batch_size: 4 + i, timesteps: 100 }));
    writeFileSync(join(path, 'metrics.jsonl'), [1, 3000].map((step) => `${JSON.stringify({ step, loss: (1 + i) / step, loss_by_t: [0.5, 0.1 + i] })}\n`).join(''));
  }
  const both = await openView(join(folder, 'runs'), 0);
  writeFileSync(join(folder, 'report.html'), await makeReport(two));
  for (const at of [both.url, pathToFileURL(join(folder, 'report.html')).href]) {
    await page.goto(at);
    await until(page, 'document.querySelector("#title").textContent === "2 runs" && document.querySelectorAll(".numbers").length === 2');
    const charts = page.locator('.chart:visible');
    await until(page, '[...document.querySelectorAll(".chart")].some((c) => c.checkVisibility() && c.innerText.startsWith("Loss by noise level"))');
    // Lines of two colours, neither of which is of text: blue and orange pixels.
    const colours = 'new Set([...document.querySelector("canvas").getContext("2d").getImageData(0, 0, 900, 400).data.reduce((all, v, i, d) => (i % 4 === 0 && d[i + 3] === 255 && Math.abs(v - d[i + 2]) > 60 ? all.add(v > d[i + 2] ? "orange" : "blue") : all), new Set())]).size';
    await until(page, `${colours} === 2`);
    assert.ok(await page.evaluate('(({ width, height }, ctx) => ctx.getImageData(width - 1, 0, 1, height).data.every((v) => v === 0))(document.querySelector("canvas"), document.querySelector("canvas").getContext("2d"))'), 'the last number of the axis is not cut off');
    await page.locator('label', { hasText: 'one' }).locator('input[type=checkbox]').uncheck();
    await until(page, 'document.querySelector("#title").textContent === "two"');
    assert.ok((await charts.count()) >= 2);
  }
  await both.close();
  rmSync(join(folder, 'runs'), { recursive: true });

  // A run that begins later appears by itself, also where there was none.
  mkdirSync(join(folder, 'runs'));
  const later = await openView(join(folder, 'runs'), 0);
  await page.goto(later.url);
  await until(page, 'document.querySelector("main").innerText.includes("There is no run here yet")');
  for (const name of ['first', 'second']) {
    mkdirSync(join(folder, 'runs', name));
    writeFileSync(join(folder, 'runs', name, 'config.json'), JSON.stringify({ 'ddpm.wgsl': 1, steps: 50, batch_size: 4 }));
    writeFileSync(join(folder, 'runs', name, 'metrics.jsonl'), line(7));
    await until(page, `[...document.querySelectorAll(".numbers")].filter((n) => n.innerText.includes("7 / 50")).length === ${name === 'first' ? 1 : 2}`);
  }
  // One that is deleted goes, and the others are followed on.
  rmSync(join(folder, 'runs', 'first'), { recursive: true });
  await until(page, 'document.querySelector("#title").textContent === "second"');
  appendFileSync(join(folder, 'runs', 'second', 'metrics.jsonl'), line(8));
  await until(page, 'document.querySelector(".numbers").innerText.includes("8 / 50")');
  await page.close();
  await later.close();
});

pages.run();
