// Runs every test/**/*.test.ts (or those whose path matches the arguments) in two processes, in DDPM_TEST_JOBS=1 in this one, and ends with the line "N passed, N failed".

import { readdirSync } from 'node:fs';
import type { Socket } from 'node:net';
import { availableParallelism } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath, pathToFileURL } from 'node:url';
// @ts-expect-error plain JavaScript without types, because it runs before TypeScript is installed
import { ensureKernels } from '../src/cli/setup.mjs';
import { DONE, shareOut } from './helpers/share-out.ts';

/** What uvu's `suite.run()` queues: runs the suite and gives its failures as text (true when there are none) and its counts. */
type QueuedSuite = () => Promise<[errors: string | true, passed: number, skipped: number, total: number]>;
const uvu = globalThis as unknown as { UVU_DEFER: number; UVU_INDEX: number; UVU_QUEUE: QueuedSuite[][] };

// As uvu's own command line does: suites are queued instead of run at once, so that here each file runs before the next is imported.
uvu.UVU_DEFER = 1;
uvu.UVU_INDEX = 0;
uvu.UVU_QUEUE = [[]];

const here = dirname(fileURLToPath(import.meta.url)), root = resolve(here, '..');
const filters = process.argv.slice(2);
const files = readdirSync(here, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.test.ts'))
  .map((file) => relative(root, join(here, file)).replaceAll('\\', '/'))
  .filter((file) => filters.length === 0 || filters.some((filter) => file.includes(filter)))
  .sort();

// DDPM_TEST_LIMITS=default: as on a device that offers nothing beyond WebGPU's default limits and has no subgroups, here and in the commands that tests start.
if (process.env.DDPM_TEST_LIMITS === 'default') {
  const { href } = new URL('helpers/default-limits.mjs', import.meta.url);
  process.env.NODE_OPTIONS = `${process.env.NODE_OPTIONS ?? ''} --import ${href}`;
  await import(href);
}

// Vectors of eight numbers also where llvmpipe could have sixteen (src/node.ts): compiling the GPUs' kernels takes many times as long with those. test/lanes.test.ts has sixteen.
if (process.arch === 'x64') process.env.LP_NATIVE_VECTOR_WIDTH ??= '256';

const worker = process.env.DDPM_TEST_WORKER !== undefined;
if (!worker) ensureKernels();
let total = 0, passed = 0, failed = 0, skipped = 0, current = '', finished = false;
const started = performance.now();
const seconds = (since: number): string => `${((performance.now() - since) / 1000).toFixed(2)} s`;
const report = (error: unknown): string => (error instanceof Error ? (error.stack ?? String(error)) : String(error)).replace(/^/gm, '    ');

function summary(): string {
  const totals = [`  Total:     ${total}`, `  Passed:    ${passed}`, `  Skipped:   ${skipped}`, `  Duration:  ${seconds(started)}`];
  return `\n${totals.join('\n')}\n\n${passed} passed, ${failed} failed\n`;
}

/** Counts a failure that ends the whole run, and prints the totals so far. */
function abort(what: string, error?: unknown): void {
  finished = true;
  failed++;
  total++;
  console.log(`\n\n  FAIL  ${current} ${what}\n${error === undefined ? '' : report(error)}\n${worker ? '' : summary().trimEnd()}`);
  process.exitCode = 1;
}
// A test that waits for something that never comes leaves Node nothing to do, and it would end without a word.
process.on('exit', () => finished || abort('ended before its tests did: a promise never settled, or something called process.exit'));
process.on('uncaughtException', (error) => {
  abort('threw outside any test', error);
  process.exit(1);
});

async function run(file: string): Promise<void> {
  current = file;
  const since = performance.now(), queue: QueuedSuite[] = [];
  uvu.UVU_QUEUE[0] = queue;
  console.log(file);
  const fail = (what: string, error?: unknown): void => {
    failed++;
    total++;
    console.log(`\n  FAIL  ${file} ${what}\n${error === undefined ? '' : `${report(error)}\n`}`);
  };
  try {
    await import(pathToFileURL(join(root, file)).href);
    if (queue.length === 0) fail('queued no test: does it end with suite.run()?');
  } catch (error) {
    fail('could not be imported', error);
    queue.length = 0; // half a file's suites would only repeat the error
  }
  for (const suite of queue) {
    try {
      const [errors, suitePassed, suiteSkipped, suiteTotal] = await suite();
      total += suiteTotal;
      passed += suitePassed;
      failed += suiteTotal - suitePassed;
      skipped += suiteSkipped;
      if (errors !== true) console.log(`\n${errors}`);
      // uvu loses the error of a hook that fails before a test.
      else if (suitePassed < suiteTotal) console.log(`\n  FAIL  ${file}: ${suiteTotal - suitePassed} tests did not run, because a before hook or an each-hook threw\n`);
    } catch (error) {
      fail('failed in an after hook', error);
    }
  }
  console.log(`  ${seconds(since)}\n`);
}

const jobs = Math.min(files.length, Number(process.env.DDPM_TEST_JOBS ?? Math.min(2, availableParallelism())));
if (worker) {
  // Processes that tests start are no workers.
  delete process.env.DDPM_TEST_WORKER;
  for await (const file of createInterface(process.stdin)) {
    const before = { total, passed, failed, skipped };
    // While tests run, waiting for the next file must not keep alive what a test has left hanging.
    (process.stdin as Socket).unref();
    await run(file);
    (process.stdin as Socket).ref();
    process.stdout.write(`${DONE}${JSON.stringify({ total: total - before.total, passed: passed - before.passed, failed: failed - before.failed, skipped: skipped - before.skipped })}\n`);
  }
  finished = true;
  process.exit(0);
}
if (jobs > 1) ({ total, passed, failed, skipped } = await shareOut(fileURLToPath(import.meta.url), files, jobs));
else for (const file of files) await run(file);

finished = true;
if (files.length === 0) console.log(`no test file matches ${filters.join(', ')}: the arguments are parts of paths such as test/io.test.ts`);
else if (total === 0) console.log('no test ran');
// Native GPU handles can keep the process alive, so it is ended here, once everything is written.
process.stdout.write(summary(), () => process.exit(failed > 0 || total === 0 ? 1 : 0));
