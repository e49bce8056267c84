// A headless Firefox of its own profile, which no driver steers: a page of the test's own server does the work, and posts what came of each of its parts.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import { serve } from './serve.ts';
import { SHADER_CACHE } from './shader-cache.ts';
// @ts-expect-error plain JavaScript without types, because it runs before TypeScript is installed
import { findFirefox as find } from '../../src/cli/setup.mjs';

const findFirefox = find as () => string | undefined;

/** The oldest version whose WebGPU these tests are known to pass with. */
const NEEDED = 153;

/** Beside what turns WebGPU on, on the software driver too: nothing that is looked up outside of this machine, and no page but the test's. */
const PREFERENCES: Readonly<Record<string, boolean | number | string>> = {
  'dom.webgpu.enabled': true, 'gfx.webgpu.ignore-blocklist': true, 'dom.allow_scripts_to_close_windows': true,
  'datareporting.policy.dataSubmissionEnabled': false, 'app.normandy.enabled': false, 'app.update.enabled': false, 'browser.shell.checkDefaultBrowser': false,
  'browser.aboutwelcome.enabled': false, 'network.captive-portal-service.enabled': false, 'network.connectivity-service.enabled': false, 'extensions.update.enabled': false, 'services.settings.server': '',
};

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Why the tests cannot run here, or null. */
function whyNot(): string | null {
  const path = findFirefox();
  if (!path) return 'no Firefox was found (set DDPM_FIREFOX to its path, or apt-get install firefox-esr)';
  const said = spawnSync(path, ['--version'], { encoding: 'utf8', timeout: 60_000, env: { ...process.env, MOZ_HEADLESS: '1' } }).stdout ?? '', version = /Firefox (\d+)/.exec(said)?.[1];
  return Number(version) >= NEEDED ? null : `${path} is ${version ? `version ${version}` : 'no Firefox that says its version'}, and its WebGPU is known to work here from ${NEEDED}`;
}

/** A suite that is skipped, with a line that says so, where there is no Firefox with WebGPU. */
export function firefoxSuite(name: string): { (what: string, test: () => void | Promise<void>): void; after(hook: () => Promise<void>): void; run(): void } {
  const tests = suite(name), why = whyNot();
  if (why) console.log(`  SKIPPED  ${name}: ${why}`);
  const add = (what: string, test: () => void | Promise<void>): void => (why ? tests.skip(what, () => test()) : tests(what, () => test()));
  return Object.assign(add, { after: (hook: () => Promise<void>) => tests.after(hook), run: () => tests.run() });
}

export interface Visit {
  /** What a part of the page gave, once it is there. */
  part<T>(name: string): Promise<T>;
  /** Ends the browser and takes its profile away. */
  end(): Promise<void>;
}

/**
 * Opens a page whose script is `/script.js` of `files` (a module) in a new Firefox; what else it fetches is there too, or in the folder. The script calls `part(name, work)` with an async function for each of its parts, one after another;
 * a part that throws fails by itself. What does not come within `seconds`, or because the browser has ended, is an error with what the page and the browser said.
 */
export async function visit(folder: string, files: Readonly<Record<string, string>> & { readonly '/script.js': string }, seconds: number): Promise<Visit> {
  const parts = new Map<string, PromiseWithResolvers<unknown>>(), said: string[] = [];
  let ended: string | null = null;
  const failure = (name: string): Error => new Error(`${name}: ${ended}\nthe page and Firefox said:\n${said.slice(-40).join('\n')}`);
  const of = (name: string): PromiseWithResolvers<unknown> => {
    if (!parts.has(name)) {
      const one = withResolvers<unknown>();
      one.promise.catch(() => {});
      if (ended) one.reject(failure(name));
      parts.set(name, one);
    }
    return parts.get(name)!;
  };
  const served = await serve(folder, {
    '/page.html': `<!doctype html><title>test</title><script>
      const post = (path, value) => fetch(path, { method: 'POST', body: JSON.stringify(value) });
      const say = (value) => post('/said', String(value?.stack ? value + '\\n' + value.stack : value));
      fetch('/until-the-end').catch(() => {}).finally(() => close());
      addEventListener('error', (e) => say(e.error ?? e.message));
      addEventListener('unhandledrejection', (e) => say(e.reason));
      const part = (name, work) => work().then((value) => post('/part/' + name, { value }), (error) => post('/part/' + name, { error: error + '\\n' + error.stack }));
    </script><script type="module" src="/script.js"></script>`,
    ...files,
  }, (path, body) => {
    const value = JSON.parse(body) as { value?: unknown; error?: string };
    if (path === '/said') return void said.push(String(value));
    const name = path.slice('/part/'.length);
    if (value.error === undefined) of(name).resolve(value.value);
    else of(name).reject(new Error(`${name}, in Firefox: ${value.error}`));
  });

  // Its home too: the machine's may be read only, and what is in it is no business of a test.
  const home = mkdtempSync(join(tmpdir(), 'ddpm-firefox-'));
  writeFileSync(join(home, 'user.js'), Object.entries(PREFERENCES).map(([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`).join(''));
  const { DISPLAY: _, WAYLAND_DISPLAY: __, ...environment } = process.env;
  const firefox: ChildProcess = spawn(findFirefox()!, ['--headless', '--no-remote', '--profile', home, `${served.url}/page.html`], {
    env: { ...environment, HOME: home, XDG_CACHE_HOME: home, XDG_CONFIG_HOME: home, ...SHADER_CACHE, MOZ_DISABLE_CONTENT_SANDBOX: '1', MOZ_CRASHREPORTER_DISABLE: '1' }, stdio: ['ignore', 'pipe', 'pipe'],
  });
  const remove = (): void => rmSync(home, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  // However this process ends: the page, too, closes its window when its server is gone, and Firefox ends with it.
  const atExit = (): void => {
    firefox.kill('SIGKILL');
    remove();
  };
  const atSignal = (): never => process.exit(1);
  process.once('exit', atExit);
  for (const signal of SIGNALS) process.once(signal, atSignal);
  for (const stream of [firefox.stdout!, firefox.stderr!]) stream.setEncoding('utf8').on('data', (text: string) => said.push(text.trimEnd()));
  const gone = new Promise<void>((done) => firefox.once('close', done).once('error', (error) => (said.push(String(error)), done())));
  const stop = (why: string): void => {
    ended ??= why;
    for (const [name, { reject }] of parts) reject(failure(name)); // no matter to those that have come
  };
  void gone.then(() => stop('Firefox has ended'));
  const late = setTimeout(() => {
    stop(`nothing came within ${seconds} s`);
    firefox.kill('SIGKILL');
  }, 1000 * seconds);
  return {
    part: <T>(name: string) => of(name).promise as Promise<T>,
    end: async () => {
      clearTimeout(late);
      firefox.kill('SIGTERM');
      const patience = setTimeout(() => firefox.kill('SIGKILL'), 10_000);
      await gone;
      clearTimeout(patience);
      served.close();
      remove();
      process.off('exit', atExit);
      for (const signal of SIGNALS) process.off(signal, atSignal);
    },
  };
}

interface PromiseWithResolvers<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (error: Error) => void;
}

function withResolvers<T>(): PromiseWithResolvers<T> {
  let resolve!: (value: T) => void, reject!: (error: Error) => void;
  const promise = new Promise<T>((done, fail) => ([resolve, reject] = [done, fail]));
  return { promise, resolve, reject };
}
