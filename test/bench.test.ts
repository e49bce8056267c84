// npm run bench: what its modes refuse.
import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { parseBench } from '../bench/flags.ts';
import { trainingOf } from '../bench/model.ts';
import { convShapes, stepBatch } from '../bench/peers.ts';
import { rooflineLines, workIn } from '../bench/roofline.ts';
import { series } from '../bench/scale.ts';
import { PRESET_NAMES } from '../src/cli/presets.ts';
import { DdpmError } from '../src/errors.ts';
import { Engine } from '../src/gpu/engine.ts';
import { grid } from '../src/gpu/kernel.ts';
import * as k from '../src/gpu/kernels.gen.ts';
import { paperDevice } from '../src/gpu/paper.ts';

const test = suite('bench');

const parse = (line: string) => parseBench(line.split(' ').filter(Boolean));

function refuses(line: string, message: string): void {
  assert.throws(() => parse(line), (error: unknown) => error instanceof DdpmError && error.code === 'E-USAGE' && error.message.includes(message), line);
}

test('a flag that its mode would pass over is refused, and the modes that read it are named', () => {
  refuses('step --all', '--all is a flag of kernels, not of step.');
  refuses('peers --seconds 3', '--seconds is a flag of step, scale, toggles and report, not of peers.');
  refuses('--seconds 3', 'not of kernels.');
  refuses('conv2d --checkpoint-blocks', '--checkpoint-blocks is a flag of step and plan, not of kernels.');
  refuses('scale --profile', '--profile is a flag of step and plan');
  refuses('host --precision f16', '--precision is a flag of step, scale and plan');
  refuses('startup --json out.json', '--json is a flag of kernels, step, scale and peers');
  refuses('step --out here', '--out is a flag of report, not of step.');
  refuses('step --compare old.json', '--compare is a flag of kernels');
  for (const line of ['', 'conv2d backward --all --json a --compare b', 'step --seconds 1 --profile --checkpoint-blocks --precision f16 --json a', 'plan --profile --preset tiny', 'toggles --seconds 2', 'peers conv2d k3 --json a', 'step --all --help']) parse(line);
});

test('what is no flag, or one argument too many, is refused', () => {
  refuses('--secnds 3', "Unknown option '--secnds'");
  refuses('step --seconds', "'--seconds <value>' argument missing");
  refuses('step conv2d', 'step takes no more arguments, and was given conv2d.');
  assert.equal([parse('conv2d k3').mode, parse('scale').mode, parse('').mode], ['kernels', 'scale', 'kernels']);
});

test('what to compare with, and where results go, is asked before anything is measured', () => {
  for (const [line, message] of [['--compare package.json', 'package.json holds no benchmarks, as --json writes them'], ['--json package.json/x', 'cannot write package.json/x: a part of the path is a file']] as const) {
    const { status, stderr, stdout } = spawnSync(process.execPath, ['--import', 'tsx', 'bench/run.ts', ...line.split(' ')], { cwd: resolve(import.meta.dirname, '..'), encoding: 'utf8' });
    assert.equal([status, stdout], [1, ''], stderr);
    assert.ok(stderr.includes(message), stderr);
  }
});

test('the convolutions that peers compares have the batch asked for, cut where the slowest library would not get through', () => {
  const batches = (batch: number) => new Map(convShapes('ddpm-cifar10', batch).map((s) => [[s.H, s.C, s.O, s.KH, s.stride].join(), s.N]));
  const [one, ten] = [batches(1), batches(10)];
  assert.equal([...one.keys()], [...ten.keys()]);
  assert.ok([...one.values()].every((N) => N === 1));
  assert.equal([ten.get('8,256,256,1,1'), ten.get('32,256,256,3,1')], [10, 1]);
  assert.equal([stepBatch('tiny', 8), stepBatch('small', 128), stepBatch('ddpm-cifar10', 128)], [8, 8, 1]);
});

test('scale doubles the sides and the channels of every preset, at a quarter of the batch, and its models are made', () => {
  for (const preset of PRESET_NAMES) {
    const [batches, pixels, channels] = series(preset, 8), made = (steps: typeof batches.steps) => steps.map(({ batch, changes }) => trainingOf(new Engine(paperDevice()), preset, batch, { ...changes, initial: false }));
    assert.equal(batches!.steps.map(({ batch, times }) => [batch, times]), [[1, 1], [4, 4]]);
    assert.ok([...pixels!.steps, ...channels!.steps].every(({ batch }) => batch === 2));
    const bySize = made(pixels!.steps), byWidth = made(channels!.steps), [low, usual, high] = bySize.map(({ images: { shape: [H, W] } }) => H * W);
    assert.is(high, 4 * usual!);
    pixels!.steps.forEach(({ times }, i) => assert.is(times, [low!, usual!, high!][i]! / low!, preset));
    assert.equal(bySize.map(({ parameters }) => parameters.count), Array(3).fill(byWidth[1]!.parameters.count), 'the weights do not know the size');
    byWidth.slice(1).forEach(({ parameters }, i) => {
      const ratio = parameters.count / byWidth[i]!.parameters.count;
      assert.ok(ratio > 3.5 && ratio < 4.1, `${preset}: twice the channels, ${ratio} times the weights`);
    });
  }
});

test('a roofline counts the products and every tensor once, and says which side bounds a kernel', () => {
  const engine = new Engine(paperDevice(32)), [a, b, c] = [engine.allocate(4 * 2 * 64), engine.allocate(4 * 64 * 16), engine.allocate(4 * 2 * 16)] as const;
  const dims = { M: 2, N: 16, K: 64, batch: 1, inner: 1, trans_a: 0, trans_b: 0, accumulate: 0, alpha: 1, lda: 64, ldb: 16, ldc: 16, outer_a: 0, outer_b: 0, outer_c: 0, inner_a: 0, inner_b: 0, inner_c: 0 };
  const works = workIn(engine, () => {
    engine.capture(() => {
      engine.run(k.matmul, [1], { a, b, c, ...dims });
      engine.run(k.matmul, [1], { a, b: a, c, ...dims });
      engine.run(k.fill, grid(1), { y: c, value: 0 });
    });
  });
  assert.equal([...works], [['matmul', { flops: 2 * 2 * 2 * 16 * 64, bytes: a.bytes + b.bytes + c.bytes + (a.bytes + c.bytes) }], ['fill', { flops: 0, bytes: c.bytes }]]);
  // 8,192 operations at 1 GFLOP/s are 8.192 us, 5,376 bytes at 1 GB/s 5.376: of 16.384 us one half.
  const [first, second] = [...rooflineLines([{ kernel: 'matmul', calls: 2, ms: 16.384e-3 }, { kernel: 'fill', calls: 1, ms: 1.28e-3 }], works, { gflops: 1, coresGflops: null, gbs: 1 })];
  assert.match(first!, / 50 % of its roofline, arithmetic$/);
  assert.match(second!, / 10 % of its roofline, memory$/);
  const [onCores] = [...rooflineLines([{ kernel: 'matmul_subgroup_matrix', calls: 2, ms: 16.384e-3 }], new Map([['matmul_subgroup_matrix', works.get('matmul')!]]), { gflops: 1, coresGflops: 2, gbs: 10 })];
  assert.match(onCores!, / 25 % of its roofline, arithmetic$/);
});

test.run();
