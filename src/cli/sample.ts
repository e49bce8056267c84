// npm run sample: pictures from a run, a checkpoint or any folder with a model that diffusers wrote: new ones, edited ones, and figures.

import { DdpmError } from '../errors.ts';
import { requireWritable, writeAtomic } from '../io/files.ts';
import type { Picture } from '../io/picture.ts';
import { encodePng } from '../io/png.ts';
import { runCommand, say } from './command.ts';
import type { Figure } from './figures.ts';
import { type Command, helpText, parseFlags } from './flags.ts';
import { drawGrid } from './sample-draw.ts';
import { drawFigure } from './sample-figures.ts';
import { labelOf } from './sample-label.ts';
import type { Ready, Written } from './sample-ready.ts';
import { editing, inpainting, interpolating, inverting } from './sample-uses.ts';
import { imageShape, placeModel, samplerOptions } from './sampling.ts';
import { SAMPLE, type SampleSettings } from './settings.ts';
import { describeTuning, openTuned } from './tuning.ts';

const COMMAND: Command = { name: 'sample', help: 'Draws images with a trained model, edits given ones, and shows how it works.', positional: '<run | latest | checkpoint | folder with config.json>' };

/** What can be asked for instead of a plain grid; one at a time. */
const TASKS = ['figure', 'from', 'interpolate', 'inpaint', 'invert'] as const;
type Task = (typeof TASKS)[number];

/** What their pictures are called unless --out says so; a figure has its own name. */
const PICTURES = { from: 'edited', interpolate: 'between', inpaint: 'painted', invert: 'inverted' } as const;

/** Flags that only some tasks know, and which; null is the plain grid. */
const BELONG: readonly (readonly [setting: string, flag: string, tasks: readonly (Task | null)[]])[] = [
  ['strength', '--strength', ['from', 'interpolate']], ['mask', '--mask', ['inpaint']], ['jumpLength', '--jump-length', ['inpaint']], ['resamples', '--resamples', ['inpaint']],
  ['data', '--data', ['figure', 'from', 'interpolate', 'inpaint', 'invert']], ['n', '--n', [null, 'figure', 'from', 'interpolate', 'inpaint']], ['trajectory', '--trajectory', [null]], ['raw', '--raw', [null]], ['noise', '--noise', [null]],
];

async function sample(): Promise<number> {
  const { settings, given, positional } = parseFlags(SAMPLE, COMMAND, process.argv.slice(2), { env: process.env });
  if (settings.help) {
    process.stdout.write(`${helpText(SAMPLE, COMMAND)}\n`);
    return 0;
  }
  const task = taskOf(settings, given), outputs = outputsOf(settings, given, task);
  const { opened, tuning } = await openTuned(settings);
  const placed = await placeModel(opened.engine, positional!, settings.weights);
  const { model, unet, parameters } = placed, { schedule, variance } = model.scheduler;
  say('model', `${model.file}  ${parameters.count} parameters`);
  say('schedule', `${schedule.T} timesteps, ${variance}  ${model.schedulerFile ?? "nothing said, so DDPM's own: linear from 0.0001 to 0.02"}`);
  // The chain as it was trained is what the figures and RePaint are about.
  const sampler = (task === 'figure' || task === 'inpaint') && !given.has('sampler') ? 'ddpm' : settings.sampler;
  // Given images are of no class that is known.
  const label = labelOf(settings.label, model.classes) ?? (task !== null && task !== 'figure' && unet.conditional ? 'none' : null);
  const asked = { ...settings, sampler, label, ...(task === 'inpaint' && !given.has('sampleSteps') && settings.spacing === null && settings.timesteps === null && { sampleSteps: Math.min(100, schedule.T) }) };
  const ready: Ready = { placed, settings: asked, given, image: () => imageShape(unet, model), options: samplerOptions(asked, given, model.scheduler) };
  // Drawing may take hours.
  for (const path of outputs) await requireWritable(path);
  const files = task === null ? await drawGrid(ready) : await written(outputs[0], await run(task, ready)), tuned = describeTuning(opened.engine.choices, tuning);
  if (tuned) say('tuned', tuned);
  for (const [what, path] of files) process.stdout.write(`${what.padEnd(9)}${path}\n`);
  await opened.close();
  return 0;
}

function run(task: Task, ready: Ready): Promise<Picture> {
  const { figure, from, interpolate, inpaint, invert } = ready.settings;
  switch (task) {
    case 'figure': return drawFigure(ready, figure as Figure);
    case 'from': return editing(ready, from!);
    case 'interpolate': return interpolating(ready, interpolate!);
    case 'inpaint': return inpainting(ready, inpaint!);
    case 'invert': return inverting(ready, invert!);
  }
}

async function written(path: string, picture: Picture): Promise<Written> {
  await writeAtomic(path, encodePng(picture));
  return [['picture', path]];
}

/** The files that will be written, the picture first. @throws DdpmError E-USAGE where two of them have one name */
function outputsOf({ out, raw, trajectory, figure }: SampleSettings, given: ReadonlySet<string>, task: Task | null): [picture: string, ...more: string[]] {
  const picture = task === null || given.has('out') ? out : `${task === 'figure' ? figure : PICTURES[task]}.png`;
  const all: [string, ...string[]] = [picture, ...[raw, trajectory].filter((path) => path !== null)], twice = all.find((path, i) => all.indexOf(path) < i);
  if (twice !== undefined) throw new DdpmError('E-USAGE', `two files would be called ${twice}. Name them apart.`);
  return all;
}

/** @throws DdpmError E-USAGE for two tasks at once, a flag that the task does not know, or a file name of another format */
function taskOf(settings: SampleSettings, given: ReadonlySet<string>): Task | null {
  const tasks = TASKS.filter((each) => settings[each] !== null);
  if (tasks.length > 1) throw new DdpmError('E-USAGE', `--${tasks[0]} and --${tasks[1]} are two pictures: ask for one at a time.`);
  const task = tasks[0] ?? null;
  for (const [setting, flag, belongs] of BELONG) {
    if (!given.has(setting) || belongs.includes(task)) continue;
    const owners = belongs.filter((each) => each !== null).map((each) => `--${each}`);
    throw new DdpmError('E-USAGE', owners.length ? `${flag} goes with ${owners.join(', ').replace(/, (?=\S+$)/, ' and ')}${task === null ? '' : `, not with --${task}`}.` : `${flag} goes with a plain grid of images, not with --${task}.`);
  }
  for (const [flag, path, kinds] of [['--out', settings.out, /\.png$/i], ['--trajectory', settings.trajectory ?? '.apng', /\.a?png$/i]] as const) {
    if (!kinds.test(path)) throw new DdpmError('E-USAGE', `${flag} ${path}: a PNG is all that is written, so its name should end in ${flag === '--out' ? '.png' : '.apng or .png'}.`);
  }
  return task;
}

await runCommand(sample);
