// What the page keeps between visits, in IndexedDB: the last saved run and its images. A write is whole or not there.
import { DdpmError } from '../../errors.ts';
import type { TrainData } from './run-file.ts';

interface Kept {
  readonly run: Uint8Array;
  readonly data: TrainData;
}

const NAME = 'ddpm.wgsl', STORE = 'kept';

function open(): Promise<IDBDatabase> {
  return new Promise((done, fail) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    request.onsuccess = () => done(request.result);
    request.onerror = () => fail(new DdpmError('E-FILE', `the browser keeps nothing for this page (${request.error?.message ?? 'private window?'}): save the run as a file.`));
  });
}

async function within<T>(mode: IDBTransactionMode, fn: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  const database = await open();
  try {
    return await new Promise<T>((done, fail) => {
      const transaction = database.transaction(STORE, mode), request = fn(transaction.objectStore(STORE));
      transaction.oncomplete = () => done(request.result);
      transaction.onerror = transaction.onabort = () =>
        fail(new DdpmError('E-FILE', `the run could not be kept in the browser (${transaction.error?.message ?? 'the write was aborted'}): save it as a file.`));
    });
  } finally {
    database.close();
  }
}

export const keep = <K extends keyof Kept>(key: K, value: Kept[K]): Promise<unknown> => within('readwrite', (store) => store.put(value, key));
export const kept = <K extends keyof Kept>(key: K): Promise<Kept[K] | undefined> => within('readonly', (store) => store.get(key) as IDBRequest<Kept[K] | undefined>);
