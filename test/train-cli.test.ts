// The commands as people type them: train, Ctrl-C, --resume, sample; what is in the run folder, and how they end when something is wrong.
import { type ChildProcess, spawnSync } from 'node:child_process';
import { closeSync, cpSync, existsSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { GaussianDiffusion } from '../src/diffusion/gaussian.ts';
import { makeSchedule } from '../src/diffusion/schedule.ts';
import { Training } from '../src/diffusion/training.ts';
import { BadSteps, metricsLine, stepsAhead, trainLoop, type LoopOptions } from '../src/cli/train-loop.ts';
import { makeShapes } from '../src/data/shapes.ts';
import { decodePng } from '../src/io/png.ts';
import { readSafetensors, writeSafetensors } from '../src/io/safetensors.ts';
import { openEngine } from '../src/node.ts';
import { parametersOf } from '../src/nn/parameter.ts';
import { Parameters } from '../src/nn/parameters.ts';
import { UNet } from '../src/nn/unet.ts';
import { DeviceImages } from '../src/ops/random.ts';
import { type Command, type Ended, ended as endedWith, type How, script, start } from './helpers/commands.ts';
import { normals } from './ref/random.ts';

const root = resolve(import.meta.dirname, '..');
const out = mkdtempSync(join(tmpdir(), 'ddpm-train-'));

/** Lets the disk be full for files with one of the names in `full`. */
const FULL_DISK = pathToFileURL(join(import.meta.dirname, 'helpers', 'full-disk.mjs')).href;

const fullDisk = (names: string): How => ({ env: { DDPM_TEST_FULL: names }, before: [FULL_DISK] });
const AS_NPM: How = { env: { npm_lifecycle_event: 'train' } };

const TINY = `--data shapes --limit 64 --preset tiny --batch-size 4 --timesteps 50 --samples 5 --sample-steps 2 --log-every 2 --out ${out}`;
/** `watch` sees what has come on stderr so far. */
const train = (line: string, watch?: (stderr: string, child: ChildProcess) => void, how: How = {}): Promise<Ended> => start('train', `${TINY} ${line}`, { ...how, watch: (_, stderr, child) => watch?.(stderr, child) });
const sample = (line: string): Promise<Ended> => start('sample', line);
/** Words are looked for on stderr: stdout is for what was made. */
const ended: typeof endedWith = (done, ...rest) => endedWith({ ...done, stdout: '' }, ...rest);
const run = (...parts: string[]): string => join(out, ...parts);
type Line = Record<string, number | string | null>;
const metrics = (name: string): Line[] => readFileSync(run(name, 'metrics.jsonl'), 'utf8').trim().split('\n').map((l) => JSON.parse(l) as Line);

/** Lines of one command that end with this code and say these words, two at a time: most of it is Node starting up, on one core. */
async function refused(command: Command, lines: readonly (readonly [line: string, code: number, ...words: string[]])[]): Promise<void> {
  for (let i = 0; i < lines.length; i += 2) {
    const two = lines.slice(i, i + 2);
    for (const [n, done] of (await Promise.all(two.map(([line]) => start(command, line)))).entries()) ended(done, two[n]![1], ...two[n]!.slice(2) as string[]);
  }
}

const cli = suite('train and sample');
cli.after(() => rmSync(out, { recursive: true }));

cli('train fills a run folder', async () => {
  const done = await train('--name a --steps 8 --save-every 4 --sample-every 4 --keep 0 --dropout 0.1 --flip');
  // Without subgroups, as on default limits, the device has no feature to tell.
  ended(done, 0, process.env['DDPM_TEST_LIMITS'] === 'default' ? /^device {3}\S/m : /^device {3}.+ · /m, /^data {5}shapes {2}64 × 28×28×1 {2}flip on/m, /^model {4}tiny .* \d+ parameters$/m, /^train {4}batch 4, .* 8 steps = 0\.500 epochs$/m);
  ended(done, 0, /^memory {3}weights .* activations .* = \d+ MiB$/m, /^kernels {2}\d+ pipelines compiled in/m, `run      ${run('a')}`, /^step 4\/8 \| {2}50% \| loss \d/m);
  assert.is(done.stdout, `samples  ${run('a', 'samples', 'final.png')}\nmore     npm run sample -- ${run('a')}\n`);
  assert.equal(readdirSync(run('a')).sort(), ['checkpoints', 'config.json', 'env.json', 'latest', 'metrics.jsonl', 'report.html', 'samples', 'tuning.json']);
  assert.equal(readdirSync(run('a', 'samples')).sort(), ['final.png', 'step-0000004.png']);
  assert.equal(readdirSync(run('a', 'checkpoints')).sort(), ['step-0000004', 'step-0000008']);
  assert.is(readFileSync(run('a', 'latest'), 'utf8'), 'checkpoints/step-0000008\n');

  const lines = metrics('a');
  assert.equal(lines.map((l) => l['step']), [1, 2, 3, 4, 5, 6, 7, 8]);
  for (const l of lines) {
    const { loss_by_t: levels, ...numbers } = l as Line & { loss_by_t?: (number | null)[] };
    assert.equal(Object.keys(numbers), ['step', 'epoch', 'loss', 'grad_norm', 'lr', 'ms', 'images_per_s']);
    assert.ok(Object.values(numbers).every((v) => Number.isFinite(v)), JSON.stringify(l));
    if (levels) assert.ok(levels.length === 10 && levels.some((v) => v !== null && v > 0), JSON.stringify(l));
  }
  assert.ok(lines[7]!['loss_by_t'], 'the last step that was read says its loss by noise level');
  assert.is(lines[7]!['epoch'], 0.5);
  const picture = decodePng(readFileSync(run('a', 'samples', 'final.png')));
  assert.equal([picture.width, picture.height, picture.channels], [(3 * 30 + 2) * 2, (2 * 30 + 2) * 2, 1]);

  const config = JSON.parse(readFileSync(run('a', 'config.json'), 'utf8')) as Record<string, unknown>;
  assert.equal([config['preset'], config['batch_size'], config['dropout'], config['flip'], config['seed']], ['tiny', 4, 0.1, true, 0]);
  const env = JSON.parse(readFileSync(run('a', 'env.json'), 'utf8')) as { adapter: { device: string; features: string[] } };
  assert.ok(env.adapter.device && Array.isArray(env.adapter.features));
  const model = JSON.parse(readFileSync(run('a', 'checkpoints', 'step-0000008', 'config.json'), 'utf8')) as Record<string, unknown>;
  assert.equal([model['_class_name'], model['sample_size'], model['dropout']], ['UNet2DModel', 28, 0.1]);
});

cli('on a CPU whose vectors hold four numbers, such as ARM, subgroups of four compute the same losses', async () => {
  const done = await train('--name four --steps 8 --save-every 4 --sample-every 4 --keep 0 --dropout 0.1 --flip', undefined, { env: { LP_NATIVE_VECTOR_WIDTH: '128' } });
  ended(done, 0);
  if (/llvmpipe.*subgroups/.test(done.stderr)) {
    ended(done, 0, 'subgroups(4)');
    assert.match(readFileSync(run('four', 'tuning.json'), 'utf8'), /"subgroup3x3"/);
  }
  // As far apart as a browser's are from Node's: only the order of sums differs.
  const losses = (name: string) => metrics(name).map((l) => Number(l['loss']));
  assert.is(losses('four').length, 8);
  for (const [i, loss] of losses('four').entries()) assert.ok(Math.abs(loss - losses('a')[i]!) <= 1e-4 * loss, `${losses('four')} and ${losses('a')}`);
});

cli('vectors of sixteen numbers, as with AVX-512, and of eight train the same files, byte for byte', async () => {
  const { adapter } = JSON.parse(readFileSync(run('a', 'env.json'), 'utf8')) as { adapter: { description: string; features: string[]; subgroups: [number, number] } };
  if (!/llvmpipe/i.test(adapter.description) || !adapter.features.includes('subgroups') || adapter.subgroups[0] < 8) return;
  const other = adapter.subgroups[0] === 8 ? 16 : 8;
  const done = await train('--name other --steps 8 --save-every 4 --sample-every 4 --keep 0 --dropout 0.1 --flip', undefined, { env: { LP_NATIVE_VECTOR_WIDTH: String(32 * other) } });
  ended(done, 0, `subgroups(${other})`);
  for (const file of readdirSync(run('a', 'checkpoints', 'step-0000008')))
    assert.ok(readFileSync(run('a', 'checkpoints', 'step-0000008', file)).equals(readFileSync(run('other', 'checkpoints', 'step-0000008', file))), file);
  assert.ok(readFileSync(run('a', 'samples', 'final.png')).equals(readFileSync(run('other', 'samples', 'final.png'))));
});

cli('a run that goes on from its middle ends with the same files, byte for byte', async () => {
  cpSync(run('a'), run('b'), { recursive: true });
  rmSync(run('b', 'checkpoints', 'step-0000008'), { recursive: true });
  // Lines after the checkpoint are of steps that will be done again.
  const done = await start('train', `--resume ${run('b')}`);
  ended(done, 0, `resumed  step 4 of 8 from ${run('b', 'checkpoints', 'step-0000004')} (model, ema, adam, seed and data order)`);
  for (const file of readdirSync(run('a', 'checkpoints', 'step-0000008')))
    assert.ok(readFileSync(run('a', 'checkpoints', 'step-0000008', file)).equals(readFileSync(run('b', 'checkpoints', 'step-0000008', file))), file);
  const numbers = (name: string) => metrics(name).map((l) => [l['step'], l['loss'], l['grad_norm'], l['lr']]);
  assert.equal(numbers('b'), numbers('a'));
  assert.ok(readFileSync(run('a', 'samples', 'final.png')).equals(readFileSync(run('b', 'samples', 'final.png'))));
});

cli('sample: the same image whatever the batch size; noise in, numbers out, an animation', async () => {
  const png = run('g.png'), raw = run('x0.safetensors'), film = run('t.apng'), noise = run('xT.safetensors');
  ended(await sample(`${run('a')} --n 5 --sample-steps 4 --out ${png} --raw ${raw} --trajectory ${film}`), 0, 'ddim, 4 steps, eta 0, seed 0, 5 of 28×28×1 in batches of 5', 'step-0000008');
  const x0 = (path: string) => readSafetensors(readFileSync(path), path).tensors.get('x_0')!;
  assert.equal([x0(raw).shape, x0(raw).dtype], [[5, 1, 28, 28], 'F32']);
  const grid = decodePng(readFileSync(png));
  assert.equal([grid.width, grid.height], [184, 124]);

  const animation = readFileSync(film), at = animation.indexOf('acTL');
  assert.is(animation.readUInt32BE(at + 4), 4);
  assert.equal([decodePng(animation).width, decodePng(animation).height], [184, 124]);

  const again = await sample(`${run('a', 'checkpoints', 'step-0000008')} --n 5 --batch-size 2 --sample-steps 4 --out ${run('g2.png')} --raw ${run('2.safetensors')} --trajectory ${run('t2.apng')}`);
  ended(again, 0, 'in batches of 2');
  assert.is(again.stdout, `grid     ${run('g2.png')}\nraw      ${run('2.safetensors')}\nfilm     ${run('t2.apng')}\n`);
  for (const [a, b] of [[raw, '2.safetensors'], [png, 'g2.png'], [film, 't2.apng']] as const) assert.ok(readFileSync(a).equals(readFileSync(run(b))), b);

  // DDIM without eta depends on nothing but its start: turned-round noise gives turned-round images.
  const size = 28 * 28, noises = Float32Array.from(normals({ seed: 1, stream: 7, step: 0, samples: [0, 1, 2], count: size }));
  const turned = Float32Array.from(noises, (_, i) => noises[(2 - Math.floor(i / size)) * size + (i % size)]!);
  const write = (data: Float32Array, shape: number[]): void => writeFileSync(noise, writeSafetensors([['x_T', { shape, data }]]));
  write(noises, [3, 1, 28, 28]);
  ended(await sample(`${run('a')} --noise ${noise} --sample-steps 3 --out ${png} --raw ${raw}`), 0, '3 of 28×28×1');
  const forth = x0(raw);
  write(turned, [3, 1, 28, 28]);
  ended(await sample(`${run('a')} --noise ${noise} --sample-steps 3 --batch-size 2 --out ${png} --raw ${raw}`), 0);
  for (let i = 0; i < 3; i++) assert.equal(x0(raw).data.slice(i * size, (i + 1) * size), forth.data.slice((2 - i) * size, (3 - i) * size), `image ${i}`);
  assert.ok(forth.data.some((v) => Math.abs(Number(v)) > 0.1));

  write(noises, [3, 1, 14, 56]);
  ended(await sample(`${run('a')} --noise ${noise} --out ${png}`), 1, 'E-SHAPE x_T', '(3, 1, 14, 56); this model takes (N, 1, 28, 28)');
});

cli('sample: ddpm visits every timestep, with fresh noise by sample id; the weights of the last step on request', async () => {
  const [a, b, c] = [run('d1.safetensors'), run('d2.safetensors'), run('d3.safetensors')] as const;
  ended(await sample(`${run('a')} --sampler ddpm --n 3 --out ${run('d.png')} --raw ${a}`), 0, 'ddpm, 50 steps, seed 0');
  ended(await sample(`${run('a')} --sampler ddpm --n 3 --batch-size 1 --out ${run('d.png')} --raw ${b}`), 0);
  assert.ok(readFileSync(a).equals(readFileSync(b)));
  ended(await sample(`${run('a')} --sampler ddpm --n 3 --weights model --out ${run('d.png')} --raw ${c}`), 0, 'model.safetensors');
  assert.not.ok(readFileSync(a).equals(readFileSync(c)));
});

cli('sample: figures and given images', async () => {
  const size = (path: string): number[] => (({ width, height, channels }) => [width, height, channels])(decodePng(readFileSync(path)));
  const grid = (columns: number, rows: number): number[] => [columns * (56 + 4) + 4, rows * (56 + 14 + 4) + 4, 1];
  for (const [line, columns, rows, ...words] of [
    ['--figure trajectory --n 2 --sample-steps 20 --batch-size 1', 12, 2, 'ddpm, 20 steps, 2 images, seed 0', 'batches  of 1'],
    ['--figure x0-trajectory --n 1 --sample-steps 5', 6, 2],
    ['--figure last-steps --sample-steps 10', 8, 4],
    ['--figure forward --n 3', 12, 3],
    ['--figure mean-only --n 2 --sampler ddim --eta 1 --sample-steps 3', 2, 2],
    ['--from 1,2 --n 3 --strength 0.5 --sample-steps 4', 5, 2, '3 versions of 1, 2 from t = 12 (strength 0.5)'],
    ['--interpolate 1,2 --n 4 --sample-steps 4', 6, 2],
    ['--inpaint 1 --mask 0,0,14,28 --n 2 --sample-steps 4 --jump-length 1 --resamples 2 --batch-size 1', 4, 1, 'batches  of 1', 'ddpm, 4 steps, 2 versions of 1, 7 evaluations with 2 passes'],
    ['--invert 1,2 --sample-steps 4', 4, 2],
  ] as [string, number, number, ...string[]][]) {
    const out = run('picture.png'), done = await sample(`${run('a')} ${line} --out ${out}`);
    ended(done, 0, ...words);
    assert.match(done.stdout, /picture {2}.*picture\.png\n$/);
    assert.equal(size(out), grid(columns, rows), line);
    if (line.startsWith('--invert')) assert.match(done.stdout, /^error {4}1 {2}rms \d+\.\d\d of 255, -?\d+\.\d dB\nerror {4}2 /);
  }
});

cli('sample: what it cannot do, it says', async () => {
  await refused('sample', [
    ['', 2, 'E-USAGE sample needs'],
    [`${run('nowhere')}`, 1, 'E-FILE', 'is not there'],
    [`${out} --n 1`, 1, 'E-FILE', 'has no config.json'],
    [`${run('a')} --sample-steps 51`, 2, 'E-USAGE', '50 timesteps'],
    [`${run('a')} --sampler ddpm --sample-steps 1`, 2, 'E-USAGE', 'ddim'],
    [`${run('a')} --sampler heun --eta 0.5`, 2, 'E-USAGE', '--eta belongs to the ddim sampler'],
    [`${run('a')} --snr 0.5`, 2, 'E-USAGE', '--sampler langevin'],
    [`${run('a')} --spacing trialing`, 2, 'E-USAGE', 'Did you mean trailing?'],
    [`${run('a')} --spacing ddim7 --sample-steps 7`, 2, 'E-USAGE', 'leave out --sample-steps'],
    [`${run('a')} --timesteps 40,x`, 2, 'E-USAGE', 'whole numbers'],
    [`${run('a')} --timesteps 0x10,0`, 2, 'E-USAGE', 'whole numbers'],
    [`${run('a')} --sampler langevin --inner-steps 1e9`, 2, 'E-USAGE', '--inner-steps must be a whole number, at least 1 and at most 1000'],
    [`${run('a')} --interpolate 1,2 --n 1e9`, 2, 'E-USAGE --n is 1000000000, and this picture shows at most 1000'],
    [`${run('a')} --timesteps 50,3`, 2, 'E-USAGE', '0 to 49'],
    [`${run('a')} --from 1 --invert 2`, 2, 'E-USAGE', 'one at a time'],
    [`${run('a')} --strength 0.5`, 2, 'E-USAGE', '--strength goes with --from and --interpolate.'],
    [`${run('a')} --invert 1 --raw x.safetensors`, 2, 'E-USAGE', '--raw goes with a plain grid of images, not with --invert'],
    [`${run('a')} --out x.jpg`, 2, 'E-USAGE', 'should end in .png'],
    [`${run('a')} --trajectory x.gif`, 2, 'E-USAGE', '.apng or .png'],
    [`${run('a')} --raw x.png --out x.png`, 2, 'E-USAGE two files would be called x.png'],
    [`${run('a')} --invert 1 --n 3`, 2, 'E-USAGE --n goes with --figure, --from, --interpolate and --inpaint, not with --invert'],
    [`${run('a')} --n 1 --data shapes`, 2, 'E-USAGE --data goes with --figure, --from, --interpolate, --inpaint and --invert.'],
    [`${run('a')} --inpaint 1`, 2, 'E-USAGE', '--mask 0,0,14,28'],
    [`${run('a')} --interpolate 1,2,3`, 2, 'E-USAGE', 'it got 3'],
    [`${run('a')} --figure mean-only --sampler heun`, 2, 'E-USAGE', 'heun has none'],
    [`${run('a')} --label 3`, 2, 'E-USAGE', 'trained without labels'],
    [`${run('a')} --noise ${run('a', 'config.json')}`, 1, 'E-FILE', 'not a good safetensors file'],
  ]);
  const late = await sample(`${run('a')} --n 1 --sample-steps 1 --out ${run('a', 'config.json', 'x.png')}`);
  ended(late, 1, 'E-FILE cannot write', 'a part of the path is a file');
  assert.not.match(late.stderr, /^sampler/m, 'said before anything is drawn');
});

cli('Ctrl-C ends the step, saves, and says how to go on; that works, and so does a longer run', async () => {
  let sent = false;
  const interrupted = await train('--name c --steps 400', (stderr, child) => {
    if (sent || !stderr.includes('step   4/400')) return;
    sent = true;
    // npm hands the signal on that its child has had already.
    child.kill('SIGINT');
    setTimeout(() => child.kill('SIGINT'), 40);
  }, AS_NPM);
  ended(interrupted, 130, '^C  finishing', /saved \S+step-0{4,5}\d+\. {2}go on with: {2}npm run train -- --resume \S+c$/m);
  const [name] = readdirSync(run('c', 'checkpoints'));
  const step = Number(name!.slice(5));
  assert.ok(step >= 4 && step < 400);
  assert.is(readFileSync(run('c', 'latest'), 'utf8'), `checkpoints/${name}\n`);
  assert.is(metrics('c').length, step);
  assert.not.ok(existsSync(run('c', 'samples', 'final.png')));

  ended(await start('train', `--resume ${run('c')} --steps ${step + 2}`), 0, `resumed  step ${step} of ${step + 2}`);
  assert.equal(metrics('c').map((l) => l['step']), Array.from({ length: step + 2 }, (_, i) => i + 1));
  ended(await start('train', `--resume ${run('c')}`), 2, `has done its ${step + 2} steps`, '--steps');
  ended(await start('train', `--resume ${run('c')} --predict x0 --dry-run`), 0, '--predict was v and is x0: the weights of the checkpoint have learnt something else');
});

cli('a terminal that closes, and a pipe that nobody reads any more, end the step and save', async () => {
  let polling: NodeJS.Timeout | undefined;
  const saving = (): boolean => readdirSync(run('hup', 'checkpoints')).some((name) => name.endsWith('.part'));
  const [closed, unread] = await Promise.all([
    // In the middle of a checkpoint, which is not written again then.
    train('--name hup --steps 400 --save-every 1', (stderr, child) => {
      if (stderr.includes('step-0000004')) polling ??= setInterval(() => {
        if (!saving()) return;
        clearInterval(polling);
        for (let i = 0; i < 2; i++) child.kill('SIGHUP'); // its shell sends the signal as well
      }, 1);
    }),
    train('--name pipe --steps 400', (stderr, child) => void (/^step +4\/400/m.test(stderr) && child.stderr!.destroy())),
  ]);
  ended(closed, 130, 'the terminal was closed: finishing', /^saved \S+step-0{4,5}\d+\. {2}go on with: /m);
  const written = [...closed.stderr.matchAll(/checkpoint → (\S+)/g)].map(([, name]) => name);
  assert.equal(written, [...new Set(written)]);
  assert.is(unread.code, 130);
  for (const name of ['hup', 'pipe']) {
    const at = metrics(name).length;
    assert.ok(at >= 4 && at < 400, `${name} ${at}`);
    assert.is(readFileSync(run(name, 'latest'), 'utf8'), `checkpoints/step-${String(at).padStart(7, '0')}\n`);
  }
});

cli('output that finds the disk full is a failure', () => {
  if (!existsSync('/dev/full')) return;
  const full = openSync('/dev/full', 'w'), { status, stderr } = spawnSync(process.execPath, [script('train'), '--help'], { cwd: root, stdio: ['ignore', full, 'pipe'], encoding: 'utf8' });
  closeSync(full);
  assert.equal([status, stderr], [1, 'E-FILE cannot write the output: the disk is full; free some space and try again\n']);
});

for (const npm of [false, true])
  cli(`a second Ctrl-C ends the process at once${npm ? ', of npm the third signal, however close together they come' : ''}`, async () => {
    const name = npm ? 'e' : 'd';
    let started = false, second = 0;
    // Steps that take seconds on a CPU.
    const { code, signal, stderr } = await train(`--name ${name} --steps 400 --batch-size 256 --log-every 1`, (text, child) => {
      if (text.includes('^C') && second === 0) {
        second = Date.now();
        child.kill('SIGINT');
        if (npm) child.kill('SIGTERM'); // another one, as two of the same may come as one
      } else if (!started && /^kernels .* compiled in/m.test(text)) {
        started = true;
        setTimeout(() => child.kill('SIGINT'), 300);
      }
    }, npm ? AS_NPM : {});
    const passed = Date.now() - second;
    assert.ok(second > 0, stderr);
    if (code !== null && stderr.includes('saved')) return; // a device so fast that it had finished and saved
    assert.equal([code, ['SIGINT', 'SIGTERM'].includes(signal!)], [null, true], `${code} ${signal}:\n${stderr}`);
    // What is left to the system is to give the memory back; a step would take longer.
    assert.ok(passed < 10_000, `${passed} ms`);
    assert.not.ok(existsSync(run(name, 'latest')));
  });

cli('--precision f16: the device is tested, the loss is scaled, and the run folder says both', async () => {
  const done = await train('--name half --steps 2 --precision f16 --save-every 0 --sample-every 0');
  ended(done, 0, /^f16 {6}factors of (round_half|conv2d_tiled_f16)/m);
  assert.is((JSON.parse(readFileSync(run('half', 'config.json'), 'utf8')) as Record<string, unknown>)['precision'], 'f16');
  assert.equal(metrics('half').map((line) => line['loss_scale']), [65536, 65536]);
});

cli('an existing run is not written over; --overwrite starts it again', async () => {
  ended(await train('--name c --steps 2'), 1, 'E-FILE', 'is there already', `--resume ${run('c')}`, '--overwrite');
  assert.ok(metrics('c').length > 4);
  // A view that finds no port does not keep the run from training.
  const last = createServer().on('error', () => {}).listen(65535, '127.0.0.1');
  // The view is started as the module that it is, TypeScript, by Node with the flags of the run: no bundle here.
  ended(await start('train', `${TINY} --name c --steps 2 --overwrite --view 65535`, { before: ['tsx'] }), 0, 'E-USAGE port 65535 cannot be used');
  last.close();
  assert.is(metrics('c').length, 2);
});

cli('a diverged run stops, names what was not finite and the last good checkpoint, which stays', async () => {
  const before = readFileSync(run('b', 'checkpoints', 'step-0000008', 'model.safetensors'));
  const done = await start('train', `--resume ${run('b')} --steps 100 --lr 1e30 --lr-schedule constant --warmup 0 --save-every 3`);
  ended(done, 5, /^step \d+: .* is not finite, the step was skipped$/m, 'E-NONFINITE the last 10 steps were not finite', /^The last good checkpoint is \S+step-0000008\. Go on from it at a lower rate: npm run train -- --resume \S+step-0000008 --lr 3e\+29$/m);
  const bad = metrics('b').filter((l) => 'nonfinite' in l);
  assert.ok(bad.length >= 10);
  assert.ok(bad.every((l) => typeof l['nonfinite'] === 'string' && (l['loss'] === null || l['grad_norm'] === null)), JSON.stringify(bad[0]));
  assert.ok(readFileSync(run('b', 'checkpoints', 'step-0000008', 'model.safetensors')).equals(before));
  // Step 9 went well and ruined the weights; nothing was saved after it.
  assert.equal(readdirSync(run('b', 'checkpoints')).sort(), ['step-0000004', 'step-0000008', 'step-0000009']);
  for (const name of readdirSync(run('b', 'checkpoints')))
    for (const [tensor, { data }] of readSafetensors(readFileSync(run('b', 'checkpoints', name, 'model.safetensors')), name).tensors) assert.ok((data as Float32Array).every(Number.isFinite), tensor);
});

cli('a full disk: what could not be written, how much it takes, and the checkpoint before; nothing half is left, and the run goes on', async () => {
  const files = (): string[] => readdirSync(run('full'), { recursive: true }).map(String).filter((name) => /part|old|png|optimizer/.test(name)).sort();
  const line = '--name full --steps 6 --save-every 2 --sample-every 2 --keep 0';
  const ended1 = await train(line, undefined, fullDisk('step-0000002.png,step-0000004.part/optimizer'));
  ended(ended1, 1, /^ {2}no samples: cannot write \S+step-0000002\.png: it takes \d+ KiB, and .* free; the disk is full/m, 'checkpoint → checkpoints/step-0000002');
  ended(ended1, 1, new RegExp(`^E-FILE cannot write ${run('full', 'checkpoints', 'step-0000004')}: it takes 2.9 MiB, and .* free; the disk is full`, 'm'), `step-0000002. Go on from it: npm run train -- --resume ${run('full')}\n`);
  assert.is(readFileSync(run('full', 'latest'), 'utf8'), 'checkpoints/step-0000002\n');
  assert.equal(files(), ['checkpoints/step-0000002/optimizer.safetensors']);
  const ended2 = await start('train', `--resume ${run('full')}`, fullDisk('final.png'));
  ended(ended2, 1, 'resumed  step 2 of 6', 'final.png: it takes', `\nThe training is done, and saved: ${run('full', 'checkpoints', 'step-0000006')}. For pictures: npm run sample -- ${run('full')}\n`);
  assert.equal(files(), [...['2', '4', '6'].map((n) => `checkpoints/step-000000${n}/optimizer.safetensors`), 'samples/step-0000004.png']);
});

cli('a full disk for the lines of metrics: the steps that were made are saved, and the run goes on from there', async () => {
  const done = await train('--name lines --steps 400 --save-every 0 --sample-every 0', undefined, fullDisk('metrics.jsonl'));
  const step = Number(/The last good checkpoint is \S+step-(\d+)\./.exec(done.stderr)?.[1]);
  ended(done, 1, new RegExp(`^E-FILE cannot write ${run('lines', 'metrics.jsonl')}: the disk is full`, 'm'), `Go on from it: npm run train -- --resume ${run('lines')}\n`);
  assert.ok(step >= 1 && step < 400, `step ${step}`);
  ended(await start('train', `--resume ${run('lines')} --steps ${step + 2}`), 0, `resumed  step ${step} of ${step + 2}`);
  assert.equal(metrics('lines').map((line) => line['step']), [step + 1, step + 2]);
});

cli('a run that is deleted while it trains ends, and nothing of it comes back', async () => {
  let deleted = false;
  const done = await train('--name gone --steps 400 --save-every 0 --sample-every 0', (stderr) => {
    if (deleted || !/^step +4\/400/m.test(stderr)) return;
    deleted = true;
    rmSync(run('gone'), { recursive: true });
  });
  ended(done, 1, `E-FILE ${run('gone')} is not there any more: it was deleted or moved`);
  assert.not.match(done.stderr, /--overwrite/);
  assert.not.ok(existsSync(run('gone')));
});

cli('a damaged checkpoint: the newest that is whole is named', async () => {
  cpSync(run('a'), run('hurt'), { recursive: true });
  const at = (step: number, file: string): string => run('hurt', 'checkpoints', `step-000000${step}`, file);
  for (const step of [9, 7]) cpSync(run('a', 'checkpoints', 'step-0000008'), at(step, ''), { recursive: true });
  writeFileSync(run('hurt', 'latest'), 'checkpoints/step-0000009\n');
  writeFileSync(at(9, 'optimizer.safetensors'), readFileSync(at(9, 'optimizer.safetensors')).subarray(0, 100_000));
  writeFileSync(at(9, 'diffusion_pytorch_model.safetensors'), '');
  rmSync(at(8, 'state.json'));
  await refused('train', [[`--resume ${run('hurt')} --steps 12`, 1, 'E-FILE', 'step-0000009/', `\nThe newest whole checkpoint of the run is that of step 7: npm run train -- --resume ${run('hurt', 'checkpoints', 'step-0000007')}\n`]]);
  await refused('sample', [[`${run('hurt')} --n 1`, 1, 'E-FILE', 'step-0000009/', 'The newest whole checkpoint of the run is that of step 7: name it in its place, as']]);
});

cli('--init starts from a folder as on the hub, with its model and its diffusion; --checkpoint-blocks changes no bit', async () => {
  const folder = run('pretrained'), config = { in_channels: 1, out_channels: 1, block_out_channels: [8, 16], down_block_types: ['DownBlock2D', 'AttnDownBlock2D'], up_block_types: ['AttnUpBlock2D', 'UpBlock2D'], layers_per_block: 1, norm_num_groups: 4, attention_head_dim: null, sample_size: 32, _diffusers_version: '0.0.4' };
  mkdirSync(folder);
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
  writeFileSync(join(folder, 'scheduler_config.json'), JSON.stringify({ num_train_timesteps: 40, beta_schedule: 'squaredcos_cap_v2', prediction_type: 'v_prediction', variance_type: 'fixed_large', clip_sample: false, timestep_spacing: 'trailing', steps_offset: 1, set_alpha_to_one: false }));
  const weights = parametersOf(new UNet(config)).map((p, i) => [p.name.replace('.to_q.', '.query.').replace('.to_out.0.', '.proj_attn.'), { shape: p.shape, data: Float32Array.from(normals({ seed: 1, stream: 7, step: 0, samples: [i], count: p.size }), (v) => 0.1 * v) }] as const);
  writeFileSync(join(folder, 'diffusion_pytorch_model.safetensors'), writeSafetensors(weights));
  const line = `--init ${folder} --steps 2 --lr 0 --sample-every 0 --save-every 1 --dropout 0.1 --name pre`;
  const [refused, drawn] = await Promise.all([train(`${line} --predict eps`), sample(`${folder} --n 1 --sample-steps 2 --out ${run('pretrained.png')}`)]);
  ended(refused, 1, 'E-MODEL --predict is eps, and the weights were trained with v');
  ended(drawn, 0, /^sampler {2}ddim, 2 steps/m);
  const done = await train(line), scheduler = join(folder, 'scheduler_config.json');
  ended(done, 0, `model    ${folder}  channels 8, 16`, `init     schedule, prediction and variance are those of ${scheduler}, but for --timesteps`, 'schedule cosine T 50, predicts v, variance fixed_large');
  const saved = run('pre', 'checkpoints', 'step-0000002'), names = readdirSync(saved).sort();
  const fields = JSON.parse(readFileSync(join(saved, 'scheduler_config.json'), 'utf8')) as Record<string, unknown>;
  const kept = { beta_schedule: 'squaredcos_cap_v2', prediction_type: 'v_prediction', variance_type: 'fixed_large', clip_sample: false, timestep_spacing: 'trailing', steps_offset: 1, set_alpha_to_one: false };
  for (const [name, value] of Object.entries({ ...kept, num_train_timesteps: 50 })) assert.is(fields[name], value, name);
  assert.is(JSON.parse(readFileSync(join(saved, 'config.json'), 'utf8')).sample_size, 28, 'the size of the images that it was trained on here');
  // Without a learning rate the weights come out as they went in, under today's names.
  const [raw, ema] = ['model.safetensors', 'diffusion_pytorch_model.safetensors'].map((file) => readSafetensors(readFileSync(join(saved, file)), file).tensors);
  assert.equal([...ema!.keys()], [...raw!.keys()]);
  assert.is(raw!.size, weights.length);
  for (const [old, { data }] of weights) {
    const name = old.replace('.query.', '.to_q.').replace('.proj_attn.', '.to_out.0.');
    assert.equal(raw!.get(name)!.data, data, name);
    // The average of equal weights, which is rounded.
    (ema!.get(name)!.data as Float32Array).forEach((v, i) => assert.ok(Math.abs(v - data[i]!) <= 2 ** -22 * Math.abs(data[i]!), name));
  }
  // The second step again, with the blocks run twice; the folder is not needed any more.
  const before = metrics('pre'), bytes = names.map((name) => readFileSync(join(saved, name)));
  rmSync(folder, { recursive: true });
  ended(await start('train', `--resume ${run('pre', 'checkpoints', 'step-0000001')} --checkpoint-blocks`), 0, 'resumed', 'schedule cosine T 50, predicts v, variance fixed_large');
  assert.equal(metrics('pre').map((l) => [l['step'], l['loss'], l['grad_norm']]), before.map((l) => [l['step'], l['loss'], l['grad_norm']]));
  names.forEach((name, i) => name === 'state.json' || assert.ok(readFileSync(join(saved, name)).equals(bytes[i]), name));
});

cli('--dry-run shows and writes nothing; --list-gpus; --help; --config', async () => {
  const file = run('settings.json');
  writeFileSync(file, JSON.stringify({ data: 'shapes', limit: 32, preset: 'tiny', batch_size: 2, seed: 7 }));
  const dry = await start('train', `--config ${file} --dry-run --name dry --out ${out} --batch-size 3`);
  ended(dry, 0, /^memory {3}/m, /^plan .* dispatches a step/m, 'nothing was trained or written');
  const shown = JSON.parse(dry.stdout) as { settings: Record<string, unknown>; model: Record<string, unknown>; parameters: number };
  assert.equal([shown.settings['batch_size'], shown.settings['seed'], shown.model['in_channels']], [3, 7, 1]);
  assert.ok(shown.parameters > 1000);
  assert.not.ok(existsSync(run('dry')));
  const list = await start('train', '--list-gpus');
  ended(list, 0);
  assert.match(list.stdout, /^0 {2}\S.* \(\w+\)$/m);
  assert.match((await start('train', '--help')).stdout, /--batch-size N/);
});

cli('what is wrong on the command line, with the data or with the checkpoint', async () => {
  mkdirSync(run('idx'));
  writeFileSync(run('idx', 'train-images-idx3-ubyte'), Buffer.from([0, 0, 8, 3, 0, 0, 0, 9, 0, 0, 0, 28, 0, 0, 0, 28, 1, 2, 3]));
  // Nine grey images of 7 x 5, which no model here can halve.
  const odd = Buffer.alloc(16 + 9 * 35);
  [0x00000803, 9, 7, 5].forEach((v, i) => odd.writeUInt32BE(v, 4 * i));
  writeFileSync(run('odd-images-idx3-ubyte'), odd);
  await refused('train', [
    ['--stpes 3', 2, 'E-USAGE Unknown flag --stpes. Did you mean --steps?'],
    [`--data ${run('idx')}`, 1, 'E-DATA'],
    [`--data ${run('odd-images-idx3-ubyte')} --preset tiny`, 1, 'E-MODEL', '7 x 5'],
    ['--data shapes --limit 9 --preset tiny --batch-size 1000000', 1, 'E-LIMIT', '--micro-batch N: the same batch and gradient'],
    ['--gpu 9', 3, 'E-NO-ADAPTER there is no adapter "9"', '\n  0  '],
    [`--resume ${run('nowhere')}`, 1, 'E-FILE'],
    [`--resume ${run('a')} --steps 9 --name other`, 2, 'E-USAGE --name is for a new run, and --resume goes on with one where it is'],
    [`--resume ${run('a')} --steps 20 --preset small`, 1, 'E-MODEL', 'is of another model', 'conv_in.weight: (16, 1, 3, 3) there, (64, 1, 3, 3) in the model'],
  ]);
});

cli.run();

const loop = suite('train: the loop');

loop('bad steps: ten in a row, or twenty of a hundred', () => {
  const row = new BadSteps();
  assert.equal(Array.from({ length: 10 }, () => row.add(true)), [...Array<boolean>(9).fill(false), true]);
  const spread = new BadSteps();
  let stopped = 0;
  for (let i = 1; !stopped && i < 200; i++) if (spread.add(i % 5 === 0)) stopped = i;
  assert.is(stopped, 100);
  const rare = new BadSteps();
  for (let i = 0; i < 1000; i++) assert.not.ok(rare.add(i % 6 === 0));
});

loop('how far ahead, and a line of metrics', () => {
  assert.equal([NaN, 1, 100, 300, 5000].map(stepsAhead), [2, 8, 5, 2, 1]);
  const log = { step: 9, loss: NaN, gradNorm: 2, bad: 'loss', lossScale: null };
  assert.equal(metricsLine(log, { ms: 50, lr: 1e-3, batchSize: 16, images: 320 }), { step: 10, epoch: 0.5, loss: NaN, grad_norm: 2, lr: 1e-3, ms: 50, images_per_s: 320, nonfinite: 'loss' });
  assert.is(metricsLine({ ...log, lossScale: 512 }, { ms: 50, lr: 1e-3, batchSize: 16, images: 320 })['loss_scale'], 512);
});

loop('a device that is lost ends the loop with its error', async () => {
  const opened = await openEngine(), { engine } = opened;
  const unet = new UNet({ sample_size: 8, in_channels: 1, out_channels: 1, block_out_channels: [8], down_block_types: ['DownBlock2D'], up_block_types: ['UpBlock2D'], layers_per_block: 1, norm_num_groups: 4 });
  const parameters = Parameters.place(engine, unet), images = new DeviceImages(engine, makeShapes({ count: 8, size: 8 }), false);
  const training = new Training(unet, parameters, new GaussianDiffusion(engine, makeSchedule({ name: 'linear', T: 40 })), images, { batchSize: 2, steps: 1000, lr: 1e-3 });
  const nothing = async (): Promise<void> => {};
  const options: LoopOptions = {
    training, images: 8, from: 0, logEvery: 5, sampleEvery: 0, saveEvery: 0, stop: { requested: false }, sample: nothing, save: nothing,
    onMetrics: () => {}, onEvent: () => {}, onProgress: ({ step }) => step === 10 && opened.device.destroy(),
  };
  let error: unknown;
  await trainLoop(options).catch((e: unknown) => (error = e));
  assert.is((error as { code?: string }).code, 'E-DEVICE-LOST', String(error));
});

loop.run();

const api = suite('public API');

api('nothing that index.ts reaches imports Node or Dawn', async () => {
  const seen = new Set<string>();
  const visit = (file: string): void => {
    if (seen.has(file)) return;
    seen.add(file);
    for (const [, spec] of readFileSync(file, 'utf8').matchAll(/^(?:import|export)\b[^;]*?from '([^']+)'|^import '([^']+)'/gm)) {
      assert.match(spec!, /^\./, `${file} imports ${spec}`);
      visit(join(dirname(file), spec!));
    }
  };
  visit(join(root, 'src', 'index.ts'));
  assert.ok(seen.size > 30);
  const exported = await import('../src/index.ts');
  for (const name of ['Engine', 'engineRequirements', 'Tensor', 'Tape', 'UNet', 'Parameters', 'GaussianDiffusion', 'Sampler', 'Training', 'AdamW', 'DeviceImages', 'Clock', 'DdpmError', 'kernels']) assert.ok(name in exported, name);
});

api.run();
