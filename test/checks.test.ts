// The table of checks that the page runs in a browser, here on the adapter of the tests: all kernels are in it, all agree, and what is wrong would be seen.
import * as assert from 'uvu/assert';
import type { Kernel } from '../src/gpu/kernel.ts';
import * as kernels from '../src/gpu/kernels.gen.ts';
import { Tensor } from '../src/tensor.ts';
import { check, CHECKS, compare, judge, whyNot } from '../src/web/site/checks.ts';
import { functionIn } from '../src/web/site/source.ts';
import { readFileSync } from 'node:fs';
import { gpuSuite } from './helpers/gpu.ts';
import { emulating } from './helpers/subgroup_matrix.ts';

const checks = gpuSuite('checks of the page', { precision: 'f16' });

checks('every kernel is in the table, beside a twin that is there', () => {
  assert.equal(Object.keys(CHECKS).sort(), Object.keys(kernels).sort());
  for (const [name, { twin: [file, twin] }] of Object.entries(CHECKS)) {
    const source = readFileSync(new URL(`ref/${file}.ts`, import.meta.url), 'utf8');
    assert.ok(functionIn(source, twin).length < source.length, `${name}: ${twin} of test/ref/${file}.ts`);
  }
});

for (const [name, { make }] of Object.entries(CHECKS))
  checks(name, async (engine) => {
    const why = whyNot(engine, name);
    // Where the kernels for tensor cores are emulated (test/ops/precision.test.ts), so are their checks.
    if (why && process.env['DDPM_TEST_TENSOR_CORES'] === '1' && name.includes('subgroup_matrix'))
      await emulating(engine, async () => {
        const { ok, error, share } = judge(await compare(engine, name, make()));
        assert.ok(ok, `emulated, off by ${error}, ${share} of what is allowed`);
      });
    if (why) return assert.equal(await check(engine, name).then(({ skipped, values }) => [skipped, values]), [why, 0]);
    // As it is launched on GPUs, where that differs.
    const plain = make(), wide = make(undefined, 'gpu');
    if (JSON.stringify(wide.numbers) !== JSON.stringify(plain.numbers)) assert.ok(judge(await compare(engine, name, wide)).ok, 'with the workgroups of GPUs');
    else assert.not.match(name, /^(group_norm|softmax|fold|sum_squares)/);
    const compared = await compare(engine, name, plain), { ok, error, share } = judge(compared);
    assert.ok(ok, `off by ${error}, ${share} of what is allowed`);
    // As where there are more workgroups than a dimension holds: folded, and more than are needed.
    const [workgroups] = plain.grid, grid = workgroups > 4 ? ([2, Math.floor(workgroups / 2) + 1] as const) : ([1, workgroups + 1] as const);
    if (/= (workgroup|thread)_index\(/.test((kernels as Readonly<Record<string, Kernel>>)[name].wgsl)) assert.ok(judge(await compare(engine, name, { ...plain, grid })).ok, 'in a folded grid');
    for (const { got, want, off } of compared) {
      // Tolerances are those of roundings: what is off by a thousandth of the size of the values, anywhere, is seen; of float16, four.
      const least = (kernels as Readonly<Record<string, Kernel>>)[name].f16 ? 4e-3 : 1e-3, size = Math.sqrt(Array.from(want).reduce((sum, v) => sum + v * v, 0) / want.length), at = Math.floor(want.length / 2);
      assert.ok(off[at]! < least * size, `value ${at} may be off by ${off[at]}, of ${size}`);
      assert.not(judge([{ got, want: Float64Array.from(want, (v, i) => (i === at ? v + 2 * least * size : v)), off }]).ok);
      assert.not(judge([{ got: Float64Array.from(got, (v, i) => (i === at ? NaN : v)), want, off }]).ok, 'a value that nobody wrote');
    }
  });

checks('what is allocated while checks wait for the device is not freed with them', async (engine) => {
  const before = engine.memory().live, waiting = ['silu_forward', 'add_forward'].map((name) => check(engine, name)), mine = Tensor.from(engine, [3], Float32Array.of(1, 2, 3));
  assert.equal((await Promise.all(waiting)).map(({ ok }) => ok), [true, true]);
  assert.ok(engine.memory().live > before);
  mine.free(); // throws where it was freed before
  assert.is(engine.memory().live, before);
});

checks.run();
