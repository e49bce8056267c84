// npm run tune: candidates that every device of a class takes, decisions that are right where the difference is large, and the command with its file.
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { trainingOf } from '../bench/model.ts';
import { type Case, caseOf } from '../src/cli/tune-cases.ts';
import { decide } from '../src/cli/tune-measure.ts';
import { readTuning } from '../src/cli/tuning.ts';
import { DdpmError } from '../src/errors.ts';
import type { Choice, Made } from '../src/gpu/choices.ts';
import { Engine } from '../src/gpu/engine.ts';
import { fill } from '../src/gpu/kernels.gen.ts';
import { paperDevice } from '../src/gpu/paper.ts';
import type { Plan } from '../src/gpu/plan.ts';
import { start } from './helpers/commands.ts';
import { gpuSuite } from './helpers/gpu.ts';
import { SHADER_CACHE } from './helpers/shader-cache.ts';

const home = mkdtempSync(join(tmpdir(), 'ddpm-tune-'));
process.on('exit', () => rmSync(home, { recursive: true, force: true }));

const paper = suite('tune: candidates');

paper('every choice that a plan asks for has a case, and each candidate is taken by the device that it is for', () => {
  for (const [preset, width] of [['tiny', 8], ['small', 32]] as const) {
    const usual = new Engine(paperDevice(width));
    trainingOf(usual, preset, 2, { initial: false });
    const cases = [...usual.choices.made].map(([key, made]) => ({ key, made, item: caseOf(usual, made)! }));
    assert.ok(cases.every(({ item }) => item.candidates.length > 0));
    for (const { made, item } of cases) assert.ok(item.candidates.some((c) => JSON.stringify(c) === JSON.stringify(made.choice)), `${made.op} ${item.label}: its own choice is among the candidates`);
    const most = Math.max(...cases.map(({ item }) => item.candidates.length));
    assert.ok(most >= 5);
    // The first candidates of all, the second of all, and so on: each as if it had been measured.
    for (let i = 0; i < most; i++) {
      const engine = new Engine(paperDevice(width), { choices: Object.fromEntries(cases.map(({ key, item }) => [key, item.candidates[i % item.candidates.length]!])) });
      trainingOf(engine, preset, 2, { initial: false });
      assert.equal([...engine.choices.refused], []);
    }
  }
});
paper.run();

const device = gpuSuite('tune: decisions', { watched: false });
const RULES = { rounds: 3, minGain: 0.05 };
const SHAPE = { H: 16, W: 16, OH: 16, OW: 16, C: 32, O: 32, KH: 3, KW: 3, stride: 1, pad_top: 1, pad_left: 1 };
const madeOf = (op: string, shape: Made['shape'], choice: Choice, at: Readonly<Record<string, number>>[]): Made => ({ key: op, op, shape, choice, given: false, at: new Map(at.map((each) => [JSON.stringify(each), each])) });

/** A clock that knows how long each kernel takes, on a machine that is slower by up to three times from one moment to the next. */
function clock(ms: Readonly<Record<string, number>>): (engine: Engine, plan: Plan<unknown>) => Promise<number> {
  let moment = 0;
  return async (_, { commands }) => {
    const busy = 1 + 2 * Math.abs(Math.sin(Math.floor(moment++ / 4)));
    return busy * commands.reduce((sum, c) => sum + (c.kind === 'dispatch' ? (ms[c.pipeline.kernel.name] ?? 1e-6) : 0), 0);
  };
}

device('a faster kernel is taken, at all sizes that are asked for, and the engine takes it from then on', async (engine) => {
  const made = madeOf('conv2d_forward', SHAPE, { variant: 'plain' }, [{ N: 1 }, { N: 3 }]), item = { ...caseOf(engine, made)!, candidates: [{ variant: 'tiled' }, { variant: 'plain' }] };
  const { chosen, gain, tried, wrong } = await decide(engine, made, item, { ...RULES, time: clock({ conv2d_forward: 10, conv2d_tiled: 5 }) });
  assert.equal([chosen, tried, wrong], [{ variant: 'tiled' }, 2, []]);
  assert.ok(Math.abs(gain - 2) < 0.5, `${gain}`);
  assert.equal(engine.choices.of('conv2d_forward', SHAPE, {}, () => ({}), () => false), chosen);
});

