// npm run build: dist/, what the npm package ships: ES modules, their types, the raw kernels with their imports expanded, the page of `view`, and the classifiers of `eval`.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
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
cpSync(join(root, 'src/quality/features'), join(root, 'dist/quality/features'), { recursive: true }); // read at run time, beside the module that names them
writeFileSync(join(root, 'dist/API.md'), apiPage(join(root, 'dist')));
