// npm run bench -- peers: the shapes of a preset on the same adapter with tfjs and jax-js, run in turn with ours, checked against ours, and printed as ratios.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const ROUNDS = 5;
/** What takes longer than so many milliseconds in all is done in fewer rounds, two at least. */
const LONG_MS = 60_000;
/** How long a round of one engine lasts about; so long that waiting for its end, which sleeps for two milliseconds, does not count. */
const ROUND_MS = 60;
const MAX_RUNS = 400;
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
  const peers = [await (await import('./tfjs.mjs')).open(settle), await (await import('./jax.mjs')).open(settle)];
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

/** Milliseconds of one run, from `runs` in a row: of the clock, and of this process on all cores, which other work on the machine moves less. */
async function time(job, runs) {
  const outputs = [];
  const start = performance.now(), before = process.cpuUsage();
  for (let i = 0; i < runs; i++) outputs.push(job.run());
  await job.wait(outputs);
  const { user, system } = process.cpuUsage(before);
  const ms = (performance.now() - start) / runs;
  outputs.forEach((each) => job.dispose(each));
  return { ms, cpu: (user + system) / 1000 / runs };
}

/** How many runs last about a round, and the milliseconds of one. */
async function roundOf(job) {
  let count = 1, { ms } = await time(job, count);
  for (const most of [20, MAX_RUNS]) {
    if (ms > ROUND_MS) break;
    count = Math.max(1, Math.min(most, Math.round(ROUND_MS / ms)));
    ({ ms } = await time(job, count));
  }
  return { count, ms };
}

/** The least milliseconds of the processor that one run of a job of ours takes. */
export async function least(job) {
  await outputsOf(job); // a driver compiles with the first
  const { count } = await roundOf(job), rounds = [];
  while (rounds.length < ROUNDS) rounds.push((await time(job, count)).cpu);
  job.free();
  return Math.min(...rounds);
}

/** Times ours and the peers' jobs in turn. Throws where a peer's result is not ours. */
export async function compare({ name, flops, jobs, tolerance }) {
  const want = await outputsOf(jobs[0].job);
  const runs = [];
  let all = 0;
  for (const { peer, job } of jobs) {
    const got = await outputsOf(job);
    const error = distance(want, got);
    if (!(error < tolerance)) throw new Error(`${name}: ${peer} differs from ours by ${error} (relative L2; allowed ${tolerance})`);
    const { count, ms } = await roundOf(job);
    runs.push(count);
    all += count * ms;
  }
  const times = jobs.map(() => []), rounds = Math.max(2, Math.min(ROUNDS, Math.floor(LONG_MS / all)));
  for (let round = 0; round < rounds; round++) for (const [i, { job }] of jobs.entries()) times[i].push(await time(job, runs[i]));
  for (const { job } of jobs) job.free();
  // Ratios within a round: what else the machine does passes over all of them.
  const ratios = (what) => times.slice(1).map((theirs) => median(theirs.map((t, round) => t[what] / times[0][round][what])));
  const [wall, cpu] = [ratios('ms'), ratios('cpu')], least = (what) => times.map((rounds) => Math.min(...rounds.map((t) => t[what])));
  return { name, flops, ms: times.map((rounds) => median(rounds.map((t) => t.ms))), min: least('ms'), cpuMin: least('cpu'), peers: jobs.slice(1).map((j) => j.peer), ratios: wall, cpuRatios: cpu, fastest: Math.min(...wall), fastestCpu: Math.min(...cpu) };
}

async function outputsOf(job) {
  const outputs = job.run();
  await job.wait([outputs]);
  const values = await job.read(outputs);
  job.dispose(outputs);
  return values;
}

export const geometricMean = (values) => Math.exp(values.reduce((s, v) => s + Math.log(v), 0) / values.length);

