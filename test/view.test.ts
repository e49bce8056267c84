// The view of runs: which lines are sent and sent again, what can be read through the server, and what a report carries.
import { appendFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { makeReport, openView, runsIn, thinned, wholeLines } from '../src/cli/view-server.ts';
import { encodePng } from '../src/io/png.ts';
import type { Run, RunReport } from '../src/web/view/run.ts';

const root = mkdtempSync(join(tmpdir(), 'ddpm-view-'));
const line = (step: number, more: object = {}): string => `${JSON.stringify({ step, epoch: step / 10, loss: 1 / step, grad_norm: 1, lr: 1e-3, ms: 10, images_per_s: 400, ...more })}\n`;
const png = encodePng({ width: 2, height: 2, channels: 1, data: Uint8Array.of(0, 255, 255, 0) });

function makeRun(name: string, steps: number): string {
  const path = join(root, name);
  mkdirSync(join(path, 'samples'), { recursive: true });
  writeFileSync(join(path, 'config.json'), JSON.stringify({ 'ddpm.wgsl': 1, steps: 100, batch_size: 4, note: '</script><!--' }));
  writeFileSync(join(path, 'metrics.jsonl'), Array.from({ length: steps }, (_, i) => line(i + 1)).join(''));
  for (const grid of ['step-0000010.png', 'step-0000005.png', 'final.png']) writeFileSync(join(path, 'samples', grid), png);
  return path;
}

/** Server-sent events until `enough` of their text says so; then the connection is closed. */
function listen(url: string, headers: Record<string, string>, enough: (text: string) => boolean, onText: (text: string) => void = () => {}): Promise<string> {
  return new Promise((done, fail) => {
    let text = '';
    const ask = request(url, { headers }, (response) => {
      response.on('data', (some: Buffer) => {
        text += some.toString();
        if (enough(text)) ask.destroy();
        else onText(text);
      });
      response.on('close', () => done(text));
      response.on('error', () => {});
    });
    ask.on('error', (error) => text || fail(error));
    ask.end();
  });
}

/** A raw request, so that paths stay as they are written. */
function get(url: string, path: string, headers: Record<string, string> = {}): Promise<{ status: number; body: string }> {
  const { port } = new URL(url);
  return new Promise((done, fail) => {
    request({ host: '127.0.0.1', port, path, headers }, (response) => {
      let body = '';
      response.on('data', (some: Buffer) => (body += some.toString('latin1')));
      response.on('end', () => done({ status: response.statusCode!, body }));
    }).on('error', fail).end();
  });
}

const steps = (text: string): number[] => [...text.matchAll(/^data: \{"step":(\d+)/gm)].map((m) => Number(m[1]));
const lastId = (text: string): string => [...text.matchAll(/^id: (.*)$/gm)].at(-1)![1]!;

const view = suite('view');
view.after(() => rmSync(root, { recursive: true }));

view('only whole lines are sent, each once', () => {
  const file = join(makeRun('lines', 2), 'metrics.jsonl');
  const first = wholeLines(file, 0);
  assert.is(first.lines.length, 2);
  appendFileSync(file, '{"step":3,');
  assert.equal(wholeLines(file, first.next), { lines: [], next: first.next });
  appendFileSync(file, '"loss":0.5}\n');
  assert.equal(wholeLines(file, first.next).lines, ['{"step":3,"loss":0.5}']);
  appendFileSync(file, '{"step":4,"lo{"step":5,"loss":0.4}\n{"step":6,"loss":0.3}\n');
  const { lines, next } = wholeLines(file, first.next);
  assert.equal([lines, wholeLines(file, next).lines], [['{"step":3,"loss":0.5}', '{"step":6,"loss":0.3}'], []], 'a damaged one is passed over');
  appendFileSync(file, 'null\n[7]\n8\n{"step":9}\n');
  assert.equal(wholeLines(file, next).lines, ['{"step":9}'], 'and what is JSON but no line of metrics');
  assert.equal(wholeLines(join(root, 'none'), 0), { lines: [], next: 0 });
});

view('a stream follows a run that grows, and goes on where the browser was', async () => {
  const path = makeRun('grows', 3), file = join(path, 'metrics.jsonl'), { url, close } = await openView(root, 0);
  const events = `${url}api/events?run=grows`;
  let grown = false;
  const text = await listen(events, {}, (t) => steps(t).includes(4), (t) => {
    if (grown || !steps(t).includes(3)) return;
    grown = true;
    appendFileSync(file, line(4));
  });
  assert.equal(steps(text), [1, 2, 3, 4]);
  assert.match(text, /^event: run$/m, 'the sample grids are said too');
  appendFileSync(file, line(5));
  assert.equal(steps(await listen(events, { 'last-event-id': lastId(text) }, (t) => t.includes('event: run'))), [5]);
  // A run that went on from an earlier checkpoint has its file written anew, and all of it comes again.
  writeFileSync(file, line(1) + line(2));
  assert.equal(steps(await listen(events, { 'last-event-id': lastId(text) }, (t) => t.includes('event: run'))), [1, 2]);
  await close();
});

view('several runs come through one stream, with an offset for each', async () => {
  makeRun('x', 2);
  makeRun('y', 3);
  const { url, close } = await openView(root, 0);
  const text = await listen(`${url}api/events?run=x&run=y`, {}, (t) => (t.match(/event: run/g) ?? []).length === 2);
  assert.equal([...text.matchAll(/^event: lines\ndata: (\d)$/gm)].map((m) => m[1]), ['0', '1']);
  assert.is(steps(text).length, 5);
  assert.match(lastId(text), /^\d+,\d+$/);
  await close();
});

view('the server gives what belongs to runs and nothing else', async () => {
  const path = makeRun('safe', 1);
  writeFileSync(join(root, 'secret.png'), 'secret');
  symlinkSync(join(root, 'secret.png'), join(path, 'samples', 'link.png'));
  symlinkSync(join(root, 'gone.png'), join(path, 'samples', 'dangling.png'));
  const { url, close } = await openView(root, 0);
  const runs = JSON.parse((await get(url, '/api/runs')).body) as Run[];
  const safe = runs.find((run) => run.name === 'safe')!;
  assert.equal(safe.samples.map((s) => s.step), [5, 10, null, null]);
  const grid = await get(url, `/${safe.samples[0]!.url}`);
  assert.is(grid.status, 200);
  assert.is(grid.body.slice(1, 4), 'PNG');
  for (const outside of ['/samples/safe/link.png', '/samples/safe/..%2f..%2fsecret.png', '/samples/..%2f/secret.png', '/samples/../secret.png', '/../secret.png', '/samples/none/final.png', '/config.json'])
    assert.is((await get(url, outside)).status, 404, outside);
  assert.is((await get(url, '/', { host: 'evil.example' })).status, 403);
  assert.is((await get(url, '/api/events?run=../safe')).status, 404);
  assert.is((await get(url, '/')).status, 200);
  await close();
});

view('a report carries the numbers, thinned out, and the pictures; its text cannot end its script', async () => {
  const path = makeRun('report', 5000);
  symlinkSync(join(root, 'gone.png'), join(path, 'samples', 'dangling.png'));
  writeFileSync(join(path, 'env.json'), 'null');
  appendFileSync(join(path, 'metrics.jsonl'), 'null\n');
  const html = await makeReport([path]);
  const json = /<script id="report" type="application\/json">(.*?)<\/script>/s.exec(html)![1]!;
  const [run] = JSON.parse(json) as [RunReport];
  assert.equal(run.env, {});
  assert.is(run.config['note'], '</script><!--');
  assert.ok(run.lines.length <= 2000 && run.lines.length > 1000);
  assert.is(run.lines.at(-1)!['step'], 5000);
  assert.is(run.samples[0]!.url, `data:image/png;base64,${Buffer.from(png).toString('base64')}`);
});

view('thinning keeps means and skipped steps', () => {
  const lines = [1, 2, 3, 4].map((step) => ({ step, loss: step === 3 ? null : step, ...(step === 2 && { nonfinite: 'loss' }) }));
  assert.equal(thinned(lines, 4), lines);
  const [a, b] = thinned(lines, 2);
  const by = thinned([{ step: 1, loss_by_t: [1, null] }, { step: 2 }, { step: 3, loss_by_t: [3, 4] }, { step: 4 }], 1);
  assert.equal(by[0]!['loss_by_t'], [2, 4]);
  assert.equal([a!['step'], a!['loss'], a!['nonfinite'], b!['step'], b!['loss'], b!['nonfinite']], [2, 1.5, 'loss', 4, 4, undefined]);
});

view('the last of all ports is not passed over for one that there is none of', async () => {
  const taken = await openView(root, 65535).catch(() => null); // whoever has it, it is taken then
  await openView(root, 65535).then(() => assert.unreachable(), (error: Error) => assert.match(`${error.name} ${error.message}`, /^DdpmError port 65535 cannot be used/));
  await taken?.close();
});

view('a path that is no run is refused', async () => {
  assert.equal(runsIn(join(root, 'nothing')), []);
  await openView(join(root, 'nothing'), 0).then(() => assert.unreachable(), (error: Error) => assert.match(error.message, /there is no run or folder/));
});

view.run();
