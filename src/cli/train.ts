// npm run train: from flags to a run folder with metrics, pictures and checkpoints.

import { fork } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { extname, join, relative } from 'node:path';
import { loadDataset } from '../data/dataset.ts';
import { GaussianDiffusion } from '../diffusion/gaussian.ts';
import { makeSchedule } from '../diffusion/schedule.ts';
import { Training } from '../diffusion/training.ts';
import { isLearned } from '../diffusion/variance.ts';
import { DdpmError } from '../errors.ts';
import { loadCheckpoint, loadModelFolder, type ModelFolder, readModelConfig, saveCheckpoint, type TrainingState } from '../io/checkpoint.ts';
import { writeAtomic } from '../io/files.ts';
import { Engine } from '../gpu/engine.ts';
import { paperDevice } from '../gpu/paper.ts';
import { listAdapters, type OpenedEngine } from '../node.ts';
import { Parameters } from '../nn/parameters.ts';
import { UNet } from '../nn/unet.ts';
import { takePrecision } from '../ops/precision.ts';
import { DeviceImages } from '../ops/random.ts';
import { typedAs } from '../typed.ts';
import { mebibytes, quoted, runCommand, say } from './command.ts';
import { orNameAnother } from './damaged.ts';
import { readingOptions } from './data-settings.ts';
import { classesOf, clipOf, diffusionLine, readBetas, scheduleOf } from './diffusion-settings.ts';
import { type Command, helpText, parseFlags, settingsToJson } from './flags.ts';
import { modelConfig } from './presets.ts';
import { Progress, showCompiling } from './progress.ts';
import { type Checkpoint, describeEnvironment, freeRunName, RunFolder } from './run-folder.ts';
import { modelPath } from './sampling.ts';
import { resolveSettings, TRAIN, type TrainSettings } from './settings.ts';
import { changedAims, memoryLine, memoryParts, modelLine, softwareWarning, trainLine } from './train-header.ts';
import { checkModel, describeScheduler, withScheduler } from './train-init.ts';
import { trainLoop } from './train-loop.ts';
import { SampleGrids } from './train-samples.ts';
import { describeRefused, describeTuning, openTuned, recordTuning, type Tuning } from './tuning.ts';
import { makeReport } from './view-server.ts';

const COMMAND: Command = { name: 'train', help: 'Trains a model, or goes on training one, and keeps all of it in a run folder.' };

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;
/** npm passes a Ctrl-C on that its child has had already: a second signal this soon is the same key. */
const SAME_KEY_MS = 500, UNDER_NPM = process.env['npm_lifecycle_event'] !== undefined;

/** Of a checkpoint for each number that the model learns: the weight, its average and two moments, in float32. */
const CHECKPOINT_BYTES = 16;

async function train(): Promise<number> {
  const parse = (base?: { json: unknown; source: string }) => parseFlags(TRAIN, COMMAND, process.argv.slice(2), { env: process.env, ...(base && { base }) });
  let { settings, given } = parse();
  if (settings.help) {
    process.stdout.write(`${helpText(TRAIN, COMMAND)}\n`);
    return 0;
  }
  if (settings.listGpus) {
    const adapters = await listAdapters();
    process.stdout.write(adapters.length ? adapters.map(({ backend, name }, i) => `${i}  ${name} (${backend})\n`).join('') : 'no adapter was found\n');
    return 0;
  }
  const stray = settings.resume === null ? undefined : (['name', 'overwrite'] as const).find((flag) => given.has(flag));
  if (stray) throw new DdpmError('E-USAGE', `--${stray} is for a new run, and --resume goes on with one where it is. Leave one of them out.`);
  const resumed = settings.resume === null ? null : RunFolder.resume(settings.resume, settings.out);
  if (resumed) ({ settings, given } = parse({ json: resumed.run.config(), source: resumed.run.file('config.json') }));
  if (resumed && given.has('init') && settings.init !== resumed.run.config()['init'])
    throw new DdpmError('E-USAGE', '--init does not go with --resume: a run that goes on has its weights in its checkpoint. Leave one of them out.');
  // A run that goes on has its model, and the settings that came with it, already.
  const initial = resumed || settings.init === null ? null : await loadModelFolder(modelPath(settings.init));
  if (initial) settings = withScheduler(settings, given, initial);
  // A run that goes on has its betas in the checkpoint, wherever the file of its first start is now.
  const betas = settings.betas === null ? null : await (resumed && !given.has('betas') ? intact(resumed, () => readBetas(join(resumed.checkpoint.path, 'scheduler_config.json'))) : readBetas(settings.betas));
  // The config.json of a run with betas has both.
  if (betas && given.has('timesteps') && settings.timesteps !== betas.length) throw new DdpmError('E-USAGE', `--timesteps does not go with --betas: there are as many as ${settings.betas} has betas.`);
  process.stderr.write(`ddpm.wgsl ${packageVersion()} · node ${process.versions.node} · webgpu ${String(describeEnvironment({})['webgpu'])}\n`);
  const { opened, tuning } = await openTuned(settings, resumed && !given.has('tuning') ? resumed.run.path : null);
  const code = await trainOn(opened, betas ? { ...settings, timesteps: betas.length } : settings, { given, betas, resumed, initial, tuning });
  // Not after an error: a lost device has nothing to wait for, and the process ends in any case.
  await opened.close();
  return code;
}

