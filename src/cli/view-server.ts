// The server behind the view of runs: one page on loopback that reads run folders and follows their metrics.jsonl. It writes nothing and knows nothing of training.

import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync, realpathSync, statSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { basename, join, resolve, sep } from 'node:path';
import { DdpmError } from '../errors.ts';
import { typedAlone } from '../typed.ts';
import { reportPage, viewPage } from '../web/build.ts';
import type { MetricsLine, Run, RunReport, SampleGrid } from '../web/view/run.ts';
import { isRun } from './run-folder.ts';

const LOOPBACK = '127.0.0.1';
const LOOK_MS = 400;
const HEARTBEAT_MS = 15_000;
/** Bytes of metrics sent at a time: so that a long run does not stand in memory as a whole. */
const PIECE = 1 << 18;
/** A report carries this many lines and grids of a run, evenly spread. */
const REPORT = { lines: 2000, grids: 24 };

/** The runs that a path means: itself, or those in it, newest first. */
export function runsIn(path: string): string[] {
  if (isRun(path)) return [path];
  const inside = existsSync(path) && statSync(path).isDirectory() ? readdirSync(path).map((name) => join(path, name)).filter(isRun) : [];
  return inside.sort((a, b) => changed(b) - changed(a) || a.localeCompare(b));
}

function changed(run: string): number {
  const metrics = join(run, 'metrics.jsonl');
  return statSync(existsSync(metrics) ? metrics : run).mtimeMs;
}

/** A run's name in addresses; it lies in the root or is it. */
const idOf = (path: string): string => basename(resolve(path));

/** What is shown of a run besides its metrics. `url` says where a sample grid is found. */
export function describeRun(path: string, id: string, url: (name: string) => string): Run {
  const json = (file: string): Record<string, unknown> => (existsSync(join(path, file)) ? objectIn(readFileSync(join(path, file), 'utf8')) : null) ?? {};
  return { id, name: basename(resolve(path)), config: json('config.json'), env: json('env.json'), samples: sampleGrids(path, url) };
}

/** In the order of their steps, the final grid last. */
function sampleGrids(path: string, url: (name: string) => string): SampleGrid[] {
  const folder = join(path, 'samples');
  const names = existsSync(folder) ? readdirSync(folder).filter((name) => /^[\w-]+\.png$/.test(name) && statSync(join(folder, name), { throwIfNoEntry: false })?.isFile()) : [];
  return names
    .map((name) => ({ name, step: /^step-(\d+)\.png$/.exec(name) ? Number(/\d+/.exec(name)![0]) : null, url: url(name) }))
    .sort((a, b) => (a.step ?? Infinity) - (b.step ?? Infinity) || a.name.localeCompare(b.name));
}

/** Where in a file one is, or null where the file has been written anew since: it is shorter, or no line begins there. */
function resumeAt(file: string, offset: number): number | null {
  if (offset === 0) return 0;
  if (!existsSync(file) || statSync(file).size < offset) return null;
  return piece(file, offset - 1, 1)[0] === 0x0a ? offset : null;
}

function piece(file: string, from: number, bytes: number): Buffer {
  const handle = openSync(file, 'r');
  try {
    const buffer = Buffer.alloc(bytes);
    return buffer.subarray(0, readSync(handle, buffer, 0, bytes, from));
  } finally {
    closeSync(handle);
  }
}

