// Choices of kernels in files: what was measured on a device, what a run recorded, and that a run goes on with its own, bit for bit, whatever was measured meanwhile.
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { trainingOf } from '../bench/model.ts';
import { describeRefused, describeTuning, kernelDigest, readTuning, tuningFor, tuningPath, writeTuning } from '../src/cli/tuning.ts';
import type { ChoiceTable } from '../src/gpu/choices.ts';
import { Engine } from '../src/gpu/engine.ts';
import { paperDevice } from '../src/gpu/paper.ts';
import { ended, start } from './helpers/commands.ts';
import { assertError, gpu } from './helpers/gpu.ts';
import { SHADER_CACHE } from './helpers/shader-cache.ts';

const home = mkdtempSync(join(tmpdir(), 'ddpm-tuning-'));
const env = { XDG_CACHE_HOME: join(home, 'cache'), ...SHADER_CACHE };
const ADAPTER = { vendor: 'mesa', architecture: 'software', device: 'llvmpipe-llvm-1', description: 'llvmpipe: Mesa 1 (LLVM 1)' };
const CHOICES: ChoiceTable = { 'conv2d_forward H=4': { variant: 'plain' }, 'sum_pixels P=9 C=4': { workgroup: 8, columns: 1 } };
const FILE = { adapter: ADAPTER, kernels: kernelDigest(), date: '2026-11-25T12:00:00.000Z', choices: CHOICES };

const files = suite('tuning files');
files.after(() => rmSync(home, { recursive: true }));

/** With the user's cache folder elsewhere. */
const there = <T>(fn: () => T): T => {
  const before = process.env['XDG_CACHE_HOME'];
  process.env['XDG_CACHE_HOME'] = env.XDG_CACHE_HOME;
  try {
    return fn();
  } finally {
    if (before === undefined) delete process.env['XDG_CACHE_HOME'];
    else process.env['XDG_CACHE_HOME'] = before;
  }
};

files('what was measured is found again by the adapter, and by no other', async () => {
  const path = there(() => tuningPath(ADAPTER));
  assert.match(path, /cache\/ddpm\.wgsl\/tuning\/llvmpipe-[0-9a-f]{8}\.json$/);
  await writeTuning(path, FILE);
  assert.equal(readTuning(path), FILE);
  assert.equal(there(() => tuningFor(ADAPTER, 'auto')), { choices: CHOICES, from: 'measured on this device, 2026-11-25', warnings: [] });
  const none = { choices: {}, from: null, warnings: [] };
  assert.equal(there(() => tuningFor({ ...ADAPTER, description: 'llvmpipe: Mesa 2 (LLVM 1)' }, 'auto')), none);
  assert.equal(there(() => tuningFor(ADAPTER, 'off')), none);
  assert.equal(tuningFor(ADAPTER, path), { choices: CHOICES, from: `from ${path}, 2026-11-25`, warnings: [] });
});

files('what was measured with other kernels, or is damaged, is passed over with a word; named, it is an error', async () => {
  const path = there(() => tuningPath(ADAPTER));
  await writeTuning(path, { ...FILE, kernels: 'other' });
  const passedOver = (): string => {
    const { choices, from, warnings } = there(() => tuningFor(ADAPTER, 'auto'));
    assert.equal([choices, from, warnings.length], [{}, null, 1]);
    assert.match(warnings[0]!, /The table of defaults is used; to measure again: npm run tune$/);
    return warnings[0]!;
  };
  assert.match(passedOver(), /was measured with other kernels, on 2026-11-25/);
  const text = readFileSync(path, 'utf8');
  for (const [bad, why] of [
    [text.slice(0, 40), /is damaged: .*JSON/], ['[1]', /holds no choices of kernels/], [text.replace('"ddpm.wgsl tuning": 1', '"ddpm.wgsl tuning": 2'), /has the format 2/],
    [text.replace('"plain"', '["plain"]'), /is damaged: it needs/], [text.replace('"date"', '"day"'), /is damaged: it needs/],
  ] as const) {
    writeFileSync(path, bad);
    assert.match(passedOver(), why);
    await assertError(() => tuningFor(ADAPTER, path), 'E-FILE', why);
  }
  await assertError(() => tuningFor(ADAPTER, join(home, 'nowhere.json')), 'E-FILE', /nowhere\.json cannot be read/);
});

