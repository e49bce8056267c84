// The page's end of the worker: calls as promises, events as callbacks, errors with their codes.
import { DdpmError, type ErrorCode } from '../../errors.ts';
import type { Calls, Events, FromWorker } from './messages.ts';

export class Client {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, { done: (value: never) => void; fail: (error: Error) => void }>();
  readonly #listeners = new Map<string, ((value: never) => void)[]>();
  #next = 0;
  /** Why nothing is computed any more. */
  #stopped: Error | null = null;

  constructor(url: string) {
    this.#worker = new Worker(url, { type: 'module' });
    this.#worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
      if ('event' in data) {
        for (const listener of this.#listeners.get(data.event) ?? []) listener(data.value as never);
        return;
      }
      const waiting = this.#waiting.get(data.id);
      this.#waiting.delete(data.id);
      if ('error' in data) waiting?.fail(new DdpmError(data.error.code as ErrorCode, data.error.message));
      else waiting?.done(data.value as never);
    };
    // An error with a message was thrown by the script; one without says that it was not loaded.
    this.#worker.onerror = ({ message }) => this.#stop(message ? `the worker that computes for this page failed: ${message}.` : `the script that computes for this page, ${url}, could not be loaded: is its server still there?`);
    // It may have been anybody's answer. Chromium's workers have no onmessageerror.
    this.#worker.addEventListener('messageerror', () => this.#stop('the browser could not read what the worker that computes for this page sent.'));
  }

  /** What is asked now and later is answered with an error, and what the worker still does counts no more. */
  #stop(why: string): void {
    this.#worker.terminate();
    this.#stopped = new DdpmError('E-ENGINE', `${why} Reload the page; a run goes on from its last save.`);
    for (const { fail } of this.#waiting.values()) fail(this.#stopped);
    this.#waiting.clear();
  }

  call<K extends keyof Calls>(call: K, value: Calls[K]['in']): Promise<Calls[K]['out']> {
    if (this.#stopped) return Promise.reject(this.#stopped);
    return new Promise((done, fail) => {
      const id = this.#next++;
      this.#waiting.set(id, { done: done as (value: never) => void, fail });
      this.#worker.postMessage({ id, call, value });
    });
  }

  on<K extends keyof Events>(event: K, listener: (value: Events[K]) => void): void {
    const listeners = this.#listeners.get(event) ?? [];
    listeners.push(listener as (value: never) => void);
    this.#listeners.set(event, listeners);
  }
}
