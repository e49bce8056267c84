// The parent of several test processes: hands out files, prints each file's output when it is whole, and adds up the counts. A process that dies takes only its file with it.
import { spawn } from 'node:child_process';

export interface Counts {
  total: number;
  passed: number;
  failed: number;
  skipped: number;
}

/** Begins the line that ends a file's output; its counts follow as JSON. */
export const DONE = '\u0000done ';

/** Files that take about a minute or more go first, so that no process waits for one at the end. Firefox does where the driver has not compiled its kernels before. */
const SLOW = ['pages', 'train-cli', 'limits', 'firefox', 'eval-cli', 'lanes', 'package', 'training.test'];
const rank = (file: string): number => (SLOW.findIndex((part) => file.includes(part)) + SLOW.length + 1) % (SLOW.length + 1);

/** Runs the files in `jobs` processes of `script`; each reads the next from its standard input when it has done the one before. */
export async function shareOut(script: string, files: readonly string[], jobs: number): Promise<Counts> {
  const left = [...files].sort((a, b) => rank(a) - rank(b)), sum: Counts = { total: 0, passed: 0, failed: 0, skipped: 0 };
  const worker = (): Promise<void> =>
    new Promise((ended) => {
      const child = spawn(process.execPath, ['--import', 'tsx', script], { env: { ...process.env, DDPM_TEST_WORKER: '1' } });
      let output = '', file: string | undefined;
      const next = (): void => {
        file = left.shift();
        if (file) child.stdin.write(`${file}\n`);
        else child.stdin.end();
      };
      const take = (text: string): void => {
        output += text;
        const end = output.indexOf(DONE), line = output.indexOf('\n', end);
        if (end < 0 || line < 0) return;
        const counts = JSON.parse(output.slice(end + DONE.length, line)) as Counts;
        for (const key of ['total', 'passed', 'failed', 'skipped'] as const) sum[key] += counts[key];
        process.stdout.write(output.slice(0, end) + output.slice(line + 1));
        output = '';
        next();
      };
      for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', take);
      child.on('close', (code, signal) => {
        process.stdout.write(output);
        if (file) {
          sum.total++;
          sum.failed++;
          console.log(`\n  FAIL  ${file} its process ended with ${signal ?? `exit code ${code}`} before its tests did\n`);
        }
        ended(file && left.length ? worker() : undefined);
      });
      next();
    });
  await Promise.all(Array.from({ length: jobs }, worker));
  return sum;
}
