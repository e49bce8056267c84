// npm run bench -- peers: the shapes of a preset on the same adapter with tfjs and jax-js, run in turn with ours, checked against ours, and printed as ratios.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const ROUNDS = 5;
/** How long a round of one engine lasts about. */
const ROUND_MS = 150;
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

/** Opens both libraries on the adapter that `engine` runs on. */
export async function openPeers(engine) {
  if (!existsSync(fileURLToPath(new URL('node_modules/@jax-js/jax', import.meta.url)))) throw new Error('the libraries to compare with are not installed. Run: npm ci --prefix bench/peers');
  // Both look for WebGPU's globals and for navigator.gpu; the instance is the one that ours came from, with the same toggles.
  const gpu = [...globalThis.ddpmDawn.instances.values()][0];
  const { globals } = await import('webgpu');
  for (const [name, value] of Object.entries(globals)) Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  Object.defineProperty(globalThis, 'navigator', { value: { gpu, userAgent: 'node', platform: process.platform }, configurable: true });
  const settle = (promise) => engine.settle(promise);
  const warn = console.warn;
  console.warn = () => {}; // tfjs greets
  const peers = [await (await import('./tfjs.mjs')).open(gpu, settle), await (await import('./jax.mjs')).open(gpu, settle)];
  console.warn = warn;
  return peers;
}

/** Relative L2 distance, over all outputs. */
function distance(want, got) {
  let d = 0, s = 0;
  want.forEach((values, i) => values.forEach((v, j) => {
    d += (v - got[i][j]) ** 2;
    s += v * v;
  }));
  return Math.sqrt(d / s);
}

/** Milliseconds of one run, from `runs` in a row. */
async function time(job, runs) {
  const outputs = [];
  const start = performance.now();
  for (let i = 0; i < runs; i++) outputs.push(job.run());
  await job.wait(outputs);
  const ms = (performance.now() - start) / runs;
  outputs.forEach((each) => job.dispose(each));
  return ms;
}

/** Times ours and the peers' jobs in turn. Throws where a peer's result is not ours. */
export async function compare({ name, flops, jobs, tolerance }) {
  const want = await outputsOf(jobs[0].job);
  const runs = [];
  for (const { peer, job } of jobs) {
    const got = await outputsOf(job);
    const error = distance(want, got);
    if (!(error < tolerance)) throw new Error(`${name}: ${peer} differs from ours by ${error} (relative L2; allowed ${tolerance})`);
    runs.push(Math.max(1, Math.min(50, Math.round(ROUND_MS / (await time(job, 1))))));
  }
  const times = jobs.map(() => []);
  for (let round = 0; round < ROUNDS; round++) for (const [i, { job }] of jobs.entries()) times[i].push(await time(job, runs[i]));
  for (const { job } of jobs) job.free();
  // Ratios within a round: what else the machine does passes over all of them.
  const ratios = times.slice(1).map((theirs) => median(theirs.map((ms, round) => ms / times[0][round])));
  return { name, flops, ms: times.map(median), min: times.map((t) => Math.min(...t)), peers: jobs.slice(1).map((j) => j.peer), ratios, fastest: Math.min(...ratios) };
}

async function outputsOf(job) {
  const outputs = job.run();
  await job.wait([outputs]);
  const values = await job.read(outputs);
  job.dispose(outputs);
  return values;
}

export const geometricMean = (values) => Math.exp(values.reduce((s, v) => s + Math.log(v), 0) / values.length);

