// npm run fetch: a pretrained model from a hub into a folder that sample and train --init take.
import { join } from 'node:path';
import { DdpmError } from '../errors.ts';
import { fetchModel, HUB } from '../io/hub.ts';
import { typedAs } from '../typed.ts';
import { mebibytes, quoted, runCommand, say } from './command.ts';
import { type Command, helpText, parseFlags } from './flags.ts';
import { FETCH } from './settings.ts';

const COMMAND: Command = { name: 'fetch', help: 'Downloads a pretrained model; HF_ENDPOINT names another hub than huggingface.co.', positional: '<owner/name>' };

async function fetchCommand(): Promise<number> {
  const { settings, positional } = parseFlags(FETCH, COMMAND, process.argv.slice(2), { env: process.env });
  if (settings.help) {
    process.stdout.write(`${helpText(FETCH, COMMAND)}\n`);
    return 0;
  }
  const repository = positional!;
  if (!/^[\w.-]+\/[\w.-]+$/.test(repository) || repository.split('/').some((part) => /^\.+$/.test(part))) throw new DdpmError('E-USAGE', `"${repository}" is not the name of a model; it is owner/name, such as google/ddpm-cifar10-32.`);
  const folder = settings.out ?? join('models', ...repository.split('/')), endpoint = process.env['HF_ENDPOINT'] || HUB;
  if (!URL.canParse(endpoint)) throw new DdpmError('E-USAGE', `HF_ENDPOINT is "${endpoint}", which is not an address such as ${HUB}.`);
  const tty = process.stderr.isTTY;
  let drawn = 0;
  const { commit, files } = await fetchModel(repository, folder, {
    endpoint, revision: settings.revision,
    onProgress: (file, done, total) => {
      if (!tty || (performance.now() - drawn < 100 && done < total)) return;
      drawn = performance.now();
      process.stderr.write(`\r\x1b[2K${file}  ${mebibytes(done)} of ${mebibytes(total)} MiB  ${Math.floor((100 * done) / total)}%`);
    },
  });
  if (tty) process.stderr.write('\r\x1b[2K');
  for (const { name, bytes, there } of files) say(there ? 'there' : 'fetched', `${name}  ${mebibytes(bytes)} MiB`);
  process.stdout.write(`model    ${folder}  ${repository} at ${commit}\nmore     ${typedAs('sample')} ${quoted(folder)}\n`);
  return 0;
}

await runCommand(fetchCommand);
