// Downloads of a model from a hub that speaks Hugging Face's protocol: listed, resumed by range, checked against the checksum that the hub names, renamed when whole.
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, statSync } from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { DdpmError } from '../errors.ts';
import { makeFolder, notWritten } from './files.ts';

export const HUB = 'https://huggingface.co';

const WEIGHTS = 'diffusion_pytorch_model';
/** What makes a model, at the root or in the folders of a pipeline. */
const WANTED = ['model_index.json', 'config.json', 'scheduler_config.json', 'scheduler/scheduler_config.json', 'unet/config.json', `${WEIGHTS}.safetensors`, `unet/${WEIGHTS}.safetensors`];
/** A connection that breaks is made again so often without a byte more; each time the download goes on where it stopped. */
const TRIES = 4;
/** Redirects within the hub that are followed before it says what a file is. */
const REDIRECTS = 5;

export interface HubOptions {
  /** The hub's address. */
  readonly endpoint?: string;
  /** A branch, a tag or a commit. */
  readonly revision?: string;
  readonly onProgress?: (file: string, done: number, total: number) => void;
  /** Milliseconds before a broken connection is made again. */
  readonly pause?: number;
}

export interface Fetched {
  /** The commit that the revision stood for. */
  readonly commit: string;
  readonly files: readonly { readonly name: string; readonly bytes: number; readonly there: boolean }[];
}

/**
 * Downloads config, scheduler and weights of `repository` (owner/name) into `folder`. What is there and whole already is left alone; what was cut off goes on.
 *
 * @throws DdpmError E-NETWORK where the hub cannot be reached or does not have it, E-FILE for a checksum that does not fit, a disk that is full or a folder that cannot be written
 */
export async function fetchModel(repository: string, folder: string, { endpoint = HUB, revision = 'main', onProgress, pause = 1000 }: HubOptions = {}): Promise<Fetched> {
  const base = endpoint.replace(/\/+$/, '');
  const listing = await get(`${base}/api/models/${repository}/revision/${encodeURIComponent(revision)}`);
  if (!listing.ok) throw refused(listing, `${repository} at revision ${revision}`, base);
  const { sha, siblings } = (await listing.json()) as { sha?: string; siblings?: readonly { readonly rfilename: string }[] };
  const names = (siblings ?? []).map((each) => each.rfilename), wanted = WANTED.filter((name) => names.includes(name));
  if (!wanted.some((name) => name.endsWith('.safetensors'))) {
    const pickle = names.find((name) => name.endsWith('.bin'));
    throw new DdpmError('E-NETWORK', `${repository} has no ${WEIGHTS}.safetensors${pickle ? `, only ${pickle}, a pickle, which is not read here: convert it with save_file of the Python package safetensors` : ''}. It has ${names.slice(0, 8).join(', ') || 'no files'}.`);
  }
  if (!wanted.some((name) => name.endsWith('config.json') && !name.includes('scheduler'))) throw new DdpmError('E-NETWORK', `${repository} has weights and no config.json, so its model is not known.`);
  const commit = sha ?? revision, files: Fetched['files'][number][] = [];
  // The weights come last: a folder with weights is complete.
  for (const name of wanted) {
    const url = `${base}/${repository}/resolve/${encodeURIComponent(commit)}/${name}`;
    const path = join(folder, name), refusedHere = (error: unknown): never => {
      throw error instanceof Error && 'syscall' in error ? notWritten(path, error) : error;
    };
    files.push({ name, ...(await fetchFile(url, path, { pause, onProgress: (done, total) => onProgress?.(name, done, total) }).catch(refusedHere)) });
  }
  return { commit, files };
}

/** What the hub says of a file before it is downloaded. */
interface Facts {
  /** SHA-256 of a large file, or the SHA-1 that git gives a small one; null where the hub says neither. */
  readonly sum: string | null;
  readonly size: number;
}

async function fetchFile(url: string, path: string, { pause, onProgress }: { pause: number; onProgress: (done: number, total: number) => void }): Promise<{ bytes: number; there: boolean }> {
  const facts = await factsOf(url);
  if (existsSync(path) && facts.sum !== null && statSync(path).size === facts.size && (await sumOf(path, facts)) === facts.sum) return { bytes: facts.size, there: true };
  makeFolder(dirname(path));
  // Named by the checksum: the rest of another version is never joined to it.
  const part = `${path}.${facts.sum?.slice(0, 12) ?? 'new'}.part`;
  if (facts.sum === null || (existsSync(part) && statSync(part).size > facts.size)) await rm(part, { force: true });
  const size = (): number => (existsSync(part) ? statSync(part).size : 0);
  for (let left = TRIES, before = size(); size() < facts.size || !existsSync(part); ) {
    const why = await append(url, part, facts.size, onProgress);
    if (size() > before) left = TRIES;
    else if (why && --left === 0) throw new DdpmError('E-NETWORK', `the download of ${url} broke off at ${size()} of ${facts.size} bytes, ${TRIES} times without a byte more: ${why}. Type the command again to go on from there.`);
    before = size();
    if (why) await new Promise((resolve) => setTimeout(resolve, pause));
  }
  const sum = facts.sum === null ? null : await sumOf(part, facts);
  if (sum !== facts.sum) {
    await rm(part);
    throw new DdpmError('E-FILE', `${url} came with the checksum ${sum}, and the hub says ${facts.sum}. What was downloaded is deleted; try again.`);
  }
  await rename(part, path);
  return { bytes: facts.size, there: false };
}