/** The JSON object that a text is, null where it is none. */
function objectIn(text: string): Record<string, unknown> | null {
  try {
    const value = JSON.parse(text) as unknown;
    return typeof value === 'object' && !Array.isArray(value) ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}

/** The whole lines that begin at `offset`, at most a piece of them, and where the next one begins. A line that is still being written waits, a damaged one is passed over. */
export function wholeLines(file: string, offset: number): { lines: string[]; next: number } {
  if (!existsSync(file) || statSync(file).size <= offset) return { lines: [], next: offset };
  const bytes = piece(file, offset, PIECE), end = bytes.lastIndexOf(0x0a) + 1;
  return { lines: bytes.toString('utf8', 0, end).split('\n').filter(objectIn), next: offset + end };
}

/** The report of runs: one HTML file that opens from a disk, with their numbers thinned out and their pictures inside. */
export async function makeReport(paths: readonly string[]): Promise<string> {
  return reportPage(paths.map((path): RunReport => {
    const run = describeRun(path, basename(path), (name) => `data:image/png;base64,${readFileSync(join(path, 'samples', name)).toString('base64')}`);
    const file = join(path, 'metrics.jsonl'), lines: MetricsLine[] = [];
    for (let offset = 0; ; ) {
      const { lines: some, next } = wholeLines(file, offset);
      if (next === offset) break;
      offset = next;
      for (const line of some) lines.push(JSON.parse(line) as MetricsLine);
    }
    return { ...run, samples: spread(run.samples, REPORT.grids), lines: thinned(lines, REPORT.lines) };
  }));
}

/** `count` of a list, evenly spread, the last one always among them. */
const spread = <T>(list: readonly T[], count: number): T[] =>
  list.length <= count ? [...list] : Array.from({ length: count }, (_, i) => list[Math.round(((i + 1) * list.length) / count) - 1]!);

/** Of those that are numbers, null where none is. */
function average(values: readonly unknown[]): number | null {
  const numbers = values.filter((v): v is number => typeof v === 'number');
  return numbers.length ? Number((numbers.reduce((a, b) => a + b, 0) / numbers.length).toPrecision(6)) : null;
}

/** Means of neighbouring lines; a step that was skipped stays to be seen. */
export function thinned(lines: readonly MetricsLine[], count: number): MetricsLine[] {
  const size = Math.ceil(lines.length / count);
  if (size <= 1) return [...lines];
  return Array.from({ length: Math.ceil(lines.length / size) }, (_, i) => {
    const group = lines.slice(i * size, (i + 1) * size), last = group.at(-1)!;
    const mean = (key: string): number | null => average(group.map((line) => line[key]));
    const levels = group.map((line) => line['loss_by_t']).filter(Array.isArray) as (number | null)[][];
    const bad = group.find((line) => line['nonfinite'] !== undefined);
    return { ...last, loss: mean('loss'), grad_norm: mean('grad_norm'), images_per_s: mean('images_per_s'), ...(levels[0] && { loss_by_t: levels[0].map((_, k) => average(levels.map((each) => each[k]))) }), ...(bad && { nonfinite: bad['nonfinite']! }) };
  });
}

export interface OpenView {
  readonly url: string;
  close(): Promise<void>;
}

/**
 * Serves the view of a run, or of a folder of runs, on 127.0.0.1.
 *
 * @param port 0 is any free one; one that is taken is passed over for the next, ten times
 * @throws DdpmError E-FILE where the path is no run and holds none, E-USAGE where no port is free
 */
export async function openView(path: string, port: number): Promise<OpenView> {
  if (!existsSync(path)) throw new DdpmError('E-FILE', `there is no run or folder ${path}. Start a run with ${typedAlone('train')}, or name another folder.`);
  const page = await viewPage();
  const root = resolve(path);
  const server = createServer((request, response) => {
    try {
      answer({ root, page }, request, response);
    } catch (error) {
      if (!response.headersSent) response.writeHead(500, { 'content-type': 'text/plain' });
      response.end(`${error instanceof Error ? error.message : String(error)}\n`);
    }
  });
  const at = await listen(server, port);
  return {
    url: `http://${LOOPBACK}:${at}/`,
    close: () => new Promise((done) => {
      server.close(() => done());
      server.closeAllConnections();
    }),
  };
}

async function listen(server: Server, port: number): Promise<number> {
  for (let next = port; ; next++) {
    const taken = await new Promise<NodeJS.ErrnoException | null>((done) => {
      server.once('error', done);
      server.listen(next, LOOPBACK, () => {
        server.off('error', done);
        done(null);
      });
    });
    if (!taken) return (server.address() as AddressInfo).port;
    if (taken.code !== 'EADDRINUSE' || next >= Math.min(port + 10, 65535)) throw new DdpmError('E-USAGE', `port ${next} cannot be used (${taken.message}). Name another one.`);
  }
}

interface Site {
  readonly root: string;
  readonly page: string;
}

function answer(site: Site, request: IncomingMessage, response: ServerResponse): void {
  const end = (status: number, type: string, body: string | Uint8Array): void => {
    response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' });
    response.end(body);
  };
  // A page from elsewhere whose name was made to mean 127.0.0.1 would read along.
  if (!/^(127\.0\.0\.1|localhost|\[::1\])(:\d+)?$/.test(request.headers.host ?? '')) return end(403, 'text/plain', 'this page is for this machine only\n');
  if (request.method !== 'GET') return end(405, 'text/plain', 'GET only\n');
  const url = new URL(request.url ?? '/', 'http://localhost');
  const sample = /^\/samples\/([^/]+)\/([\w-]+\.png)$/.exec(url.pathname);
  if (url.pathname === '/') return end(200, 'text/html; charset=utf-8', site.page);
  if (url.pathname === '/api/runs') return end(200, 'application/json', JSON.stringify(runsIn(site.root).map(described)));
  if (url.pathname === '/api/events') return events(site, url, request, response);
  if (sample) {
    const run = runOf(site, decodeURIComponent(sample[1]!)), file = run && inside(run, join(run, 'samples', sample[2]!));
    if (file) return end(200, 'image/png', readFileSync(file));
  }
  end(404, 'text/plain', 'there is nothing here\n');
}

const described = (path: string): Run => {
  const id = idOf(path);
  // A grid is drawn again when a run is started over: its time is part of its address.
  return describeRun(path, id, (name) => `samples/${encodeURIComponent(id)}/${name}?${Math.round(statSync(join(path, 'samples', name)).mtimeMs)}`);
};

/** The folder of a run that the page was told of; nothing else can be named. */
const runOf = ({ root }: Site, id: string): string | undefined => runsIn(root).find((path) => idOf(path) === id);

/** A file of a run, null where it is not there or is a link that leads out of it. */
function inside(run: string, path: string): string | null {
  if (!existsSync(path)) return null;
  const file = realpathSync(path);
  return file.startsWith(realpathSync(run) + sep) ? file : null;
}

/** Server-sent events: whole lines of metrics.jsonl of the runs asked for. The id is how many bytes of each have been sent, so a browser that comes back gets what it lacks. */
function events(site: Site, url: URL, request: IncomingMessage, response: ServerResponse): void {
  const paths = url.searchParams.getAll('run').map((id) => runOf(site, id));
  if (paths.length === 0 || paths.includes(undefined)) {
    response.writeHead(404, { 'content-type': 'text/plain' });
    response.end('there is no such run\n');
    return;
  }
  const known = request.headers['last-event-id']?.toString().split(',') ?? url.searchParams.getAll('from');
  const runs = (paths as string[]).map((path, i) => ({ path, file: join(path, 'metrics.jsonl'), offset: Math.max(0, Math.trunc(Number(known[i] ?? 0)) || 0), grids: '' }));
  for (const run of runs) run.offset = resumeAt(run.file, run.offset) ?? 0;
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  response.write('retry: 1000\n\n');

  let full = false, beat = performance.now();
  response.on('drain', () => (full = false));
  const send = (event: string, data: readonly string[]): void => {
    const id = runs.map((run) => run.offset).join(',');
    full = !response.write(`id: ${id}\nevent: ${event}\n${data.map((line) => `data: ${line}\n`).join('')}\n`);
    beat = performance.now();
  };
  const look = (): void => {
    runs.forEach((run, index) => {
      // Written anew: all of it is sent again, and the page drops what a step that comes again has replaced.
      run.offset = resumeAt(run.file, run.offset) ?? 0;
      for (let more = true; more && !full; ) {
        const { lines, next } = wholeLines(run.file, run.offset);
        more = next > run.offset;
        run.offset = next;
        if (lines.length > 0) send('lines', [String(index), ...lines]);
      }
      const description = described(run.path), grids = JSON.stringify(description.samples);
      if (grids !== run.grids) send('run', [JSON.stringify({ index, run: description })]);
      run.grids = grids;
    });
    if (performance.now() - beat > HEARTBEAT_MS) {
      response.write(': here\n\n');
      beat = performance.now();
    }
  };
  look();
  const timer = setInterval(() => {
    try {
      if (!full) look();
    } catch {
      response.end(); // a run that is being deleted; the browser asks again
    }
  }, LOOK_MS);
  response.on('close', () => clearInterval(timer));
}
