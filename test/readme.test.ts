// The README's program is run as it stands there, and its figures of files and flags exist.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { EVAL, SAMPLE, TRAIN } from '../src/cli/settings.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const readme = readFileSync(join(root, 'README.md'), 'utf8');
const docs = suite('readme');

docs('its program runs', () => {
  const [, code] = /```ts\n([\s\S]+?)```/.exec(readme)!;
  const folder = mkdtempSync(join(tmpdir(), 'readme-'));
  try {
    const file = join(folder, 'program.mts');
    writeFileSync(file, `${code!.replaceAll("'ddpm.wgsl/node'", `'${root}src/node.ts'`).replaceAll("'ddpm.wgsl'", `'${root}src/index.ts'`)}\nprocess.exit(0);\n`);
    const out = execFileSync(process.execPath, ['--import', 'tsx', file], { cwd: root, encoding: 'utf8' });
    const [, before, after] = /loss ([\d.]+) -> ([\d.]+)/.exec(out)!;
    assert.ok(Number(after) < Number(before), out);
    assert.match(out, `${4 * 16 * 16} values`);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

docs('the files and flags that it names exist', () => {
  for (const [, path] of readme.matchAll(/`((?:kernels|src|bench|test)\/[\w./]+)`/g)) assert.ok(existsSync(join(root, path!)), path);
  for (const [, path] of readme.matchAll(/\]\(([\w./-]+\.png)\)/g)) assert.ok(existsSync(join(root, path!)), path);
  const known = new Set([...Object.keys(TRAIN), ...Object.keys(SAMPLE), ...Object.keys(EVAL), ...[...Object.values(TRAIN), ...Object.values(SAMPLE)].map((s) => (s as { name?: string }).name)]);
  const flags = [...readme.matchAll(/npm run (?:train|sample|eval) -- ([^\n`#]*)/g)].flatMap(([, rest]) => [...rest!.matchAll(/--([\w-]+)/g)].map(([, flag]) => flag!));
  assert.ok(flags.length > 8);
  for (const flag of flags) assert.ok(known.has(flag), `--${flag}`);
});
docs.run();
