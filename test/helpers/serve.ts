// A server on loopback for the pages of tests in a browser: WebGPU wants a secure context.
import { createReadStream, existsSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join, normalize } from 'node:path';
import { text } from 'node:stream/consumers';

const TYPES: Record<string, string> = {
  '.html': 'text/html', '.js': 'text/javascript', '.mjs': 'text/javascript', '.css': 'text/css', '.json': 'application/json', '.wgsl': 'text/plain', '.png': 'image/png', '.svg': 'image/svg+xml',
};

export interface Served {
  readonly url: string;
  close(): void;
}

/** Serves a folder on loopback. `also` are pages in memory, by path ('/page.html'); `onPost` is given what pages post. */
export async function serve(folder: string, also: Readonly<Record<string, string>> = {}, onPost?: (path: string, body: string) => void): Promise<Served> {
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url!, 'http://127.0.0.1').pathname);
    const type = { 'content-type': `${TYPES[extname(path) || '.html'] ?? 'application/octet-stream'}; charset=utf-8` };
    const file = join(folder, normalize(path));
    if (request.method === 'POST' && onPost) void text(request).then((body) => (onPost(path, body), response.writeHead(204).end()), () => {});
    else if (path === '/until-the-end') return; // answered when the server is gone
    else if (path === '/favicon.ico') response.writeHead(204).end();
    else if (also[path] !== undefined) response.writeHead(200, type).end(also[path]);
    else if (existsSync(file) && statSync(file).isFile()) createReadStream(file).pipe(response.writeHead(200, type));
    else response.writeHead(404).end();
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}
