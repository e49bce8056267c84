// The table of checks that the page runs in a browser, here on the adapter of the tests: all agree, and a wrong kernel or a value that nobody wrote would not.
import * as assert from 'uvu/assert';
import * as kernels from '../src/gpu/kernels.gen.ts';
import { check, CHECKS } from '../src/web/site/checks.ts';
import { gpuSuite } from './helpers/gpu.ts';

const checks = gpuSuite('checks of the page');

for (const name of Object.keys(CHECKS))
  checks(name, async (engine) => {
    assert.ok(name in kernels, 'it is a kernel');
    const result = await check(engine, name);
    assert.ok(result.ok, `${name} ${result.shape}: off by ${result.error}, ${result.share} of what is allowed`);
    assert.ok(result.values >= 50);
  });

checks('a difference of the size of a rounding error too many is seen', async (engine) => {
  const { run } = CHECKS['softmax_forward']!, table = CHECKS as Record<string, { run: typeof run; twin: readonly [string, string] }>;
  table['wrong'] = {
    twin: ['softmax', 'softmax'],
    run: async (e) => {
      const compared = await run(e);
      return { ...compared, want: Float64Array.from(compared.want, (v, i) => (i === 5 ? v * 1.0001 : v)) };
    },
  };
  const result = await check(engine, 'wrong');
  delete table['wrong'];
  assert.not(result.ok);
});

checks.run();