device('a slower kernel, or one that is hardly faster, changes nothing', async (engine) => {
  const made = madeOf('conv2d_forward', SHAPE, { variant: 'plain' }, [{ N: 2 }]), item = { ...caseOf(engine, made)!, candidates: [{ variant: 'plain' }, { variant: 'tiled' }] };
  for (const conv2d_tiled of [30, 11, 9.8]) {
    const { chosen, gain } = await decide(engine, made, item, { ...RULES, time: clock({ conv2d_forward: 10, conv2d_tiled }) });
    assert.equal([chosen, gain], [{ variant: 'plain' }, 1], `${conv2d_tiled}`);
  }
});

device('what takes time is measured', async (engine) => {
  const made = madeOf('conv2d_forward', SHAPE, { variant: 'plain' }, [{ N: 2 }]);
  const { usualMs, chosenMs } = await decide(engine, made, { ...caseOf(engine, made)!, candidates: [{ variant: 'plain' }] }, RULES);
  assert.ok(usualMs > 0.01 && usualMs === chosenMs, `${usualMs}`);
});

device('a candidate that computes something else, or does not run, is left out and named; a usual one that does so is an error', async (engine) => {
  const values: Record<string, number> = { plain: 1, same: 1, other: 1.5, nan: NaN };
  const item: Case = {
    candidates: ['plain', 'same', 'other', 'nan', 'large'].map((variant) => ({ variant })), plain: { variant: 'plain' }, terms: 1, label: 'of a test', work: () => 1,
    make: () => {
      const y = engine.allocate(16);
      return () => {
        const { variant } = engine.choices.of('test', {}, {}, () => ({ variant: 'plain' }), () => true);
        if (variant === 'large') throw new DdpmError('E-LIMIT', 'too large for this device');
        engine.run(fill, [1], { y, value: values[variant]! });
        return y;
      };
    },
  };
  const { wrong, tried } = await decide(engine, madeOf('test', {}, { variant: 'plain' }, [{}]), item, RULES);
  assert.equal(wrong, ['other is off by 5.0e-1', 'nan is off by NaN', 'large does not run here (too large for this device)']);
  assert.is(tried, 2);
  let message = '';
  await decide(engine, madeOf('test', {}, { variant: 'other' }, [{}]), item, RULES).catch((error: DdpmError) => (message = `${error.code} ${error.message}`));
  assert.match(message, /^E-KERNEL test of a test: other is off by .* See: npm run doctor$/);
});
device.run();

const env = { XDG_CACHE_HOME: home, ...SHADER_CACHE };

const command = suite('tune: the command');
const TINY = '--preset tiny --batch-size 2 --sample-batch 3';

command('what was measured when it is interrupted is kept', async () => {
  const { stdout, stderr } = await start('tune', `${TINY} --only 64->64 --rounds 3 --seconds 0`, { env, watch: (text, _, child) => void (text.includes('\n') && child.kill('SIGINT')) });
  assert.match(stderr, /^kept {5}each choice is written as soon as it is measured/m);
  const file = join(home, 'ddpm.wgsl', 'tuning', readdirSync(join(home, 'ddpm.wgsl', 'tuning'))[0]!), keys = Object.keys(readTuning(file).choices), lines = stdout.trim().split('\n');
  assert.match(lines[0]!, new RegExp(`^${keys[0]!.split(' ')[0]} `));
  assert.ok(keys.length >= 1 && keys.length < 3, `${keys.length} of 3`);
});

command('measures, keeps the choices, train takes them, and --reset forgets them', async () => {
  const measured = await start('tune', `${TINY} --only 64->64 --rounds 3 --seconds 0 --json`, { env });
  assert.is(measured.code, 0, measured.stderr);
  const { results, written, model } = JSON.parse(measured.stdout) as { results: { key: string; chosen: Choice; usualMs: number; tried: number }[]; written: string; model: string };
  assert.equal([model, results.map(({ key }) => key.split(' ')[0])], ['preset tiny', ['conv2d_forward', 'conv2d_backward_input', 'conv2d_backward_weight']]);
  assert.ok(results.every(({ usualMs, tried }) => usualMs > 0 && tried > 1));
  assert.ok(written.startsWith(join(home, 'ddpm.wgsl', 'tuning')));
  assert.equal(readTuning(written).choices, Object.fromEntries(results.map(({ key, chosen }) => [key, chosen])));

  const train = await start('train', '--preset tiny --batch-size 2 --data shapes --limit 8 --dry-run', { env });
  assert.match(train.stderr, /^tuned {4}3 of \d+ choices of kernels measured on this device, \d{4}-\d\d-\d\d$/m, train.stderr);

  const reset = await start('tune', '--reset', { env });
  assert.equal([reset.code, reset.stdout, existsSync(written)], [0, `deleted  ${written}\n`, false]);
});
command.run();