const intact = <T>(resumed: { run: RunFolder; checkpoint: Checkpoint }, read: () => Promise<T>): Promise<T> => orNameAnother(resumed, `${typedAs('train')} --resume`, read);

interface Start {
  /** The settings that the user gave. */
  readonly given: ReadonlySet<string>;
  /** Read from a file, or null where the schedule has a name. */
  readonly betas: readonly number[] | null;
  readonly resumed: { readonly run: RunFolder; readonly checkpoint: Checkpoint } | null;
  /** The weights of --init. */
  readonly initial: ModelFolder | null;
  readonly tuning: Tuning;
}

async function trainOn(opened: OpenedEngine, asked: TrainSettings, { given, betas, resumed, initial, tuning }: Start): Promise<number> {
  const { software } = opened;
  // What a dry run says is counted; nothing is allocated, however large the model and the batch.
  const engine = asked.dryRun ? new Engine(paperDevice(opened.engine.subgroupWidth, opened.info, opened.device.features, opened.device.limits), { choices: tuning.choices }) : opened.engine;
  if (asked.dryRun) takePrecision(engine, opened.engine);
  const data = await loadDataset(asked.data, { ...(asked.limit !== null && { limit: asked.limit }), ...readingOptions(asked), say: (text) => say('data', text) });
  const settings = resolveSettings(asked, { software, flip: data.flip });
  if (software) say('warning', softwareWarning(opened, settings));

  const classes = settings.classConditional ? classesOf(data) : 0, { selfCondition } = settings, learnedVariance = isLearned(settings.variance);
  const source = resumed?.checkpoint.path ?? initial?.folder ?? null;
  // Not where another preset is asked for: then the checkpoint is held against that.
  const stored = resumed && settings.preset === resumed.run.config()['preset'] ? await intact(resumed, () => readModelConfig(resumed.checkpoint.path)) : initial?.config;
  // Weights fit images of any size: what is trained on decides which size the model draws from now on.
  const { height, width } = data, sample_size = height === width ? height : [height, width] as const;
  const fields = stored ? { ...stored, sample_size } : modelConfig(settings.preset, data, { learnedVariance, selfCondition, classes });
  const unet = new UNet({ ...fields, dropout: settings.dropout }, { checkpointBlocks: settings.checkpointBlocks });
  if (source !== null) checkModel(unet, { source, channels: data.channels, selfCondition, learnedVariance, classes });
  const parameters = Parameters.place(engine, unet, { seed: settings.seed, initial: source === null && !asked.dryRun });
  // The averaged weights are where the averages start, too.
  if (initial) for (const buffer of ['values', 'ema'] as const) parameters.write(buffer, initial.tensors, initial.file);
  const images = new DeviceImages(engine, classes ? data : { ...data, labels: null }, settings.flip);
  const schedule = scheduleOf(settings, betas), { predict: prediction, variance, timestepSpacing: spacing, stepsOffset, setAlphaToOne } = settings;
  const diffusion = new GaussianDiffusion(engine, makeSchedule(schedule), { prediction, variance }), clipSample = clipOf(settings), sampling = { clipSample, spacing, stepsOffset, setAlphaToOne };
  const { steps, lr, seed } = settings;
  const training = inPartsIfLarge(() => new Training(unet, parameters, diffusion, images, { ...settings, clipSample, snrGamma: settings.snrGamma || null }));

  say('data', `${data.name}  ${data.count} × ${data.height}×${data.width}×${data.channels}  flip ${settings.flip ? 'on' : 'off'}  ${data.path}`);
  say('model', modelLine(settings, unet, { source: settings.init ?? settings.preset, classes, count: parameters.count }));
  if (initial) say('init', describeScheduler(given, initial));
  say('schedule', diffusionLine(settings, training.lossName));
  const aims = resumed ? changedAims(resumed.run.config(), settings) : '';
  if (aims) say('warning', `${aims}: the weights of the checkpoint have learnt something else, and the loss begins high`);
  say('train', trainLine(settings, data.count));
  const tuned = describeTuning(engine.choices, tuning), refused = describeRefused(engine.choices);
  if (tuned) say('tuned', tuned);
  if (refused) say('warning', refused);
  if (engine.precision === 'f16') say('f16', `factors of ${[...engine.half].join(', ')}${engine.storage === 'f16' ? ', and activations' : '; activations are float32 here'}; the loss is scaled by what they can hold`);
  const memory = memoryParts(parameters, training.plan.pool.totalBytes, data.pixels.length);
  say('memory', memoryLine(memory));

  const config = settingsToJson(TRAIN, settings as TrainSettings);
  if (asked.dryRun) {
    const { plan } = training, most = opened.device.limits.maxStorageBufferBindingSize;
    say('plan', `${plan.dispatches} dispatches a step, at most ${mebibytes(plan.pool.peakBytes)} MiB of activations at once`);
    if (plan.pool.largestBytes > most) say('warning', `the largest tensor has ${mebibytes(plan.pool.largestBytes)} MiB and this device binds at most ${mebibytes(most)}: use a smaller --batch-size`);
    process.stdout.write(`${JSON.stringify({ settings: config, model: unet.config, parameters: parameters.count }, null, 2)}\n`);
    say('dry run', 'nothing was trained or written');
    return 0;
  }

  let state: TrainingState | null = null;
  if (resumed) {
    state = await intact(resumed, () => loadCheckpoint(resumed.checkpoint.path, { parameters, training }));
    if (state.step >= steps) {
      const more = `${typedAs('train')} --resume ${quoted(resumed.run.path)} --steps ${2 * state.step}`;
      throw new DdpmError('E-USAGE', `${resumed.run.path} has done its ${state.step} steps. To go on with it, give more: ${more}`);
    }
  }
  const environment = { ...describeEnvironment(adapterFacts(opened)), memory };
  const run = resumed?.run ?? (await RunFolder.create(settings.out, asked.name ?? freeRunName(settings.out, settings.data), { config, environment, overwrite: asked.overwrite }));
  say('run', run.path);
  const from = state?.step ?? 0;
  if (state) {
    await run.describe({ config, environment });
    await run.truncateMetrics(from);
    say('resumed', `step ${from} of ${steps} from ${resumed!.checkpoint.path} (model, ema, adam, seed and data order)`);
    if (state.seed !== seed) say('warning', `the seed was ${state.seed} and is ${seed}: from here on the run is another one`);
    if (state.data?.count !== data.count) say('warning', `the data were ${state.data?.count} images and are ${data.count}: the order goes on differently`);
  }
  await recordTuning(run.path, opened.info, engine.choices);
  if (asked.view !== null) await openView(run, asked.view);
  await compile(training);

  const progress = new Progress(process.stderr, { total: steps, mode: settings.progress as 'auto', every: settings.logEvery });
  const stop = catchSignals((text) => progress.event(text));
  let saved: Checkpoint | null = resumed?.checkpoint ?? null;
  let lastGood = from; // the last step that changed the weights

  const save = async (step: number): Promise<void> => {
    const start = performance.now();
    const content = { unet, parameters, schedule, scheduler: { prediction, variance, ...sampling }, training, classes: data.classes, state: { step, seed, data: { name: data.name, count: data.count }, settings: config } };
    saved = await run.saveCheckpoint(step, (folder) => saveCheckpoint(folder, content), { keep: settings.keep, bytes: CHECKPOINT_BYTES * parameters.count });
    progress.event(`  checkpoint → ${relative(run.path, saved.path)} (${seconds(start)})`);
  };

  const grids = new SampleGrids({ unet, parameters, diffusion, sampling, image: images.shape, n: settings.samples, seed, stop, onEvent: (text) => progress.event(text) });
  const draw = async (path: string, sampleSteps: number): Promise<boolean> => {
    run.requireOwn();
    const start = performance.now(), drawn = await grids.draw(path, sampleSteps);
    if (drawn) progress.event(`  samples → ${relative(run.path, path)} (${settings.samples}, ema, ddim ${sampleSteps}, ${seconds(start)})`);
    return drawn;
  };

  let done: number, unwritten: DdpmError | null = null;
  try {
    done = await trainLoop({
      training, images: data.count, from, logEvery: settings.logEvery, sampleEvery: settings.sampleEvery, saveEvery: settings.saveEvery, stop, save,
      onMetrics: (line) => {
        try {
          run.appendMetrics(line);
        } catch (error) {
          if (!(error instanceof DdpmError)) throw error;
          run.requireOwn();
          unwritten ??= error;
          stop.requested = true; // the steps that were made are saved first, where there is room for that
        }
        if (!('nonfinite' in line)) lastGood = line['step'] as number;
      },
      onProgress: (report) => progress.update(report),
      onEvent: (text) => progress.event(text),
      // Pictures can be drawn later, from the checkpoints: no reason to end.
      sample: (step) => draw(run.samplePath(step), settings.sampleSteps).then(() => {}, (error: unknown) => {
        if (!(error instanceof DdpmError && error.code === 'E-FILE')) throw error;
        progress.event(`  no samples: ${error.message}`);
      }),
    });
    if (done > from && saved?.step !== done) await save(done); // not again where the signal came while its checkpoint was written
    if (unwritten) throw unwritten;
  } catch (error) {
    progress.finish();
    throw withAdvice(error, { run, lastGood, lr, storage: engine.storage });
  }
  if (done === steps) {
    const final = run.file('samples', 'final.png');
    const failed = (error: unknown): never => {
      progress.finish();
      run.requireOwn();
      if (!(error instanceof DdpmError)) throw error;
      throw new DdpmError(error.code, `${error.message}\nThe training is done, and saved: ${saved!.path}. For pictures: ${typedAs('sample')} ${quoted(run.path)}`, { cause: error });
    };
    if (await draw(final, Math.min(settings.timesteps, 2 * settings.sampleSteps)).catch(failed)) {
      await writeReport(run, (text) => progress.event(text));
      progress.finish();
      process.stdout.write(`samples  ${final}\nmore     ${typedAs('sample')} ${quoted(run.path)}\n`);
      return 0;
    }
  }
  progress.finish();
  if (done === steps) process.stderr.write(`saved ${saved!.path}.  The training is done; for pictures:  ${typedAs('sample')} ${quoted(run.path)}\n`);
  else if (saved) process.stderr.write(`saved ${saved.path}.  go on with:  ${resumeCommand(run.path)}\n`);
  else process.stderr.write('stopped before the first step: there is nothing to save\n');
  return 130;
}

