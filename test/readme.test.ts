// The README's program is run as it stands there, and its figures of files and flags exist.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { OPTIONS } from '../bench/flags.ts';
import { DOCTOR, EVAL, FETCH, INFO, SAMPLE, type Table, TRAIN, TUNE, VIEW, WEB } from '../src/cli/settings.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const readme = readFileSync(join(root, 'README.md'), 'utf8');
const docs = suite('readme');
const TABLES: Readonly<Record<string, Table>> = { train: TRAIN, sample: SAMPLE, eval: EVAL, info: INFO, fetch: FETCH, view: VIEW, web: WEB, tune: TUNE, doctor: DOCTOR };

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

docs('the files that it names exist', () => {
  for (const [, path] of readme.matchAll(/`((?:kernels|src|bench|test)\/[\w./]+)`/g)) assert.ok(existsSync(join(root, path!)), path);
  for (const [, path] of readme.matchAll(/\]\(([\w./-]+\.png)\)/g)) assert.ok(existsSync(join(root, path!)), path);
});

docs('its commands exist, and have the flags that they are shown with', () => {
  const scripts = Object.keys((JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: object }).scripts);
  const flagsOf = (table: Table): string[] => Object.entries(table).flatMap(([name, { type }]) => (type === 'bool' ? [name, `no-${name}`] : [name]));
  const tables: Readonly<Record<string, readonly string[]>> = { ...Object.fromEntries(Object.entries(TABLES).map(([name, table]) => [name, flagsOf(table)])), bench: Object.keys(OPTIONS) }, all = Object.values(tables).flat();
  const shown = readme.split('\n').flatMap((line) => line.split(/(?=npm run )/)).map((part) => /^npm run ([\w:]+)(?: -- ([^`#]*))?/.exec(part)).filter((found) => found !== null);
  let flags = 0;
  for (const [text, command, rest = ''] of shown) {
    assert.ok(scripts.includes(command!), text);
    for (const [, flag] of rest.matchAll(/--([\w-]+)/g)) assert.ok(++flags && tables[command!]?.includes(flag!), `npm run ${command} has no --${flag}`);
  }
  assert.ok(flags > 30, `${flags}`);
  // Wherever else a flag of ours is named. npm and other programs are not.
  for (const [text, flag] of readme.matchAll(/(?<!npm (?:i|ci|run) )(?<![\w-])--([a-z][\w-]+)/g)) assert.ok(all.includes(flag!), text);
});
docs.run();
