// The command line: flags, config files, help, presets, progress and the run folder, mostly with input that is wrong.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { editDistance, helpText, nearest, parseFlags, parseNumber, settingsFromJson, settingsToJson, type Command } from '../src/cli/flags.ts';
import { modelConfig, PRESET_NAMES, PRESETS } from '../src/cli/presets.ts';
import { formatTime, Progress, showCompiling, type StepReport } from '../src/cli/progress.ts';
import { describeEnvironment, freeRunName, isRun, RunFolder } from '../src/cli/run-folder.ts';
import { namedRun } from '../src/cli/sampling.ts';
import { resolveSettings, SAMPLE, TRAIN, type TrainSettings } from '../src/cli/settings.ts';
import { DdpmError, type ErrorCode } from '../src/errors.ts';

const train: Command = { name: 'train', help: 'Trains a model.' };
const sample: Command = { name: 'sample', help: 'Draws images.', positional: 'RUN' };
const parse = (line: string): ReturnType<typeof parseFlags<typeof TRAIN>> => parseFlags(TRAIN, train, line.split(' ').filter(Boolean));

/** f must throw this code with all these words in its message; f may be asynchronous. */
async function refuses(code: ErrorCode, f: () => unknown, ...words: string[]): Promise<void> {
  let error: unknown;
  try {
    await f();
  } catch (thrown) {
    error = thrown;
  }
  assert.instance(error, DdpmError, `should have refused: ${words.join(' ')}`);
  assert.is((error as DdpmError).code, code);
  for (const word of words) assert.ok((error as Error).message.includes(word), `"${(error as Error).message}" should say "${word}"`);
}