/** A step that is too large for the device can be taken in parts. */
function inPartsIfLarge<T>(make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof DdpmError && error.code === 'E-LIMIT')) throw error;
    throw new DdpmError('E-LIMIT', `${error.message} Here that is a smaller --batch-size, or --micro-batch N: the same batch and gradient, N images at a time.`, { cause: error });
  }
}

async function compile(training: Training): Promise<void> {
  const time = await showCompiling((progress) => training.plan.compile(progress));
  say('kernels', `${training.engine.pipelines.count} pipelines compiled in ${time}`);
}

/** The first Ctrl-C asks the loop to end after its step, the second ends the process at once. */
function catchSignals(event: (text: string) => void): { requested: boolean } {
  const stop = { requested: false };
  let received = 0, first = 0;
  const onSignal = (signal: 'SIGINT' | 'SIGTERM'): void => {
    if (++received === 1) {
      stop.requested = true;
      first = performance.now();
      event('^C  finishing the step and saving … press again to stop at once');
      // Only the second can be npm's: where the event loop was held up, two keys come as close together as that, and more signals than one key gives.
    } else if (!(UNDER_NPM && received === 2 && performance.now() - first < SAME_KEY_MS)) endBy(signal);
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  // A terminal that closes: its shell sends the signal as well, so a second one means nothing. Node has it end a process that nohup started, too.
  process.on('SIGHUP', () => {
    if (!stop.requested) event('the terminal was closed: finishing the step and saving …');
    stop.requested = true;
  });
  // Nobody reads the progress any more, as after `| head`.
  process.stderr.on('error', () => (stop.requested = true));
  return stop;
}

/**
 * Ends the process as the signal does when nobody listens. process.exit() would take the device down first, which can wait for a step that is under way.
 * Nothing is lost by it: lines of metrics are written when they are made, and files are renamed when they are whole.
 */
function endBy(signal: 'SIGINT' | 'SIGTERM'): never {
  for (const each of SIGNALS) process.removeAllListeners(each);
  process.kill(process.pid, signal);
  // As the first process of a container it is spared.
  return process.exit(130);
}

/** Shows the run on a page of this machine: from a process of its own, which can neither slow the training down nor stop it. */
async function openView(run: RunFolder, port: number): Promise<void> {
  const command = join(import.meta.dirname, `view${extname(import.meta.filename)}`);
  const child = fork(command, [run.path, '--port', String(port)], { stdio: ['ignore', 'pipe', 'inherit', 'ipc'] });
  const first = await new Promise<string>((done) => {
    child.stdout!.once('data', (text: Buffer) => done(text.toString()));
    child.once('exit', () => done(''));
  });
  // Not before: a view that did not come up would leave Node nothing to wait for, and the training would end here.
  child.unref();
  child.channel?.unref();
  (child.stdout as unknown as { unref?(): void }).unref?.();
  if (first) process.stderr.write(first.replace(', until Ctrl-C', ', until the training ends'));
}

/** report.html: the run as one file. A training that is done is not failed by its report. */
async function writeReport(run: RunFolder, event: (text: string) => void): Promise<void> {
  try {
    await writeAtomic(run.file('report.html'), await makeReport([run.path]));
  } catch (error) {
    event(`  no report.html: ${(error as Error).message}`);
  }
}

const resumeCommand = (path: string): string => `${typedAs('train')} --resume ${quoted(path)}`;

/** The error of a run that was under way, with what is left of the run and what to type. */
function withAdvice(error: unknown, { run, lastGood, lr, storage }: { run: RunFolder; lastGood: number; lr: number; storage: Engine['storage'] }): unknown {
  if (!(error instanceof DdpmError)) return error;
  if (error.code === 'E-FILE') run.requireOwn(); // whatever could not be written, that is why
  const diverged = error.code === 'E-NONFINITE';
  // Weights whose every next step failed are finite and of no use: only a checkpoint from before the last step that worked will go on.
  const good = diverged ? run.checkpoints().filter(({ step }) => step < lastGood).at(-1) : run.latest();
  const path = good && (good.step === run.latest()?.step ? run.path : good.path);
  const lower = diverged ? ` --lr ${Number((lr / 3).toPrecision(1))}` : '';
  const next = path ? `Go on from it${lower && ' at a lower rate'}: ${resumeCommand(path)}${lower}` : `Start again${lower && ` at a lower rate:${lower}`}, with --overwrite or another --name.`;
  const wider = diverged && storage === 'f16' ? ' Where activations exceed 65,504, --precision f32 is what helps.' : '';
  return new DdpmError(error.code, `${error.message}\n${good ? `The last good checkpoint is ${good.path}.` : 'There is no good checkpoint yet.'} ${next}${wider}`, { cause: error });
}

function adapterFacts({ device, info, software }: OpenedEngine): object {
  const { vendor, architecture, device: name, description, subgroupMinSize, subgroupMaxSize } = info;
  return { vendor, architecture, device: name, description, software, subgroups: [subgroupMinSize, subgroupMaxSize], features: [...device.features].sort() };
}

const packageVersion = (): string => (JSON.parse(readFileSync(join(import.meta.dirname, '..', '..', 'package.json'), 'utf8')) as { version: string }).version;

const seconds = (since: number): string => `${((performance.now() - since) / 1000).toFixed(1)} s`;

await runCommand(train);
