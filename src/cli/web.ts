// npm run web: the pages that train and sample in a browser, served on this machine or written as files for any web host.

import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join } from 'node:path';
import { FASHION_MNIST_FILES, fashionMnistFolders } from '../data/dataset.ts';
import { DdpmError } from '../errors.ts';
import { writeAtomic } from '../io/files.ts';
import { siteFiles } from '../web/build.ts';
import { runCommand } from './command.ts';
import { type Command, helpText, parseFlags } from './flags.ts';
import { WEB } from './settings.ts';

const COMMAND: Command = { name: 'web', help: 'Serves the pages that train and sample in a browser tab, at 127.0.0.1, or writes them as static files.' };
const TYPES: Readonly<Record<string, string>> = { '.html': 'text/html; charset=utf-8', '.css': 'text/css; charset=utf-8', '.js': 'text/javascript; charset=utf-8' };

/**
 * The pages on 127.0.0.1, with Fashion-MNIST where it is installed. Port 0 is any free one.
 *
 * @throws DdpmError E-USAGE for a port that is taken
 */
export async function openWeb(port: number): Promise<{ url: string; close(): void }> {
  const files = await siteFiles(), training = FASHION_MNIST_FILES.filter((name) => name.startsWith('train'));
  const server = createServer((request, response) => {
    const path = (request.url ?? '/').split('?', 1)[0]!.slice(1) || 'index.html', file = files.get(path);
    const headers = { 'cache-control': 'no-cache', 'x-content-type-options': 'nosniff' };
    if (file !== undefined) return void response.writeHead(200, { ...headers, 'content-type': TYPES[extname(path)]! }).end(file);
    const data = training.find((name) => path === `data/${name}.gz`);
    if (data) {
      const found = fashionMnistFolders().flatMap((folder) => [join(folder, `${data}.gz`), join(folder, data)]).find((each) => existsSync(each));
      if (found) return void response.writeHead(200, { ...headers, 'content-type': 'application/octet-stream' }).end(readFileSync(found));
    }
    response.writeHead(404, { 'content-type': 'text/plain' }).end('there is nothing here\n');
  });
  await new Promise<void>((done, fail) => {
    // Not the next port: a browser keeps runs by the address of the page.
    const taken = (cause: Error): void => fail(new DdpmError('E-USAGE', `port ${port} cannot be used (${cause.message}). Stop what uses it, or name another one with --port; runs that a browser keeps stay with theirs.`, { cause }));
    server.once('error', taken).listen(port, '127.0.0.1', done);
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

async function web(): Promise<number> {
  const { settings } = parseFlags(WEB, COMMAND, process.argv.slice(2), { env: process.env });
  if (settings.help) {
    process.stdout.write(`${helpText(WEB, COMMAND)}\n`);
    return 0;
  }
  if (settings.build !== null) {
    for (const [name, text] of await siteFiles()) {
      await writeAtomic(join(settings.build, name), text);
      process.stdout.write(`${name.padEnd(12)}${(text.length / 1024).toFixed(0)} KiB\n`);
    }
    process.stdout.write(`written to ${settings.build}; for Fashion-MNIST put ${FASHION_MNIST_FILES[0]}.gz and ${FASHION_MNIST_FILES[1]}.gz into data/ beside them\n`);
    return 0;
  }
  const { url, close } = await openWeb(settings.port);
  process.stdout.write(`pages    ${url}  until Ctrl-C\n`);
  await new Promise<void>((done) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => done());
  });
  close();
  return 0;
}

if (import.meta.filename === process.argv[1]) await runCommand(web);
