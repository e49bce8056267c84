// The kernels on a device that offers nothing beyond WebGPU's default limits and has no subgroups: the tests of the ops, the network and the engine once more.
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

/** Every op, and so every kernel that does without subgroups; autograd and the samplers, whose kernels have tests elsewhere. */
const TESTS = ['test/ops/', 'test/autograd', 'test/gaussian'];

const limits = suite('default limits, no subgroups');

limits('every op passes its tests', async () => {
  const { stdout } = await promisify(execFile)(process.execPath, ['--import', 'tsx', fileURLToPath(new URL('run.ts', import.meta.url)), ...TESTS], {
    env: { ...process.env, DDPM_TEST_LIMITS: 'default' }, maxBuffer: 1 << 26,
  }).catch((error: { stdout: string; stderr: string }) => {
    throw new Error(`with DDPM_TEST_LIMITS=default:\n${error.stdout}\n${error.stderr}`);
  });
  const [, passed, failed] = /(\d+) passed, (\d+) failed/.exec(stdout)!;
  console.log(`\n  ${passed} tests passed on default limits`);
  assert.is(Number(failed), 0);
  assert.ok(Number(passed) > 80, stdout);
});

limits.run();
