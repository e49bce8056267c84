// npm run build: dist/, what the npm package ships: ES modules, their types, the raw kernels with their imports expanded, the page of `view`, `doctor` with the twins that it
// checks against, and the classifiers of `eval`. npm run api: src/API.md as well, which is kept in the repository.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, type Plugin } from 'esbuild';
import { viewPage } from '../web/build.ts';
import { apiPage } from './api.ts';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');

function node(...args: string[]): void {
  const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}

rmSync(join(root, 'dist'), { recursive: true, force: true });
node('--import', 'tsx', 'kernels/build.ts');
node('node_modules/typescript/bin/tsc', '-p', 'src/tsconfig.build.json');
node('--import', 'tsx', 'kernels/build.ts', 'dist/kernels');
cpSync(join(root, 'src/quality/features'), join(root, 'dist/quality/features'), { recursive: true });
mkdirSync(join(root, 'dist/web/view'), { recursive: true });
writeFileSync(join(root, 'dist/web/view/view.html'), await viewPage());

// The doctor's checks and their twins are one file; what the package has anyway it imports.
const shipped: Plugin = {
  name: 'shipped',
  setup: ({ onResolve }) => onResolve({ filter: /^\./ }, ({ path, resolveDir }) => {
    const file = relative(join(root, 'src'), join(resolveDir, path)).replaceAll('\\', '/');
    return /^(\.\.|web)\//.test(file) ? undefined : { path: relative('cli', file).replace(/^(?!\.)/, './').replaceAll('\\', '/').replace(/\.ts$/, '.js'), external: true };
  }),
};
await build({ entryPoints: [join(root, 'src/cli/doctor.ts')], outfile: join(root, 'dist/cli/doctor.js'), bundle: true, format: 'esm', platform: 'node', target: 'es2023', plugins: [shipped] });

if (process.argv.includes('--api')) writeFileSync(join(root, 'src/API.md'), apiPage(join(root, 'dist')));
