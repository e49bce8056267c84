// What the page keeps between visits, in IndexedDB: the last saved run and its images, of one tab at a time. A write is whole or not there.
import { DdpmError } from '../../errors.ts';
import type { TrainData } from './run-file.ts';

interface Kept {
  readonly run: Uint8Array;
  readonly data: TrainData;
}

const NAME = 'ddpm.wgsl', STORE = 'kept';
/** A tab that is being closed or reloaded lets go a little late. */
const CLOSING_MS = 5000;

function open(): Promise<IDBDatabase> {
  return new Promise((done, fail) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    request.onsuccess = () => done(request.result);
    request.onerror = () => fail(request.error);
  });
}

/** @throws DdpmError E-FILE where the browser keeps nothing: in some private windows, or on a full disk */
async function within<T>(mode: IDBTransactionMode, fn: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  let database: IDBDatabase | null = null;
  try {
    database = await open();
    const transaction = database.transaction(STORE, mode), request = fn(transaction.objectStore(STORE));
    return await new Promise<T>((done, fail) => {
      transaction.oncomplete = () => done(request.result);
      transaction.onabort = () => fail(transaction.error);
    });
  } catch (cause) {
    throw new DdpmError('E-FILE', `this browser does not keep the run (${(cause as Error | null)?.message || 'private window?'}): save it as a file.`, { cause });
  } finally {
    database?.close();
  }
}

/** All of these are kept, or none. */
export const keep = (what: Partial<Kept>): Promise<unknown> => within('readwrite', (store) => Object.entries(what).map(([key, value]) => store.put(value, key)).at(-1)!);
export const kept = <K extends keyof Kept>(key: K): Promise<Kept[K] | undefined> => within('readonly', (store) => store.get(key) as IDBRequest<Kept[K] | undefined>);

let holding: Promise<void> | null = null;

/**
 * From here on what is kept is this tab's, until it is closed.
 *
 * @throws DdpmError E-USAGE where it is another's
 */
export const hold = (): Promise<void> =>
  (holding ??= new Promise((done, fail) => {
    navigator.locks.request(NAME, { signal: AbortSignal.timeout(CLOSING_MS) }, () => new Promise(() => done())).catch(({ name }: Error) => {
      if (name !== 'TimeoutError') return done(); // a page without an origin, which shares nothing
      holding = null;
      fail(new DdpmError('E-USAGE', 'another tab of this page has a run, and the browser keeps one. Go on there, or close it.'));
    });
  }));