files('a run goes on with what it recorded: on its own device, whatever the driver; elsewhere it chooses anew and says so', async () => {
  const run = join(home, 'run'), path = join(run, 'tuning.json'), driver = { ...ADAPTER, device: 'llvmpipe-llvm-9', description: 'llvmpipe: Mesa 9' };
  assert.equal(tuningFor(ADAPTER, 'auto', run), { choices: {}, from: null, warnings: [] }, 'a run without a record was trained with the table');
  mkdirSync(run);
  await writeTuning(path, FILE);
  assert.equal(tuningFor(driver, 'auto', run), { choices: CHOICES, from: `as ${path} recorded`, warnings: [] });
  assert.equal(tuningFor(ADAPTER, run), { choices: CHOICES, from: `from ${path}, 2026-11-25`, warnings: [] });
  const other = there(() => tuningFor({ vendor: 'nvidia', architecture: 'hopper', device: 'h100', description: '' }, 'auto', run));
  assert.equal([other.choices, other.from], [{}, null]);
  assert.match(other.warnings[0]!, /trained on llvmpipe: Mesa 1 .* chosen anew for this device/);
  await writeTuning(path, { ...FILE, kernels: 'other' });
  assert.match(tuningFor(ADAPTER, 'auto', run).warnings[0]!, /the kernels are not those that the run was trained with/);
  writeFileSync(path, '{');
  assert.match(tuningFor(ADAPTER, 'auto', run).warnings[0]!, /is damaged.*The table of defaults is used/);
});

files('what this device cannot do is said', () => {
  const record = (width: number, choices: ChoiceTable = {}): Engine => {
    const engine = new Engine(paperDevice(width), { choices });
    trainingOf(engine, 'tiny', 2, { initial: false });
    return engine;
  };
  const { choices } = record(8), told = record(32, choices.table()).choices;
  assert.ok(told.refused.size > 20);
  assert.match(describeRefused(told)!, /^\d+ choices of kernels cannot be followed on this device, such as subgroup.* for conv2d_\w+ .*: the table of defaults is used for them$/);
  assert.is(describeTuning(told, { choices: {}, from: 'here', warnings: [] }), `${told.made.size - told.refused.size} of ${told.made.size} choices of kernels here`);
  assert.is(describeRefused(choices), null);
});

/** npm run train, 2 steps of 2 images. */
async function train(line: string): Promise<string> {
  const done = await start('train', line, { env });
  ended(done, 0);
  return done.stderr;
}
const START = `--data shapes --limit 16 --preset tiny --batch-size 2 --steps 2 --save-every 1 --keep 0 --samples 1 --sample-steps 2 --timesteps 50 --out ${home}`;

files('a run that goes on after the measurements have changed ends with the same bits', async () => {
  const { engine, info } = await gpu();
  const counted = new Engine(paperDevice(engine.subgroupWidth, info)), path = there(() => tuningPath(info));
  trainingOf(counted, 'tiny', 2, { initial: false });
  // Every weight's gradient is split otherwise than the table would, and so summed in another order.
  const splits = (count: number): ChoiceTable => Object.fromEntries(Object.entries(counted.choices.table()).map(([key, choice]) => [key, 'splits' in choice ? { ...choice, splits: count } : choice]));
  const measure = (count: number): Promise<void> => writeTuning(path, { ...FILE, adapter: info, choices: splits(count) });

  await measure(3);
  assert.match(await train(`${START} --name a`), /^tuned {4}(\d+) of \1 choices of kernels measured on this device, 2026-11-25$/m);
  assert.ok(Object.values(readTuning(join(home, 'a', 'tuning.json')).choices).filter((choice) => choice['splits'] === 3).length > 20);

  await measure(5);
  cpSync(join(home, 'a'), join(home, 'b'), { recursive: true });
  rmSync(join(home, 'b', 'checkpoints', 'step-0000002'), { recursive: true });
  assert.match(await train(`--resume ${join(home, 'b')}`), /^tuned {4}(\d+) of \1 choices of kernels as \S+b\/tuning\.json recorded$/m);
  await train(`${START} --name c`);
  const weights = (name: string): Buffer => readFileSync(join(home, name, 'checkpoints', 'step-0000002', 'model.safetensors'));
  assert.ok(weights('b').equals(weights('a')));
  assert.not.ok(weights('c').equals(weights('a')), 'the choices make a difference in the last bits');
});

files.run();