async function inFolder(f: (folder: string) => Promise<void> | void): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'ddpm-cli-'));
  try {
    await f(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const flags = suite('cli: flags');

flags('defaults, and what the user gave', () => {
  const { settings, given } = parse('');
  assert.is(settings.data, 'fashion-mnist');
  assert.is(settings.preset, null);
  assert.is(settings.out, 'runs');
  assert.is(settings.overwrite, false);
  assert.is(given.size, 0);
  assert.equal([...parse('--steps 10 --no-flip').given], ['steps', 'flip']);
});

flags('takes dashes, underscores, = and space, switches and numbers as people write them', () => {
  const { settings } = parse('--batch_size=4 --lr 1e-4 --steps 1_000 --flip --ema=.999 --warmup 2k --preset ddpm-cifar10 --seed 0 --name=a=b');
  assert.is(settings.batchSize, 4);
  assert.is(settings.lr, 1e-4);
  assert.is(settings.steps, 1000);
  assert.is(settings.flip, true);
  assert.is(settings.ema, 0.999);
  assert.is(settings.warmup, 2000);
  assert.is(settings.preset, 'ddpm-cifar10');
  assert.is(settings.name, 'a=b');
  assert.is(parse('--no-flip').settings.flip, false);
  assert.is(parse('--no_flip').settings.flip, false);
  assert.is(parse('--flip=false').settings.flip, false);
  assert.is(parse('--no-flip=true').settings.flip, false);
  assert.is(parse('--steps 1 --steps 2').settings.steps, 2);
});

flags('--resume stands alone or takes a path', () => {
  assert.is(parse('').settings.resume, null);
  assert.is(parse('--resume').settings.resume, 'latest');
  assert.is(parse('--resume --steps 5').settings.resume, 'latest');
  assert.is(parse('--resume --steps 5').settings.steps, 5);
  assert.is(parse('--resume runs/a').settings.resume, 'runs/a');
  assert.is(parse('--resume=runs/a --steps 5').settings.resume, 'runs/a');
});

flags('--view stands alone or takes a port', async () => {
  assert.equal(['', '--view', '--view --steps 5', '--view 80'].map((line) => parse(line).settings.view), [null, 8007, 8007, 80]);
  await refuses('E-USAGE', () => parse('--view abc'), '--view must be a whole number, at least 0 and at most 65535, not abc');
  await refuses('E-USAGE', () => parse('--view 65536'), 'not 65536');
});

flags('reads numbers', () => {
  for (const [text, value] of [['64k', 64000], ['1.5M', 1.5e6], ['1e-4', 1e-4], ['-2', -2], ['1_000_000', 1e6], ['.5', 0.5], ['3.', 3]] as const) assert.is(parseNumber(text), value);
  for (const text of ['', 'k', '1x', '0x10', '1 0', 'NaN', 'Infinity', '--1', '1e', '_1']) assert.ok(Number.isNaN(parseNumber(text)), text);
});

flags('refuses what is not a flag, with the nearest', async () => {
  for (const [line, ...words] of [
    ['--stpes 3', 'Unknown flag --stpes', 'Did you mean --steps?'],
    ['--stpes=3', 'Unknown flag --stpes.'],
    ['--batchsize 3', '--batch-size'],
    ['--batch 3', '--batch-size'],
    ['--epochs 3', 'Did you mean --steps?'],
    ['--learning-rate 3', 'Did you mean --lr?'],
    ['-steps 3', 'Did you mean --steps?'],
    ['--no-ema', '--ema takes a value'],
    ['--frobnicate', 'Unknown flag --frobnicate. All flags'],
    ['--constructor', 'Unknown flag'],
    ['steps=3', 'Did you mean --steps=3?'],
    ['3', 'Unexpected argument "3"'],
    ['--flip true', 'Unexpected argument "true"'],
  ]) await refuses('E-USAGE', () => parse(line), ...words);
  assert.throws(() => parse('--frobnicate'), (error: Error) => !error.message.includes('Did you mean'));
});

flags('refuses values of the wrong kind or out of range', async () => {
  for (const [line, ...words] of [
    ['--steps', '--steps needs a value'],
    ['--steps --lr 1', '--steps needs a value'],
    ['--steps=', '--steps must be a whole number, at least 1, not empty'],
    ['--steps 1.5', 'whole number', '1.5'],
    ['--steps 0', 'at least 1'],
    ['--steps ten', 'not ten'],
    ['--steps 1e99', 'whole number'],
    ['--lr -1e-3', '--lr', 'at least 0'],
    ['--dropout 1', 'below 1'],
    ['--seed -1', 'at least 0'],
    ['--seed 4294967296', 'at most 4294967295'],
    ['--timesteps 1', 'at least 2'],
    ['--samples 1e9', 'at most 10000'],
    ['--preset samll', 'tiny, small, ddpm-cifar10', 'Did you mean small?'],
    ['--schedule sqrt', 'linear, quadratic, cosine, sigmoid'],
    ['--flip=perhaps', 'true or false'],
    ['--name=', '--name is empty'],
  ]) await refuses('E-USAGE', () => parse(line), ...words);
});

flags('sample takes one argument, and must have it', async () => {
  const parsed = parseFlags(SAMPLE, sample, ['runs/a', '--n', '4', '--sampler=ddpm']);
  assert.is(parsed.positional, 'runs/a');
  assert.is(parsed.settings.n, 4);
  assert.is(parsed.settings.sampler, 'ddpm');
  assert.is(parseFlags(SAMPLE, sample, ['--n', '4', '--', '-odd-name']).positional, '-odd-name');
  await refuses('E-USAGE', () => parseFlags(SAMPLE, sample, ['--n', '4']), 'sample needs RUN');
  await refuses('E-USAGE', () => parseFlags(SAMPLE, sample, ['']), 'sample was given an empty name', 'RUN');
  await refuses('E-USAGE', () => parseFlags(SAMPLE, sample, ['a', 'b']), 'Unexpected argument "b"');
});

flags('notices flags that npm kept because the -- was forgotten', async () => {
  const env = { npm_lifecycle_event: 'train', npm_config_steps: '10', npm_config_batch_size: 'true', npm_config_flip: '', npm_config_progress: 'false', npm_config_cache: '/x' };
  await refuses(
    'E-USAGE',
    () => parseFlags(TRAIN, train, ['4', '--seed', '3'], { env }),
    'npm run train -- --no-flip --steps=10 --batch-size 4 --seed 3',
  );
  await refuses('E-USAGE', () => parseFlags(TRAIN, train, [], { env: { npm_lifecycle_event: 'train', npm_config_resume: 'true' } }), '--resume');
  // Neither npm's own settings nor another script's are ours.
  assert.is(parseFlags(TRAIN, train, [], { env: { ...env, npm_lifecycle_event: 'test' } }).settings.steps, null);
  assert.is(parseFlags(TRAIN, train, [], { env: { npm_lifecycle_event: 'train', npm_config_progress: 'false', npm_config_noproxy: '' } }).settings.progress, 'auto');
});

flags('config file, then flags', async () => {
  await inFolder(async (folder) => {
    const file = join(folder, 'c.json');
    const write = (json: unknown): string => (writeFileSync(file, typeof json === 'string' ? json : JSON.stringify(json)), `--config ${file}`);
    const { settings, given } = parse(`${write({ steps: 10, batch_size: 4, 'lr-schedule': 'linear', sampleEvery: 5, flip: true, limit: null, lr: '1e-4' })} --steps 20`);
    assert.is(settings.steps, 20);
    assert.is(settings.batchSize, 4);
    assert.is(settings.lrSchedule, 'linear');
    assert.is(settings.sampleEvery, 5);
    assert.is(settings.flip, true);
    assert.is(settings.lr, 1e-4);
    assert.ok(given.has('batchSize') && given.has('steps'));
    assert.is(parse(write('\ufeff{ "seed": 3 }')).settings.seed, 3, 'as editors of Windows write it');
    for (const [json, ...words] of [
      [{ timesteps: 1e9 }, 'at most 1000000'],
      [{ stesp: 10 }, 'unknown setting "stesp"', 'Did you mean steps?', file],
      [{ steps: 'many' }, '"steps" must be a whole number'],
      [{ steps: true }, 'whole number', 'not true'],
      [{ steps: [1] }, 'not [1]'],
      [{ seed: null }, 'not null'],
      [{ flip: 1 }, 'true or false'],
      [{ data: 5 }, 'text'],
      [{ ema: 1 }, 'below 1'],
      [{ schedule: 'linaer' }, 'Did you mean linear?'],
      [{ resume: 'latest' }, 'belongs on the command line'],
      [{ batch_size: 1, batchSize: 2 }, 'twice'],
      [[], 'one JSON object'],
      ['null', 'one JSON object'],
      ['{ steps: 10 }', 'not JSON'],
      ['', 'not JSON'],
      ['{"__proto__": 1}', 'unknown setting'],
    ] as [unknown, ...string[]][]) await refuses('E-USAGE', () => parse(write(json)), ...words);
    await refuses('E-USAGE', () => parse(`--config ${join(folder, 'none.json')}`), 'Cannot read', 'none.json: there is no such file');
    await refuses('E-USAGE', () => parse(`--config ${folder}`), 'Cannot read');
  });
});

flags('what is written to config.json is what is read back, and nothing of one start', async () => {
  const settings = resolveSettings(parse('--steps 77 --lr 3e-4 --name x --overwrite --gpu 1').settings, { software: true, flip: false });
  const json = settingsToJson(TRAIN, settings as TrainSettings);
  assert.is(json['batch_size'], PRESETS.tiny.batchSize);
  for (const once of ['name', 'overwrite', 'gpu', 'help', 'resume', 'config', 'dry_run', 'progress', 'list_gpus']) assert.not.ok(once in json, once);
  const back = parseFlags(TRAIN, train, ['--steps', '99'], { base: { json: { 'ddpm.wgsl': 1, ...JSON.parse(JSON.stringify(json)) }, source: 'config.json' } });
  assert.is(back.settings.steps, 99);
  assert.is(back.settings.lr, 3e-4);
  assert.is(back.settings.preset, 'tiny');
  assert.not.ok(back.given.has('lr'));
  assert.equal(settingsToJson(TRAIN, { ...back.settings, steps: 77 }), json);
  await refuses('E-USAGE', () => settingsFromJson(TRAIN, { wramup: 1 }, 'runs/a/config.json'), 'runs/a/config.json', 'warmup');
});

flags('--help wins over mistakes, and shows every setting once, with groups and defaults', () => {
  for (const line of ['--help', '-h', '--stpes 3 --help']) assert.is(parse(line).settings.help, true);
  assert.throws(() => parse('-- --help'));
  const help = helpText(TRAIN, train);
  for (const name of Object.keys(TRAIN)) assert.is(help.split('\n').filter((l) => new RegExp(`^  --${name}( |$)`).test(l)).length, 1, name);
  assert.match(help, /--seed N .*\(0\)/);
  assert.match(help, /--steps N .*\(by preset\)/);
  assert.match(help, /--scale-betas .*\(on; --no-scale-betas\)/);
  assert.match(help, /\noptimiser\n/);
  for (const line of `${help}\n${helpText(SAMPLE, sample)}`.split('\n')) assert.ok(line.length <= 120, line);
  assert.match(helpText(SAMPLE, sample), /^npm run sample -- RUN \[flags\]/);
});

flags('the tables agree with themselves', () => {
  for (const [name, setting] of [...Object.entries(TRAIN), ...Object.entries(SAMPLE)]) {
    assert.match(name, /^[a-z]+(-[a-z]+)*$/);
    if (setting.default === null) assert.ok('unset' in setting, `${name} says what null means`);
    if ('choices' in setting && setting.default !== null) assert.ok((setting.choices as readonly string[]).includes(setting.default));
  }
});

flags('distance counts a swap as one mistake', () => {
  assert.is(editDistance('stpes', 'steps'), 1);
  assert.is(editDistance('', 'abc'), 3);
  assert.is(editDistance('kitten', 'sitting'), 3);
  assert.is(nearest('lre', ['lr', 'ema']), 'lr');
  assert.is(nearest('zzzz', ['lr', 'ema']), undefined);
});

flags.run();

const presets = suite('cli: presets');

presets('ddpm-cifar10 is the config.json of google/ddpm-cifar10-32', () => {
  assert.equal(modelConfig('ddpm-cifar10', { channels: 3, height: 32, width: 32 }), {
    _class_name: 'UNet2DModel', act_fn: 'silu', attention_head_dim: null, block_out_channels: [128, 256, 256, 256], center_input_sample: false,
    down_block_types: ['DownBlock2D', 'AttnDownBlock2D', 'DownBlock2D', 'DownBlock2D'], downsample_padding: 0, flip_sin_to_cos: false, freq_shift: 1,
    in_channels: 3, layers_per_block: 2, mid_block_scale_factor: 1, norm_eps: 1e-6, norm_num_groups: 32, out_channels: 3, sample_size: 32,
    time_embedding_type: 'positional', up_block_types: ['UpBlock2D', 'UpBlock2D', 'AttnUpBlock2D', 'UpBlock2D'],
  });
});

presets('a model fits the images, or says why not and what does', async () => {
  const gray = modelConfig('tiny', { channels: 1, height: 28, width: 28 });
  assert.equal([gray.in_channels, gray.out_channels, gray.sample_size], [1, 1, 28]);
  assert.equal(modelConfig('small', { channels: 3, height: 20, width: 32 }).sample_size, [20, 32]);
  await refuses('E-MODEL', () => modelConfig('ddpm-cifar10', { channels: 1, height: 28, width: 28 }), '28 x 28', 'multiples of 8', '--image-size 32', '--preset tiny, --preset small');
  await refuses('E-MODEL', () => modelConfig('tiny', { channels: 1, height: 28, width: 27 }), '28 x 27', 'multiples of 4', '--image-size 28');
});

presets('every preset is a model that can be built', () => {
  for (const name of PRESET_NAMES) {
    const { model } = PRESETS[name];
    const levels = model.block_out_channels.length;
    assert.is(model.down_block_types.length, levels);
    assert.equal([...model.up_block_types].reverse().map((t) => t.replace('Up', 'Down')), model.down_block_types);
    // Norms see the channels of a level, and on the way up those of two levels together.
    for (const a of model.block_out_channels) assert.is(a % model.norm_num_groups, 0);
  }
});

presets('what the user left open comes from the preset, the adapter and the data', () => {
  const cpu = resolveSettings(parse('').settings, { software: true, flip: true });
  assert.equal([cpu.preset, cpu.steps, cpu.batchSize, cpu.flip], ['tiny', PRESETS.tiny.steps, PRESETS.tiny.batchSize, true]);
  const gpu = resolveSettings(parse('--lr 1 --dropout 0 --no-flip').settings, { software: false, flip: true });
  assert.equal([gpu.preset, gpu.lr, gpu.dropout, gpu.flip], ['small', 1, 0, false]);
  assert.is(resolveSettings(parse('--preset small').settings, { software: true, flip: false }).preset, 'small');
  // A trial of few steps is not all warm-up, unless asked for.
  assert.is(resolveSettings(parse('--steps 100').settings, { software: true, flip: false }).warmup, 10);
  assert.is(resolveSettings(parse('--steps 100 --warmup 50').settings, { software: true, flip: false }).warmup, 50);
  assert.is(resolveSettings(parse('--timesteps 30').settings, { software: true, flip: false }).sampleSteps, 30);
  // What is predicted, and the weights of its squared error, which no other loss has.
  const learnt = (line: string): unknown[] => (({ predict, snrGamma }) => [predict, snrGamma])(resolveSettings(parse(line).settings, { software: true, flip: false }));
  assert.equal([learnt(''), learnt('--preset small'), learnt('--predict eps --snr-gamma 0')], [['v', 5], ['eps', 0], ['eps', 0]]);
  assert.equal([learnt('--loss l1'), learnt('--loss l1 --snr-gamma 5'), learnt('--loss hybrid')], [['v', 0], ['v', 5], ['v', 5]]);
  assert.equal([learnt('--predict mu'), learnt('--predict mu --snr-gamma 5'), learnt('--predict eps'), learnt('--predict v'), learnt('--rescale-betas-zero-snr')], [['mu', 0], ['mu', 5], ['eps', 0], ['v', 5], ['v', 5]]);
  // Sampling starts at the last t where nothing is left of the image there.
  const visited = (line: string): string => resolveSettings(parse(line).settings, { software: true, flip: false }).timestepSpacing;
  assert.equal([visited(''), visited('--rescale-betas-zero-snr'), visited('--rescale-betas-zero-snr --timestep-spacing leading'), visited('--timestep-spacing linspace')], ['leading', 'trailing', 'leading', 'linspace']);
});

presets.run();

const progress = suite('cli: progress');
const report = (step: number, more: Partial<StepReport> = {}): StepReport => ({ step, loss: 0.05213, gradNorm: 0.312, lr: 2e-4, ms: 21.34, imagesPerSecond: 6010, ...more });

function sink(isTTY: boolean, columns = 120) {
  let text = '';
  return { isTTY, columns, write: (s: string) => (text += s), text: () => text };
}

progress('off a terminal: plain lines at each interval and at the end', () => {
  const out = sink(false);
  const p = new Progress(out, { total: 25, every: 10 });
  for (let step = 1; step <= 25; step++) p.update(report(step));
  p.event('saved');
  p.finish();
  for (const c of ['\r', '\x1b', '█']) assert.not.ok(out.text().includes(c));
  const lines = out.text().split('\n');
  assert.is(lines.length, 5);
  assert.is(lines[0], 'step 10/25 |  40% | loss 0.0521 | gnorm 0.31 | lr 2.0e-4 | 21.3 ms | 6010 img/s | eta 0:00');
  assert.match(lines[2], /^step 25\/25 \| 100% /);
  assert.equal(lines.slice(3), ['saved', '']);
});

progress('on a terminal: one redrawn line, events above it', () => {
  let clock = 0;
  const out = sink(true);
  const p = new Progress(out, { total: 1000, colour: false, now: () => clock });
  p.update(report(500));
  const line = '████████████░░░░░░░░░░░░  500/1000   50%  loss 0.0521  gnorm 0.31  lr 2.0e-4  21.3 ms  6010 img/s  eta 0:11';
  assert.is(out.text(), `\r\x1b[2K${line}`);
  p.update(report(501)); // too soon to be worth drawing
  assert.is(out.text(), `\r\x1b[2K${line}`);
  p.event('samples');
  assert.is(out.text(), `\r\x1b[2K${line}\r\x1b[2Ksamples\n${line}`);
  p.update(report(1000));
  assert.match(out.text(), /█{24} 1000\/1000  100%.*eta 0:00$/);
  clock += 1000;
  p.finish();
  p.event('done');
  assert.ok(out.text().endsWith('eta 0:00\ndone\n'));
});

progress('the time left follows the steps, not the slow first ones', () => {
  const out = sink(false), p = new Progress(out, { total: 1000, every: 100 });
  for (let step = 100; step <= 500; step += 100) p.update(report(step, { ms: step === 100 ? 500 : step === 400 ? 26 : 20 }));
  assert.equal(out.text().match(/eta \S+/g), ['eta 7:30', 'eta 0:16', 'eta 0:14', 'eta 0:13', 'eta 0:11']);
});

progress('a line never wraps', () => {
  for (let columns = 10; columns < 160; columns++) {
    const out = sink(true, columns);
    new Progress(out, { total: 800_000, colour: false }).update(report(400_000, { loss: 123.4, ms: 12345 }));
    const line = out.text().replace('\r\x1b[2K', '');
    assert.ok(line.length < columns, `${columns} columns: ${line.length}`);
    if (columns >= 90) assert.match(line, /█.*loss.*gnorm.*ms.*img\/s.*eta/);
  }
  const narrow = sink(true, 80);
  new Progress(narrow, { total: 20_000, colour: false }).update(report(1000));
  assert.match(narrow.text(), /░ +1000\/20000  loss 0\.0521  gnorm 0\.31  21\.3 ms  6010 img\/s  eta 6:45$/);
});

progress('colour on a terminal only, and modes can be forced', () => {
  const tty = sink(true), pipe = sink(false), forced = sink(true), none = sink(true);
  new Progress(tty, { total: 10, colour: true }).update(report(5));
  assert.ok(tty.text().includes('\x1b[32m█'));
  new Progress(pipe, { total: 10, colour: true, mode: 'bar' }).update(report(5));
  assert.not.ok(pipe.text().includes('\x1b[32m'));
  new Progress(forced, { total: 10, mode: 'lines' }).update(report(5));
  assert.not.match(forced.text(), /\r/);
  const silent = new Progress(none, { total: 10, mode: 'none' });
  silent.update(report(10));
  assert.is(none.text(), '');
  silent.event('kept');
  assert.is(none.text(), 'kept\n');
});

progress('compiling: one redrawn line on a terminal, a line every five seconds elsewhere, nothing where it is quick', async () => {
  const shown = async (isTTY: boolean, ms: number) => {
    let text = '', now = 1000;
    const time = await showCompiling(async (tell) => {
      for (let done = 1; done <= 4; done++) {
        now += ms;
        tell(done, 4);
      }
    }, { isTTY, write: (more) => (text += more) }, () => now);
    return [text, time];
  };
  assert.equal(await shown(false, 10), ['', '0.0 s']);
  assert.equal(await shown(false, 3000), ['kernels  2 of 4 compiled\n', '12.0 s']);
  assert.equal(await shown(true, 10), [`${[1, 2, 3, 4].map((n) => `\r\x1b[2Kkernels  ${n} of 4`).join('')}\r\x1b[2K`, '0.0 s']);
});

progress('numbers that are not finite, and times', () => {
  const out = sink(false);
  new Progress(out, { total: 10 }).update(report(1, { loss: NaN, gradNorm: Infinity, ms: NaN }));
  assert.match(out.text(), /loss NaN \| gnorm Infinity .* NaN ms .* eta \?/);
  assert.equal([0, 59.6, 405, 3723, NaN, -3].map(formatTime), ['0:00', '1:00', '6:45', '1:02:03', '?', '0:00']);
});

progress.run();

const runs = suite('cli: run folder');
const files = { config: { steps: 10 }, environment: { node: 'v' } };
const save = (run: RunFolder, step: number, keep = 0, content = String(step)): ReturnType<RunFolder['saveCheckpoint']> =>
  run.saveCheckpoint(step, (folder) => writeFileSync(join(folder, 'state.json'), content), { keep });
const content = (path: string): string => readFileSync(join(path, 'state.json'), 'utf8');
const steps = (run: RunFolder): number[] => run.checkpoints().map((c) => c.step);

runs('create writes config.json and env.json; nothing is written over without being told', () =>
  inFolder(async (out) => {
    const run = await RunFolder.create(join(out, 'deep', 'runs'), 'a', files);
    assert.equal(run.config(), { 'ddpm.wgsl': 1, steps: 10 });
    assert.equal(JSON.parse(readFileSync(run.file('env.json'), 'utf8')), { node: 'v' });
    assert.ok(run.samplePath(1000).endsWith(join('a', 'samples', 'step-0001000.png')));
    const parent = join(out, 'deep', 'runs');
    writeFileSync(run.file('precious'), 'x');
    await refuses('E-FILE', () => RunFolder.create(parent, 'a', files), '--resume', '--overwrite', run.path);
    assert.ok(existsSync(run.file('precious')));
    const again = await RunFolder.create(parent, 'a', { ...files, overwrite: true });
    assert.not.ok(existsSync(again.file('precious')));
    await again.describe({ config: { steps: 20 }, environment: {} });
    assert.is(RunFolder.open(again.path).config()['steps'], 20);
    // Before a preset decided on the weights of the loss, null said that there were none, and before there was a choice eps was predicted: to go on and to repeat are the same in that.
    await again.describe({ config: { preset: 'tiny', snr_gamma: null }, environment: {} });
    const base = { json: again.config(), source: 'config.json' }, old = [parseFlags(TRAIN, train, [], { base }), parseFlags(TRAIN, train, ['--config', again.file('config.json')])];
    for (const { settings } of old) assert.equal([settings.snrGamma, settings.predict, settings.timeSampling], [0, 'eps', 'uniform']);
    assert.equal([parseFlags(TRAIN, train, ['--snr-gamma', '3', '--predict', 'v'], { base })].map(({ settings }) => [settings.snrGamma, settings.predict]), [[3, 'v']]);
  }));

runs('--overwrite deletes only runs', () =>
  inFolder(async (out) => {
    // A folder of something else, a model's folder, a broken config, a file.
    for (const [name, config] of [['photos', null], ['model', '{"_class_name":"UNet2DModel"}'], ['broken', '{'], ['list', 'null']] as const) {
      mkdirSync(join(out, name));
      writeFileSync(join(out, name, 'precious'), 'x');
      if (config) writeFileSync(join(out, name, 'config.json'), config);
      await refuses('E-FILE', () => RunFolder.create(out, name, { ...files, overwrite: true }), 'is not a run', '--name');
      assert.ok(existsSync(join(out, name, 'precious')));
      await refuses('E-FILE', () => RunFolder.open(join(out, name)), 'not a run folder');
    }
    writeFileSync(join(out, 'file'), 'x');
    await refuses('E-FILE', () => RunFolder.create(out, 'file', { ...files, overwrite: true }), 'is not a run');
    await refuses('E-FILE', () => RunFolder.create(join(out, 'file'), 'a', files), 'Cannot make the run folder');
    mkdirSync(join(out, 'empty'));
    assert.ok(isRun((await RunFolder.create(out, 'empty', files)).path));
    await RunFolder.create(out, 'my run', files);
    await refuses('E-FILE', () => RunFolder.create(out, 'my run', files), `--resume '${join(out, 'my run')}'`);
    for (const name of ['', '.', '..', 'a/b', '../x']) await refuses('E-USAGE', () => RunFolder.create(out, name, { ...files, overwrite: true }), 'not the name of a folder');
  }));

runs('a run whose config.json a crash left empty is called that, with where its settings are and what to type', () =>
  inFolder(async (out) => {
    const run = await RunFolder.create(out, 'a', files), { path } = await save(run, 10), config = run.file('config.json');
    for (const [text, word] of [['', 'is empty'], ['{"steps":', 'is damaged'], [null, 'is missing']] as const) {
      if (text === null) rmSync(config);
      else writeFileSync(config, text);
      for (const named of [run.path, path]) await refuses('E-FILE', () => RunFolder.resume(named, out), `${join('a', 'config.json')} ${word}`, join('step-0000010', 'state.json'), 'To draw with it, name the checkpoint: npm run sample -- ');
      await refuses('E-FILE', () => namedRun(run.path), `${config} ${word}`, `npm run sample -- ${path}`);
    }
  }));

runs('what the system refuses, such as a folder that is a file or another user\'s, is a line and no stack', () =>
  inFolder(async (out) => {
    const run = await RunFolder.create(out, 'a', files), checkpoints = run.file('checkpoints');
    writeFileSync(checkpoints, '');
    const { status, stderr } = spawnSync(process.execPath, ['--import', 'tsx', join('src', 'cli', 'info.ts'), run.path], { cwd: join(import.meta.dirname, '..'), encoding: 'utf8' });
    assert.equal([status, stderr], [1, `E-FILE ${checkpoints}: a part of the path is a file, not a folder\n`]);
  }));

runs('metrics are lines of JSON; going on drops what comes after the checkpoint, and half a line', () =>
  inFolder(async (out) => {
    const run = await RunFolder.create(out, 'a', files);
    await run.truncateMetrics(5); // there is no file yet
    for (let step = 1; step <= 6; step++) run.appendMetrics({ step, loss: step === 2 ? NaN : 0.5 });
    writeFileSync(run.file('metrics.jsonl'), '{"step":3,"lo', { flag: 'a' });
    await run.truncateMetrics(4);
    assert.is(readFileSync(run.file('metrics.jsonl'), 'utf8'), '{"step":1,"loss":0.5}\n{"step":2,"loss":null,"nonfinite":true}\n{"step":3,"loss":0.5}\n{"step":4,"loss":0.5}\n');
    run.appendMetrics({ step: 5, loss: 1 });
    assert.ok(readFileSync(run.file('metrics.jsonl'), 'utf8').endsWith('{"step":5,"loss":1}\n'));
    rmSync(run.file('metrics.jsonl'));
    mkdirSync(run.file('metrics.jsonl'));
    await refuses('E-FILE', () => run.appendMetrics({ step: 6 }), 'cannot write', 'metrics.jsonl: it is a folder');
  }));

runs('checkpoints are complete or not there, `latest` names the last, the oldest go', () =>
  inFolder(async (out) => {
    const run = await RunFolder.create(out, 'a', files);
    assert.is(run.latest(), null);
    for (const step of [10, 20, 30, 40]) await save(run, step, 2);
    assert.equal(steps(run), [30, 40]);
    assert.is(readFileSync(run.file('latest'), 'utf8'), 'checkpoints/step-0000040\n');
    assert.is(content(run.latest()!.path), '40');

    // A save that fails leaves everything as it was.
    let error: unknown;
    await run.saveCheckpoint(50, (folder) => { writeFileSync(join(folder, 'half'), ''); throw new Error('disk'); }).catch((e) => (error = e));
    assert.is((error as Error).message, 'disk');
    assert.equal(readdirSync(run.file('checkpoints')).sort(), ['step-0000030', 'step-0000040']);
    assert.is(run.latest()!.step, 40);
    // What the system refuses is said in words.
    await refuses('E-FILE', () => run.saveCheckpoint(50, () => writeFileSync(join(out, 'nowhere', 'x'), '')), 'cannot write', 'step-0000050: there is no such file or folder');

    // Saved again at the same step: replaced. Gone on from an earlier one: the abandoned future goes first.
    await save(run, 40, 2, 'again');
    assert.is(content(run.latest()!.path), 'again');
    await save(run, 35, 2);
    assert.equal(steps(run), [30, 35]);
    assert.is(run.latest()!.step, 35);
    await save(run, 36, 1);
    assert.equal(steps(run), [36]);

    // `latest` missing or pointing nowhere: the highest step.
    await save(run, 37);
    writeFileSync(run.file('latest'), 'checkpoints/step-0000099');
    assert.is(run.latest()!.step, 37);
    rmSync(run.file('latest'));
    assert.is(run.latest()!.step, 37);
    await save(run, 12_345_678);
    assert.is(run.latest()!.step, 12_345_678);
  }));

runs('a crash in the middle of a save is cleaned up when the run goes on', () =>
  inFolder(async (out) => {
    const run = await RunFolder.create(out, 'a', files);
    const { path } = await save(run, 10);
    renameSync(path, `${path}.old`); // between the two renames
    mkdirSync(`${path}.part`);
    assert.is(RunFolder.resume(run.path, out).checkpoint.step, 10);
    mkdirSync(run.file('checkpoints', 'step-0000020.part'));
    writeFileSync(run.file('checkpoints', 'step-0000020.part', 'half'), 'x');
    assert.equal(readdirSync((await save(run, 20)).path), ['state.json']);
    assert.equal(readdirSync(run.file('checkpoints')).sort(), ['step-0000010', 'step-0000020']);
  }));

runs('who only reads a run, to sample from it, leaves the checkpoint alone that is being saved', () =>
  inFolder(async (out) => {
    const run = await RunFolder.create(out, 'a', files);
    await save(run, 10);
    await run.saveCheckpoint(20, (folder) => {
      writeFileSync(join(folder, 'model'), 'x');
      assert.is(RunFolder.resume(run.path, out).checkpoint.step, 10);
      writeFileSync(join(folder, 'state.json'), '20');
    });
    assert.equal(readdirSync(run.latest()!.path).sort(), ['model', 'state.json']);
  }));

runs('one process trains in a folder: one from whose checkpoint another goes on ends, as does one whose folder is gone', () =>
  inFolder(async (out) => {
    const run = await RunFolder.create(out, 'a', files);
    run.appendMetrics({ step: 1 });
    await save(run, 10);
    const other = RunFolder.resume(run.path, out).run;
    await save(run, 20);
    await other.describe({ ...files, environment: { date: 'later' } });
    await refuses('E-FILE', () => run.appendMetrics({ step: 2 }), 'another process has begun to train in', '--name');
    await refuses('E-FILE', () => save(run, 30), 'another process');
    other.appendMetrics({ step: 2 });
    await save(other, 30);
    assert.equal(steps(run), [10, 20, 30]);
    renameSync(other.path, join(out, 'b'));
    await refuses('E-FILE', () => other.appendMetrics({ step: 3 }), 'is not there any more', 'npm run train -- --resume FOLDER');
    await refuses('E-FILE', () => save(other, 40), 'is not there any more');
    assert.equal(readdirSync(out), ['b']);
    assert.is(readFileSync(join(out, 'b', 'metrics.jsonl'), 'utf8'), '{"step":1}\n{"step":2}\n');
  }));

runs('an env.json that is edited while the run trains, or deleted, does not end it', () =>
  inFolder(async (out) => {
    const run = await RunFolder.create(out, 'a', { config: {}, environment: describeEnvironment({}) }), path = run.file('env.json');
    const edits = [(text: string): string => JSON.stringify({ ...JSON.parse(text), note: 'the third try' }), (text: string): string => text.slice(0, -9), (): string => ''];
    for (const edit of edits) {
      writeFileSync(path, edit(readFileSync(path, 'utf8')));
      run.appendMetrics({ step: 1 });
    }
    rmSync(path);
    await save(run, 10);
    await RunFolder.resume(run.path, out).run.describe({ config: {}, environment: describeEnvironment({}) });
    await refuses('E-FILE', () => run.appendMetrics({ step: 2 }), 'another process has begun to train in');
  }));

runs('--resume finds the newest run, a run, one by name, a checkpoint', () =>
  inFolder(async (out) => {
    await refuses('E-FILE', () => RunFolder.resume('latest', join(out, 'none')), 'no run with a checkpoint');
    writeFileSync(join(out, 'file'), '');
    await refuses('E-FILE', () => RunFolder.resume('latest', join(out, 'file')), 'cannot read the folder', 'a part of the path is a file');
    const a = await RunFolder.create(out, 'a', files), b = await RunFolder.create(out, 'b', files);
    await refuses('E-FILE', () => RunFolder.resume('latest', out), 'no run with a checkpoint');
    await refuses('E-FILE', () => RunFolder.resume(b.path, out), 'no checkpoint yet');
    await save(a, 10);
    const { path } = await save(a, 20);
    await save(b, 5);
    utimesSync(path, new Date(), new Date(Date.now() - 60_000));
    await RunFolder.create(out, 'c', files); // the newest, but with nothing to go on from
    mkdirSync(join(out, 'photos'));
    const found = (target: string): [string, number] => {
      const { run, checkpoint } = RunFolder.resume(target, out);
      assert.is(content(checkpoint.path), String(checkpoint.step));
      return [basename(run.path), checkpoint.step];
    };
    assert.equal(found('latest'), ['b', 5]);
    assert.equal(found('a'), ['a', 20]);
    assert.equal(found(b.path), ['b', 5]);
    assert.equal(found('b'), ['b', 5]);
    assert.equal(found(join(a.path, 'checkpoints', 'step-0000010')), ['a', 10]);
    assert.equal(found(join(a.path, 'checkpoints', 'step-0000010') + '/'), ['a', 10]);
    await refuses('E-FILE', () => RunFolder.resume('nowhere', out), 'nowhere', 'a, b, c');
    await refuses('E-FILE', () => RunFolder.resume('photos', out), 'not a run folder');
    await refuses('E-FILE', () => RunFolder.resume(join(a.path, 'checkpoints'), out), 'not a run folder');
  }));

runs('names and environment', () =>
  inFolder((out) => {
    const now = new Date(2026, 10, 2, 8, 5);
    assert.is(freeRunName(out, 'fashion-mnist', now), '2026-11-02-0805-fashion-mnist');
    mkdirSync(join(out, '2026-11-02-0805-my-cats'));
    mkdirSync(join(out, '2026-11-02-0805-my-cats-2'));
    assert.is(freeRunName(out, '/data/my cats/', now), '2026-11-02-0805-my-cats-3');
    const env = describeEnvironment({ vendor: 'x' }, ['--steps', '1']);
    assert.equal([env['argv'], env['adapter'], env['node']], [['--steps', '1'], { vendor: 'x' }, process.version]);
    assert.match(String(env['webgpu']), /^\d+\.\d+\.\d+/);
  }));

runs.run();
