// Where llvmpipe's vectors hold sixteen numbers, as it is told on processors with AVX-512: the tests of the kernels in subgroups once more, and that the commands compute the same bits (test/train-cli.test.ts).
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { gpu } from './helpers/gpu.ts';

const lanes = suite('subgroups of sixteen');

lanes('the kernels in subgroups pass their tests', async () => {
  const { info, engine } = await gpu();
  if (!/llvmpipe/i.test(info.description) || engine.subgroupWidth < 8) return;
  const { stdout } = await promisify(execFile)(process.execPath, ['--import', 'tsx', fileURLToPath(new URL('run.ts', import.meta.url)), 'test/ops/conv2d', 'test/ops/attention', 'test/ops/group_norm'], {
    env: { ...process.env, LP_NATIVE_VECTOR_WIDTH: '512', DDPM_TEST_SUITES: 'conv2d kernels in subgroups,matmul,group norm as an op', DDPM_TEST_JOBS: '1' }, maxBuffer: 1 << 26,
  }).catch((error: { stdout: string; stderr: string }) => {
    throw new Error(`with LP_NATIVE_VECTOR_WIDTH=512:\n${error.stdout}\n${error.stderr}`);
  });
  const [, passed, failed] = /(\d+) passed, (\d+) failed/.exec(stdout)!;
  console.log(`\n  ${passed} tests passed in subgroups of sixteen`);
  assert.is(Number(failed), 0);
  assert.ok(Number(passed) > 50, stdout);
});

lanes('openEngine asks for them where the processor has AVX-512, unless the environment says how many', async () => {
  if (process.platform !== 'linux') return;
  const code = `import { listAdapters } from ${JSON.stringify(new URL('../src/node.ts', import.meta.url).href)}; await listAdapters(); console.log(process.env.LP_NATIVE_VECTOR_WIDTH); process.exit(0);`;
  const width = async (given?: string): Promise<string> => {
    const { LP_NATIVE_VECTOR_WIDTH: _, ...env } = process.env;
    return (await promisify(execFile)(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', code], { env: { ...env, ...(given && { LP_NATIVE_VECTOR_WIDTH: given }) } })).stdout.trim();
  };
  assert.is(await width(), /^flags.* avx512vl( |$)/m.test(readFileSync('/proc/cpuinfo', 'utf8')) ? '512' : 'undefined');
  assert.is(await width('256'), '256');
});

lanes.run();
