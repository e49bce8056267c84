// The page's end of the worker: calls as promises, events as callbacks, errors with their codes.
import { DdpmError, type ErrorCode } from '../../errors.ts';
import type { Calls, Events, FromWorker } from './messages.ts';

export class Client {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, { done: (value: never) => void; fail: (error: Error) => void }>();
  readonly #listeners = new Map<string, ((value: never) => void)[]>();
  #next = 0;

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
    this.#worker.onerror = (event) => {
      for (const { fail } of this.#waiting.values()) fail(new Error(`the worker stopped: ${event.message}`));
      this.#waiting.clear();
    };
  }

  call<K extends keyof Calls>(call: K, value: Calls[K]['in']): Promise<Calls[K]['out']> {
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
