// One headless Chromium a process for the tests in a browser.
import { type Browser, chromium, type Page } from 'playwright-core';
import { suite } from 'uvu';
// @ts-expect-error plain JavaScript without types, because it runs before TypeScript is installed
import { findBrowser as find } from '../../src/cli/setup.mjs';

const findBrowser = find as () => string | undefined;

/**
 * The first flag alone is enough for compute; the others let a WebGPU canvas present, which else loses the device. They give SwiftShader: no f16, subgroups of 4,
 * 256 invocations a workgroup.
 */
const FLAGS = [
  '--enable-unsafe-webgpu', '--enable-features=Vulkan', '--use-vulkan=swiftshader', '--use-angle=vulkan', '--use-webgpu-adapter=swiftshader',
  '--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
];

let opened: Promise<Browser> | undefined;

/** The browser of this process, started by the first test that asks; test/run.ts ends the process, and it with it. */
export const browser = (): Promise<Browser> => (opened ??= chromium.launch({ executablePath: findBrowser()!, headless: true, args: FLAGS }));

/** Another one, with neither flag nor GPU: it has no WebGPU that works. The caller closes it. */
export const browserWithoutWebGpu = (): Promise<Browser> => chromium.launch({ executablePath: findBrowser()!, headless: true, args: ['--no-sandbox', '--disable-gpu', '--disable-features=WebGPU'] });

/** A suite that is skipped, with a line that says so, where there is no Chromium. */
export function browserSuite(name: string): { (what: string, test: () => void | Promise<void>): void; run(): void } {
  const tests = suite(name);
  const there = findBrowser() !== undefined;
  if (!there) console.log(`  SKIPPED  ${name}: no Chromium was found (set DDPM_CHROMIUM to its path, or apt-get install chromium)`);
  const add = (what: string, test: () => void | Promise<void>): void => (there ? tests(what, () => test()) : tests.skip(what, () => test()));
  return Object.assign(add, { run: () => tests.run() });
}

/**
 * Opens a page and waits until it has put a promise's outcome into `window.result` (an object), which is returned. What the page logs, and every error that it
 * does not catch, is part of the message when it fails or takes longer than `seconds`.
 */
export async function resultOf<T>(url: string, { seconds = 30, afterwards }: { seconds?: number; afterwards?: (page: Page) => Promise<void> } = {}): Promise<T> {
  const page = await (await browser()).newPage();
  const said: string[] = [];
  let crash: (error: Error) => void = () => {};
  const crashed = new Promise<never>((_, reject) => (crash = reject));
  crashed.catch(() => {});
  page.on('console', (message) => said.push(message.text()));
  page.on('pageerror', (error) => crash(new Error(`${error.stack ?? error.message}`)));
  try {
    await page.goto(url);
    const done = page.waitForFunction(() => (globalThis as { result?: unknown }).result !== undefined, null, { timeout: 1000 * seconds });
    done.catch(() => {});
    await Promise.race([done, crashed]);
    const result = (await page.evaluate(() => (globalThis as { result?: unknown }).result)) as T;
    await afterwards?.(page);
    return result;
  } catch (error) {
    throw new Error(`${url}: ${(error as Error).message}${said.length ? `\nthe page said:\n${said.join('\n')}` : ''}`, { cause: error });
  } finally {
    await page.close();
  }
}
