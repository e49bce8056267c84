// Bundles the pages with esbuild: the view of a run as one HTML file, and the site as static files.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Plugin } from 'esbuild';
import { DdpmError } from '../errors.ts';

const here = import.meta.dirname;

/** One script for browsers, from TypeScript, with all that it imports. */
async function bundle(entry: string, define: Record<string, string> = {}, plugins: Plugin[] = []): Promise<string> {
  let esbuild: typeof import('esbuild');
  try {
    esbuild = await import('esbuild');
  } catch {
    throw new DdpmError('E-FILE', 'the pages are bundled with esbuild, which is not installed. In a clone: npm ci.');
  }
  const { outputFiles } = await esbuild.build({
    entryPoints: [join(here, entry)], bundle: true, define, plugins, write: false, format: 'esm', target: 'es2022', minify: true, charset: 'utf8', legalComments: 'none', logLevel: 'silent',
  });
  return outputFiles[0]!.text;
}

const read = (file: string): string => readFileSync(join(here, file), 'utf8');
/** A closing tag inside a script, or the start of a comment, would end it. */
const inScript = (text: string): string => text.replaceAll('</script', '<\\/script').replaceAll('<!--', '<\\!--');

let view: Promise<string> | undefined;

/** The page of a run as one file without a report: from a package as it was built, in a clone bundled now. */
export const viewPage = (): Promise<string> => (view ??= makeViewPage());

async function makeViewPage(): Promise<string> {
  const built = join(here, 'view', 'view.html');
  if (existsSync(built)) return readFileSync(built, 'utf8');
  const script = await bundle('view/main.ts');
  // Functions as replacements: a dollar sign in the text is no pattern.
  return read('view/index.html').replace('/*style*/', () => read('style.css')).replace('/*script*/', () => inScript(script));
}

/** The page with runs in it, which opens from a disk without a server. */
export async function reportPage(runs: readonly object[]): Promise<string> {
  const json = JSON.stringify(runs).replaceAll('<', '\\u003c');
  return (await viewPage()).replace('/*report*/', () => json);
}

/** The float64 twins of the tests, which the page of a kernel shows and runs. */
const TWINS = join(here, '..', '..', 'test', 'ref');

/** The kernels with the comments that the library leaves out, for the page that shows them. */
const withComments: Plugin = {
  name: 'with-comments',
  setup: ({ onLoad }) => onLoad({ filter: /kernels\.gen\.ts$/ }, async () => {
    const { build } = (await import(pathToFileURL(join(here, '..', '..', 'kernels', 'build.ts')).href)) as { build(options: { comments: boolean }): string };
    return { contents: build({ comments: true }), loader: 'ts' };
  }),
};

/** The site by file name: index.html, style.css, main.js and worker.js, to be put on any web host. */
export async function siteFiles(): Promise<ReadonlyMap<string, string>> {
  const twins = Object.fromEntries(readdirSync(TWINS).map((file) => [file.replace(/\.ts$/, ''), readFileSync(join(TWINS, file), 'utf8')]));
  const [main, worker] = await Promise.all([bundle('site/main.ts', { TWIN_SOURCES: JSON.stringify(twins) }, [withComments]), bundle('site/worker.ts')]);
  return new Map([['index.html', read('site/index.html')], ['style.css', read('style.css')], ['main.js', main], ['worker.js', worker]]);
}
