// On a device that offers nothing beyond WebGPU's default limits and has no subgroups: the tests of ops, differentiation, network, samplers, losses and likelihood once more.
// DDPM_TEST_LIMITS=default npm test -- PART runs any others so. Left out here: what takes long and calls the same ops (training, uses, quality, the commands); kernels and embedding,
// which open such a device themselves; and what opens no device of ours (files, schedules, pages, package, set-up).
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const TESTS = ['test/ops/', 'test/autograd', 'test/gaussian', 'test/likelihood', 'test/losses', 'test/paper', 'test/sampler.test', 'test/checkpoint', 'test/checks', 'test/timestep'];

const limits = suite('default limits, no subgroups');

limits('what computes passes its tests', async () => {
  const { stdout } = await promisify(execFile)(process.execPath, ['--import', 'tsx', fileURLToPath(new URL('run.ts', import.meta.url)), ...TESTS], {
    env: { ...process.env, DDPM_TEST_LIMITS: 'default', DDPM_TEST_JOBS: '1' }, maxBuffer: 1 << 26,
  }).catch((error: { stdout: string; stderr: string }) => {
    throw new Error(`with DDPM_TEST_LIMITS=default:\n${error.stdout}\n${error.stderr}`);
  });
  const [, passed, failed] = /(\d+) passed, (\d+) failed/.exec(stdout)!;
  console.log(`\n  ${passed} tests passed on default limits`);
  assert.is(Number(failed), 0);
  assert.ok(Number(passed) > 450, stdout);
});

limits.run();
