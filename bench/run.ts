// npm run bench [-- FILTER]: kernels at the shapes of the presets; `step`, `scale` and `startup` for the whole; --json and --compare for the record.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { requireKernels } from '../src/cli/command.ts';
import { PRESET_NAMES, PRESETS, type PresetName } from '../src/cli/presets.ts';
import { DdpmError } from '../src/errors.ts';
import { readFileOr, requireWritable, writeAtomic } from '../src/io/files.ts';
import { openEngine } from '../src/node.ts';
import { type Precision, PRECISIONS } from '../src/ops/precision.ts';
import { conv2dCases } from './conv2d.ts';
import { attentionCases, groupNormCases } from './group_norm.ts';
import { parseBench } from './flags.ts';
import { type Case, measure, type Row } from './harness.ts';
import { shapesIn, trainingOf } from './model.ts';
import { peak } from './peak.ts';
import { host } from './host.ts';
import { plans } from './plan.ts';
import { report } from './report.ts';
import { series } from './scale.ts';
import { samplingStep, type StepResult, trainingStep } from './step.ts';
import { toggles } from './toggles.ts';

const HELP = `npm run bench [-- FILTER ...] [flags]

  FILTER          kernels whose name contains it (conv2d, group_norm, attention, backward_weight, k3 ...); or one of
  step            the whole training step and sampling step: images/s, dispatches, host microseconds, memory
  scale           the training step against batch size, resolution and width
  peers           the same shapes with tfjs and jax-js, and jax-js's training step, in turn with ours (first: npm ci --prefix bench/peers)
  plan            dispatches and memory of the training and sampling plans, counted without running or allocating anything; --profile: by kernel
  host            what replaying a training step costs the host alone, on Dawn's null backend
  startup         a fresh process up to its first finished step
  report          all of this device: checks, whole steps by kernel, kernels, tune, and PyTorch in the same call where python3 has it; written to --out
  toggles         the training step under one Dawn toggle after another, in turn with openEngine's own; --seconds N: N rounds

  --preset NAME   tiny, small or ddpm-cifar10: whose shapes (default: tiny on a CPU, ddpm-cifar10 on a GPU)
  --batch-size N  default: the preset's
  --all           every variant of a kernel, not only the one that the engine chooses
  --seconds N     how long a step is timed (default 3)
  --profile       time by kernel within a step
  --checkpoint-blocks   of step and plan: backward runs each block again instead of keeping what it computed
  --precision P   of step, scale and plan: f32 or f16; plan counts f16 as on a device whose kernels for it are all right
  --json FILE     results in Google Benchmark's schema
  --out FOLDER    where report writes DATE-DEVICE.md and its .json files (default bench/results)
  --compare FILE  against such a file: the change of each row
`;

