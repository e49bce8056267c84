// npm run tune: measures on this device which kernels compute a model's shapes fastest, and keeps the choices for train, sample and eval.

import { existsSync, readFileSync, rmSync } from 'node:fs';
import { DdpmError } from '../errors.ts';
import type { ChoiceTable, Made } from '../gpu/choices.ts';
import type { Engine } from '../gpu/engine.ts';
import { writeAtomic } from '../io/files.ts';
import { type OpenedEngine, openEngine } from '../node.ts';
import { typedAs } from '../typed.ts';
import { describeDevice, runCommand, say } from './command.ts';
import { type Command, helpText, parseFlags } from './flags.ts';
import { type Settings, TUNE } from './settings.ts';
import { type Case, caseOf } from './tune-cases.ts';
import { decide, median, sayChoice, type Verdict } from './tune-measure.ts';
import { choicesOf, Placed, type Steps, type TunedModel, tunedModel } from './tune-model.ts';
import { kernelDigest, readTuning, tuningPath, writeTuning } from './tuning.ts';

const COMMAND: Command = {
  name: 'tune',
  help: 'Measures which kernels compute the shapes of a model fastest on this device, and keeps that for train, sample and eval.',
  positional: '[run | latest | checkpoint | folder with config.json]',
};

interface Item {
  readonly made: Made;
  readonly item: Case;
  /** `conv2d_forward 28x28 16->16 3x3`. */
  readonly line: string;
}

async function tune(): Promise<number> {
  const { settings, positional } = parseFlags(TUNE, COMMAND, process.argv.slice(2), { env: process.env });
  if (settings.help) {
    process.stdout.write(`${helpText(TUNE, COMMAND)}\n`);
    return 0;
  }
  const opened = await openEngine({ timestamps: true, ...(settings.gpu !== null && { gpu: settings.gpu }) }), { engine } = opened;
  const path = tuningPath(opened.info);
  say('device', describeDevice(opened));
  if (settings.reset) {
    const was = existsSync(path);
    rmSync(path, { force: true });
    process.stdout.write(was ? `deleted  ${path}\n` : `nothing was measured on this device: there is no ${path}\n`);
    await opened.close();
    return 0;
  }
  const model = await tunedModel(positional, settings, opened.software);
  const { batchSize, microBatch } = model.settings;
  say('model', `${model.name}  ${model.image.join('×')}  batch ${batchSize}${microBatch === null ? '' : ` in parts of ${microBatch}`}, ${model.samples} drawn at a time`);
  const items = choicesOf(opened, model).flatMap((made): Item[] => {
    const item = caseOf(engine, made);
    return item ? [{ made, item, line: `${made.op} ${item.label}` }] : [];
  });
  const wanted = items.filter(({ line, item }) => item.candidates.length > 1 && line.includes(settings.only ?? ''));
  if (wanted.length === 0 && settings.only !== null) throw new DdpmError('E-USAGE', `no line has "${settings.only}" in it; they are such as ${items[0]!.line}. All of them: ${typedAs('tune')} --dry-run`);
  say('shapes', `${wanted.length} of ${items.length} to measure${settings.only !== null ? `: those with "${settings.only}" and more kernels than one` : wanted.length < items.length ? ': there is but one kernel for each of the others' : ''}`);
  if (settings.dryRun) {
    for (const { line, item, made } of wanted) process.stdout.write(`${line.padEnd(58)} ${sayChoice(made.choice)} | ${item.candidates.map(sayChoice).filter((each) => each !== sayChoice(made.choice)).join(' | ')}\n`);
    say('dry run', 'nothing was measured or written');
  } else await measure(opened, wanted, { all: items, model, settings, path });
  await opened.close();
  return 0;
}

interface Order {
  /** The model's shapes, measured now or not. */
  readonly all: readonly Item[];
  readonly model: TunedModel;
  readonly settings: Settings<typeof TUNE>;
  readonly path: string;
}

