// npm run view: the charts and pictures of runs, live or afterwards, on a page of this machine; or as one file to keep.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { DdpmError } from '../errors.ts';
import { writeAtomic } from '../io/files.ts';
import { typedAlone } from '../typed.ts';
import { quoted, runCommand } from './command.ts';
import { type Command, helpText, parseFlags } from './flags.ts';
import { VIEW } from './settings.ts';
import { makeReport, openView, runsIn } from './view-server.ts';

const COMMAND: Command = { name: 'view', help: 'Shows runs, live while they train, on a page at 127.0.0.1.', positional: '[run | latest | folder of runs]' };

async function view(): Promise<number> {
  const { settings, positional } = parseFlags(VIEW, COMMAND, process.argv.slice(2), { env: process.env });
  if (settings.help) {
    process.stdout.write(`${helpText(VIEW, COMMAND)}\n`);
    return 0;
  }
  const named = positional === 'latest' ? (runsIn('runs')[0] ?? 'runs') : (positional ?? 'runs');
  const path = existsSync(named) ? named : join('runs', named);
  if (!existsSync(path)) throw new DdpmError('E-FILE', `there is no run or folder ${named}. Start a run with ${typedAlone('train')}, or name another folder.`);
  if (settings.report) {
    const runs = runsIn(path);
    if (runs.length === 0) throw new DdpmError('E-FILE', `${path} is no run and holds none, so there is nothing to report on.`);
    const file = join(path, 'report.html');
    await writeAtomic(file, await makeReport(runs));
    process.stdout.write(`report   ${file}\n`);
    return 0;
  }
  const { url, close } = await openView(path, settings.port);
  process.stdout.write(`view     ${url}  ${quoted(path)}, until Ctrl-C\n`);
  await new Promise<void>((done) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, done);
    process.once('disconnect', done); // a training that ended takes its view with it
  });
  await close();
  return 0;
}

await runCommand(view);
