// Downloads: a hub on this machine that breaks off, sends wrong bytes, knows no ranges or is not there; and npm run info on what was downloaded.
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { RunFolder } from '../src/cli/run-folder.ts';
import { loadModelFolder } from '../src/io/checkpoint.ts';
import { fetchModel } from '../src/io/hub.ts';
import { writeSafetensors } from '../src/io/safetensors.ts';
import { initialise } from '../src/nn/init.ts';
import { parametersOf } from '../src/nn/parameter.ts';
import { UNet } from '../src/nn/unet.ts';
import { type Command, type Ended, start } from './helpers/commands.ts';
import { assertError } from './helpers/gpu.ts';

const CONFIG = { in_channels: 1, out_channels: 1, block_out_channels: [8, 16], down_block_types: ['DownBlock2D', 'DownBlock2D'], up_block_types: ['UpBlock2D', 'UpBlock2D'], layers_per_block: 1, norm_num_groups: 4, attention_head_dim: null, sample_size: 8 };
const WEIGHTS = writeSafetensors(parametersOf(new UNet(CONFIG)).map((p, i) => [p.name, { shape: p.shape, data: initialise(p.init, p.shape, 0, i) }] as const));
const FILES: Record<string, Uint8Array> = {
  'README.md': Buffer.from('a card'), 'config.json': Buffer.from(JSON.stringify(CONFIG)), 'scheduler_config.json': Buffer.from(JSON.stringify({ _class_name: 'DDPMScheduler', variance_type: 'fixed_large' })),
  'diffusion_pytorch_model.safetensors': WEIGHTS, 'diffusion_pytorch_model.bin': Buffer.from('pickle'),
};
const BIG = 'diffusion_pytorch_model.safetensors', COMMIT = '0123456789abcdef0123456789abcdef01234567';
const sums = (bytes: Uint8Array) => ({ sha256: createHash('sha256').update(bytes).digest('hex'), blob: createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex') });

/** How the hub behaves: after how many bytes an answer breaks off, whether it knows ranges, what it says the checksum is. */
interface Manners {
  breakAfter?: number;
  ranges?: boolean;
  sum?: string;
  /** The model has a new name, which answers to the old one lead to. */
  moved?: boolean;
  files?: Record<string, Uint8Array>;
}

/** Runs `test` with a hub and an empty folder; `log` is what was asked for. */
async function withHub(manners: Manners, test: (hub: { endpoint: string; folder: string; log: string[]; manners: Manners }) => Promise<void>): Promise<void> {
  const log: string[] = [];
  const server = createServer((request, response) => {
    const files = manners.files ?? FILES, { pathname } = new URL(request.url!, 'http://hub'), range = request.headers.range;
    log.push(`${request.method} ${pathname}${range ? ` ${range}` : ''}`);
    if (pathname === '/api/models/some/model/revision/main') return json(response, { sha: COMMIT, siblings: Object.keys(files).map((rfilename) => ({ rfilename })) });
    if (manners.moved && pathname.startsWith('/some/')) return void response.writeHead(307, { location: pathname.replace('/some/', '/new/'), 'content-length': 7 }).end(request.method === 'HEAD' ? '' : 'not yet');
    const large = pathname.startsWith('/store/'), name = pathname.replace(large ? '/store/' : `/${manners.moved ? 'new' : 'some'}/model/resolve/${COMMIT}/`, ''), bytes = files[name];
    if (!bytes) return void response.writeHead(404).end();
    const { sha256, blob } = sums(bytes);
    // As the hub does it: large files lie elsewhere, and the redirect carries their checksum and length.
    if (name === BIG && !large) return void response.writeHead(302, { location: `/store/${name}`, 'x-linked-etag': `"${manners.sum ?? sha256}"`, 'x-linked-size': bytes.length, etag: '"of the redirect"' }).end();
    const from = range && manners.ranges !== false ? Number(/bytes=(\d+)-/.exec(range)![1]) : 0, body = bytes.subarray(from);
    response.writeHead(from ? 206 : 200, { etag: large ? '"of the store"' : `W/"${blob}"`, 'content-length': body.length, ...(from && { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` }) });
    if (request.method === 'HEAD') return void response.end();
    if (large && manners.breakAfter !== undefined && body.length > manners.breakAfter) return void response.write(body.subarray(0, manners.breakAfter), () => setTimeout(() => response.destroy(), 20));
    response.end(body);
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const folder = mkdtempSync(join(tmpdir(), 'ddpm-hub-'));
  try {
    await test({ endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, folder, log, manners });
  } finally {
    rmSync(folder, { recursive: true });
    server.closeAllConnections();
    server.close();
  }
}

const json = (response: ServerResponse, value: object): void => void response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value));
const partOf = (folder: string, sum = sums(WEIGHTS).sha256): string => join(folder, `${BIG}.${sum.slice(0, 12)}.part`);
const hub = suite('fetch');

hub('config, scheduler and weights, byte for byte; the second time nothing is downloaded', () =>
  withHub({}, async ({ endpoint, folder, log }) => {
    const { commit, files } = await fetchModel('some/model', folder, { endpoint });
    assert.is(commit, COMMIT);
    assert.equal(files.map(({ name, there }) => [name, there]), [['config.json', false], ['scheduler_config.json', false], [BIG, false]]);
    assert.equal(readdirSync(folder).sort(), ['config.json', BIG, 'scheduler_config.json'].sort());
    for (const { name } of files) assert.equal(new Uint8Array(readFileSync(join(folder, name))), new Uint8Array(FILES[name]));
    log.length = 0;
    assert.ok((await fetchModel('some/model', folder, { endpoint })).files.every(({ there }) => there));
    assert.not(log.some((line) => line.startsWith('GET /some')));
  }));

hub('a transfer that breaks off goes on where it stopped, in one call and by the next', () =>
  withHub({ breakAfter: Math.ceil(WEIGHTS.length / 3) }, async ({ endpoint, folder, log, manners }) => {
    await fetchModel('some/model', folder, { endpoint, pause: 1 });
    assert.equal(new Uint8Array(readFileSync(join(folder, BIG))), new Uint8Array(WEIGHTS));
    assert.is(log.filter((line) => line.startsWith('GET /store')).length, 3);
    assert.ok(log.some((line) => line === `GET /store/${BIG} bytes=${manners.breakAfter}-`), log.join('\n'));

    rmSync(join(folder, BIG));
    manners.breakAfter = 0; // nothing comes any more
    writeFileSync(partOf(folder), WEIGHTS.subarray(0, 1000));
    await assertError(() => fetchModel('some/model', folder, { endpoint, pause: 1 }), 'E-NETWORK', new RegExp(`broke off at 1000 of ${WEIGHTS.length} bytes.*again to go on`));
    assert.not(existsSync(join(folder, BIG)));
    delete manners.breakAfter;
    log.length = 0;
    await fetchModel('some/model', folder, { endpoint, pause: 1 });
    assert.ok(log.includes(`GET /store/${BIG} bytes=1000-`));
    assert.equal(new Uint8Array(readFileSync(join(folder, BIG))), new Uint8Array(WEIGHTS));
  }));

hub('a hub without ranges sends all of it again', () =>
  withHub({ ranges: false }, async ({ endpoint, folder }) => {
    writeFileSync(partOf(folder), WEIGHTS.subarray(0, 1000));
    await fetchModel('some/model', folder, { endpoint, pause: 1 });
    assert.equal(new Uint8Array(readFileSync(join(folder, BIG))), new Uint8Array(WEIGHTS));
  }));

hub('redirects within the hub are followed to the file that they stand for', () =>
  withHub({ moved: true }, async ({ endpoint, folder }) => {
    const { files } = await fetchModel('some/model', folder, { endpoint, pause: 1 });
    for (const { name, bytes } of files) assert.equal([new Uint8Array(readFileSync(join(folder, name))), bytes], [new Uint8Array(FILES[name]), FILES[name].length]);
    assert.ok((await fetchModel('some/model', folder, { endpoint })).files.every(({ there }) => there));
  }));

hub('bytes that are wrong are never a model', () =>
  withHub({ sum: 'f'.repeat(64) }, async ({ endpoint, folder }) => {
    await assertError(() => fetchModel('some/model', folder, { endpoint }), 'E-FILE', new RegExp(`checksum ${sums(WEIGHTS).sha256}, and the hub says f{64}`));
    assert.equal(readdirSync(folder).filter((name) => name.startsWith(BIG)), []);
  }));

hub('a disk that is full, a name that is not there, pickles only, no network', async () => {
  await withHub({}, async ({ endpoint, folder, manners }) => {
    if (existsSync('/dev/full')) {
      symlinkSync('/dev/full', partOf(folder));
      await assertError(() => fetchModel('some/model', folder, { endpoint }), 'E-FILE', /the disk is full after \d+ of \d+ bytes/);
    }
    await assertError(() => fetchModel('some/other', folder, { endpoint }), 'E-NETWORK', /some\/other at revision main is not there; check the name and the revision/);
    manners.files = { 'config.json': FILES['config.json'], 'diffusion_pytorch_model.bin': Buffer.from('pickle') };
    await assertError(() => fetchModel('some/model', folder, { endpoint }), 'E-NETWORK', /only diffusion_pytorch_model\.bin, a pickle/);
  });
  await assertError(() => fetchModel('some/model', tmpdir(), { endpoint: 'http://127.0.0.1:9' }), 'E-NETWORK', /http:\/\/127\.0\.0\.1:9 cannot be reached.*HF_ENDPOINT/);
});

/** In a process of its own: the hub lives in this one. */
const command = (name: Command, args: string[], env: Record<string, string> = {}, cwd?: string): Promise<Ended> => start(name, args, { env, ...(cwd && { cwd }) });

hub('a folder that cannot be written, or one in the place of a file, is said', () =>
  withHub({}, async ({ endpoint, folder }) => {
    writeFileSync(join(folder, 'plain'), '');
    await assertError(() => fetchModel('some/model', join(folder, 'plain'), { endpoint }), 'E-FILE', /cannot write \S+plain\/config\.json: a part of the path is a file/);
    mkdirSync(join(folder, 'model', 'config.json', 'x'), { recursive: true });
    await assertError(() => fetchModel('some/model', join(folder, 'model'), { endpoint }), 'E-FILE', /cannot write \S+config\.json: it is a folder/);
  }));

hub('as commands: fetch, then info of the folder, of a pipeline, of a run and of the file', () =>
  withHub({}, async ({ endpoint, folder }) => {
    const out = join(folder, 'out'), fetched = await command('fetch', ['some/model', '--out', out], { HF_ENDPOINT: endpoint });
    assert.is(fetched.code, 0, fetched.stderr);
    assert.match(fetched.stdout, new RegExp(`some/model at ${COMMIT}`));

    // A pipeline as diffusers saves it; one of its tensors has half the bits.
    const pipeline = join(folder, 'pipeline'), all = parametersOf(new UNet(CONFIG)), total = all.reduce((sum, p) => sum + p.size, 0);
    for (const part of ['unet', 'scheduler']) mkdirSync(join(pipeline, part), { recursive: true });
    writeFileSync(join(pipeline, 'model_index.json'), JSON.stringify({ _class_name: 'DDPMPipeline', scheduler: ['diffusers', 'DDPMScheduler'], unet: ['diffusers', 'UNet2DModel'] }));
    cpSync(join(out, 'config.json'), join(pipeline, 'unet', 'config.json'));
    cpSync(join(out, 'scheduler_config.json'), join(pipeline, 'scheduler', 'scheduler_config.json'));
    const half = Buffer.from(writeSafetensors(all.map((p) => [p.name, { shape: p.shape, data: p.name === 'conv_in.bias' ? new Uint16Array(p.size).fill(0x3c00) : new Float32Array(p.size) }] as const)));
    half.write('"F16"', half.indexOf('"U16"'));
    writeFileSync(join(pipeline, 'unet', BIG), half);
    const model = await loadModelFolder(pipeline);
    assert.equal([model.folder, model.schedulerFile, model.scheduler.variance], [join(pipeline, 'unet'), join(pipeline, 'scheduler', 'scheduler_config.json'), 'fixed_large']);
    assert.equal([...model.tensors.get('conv_in.bias')!.data as Float32Array], Array<number>(8).fill(1));

    const run = await RunFolder.create(join(folder, 'runs'), 'run', { config: { data: 'shapes' }, environment: { memory: { data: 3 * 2 ** 20 } } });
    await run.saveCheckpoint(3, (at) => ['config.json', 'scheduler_config.json', BIG].forEach((name) => cpSync(join(out, name), join(at, name))));
    symlinkSync('gone', run.file('checkpoints', 'step-0000003', 'more')); // as a file that goes between its name and its size

    const [ofModel, ofPipeline, ofRun, ofFile, wrong, ofLatest] = await Promise.all([
      command('info', [out, '--json', '--batch-size', '4']), command('info', [pipeline]), command('info', [run.path]), command('info', [join(out, BIG)]), command('fetch', ['model']), command('info', ['latest'], {}, folder),
    ]);
    assert.is(ofModel.code, 0, ofModel.stderr);
    const { count, modules, memory, tensors } = JSON.parse(ofModel.stdout);
    assert.is(count, total);
    assert.is(tensors.length, all.length);
    assert.is(Object.values(modules as Record<string, number>).reduce((a, b) => a + b), total);
    assert.is(modules['conv_in'], 8 * 9 + 8);
    assert.ok(memory.weights >= 4 * total && memory.activations > memory.activationsCheckpointed && memory.activationsCheckpointed > memory.sampling);
    assert.is(memory.data, null);
    assert.match(ofPipeline.stdout, /^model +\S+pipeline$[^]*conv_in\.weight +F32 +72 [^]*conv_in\.bias +F16 +8 [^]*not counted +the images to train on; noise/m);
    assert.match(ofRun.stdout, /^run +\S+run$[^]*data +shapes[^]*step 3 +\S+ MiB[^]*training +\S+ MiB = .* \+ images 3\.0 MiB$[^]*not counted +noise/m);
    assert.match(ofLatest.stdout, /^run +runs\/run$[^]*step 3 /m);
    assert.match(ofFile.stdout, new RegExp(`conv_in\\.weight +F32 +72  \\(8, 1, 3, 3\\)[^]*all +${total.toLocaleString('en-US')}  in ${all.length} tensors`));
    assert.is(wrong.code, 2);
    assert.match(wrong.stderr, /E-USAGE "model" is not the name of a model; it is owner\/name/);
  }));
hub.run();