async function measure(opened: OpenedEngine, items: readonly Item[], { all, model, settings, path }: Order): Promise<void> {
  const { engine, info } = opened, { json, seconds, rounds, minGain } = settings, start = performance.now();
  const results: (Verdict & { readonly key: string; readonly line: string })[] = [], before = existsSync(path) ? readFileSync(path) : null, choices = { ...earlier(path) };
  const write = (): Promise<void> => writeTuning(path, { adapter: info, kernels: kernelDigest(), date: new Date().toISOString(), choices });
  say('kept', 'each choice is written as soon as it is measured: Ctrl-C loses none of them');
  for (const [i, { made, item, line }] of items.entries()) {
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[2K${i + 1} of ${items.length}  ${line}`);
    const verdict = await decide(engine, made, item, { rounds, minGain });
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[2K');
    for (const wrong of verdict.wrong) say('warning', `${line}: ${wrong}, and was left out`);
    results.push({ ...verdict, key: made.key, line });
    choices[made.key] = verdict.chosen;
    await write();
    if (!json) process.stdout.write(`${row(line, verdict)}\n`);
  }
  const changed = results.filter(({ gain }) => gain > 1);
  const steps = seconds > 0 ? await beforeAndAfter(engine, model, all, choices, seconds) : null;
  // What wins alone and loses together, in caches or in memory, is no gain.
  const worse = steps !== null && steps.train.ratio > 1.02 && steps.train.slower >= 0.75;
  if (worse && before) await writeAtomic(path, before);
  else if (worse) rmSync(path, { force: true });
  if (json) {
    process.stdout.write(`${JSON.stringify({ adapter: { vendor: info.vendor, architecture: info.architecture, device: info.device, description: info.description }, kernels: kernelDigest(), model: model.name, results, steps, written: worse ? null : path }, null, 1)}\n`);
    return;
  }
  process.stdout.write(`\n${changed.length} of ${results.length} shapes get another kernel than by default (${((performance.now() - start) / 1000).toFixed(0)} s)\n`);
  if (steps) for (const [name, { before, after, least, ratio }] of Object.entries(steps)) process.stdout.write(`${name.padEnd(7)} step  ${before.toFixed(1)} ms before (least ${least[0].toFixed(1)}), ${after.toFixed(1)} ms after (least ${least[1].toFixed(1)}): ${(1 / ratio).toFixed(2)}x\n`);
  process.stdout.write(worse ? `the whole training step is slower so: ${before ? 'the choices are those of before again' : 'none of it is kept'}\n` : results.length > 0 ? `written  ${path}\n` : '');
}

/** What was measured before with the same kernels, for other shapes. */
function earlier(path: string): ChoiceTable {
  try {
    const { kernels, choices } = readTuning(path);
    return kernels === kernelDigest() ? choices : {};
  } catch {
    return {}; // it is written anew
  }
}

function row(line: string, { usual, chosen, usualMs, chosenMs, gain, tried }: Verdict): string {
  const times = gain > 1 ? `${usualMs.toFixed(3)} -> ${chosenMs.toFixed(3)} ms  ${gain.toFixed(2)}x  ${sayChoice(usual)} -> ${sayChoice(chosen)}` : `${usualMs.toFixed(3)} ms  ${sayChoice(usual)}, the best of ${tried}`;
  return `${line.padEnd(58)} ${times}`;
}

interface Timed {
  /** Milliseconds: medians, and the least of each. */
  readonly before: number;
  readonly after: number;
  readonly least: readonly [before: number, after: number];
  /** After over before, the median of rounds in turn, and the share of rounds in which it is above 1. */
  readonly ratio: number;
  readonly slower: number;
}

/** Whole steps with the table's choices and with those of the file, in turn. */
async function beforeAndAfter(engine: Engine, model: TunedModel, items: readonly Item[], choices: ChoiceTable, seconds: number): Promise<{ readonly train: Timed; readonly sample: Timed }> {
  const placed = new Placed(engine, model, true);
  const captured = (choice: (made: Made) => Made['choice']): Steps => {
    for (const { made } of items) engine.choices.force(made.op, made.shape, choice(made));
    return placed.steps();
  };
  const both = [captured((made) => made.choice), captured((made) => choices[made.key] ?? made.choice)] as const;
  for (const { training, sampler } of both) {
    await training.plan.compile();
    await sampler.compile();
  }
  let step = 0;
  const train = await inTurn(engine, seconds / 2, both.map(({ training }) => () => training.run(step++)));
  const sample = await inTurn(engine, seconds / 2, both.map(({ sampler }) => () => sampler.sample({ seed: 0 })));
  // Of the sampler's two steps.
  const half = ({ before, after, least: [b, a], ...rest }: Timed): Timed => ({ before: before / 2, after: after / 2, least: [b / 2, a / 2], ...rest });
  for (const { training, sampler } of both) {
    await training.destroy();
    await sampler.destroy();
  }
  return { train, sample: half(sample) };
}

async function inTurn(engine: Engine, seconds: number, [before, after]: readonly (() => unknown)[]): Promise<Timed> {
  const time = async (run: () => unknown): Promise<number> => {
    const start = performance.now();
    await run();
    await engine.finished();
    return performance.now() - start;
  };
  for (const run of [before!, after!]) await time(run);
  const pairs: [number, number][] = [], end = performance.now() + 1000 * seconds;
  while (pairs.length < 5 || performance.now() < end) {
    // Now one first, now the other.
    if (pairs.length % 2) pairs.push([await time(before!), await time(after!)]);
    else pairs.push(([await time(after!), await time(before!)] as [number, number]).reverse() as [number, number]);
  }
  const ratios = pairs.map(([b, a]) => a / b), befores = pairs.map(([b]) => b), afters = pairs.map(([, a]) => a);
  return { before: median(befores), after: median(afters), least: [Math.min(...befores), Math.min(...afters)], ratio: median(ratios), slower: ratios.filter((ratio) => ratio > 1).length / ratios.length };
}

await runCommand(tune);