async function main(): Promise<void> {
  const { values, positionals, mode } = parseBench(process.argv.slice(2));
  if (values.help) return void console.log(HELP);
  await requireKernels();
  if (values.preset && !PRESET_NAMES.includes(values.preset as PresetName)) throw new DdpmError('E-USAGE', `there is no preset "${values.preset}"; the presets are ${PRESET_NAMES.join(', ')}.`);
  const number = (flag: 'batch-size' | 'seconds'): number | null => {
    const text = values[flag], value = Number(text);
    if (text !== undefined && !(value > 0 && (flag === 'seconds' || Number.isInteger(value)))) throw new DdpmError('E-USAGE', `--${flag} is "${text}"; it must be a ${flag === 'seconds' ? '' : 'whole '}number above 0.`);
    return text === undefined ? null : value;
  };
  const named = values.preset as PresetName | undefined, batchSize = number('batch-size'), duration = number('seconds');
  const precision = (values.precision ?? 'f32') as Precision;
  if (!PRECISIONS.includes(precision)) throw new DdpmError('E-USAGE', `there is no precision "${values.precision}"; it is ${PRECISIONS.join(' or ')}.`);
  // Measuring may take an hour.
  if (values.json) await requireWritable(values.json);
  const old = values.compare ? await rowsOf(values.compare) : [];
  const small = named ?? 'tiny';
  if (mode === 'plan') return plans(named ? [named] : PRESET_NAMES, batchSize, values.profile ?? false, { checkpointBlocks: values['checkpoint-blocks'], precision });
  // The dispatches are the same for any batch, and the null backend holds half a gibibyte.
  if (mode === 'host') return host(small, batchSize ?? PRESETS.tiny.batchSize);
  if (mode === 'toggles') return toggles(small, batchSize ?? PRESETS[small].batchSize, duration ?? 9);
  const opened = await openEngine({ timestamps: true, precision });
  const { engine, info, software } = opened;
  for (const warning of opened.warnings) console.log(`warning: ${warning}`);
  const preset = named ?? (software ? 'tiny' : 'ddpm-cifar10'), batch = batchSize ?? PRESETS[preset].batchSize, seconds = duration ?? 3;
  console.log(`${info.description || info.device || info.vendor} · ${info.architecture} · ${engine.device.features.has('timestamp-query') ? 'device timestamps' : 'wall clock'} · ${preset}, batch ${batch}${precision === 'f16' ? `, float16 factors, ${engine.storage === 'f16' ? 'float16' : 'float32'} activations` : ''}`);
  if (mode === 'report') {
    await opened.close();
    const half = !software && (await openEngine({ precision: 'f16' }).then((again) => again.close().then(() => true), () => false));
    return void console.log(`\nwritten to ${await report({ device: info.description || info.device || info.vendor, software, half, preset, batch, seconds, folder: values.out ?? 'bench/results' })}`);
  }
  const benchmarks: object[] = [];
  if (mode === 'step' || mode === 'scale') {
    const report = (r: StepResult) => {
      console.log(
        `${r.name.padEnd(28)} batch ${String(r.batch).padStart(4)} ${r.ms.toFixed(2).padStart(10)} ms (min ${r.min.toFixed(2)}) ${r.imagesPerSecond.toFixed(1).padStart(9)} images/s  ` +
          `${r.dispatches} dispatches  ${r.hostMicrosecondsPerDispatch ? `${r.hostMicrosecondsPerDispatch.toFixed(1)} us each on the host  ` : ''}${r.planMiB.toFixed(0)} MiB${r.peakMiB === null ? '' : `, ${r.peakMiB.toFixed(0)} at once`}`,
      );
      const name = `${r.name}/${r.batch}`;
      benchmarks.push({ ...r, name, run_name: name, run_type: 'iteration', iterations: 1, real_time: r.ms, cpu_time: r.ms, time_unit: 'ms' });
    };
    if (mode === 'step') {
      report(await trainingStep(opened, preset, batch, seconds, { profile: values.profile, checkpointBlocks: values['checkpoint-blocks'] }));
      for (const n of [1, 64]) report(await samplingStep(opened, preset, n, seconds));
    } else {
      for (const { against, steps } of series(preset, batch)) {
        console.log(`\nagainst ${against}`);
        let first: StepResult | null = null;
        for (const { label, batch: n, changes, times } of steps) {
          // Each has an engine of its own: none holds memory of the one before.
          const own = await openEngine({ timestamps: true, precision });
          try {
            const row = await trainingStep(own, preset, n, seconds, changes);
            report({ ...row, name: `${row.name}${label && ` ${label}`}` });
            if (first) console.log(`${''.padEnd(28)} ${(row.ms / first.ms).toFixed(2)} times as long for ${Number(times.toFixed(2))} times the ${against === 'batch' ? 'images' : against}, ${(row.planMiB / first.planMiB).toFixed(2)} times the memory`);
            first ??= row;
          } catch (error) {
            if (!(error instanceof DdpmError) || !['E-LIMIT', 'E-MEMORY'].includes(error.code)) throw error;
            console.log(`${`train/${preset} ${label}`.padEnd(28)} batch ${String(n).padStart(4)} does not fit: ${error.message}`);
          }
          await own.close();
        }
      }
    }
  } else if (mode === 'peers') {
    const { peers } = await import('./peers.ts');
    for (const { name, ms, min, ...row } of await peers(opened, preset, positionals.slice(1), batch))
      benchmarks.push({ ...row, name, run_name: name, run_type: 'iteration', iterations: 1, real_time: ms[0], cpu_time: ms[0], time_unit: 'ms', all_ms: ms, all_min: min });
  } else if (mode === 'startup') {
    const start = performance.now();
    const child = spawnSync(process.execPath, ['--import', 'tsx', fileURLToPath(new URL('startup.ts', import.meta.url)), preset, String(batch)], { encoding: 'utf8' });
    if (child.status !== 0) throw new Error(child.stderr);
    console.log(`${child.stdout.trim()}\n${((performance.now() - start) / 1000).toFixed(2)} s in all, from spawn to exit`);
  } else await kernels(positionals);

  async function kernels(filters: string[]): Promise<void> {
    const top = await peak(engine, software);
    console.log(`measured peak: ${top.gflops.toFixed(0)} GFLOP/s of FMAs, ${top.gbs.toFixed(1)} GB/s of copying\n`);
    const wanted = (name: string) => filters.every((f) => name.includes(f));
    const report = (r: Row) => {
      const before = old.find((o) => o.name === r.name)?.real_time;
      console.log(
        `${r.name.padEnd(62)} ${r.ms.toFixed(3).padStart(9)} ms ±${((100 * r.mad) / r.ms).toFixed(1).padStart(4)} % ${r.gflops.toFixed(1).padStart(9)} GFLOP/s ${r.gbs.toFixed(1).padStart(7)} GB/s ` +
          `${Math.max((100 * r.gflops) / top.gflops, (100 * r.gbs) / top.gbs).toFixed(0).padStart(3)} % of peak${before ? `  ${(before / r.ms).toFixed(2)}x as fast as before` : ''}`,
      );
      benchmarks.push({ name: r.name, run_name: r.name, run_type: 'iteration', iterations: r.samples, real_time: r.ms, cpu_time: r.ms, time_unit: 'ms', gflops: r.gflops, gbs: r.gbs, min: r.min, mad: r.mad, error: r.error });
    };
    const seen = new Set<string>();
    const run = async (cases: Iterable<Case>) => {
      for (const item of cases) {
        if (!wanted(item.name) || seen.has(item.name)) continue;
        seen.add(item.name);
        report(await measure(engine, item));
      }
    };
    const shapes = shapesIn(engine, () => trainingOf(engine, preset, batch));
    const conv = [...shapes].filter(([kernel]) => /^conv2d_(forward|(3x3_)?(tiled|subgroup))$/.test(kernel)).flatMap(([, found]) => found.filter((s) => !s.args.TRANSPOSED));
    const unique = new Map(conv.map((s) => [[s.args.N, s.args.H, s.args.W, s.args.C, s.args.O, s.args.KH, s.args.KW, s.args.stride].join(), s.args]));
    for (const args of [...unique.values()].sort((a, b) => b.H! - a.H! || a.C! - b.C!)) if (args.H! > 1 && args.W! > 1) await run(conv2dCases(engine, args, values.all ?? false));
    for (const [kernel, found] of shapes) if (kernel.startsWith('group_norm_forward')) for (const { args } of found) await run(groupNormCases(engine, args));
    const heads = new Set<string>();
    for (const { args } of shapes.get('softmax_forward') ?? []) {
      const T = args.size!, h = args.rows! / T / batch, C = PRESETS[preset].model.block_out_channels.at(-1)!;
      if (!heads.has(`${T}`)) await run(attentionCases(engine, [batch, T, C, h]));
      heads.add(`${T}`);
    }
    if (seen.size === 0) throw new DdpmError('E-USAGE', `no kernel's name contains ${filters.map((f) => `"${f}"`).join(' and ')} at the shapes of ${preset}. See: npm run bench -- --help`);
  }

  if (values.json)
    await writeAtomic(values.json, `${JSON.stringify({ context: { date: new Date().toISOString(), device: info.description || info.device, architecture: info.architecture, node: process.version, command: process.argv.slice(2).join(' ') }, benchmarks }, null, 1)}\n`);
}

/** The rows of a file that --json wrote. */
async function rowsOf(path: string): Promise<readonly { name: string; real_time: number }[]> {
  const text = new TextDecoder().decode(await readFileOr(path));
  try {
    const { benchmarks } = JSON.parse(text) as { benchmarks?: { name: string; real_time: number }[] };
    if (Array.isArray(benchmarks)) return benchmarks;
  } catch {} // the same as one without rows
  throw new DdpmError('E-FILE', `${path} holds no benchmarks, as --json writes them.`);
}

main().then(
  () => process.exit(0),
  (error: Error) => {
    console.error(error instanceof DdpmError ? `${error.code}  ${error.message}` : error);
    process.exit(error instanceof DdpmError ? error.exitCode : 1);
  },
);