/** Appends to the part what it lacks; returns why the connection broke, or null. */
async function append(url: string, part: string, total: number, onProgress: (done: number, total: number) => void): Promise<string | null> {
  const from = existsSync(part) ? statSync(part).size : 0;
  let response: Response;
  try {
    // Identity: a compressed answer has other lengths than the file.
    response = await fetch(url, { headers: { 'accept-encoding': 'identity', ...(from > 0 && { range: `bytes=${from}-` }) } });
  } catch (error) {
    return causeOf(error);
  }
  if (response.status >= 500) return `HTTP ${response.status}`;
  if (!response.ok || !response.body) throw refused(response, url, new URL(url).origin);
  // A server that knows no ranges sends all of it again.
  const goesOn = response.status === 206 && response.headers.get('content-range')?.startsWith(`bytes ${from}-`);
  const file = await open(part, goesOn ? 'a' : 'w');
  let done = goesOn ? from : 0;
  try {
    for (const reader = response.body.getReader(); ; ) {
      let chunk: Uint8Array | undefined;
      try {
        const { done: end, value } = await reader.read();
        if (end) break;
        chunk = value;
      } catch (error) {
        return causeOf(error);
      }
      await file.writeFile(chunk!).catch((error: NodeJS.ErrnoException) => {
        void reader.cancel().catch(() => {});
        const what = error.code === 'ENOSPC' || error.code === 'EDQUOT' ? `the disk is full after ${done} of ${total} bytes. Free some space and type the command again to go on from there` : error.message;
        throw new DdpmError('E-FILE', `cannot write ${part}: ${what}.`, { cause: error });
      });
      onProgress((done += chunk!.length), total);
      if (done > total) {
        void reader.cancel().catch(() => {});
        throw new DdpmError('E-NETWORK', `${url} sends more than the ${total} bytes that the hub says it has.`);
      }
    }
    await file.sync().catch(() => {}); // not every file system can
  } finally {
    await file.close();
  }
  return done < total ? 'the connection was closed' : null;
}

async function factsOf(url: string): Promise<Facts> {
  const { origin } = new URL(url), head = (at: string): Promise<Response> => get(at, { method: 'HEAD', redirect: 'manual', headers: { 'accept-encoding': 'identity' } });
  let response = await head(url);
  const header = (name: string): string | null => response.headers.get(name), redirected = (): boolean => response.status >= 300 && response.status < 400;
  // Within the hub a redirect is followed, as that of a model with a new name; the store that large files lie in does not know their checksum.
  for (let left = REDIRECTS; redirected() && !header('x-linked-etag') && left > 0; left--) {
    const next = new URL(header('location') ?? '', response.url);
    if (next.origin !== origin) break;
    response = await head(next.href);
  }
  if (response.status >= 400) throw refused(response, url, origin);
  const tag = (header('x-linked-etag') ?? header('etag') ?? '').replace(/^W\//, '').replaceAll('"', '').toLowerCase();
  const size = Number(header('x-linked-size') ?? (redirected() ? null : header('content-length')) ?? NaN);
  if (!Number.isSafeInteger(size)) throw new DdpmError('E-NETWORK', `${url}: the hub does not say how long it is.`);
  return { sum: /^([0-9a-f]{40}|[0-9a-f]{64})$/.test(tag) ? tag : null, size };
}

/** SHA-256, or git's SHA-1 of a blob, whichever the hub gave. */
async function sumOf(path: string, { sum, size }: Facts): Promise<string> {
  const hash = sum!.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`);
  for await (const chunk of createReadStream(path)) hash.update(chunk as Uint8Array);
  return hash.digest('hex');
}

async function get(url: string, options?: RequestInit): Promise<Response> {
  try {
    return await fetch(url, options);
  } catch (error) {
    throw new DdpmError('E-NETWORK', `${new URL(url).origin} cannot be reached: ${causeOf(error)}. Check the network, or name another hub with HF_ENDPOINT. ` +
      'Without a network, copy the files from a machine that has one.', { cause: error });
  }
}

function refused({ status }: Response, what: string, base: string): DdpmError {
  const why = status === 404 ? 'is not there; check the name and the revision' : status === 401 || status === 403 ? 'is private, gated or not there; this program sends no token' : status === 429 ? 'is refused for now: too many requests' : `is refused with HTTP ${status}`;
  return new DdpmError('E-NETWORK', `${what} ${why} (${base}).`);
}

function causeOf(error: unknown): string {
  const { message, cause } = error as Error;
  return cause instanceof Error ? cause.message || (cause as NodeJS.ErrnoException).code || message : message;
}
