// How `npm run tune` decides: candidates in turn, so that whatever else the machine does meets all of them, and a change only where it wins clearly.

import { DdpmError } from '../errors.ts';
import type { Choice, Made } from '../gpu/choices.ts';
import type { Engine } from '../gpu/engine.ts';
import type { Plan } from '../gpu/plan.ts';
import { timePlan } from '../gpu/profile.ts';
import type { Slice } from '../gpu/kernel.ts';
import { typedAlone } from '../typed.ts';
import type { Case, Work } from './tune-cases.ts';

export interface Verdict {
  /** What the table says, and what is to be taken. */
  readonly usual: Choice;
  readonly chosen: Choice;
  /** Milliseconds of both, medians, over all sizes that the shape is asked for at. */
  readonly usualMs: number;
  readonly chosenMs: number;
  /** The usual time over the chosen, median of the rounds; 1 where nothing changes. */
  readonly gain: number;
  /** How many were tried. */
  readonly tried: number;
  /** Those that failed or computed something else. */
  readonly wrong: readonly string[];
}

export interface Rules {
  /** Rounds in which the best is held against the usual. */
  readonly rounds: number;
  /** The share of time that must be saved. */
  readonly minGain: number;
  /** Milliseconds of one run of a plan. */
  readonly time?: typeof timePlan;
}

/** Rounds in which all are tried, to find the one that may be better. */
const TRIALS = 3;
/** Runs that are timed as one fill this many milliseconds. */
const FILL_MS = 4;
/** Plain kernels are slow: results are compared on as few images as make so many operations, and at least one. */
const CHECK_WORK = 2e8;
/** The most that a plain kernel is asked for. */
const PLAIN_WORK = { gpu: 1e11, cpu: 2e9 } as const;

export const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
};

/** Relative L2 distance. */
export function distance(got: ArrayLike<number>, want: ArrayLike<number>): number {
  let d = 0, s = 0;
  for (let i = 0; i < want.length; i++) {
    d += (got[i]! - want[i]!) ** 2;
    s += want[i]! ** 2;
  }
  return Math.sqrt(d / (s || 1));
}

/** A running sum of k random products is off by about sqrt(k) 2^-24 of its size; twice that, since the other sum is off as well. */
export const tolerance = (terms: number): number => Math.sqrt(terms) * 2 ** -23 + 2 ** -21;

export const sayChoice = (choice: Choice): string => Object.entries(choice).map(([name, value]) => (name === 'variant' ? value : `${name} ${value}`)).join(', ');

interface Candidate {
  readonly choice: Choice;
  /** One for each size. */
  readonly plans: readonly Plan<Slice>[];
  /** Of each round since the last reset, the milliseconds of one run at each size. */
  readonly times: number[][];
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
const same = (a: Choice, b: Choice): boolean => JSON.stringify(a) === JSON.stringify(b);

/** Measures the candidates of a shape against what the engine's table takes, and has the engine take the better one from now on. */
export async function decide(engine: Engine, made: Made, item: Case, { rounds, minGain, time = timePlan }: Rules): Promise<Verdict> {
  const { op, shape, choice: usual } = made, sizes = [...made.at.values()];
  const scope = engine.openScope(false);
  try {
    const { right, wrong } = await check(engine, made, item);
    const works = sizes.map((at) => item.make(at)), once = await capture(engine, made, usual, works), runs: number[] = [];
    for (const plan of once) {
      await time(engine, plan);
      runs.push(Math.max(1, Math.min(100, Math.round(FILL_MS / Math.max(1e-3, await time(engine, plan))))));
    }
    await destroy(once);
    let left: Candidate[] = [];
    for (const choice of right) left.push({ choice, plans: await capture(engine, made, choice, works, runs), times: [] });
    const usually = left[0]!;

    const round = async (): Promise<void> => {
      for (const { plans, times } of left) {
        const each: number[] = [];
        for (const [i, plan] of plans.entries()) each.push((await time(engine, plan)) / runs[i]!);
        times.push(each);
      }
    };
    const keep = async (test: (candidate: Candidate) => boolean): Promise<void> => {
      for (const candidate of left) if (!test(candidate)) await destroy(candidate.plans);
      left = left.filter(test);
      for (const { times } of left) times.length = 0;
    };
    const verdict = async (chosen: Candidate, gain: number): Promise<Verdict> => {
      const ms = ({ times }: Candidate): number => median(times.map(sum)), [usualMs, chosenMs] = [ms(usually), ms(chosen)];
      await keep(() => false);
      engine.choices.force(op, shape, chosen.choice);
      return { usual, chosen: chosen.choice, usualMs, chosenMs, gain, tried: right.length, wrong };
    };
    /** By round, the time over the usual one; sizes count alike, however much longer one takes. */
    const ratios = ({ times }: Candidate): number[] => times.map((each, i) => sum(each.map((ms, k) => ms / usually.times[i]![k]!)) / sizes.length);
    const least = ({ times }: Candidate): number => sum(sizes.map((_, k) => Math.min(...times.map((each) => each[k]!))));

    // Two rounds to warm up and to leave out what is hopeless, then some to find the one that may be better.
    for (let i = 0; i < 2; i++) await round();
    const most = 2 * least(usually);
    await keep((candidate) => candidate === usually || least(candidate) < most);
    for (let i = 0; i < TRIALS; i++) await round();
    const best = left.reduce((a, b) => (median(ratios(b)) < median(ratios(a)) ? b : a));
    if (best === usually || median(ratios(best)) > 1 - minGain / 2) return await verdict(usually, 1);
    // The best of many looks better than it is: times of its own decide.
    await keep((candidate) => candidate === usually || candidate === best);
    for (let i = 0; i < rounds; i++) await round();
    const found = ratios(best), faster = found.filter((ratio) => ratio < 1).length;
    const wins = median(found) <= 1 - minGain && faster >= 0.75 * rounds && least(best) <= (1 - minGain / 2) * least(usually);
    return await verdict(wins ? best : usually, wins ? 1 / median(found) : 1);
  } finally {
    engine.closeScope(scope);
  }
}

/** Plans of the work at each size under a choice, of one run or of so many in a row. */
async function capture(engine: Engine, { op, shape }: Made, choice: Choice, works: readonly Work[], runs?: readonly number[]): Promise<Plan<Slice>[]> {
  engine.choices.force(op, shape, choice);
  const plans = works.map((work, i) => engine.capture(() => {
    for (let run = 1; run < (runs?.[i] ?? 1); run++) engine.scope(() => void work());
    return work();
  }));
  for (const plan of plans) await plan.compile();
  return plans;
}

async function destroy(plans: readonly Plan<Slice>[]): Promise<void> {
  for (const plan of plans) await plan.destroy();
}

/** The candidates that compute what they should, the usual one first; the others with what is wrong. */
async function check(engine: Engine, made: Made, item: Case): Promise<{ right: Choice[]; wrong: string[] }> {
  const { choice: usual } = made, [first = {}] = [...made.at.values()];
  // As few images, or products that share an image, as the work allows.
  const share = 'batch' in first ? made.shape['inner']! : 1, name = 'batch' in first ? 'batch' : 'N';
  const fewest = { ...first, ...(name in first && { [name]: share }) }, count = Math.max(1, Math.floor(CHECK_WORK / item.work(fewest)));
  const at = name in first ? { ...first, [name]: Math.min(first[name]!, share * count) } : first;
  // A sum over the whole batch cannot be cut: where the plain kernel would take minutes, the table's choice stands for it, which the tests hold against the plain one.
  const plain = item.plain !== null && item.work(at) < PLAIN_WORK[engine.deviceClass === 'gpu' ? 'gpu' : 'cpu'] ? item.plain : usual;
  const scope = engine.openScope(false), work = item.make(at);
  const compute = async (choice: Choice): Promise<Float32Array> => {
    const [plan] = await capture(engine, made, choice, [work]);
    plan!.run();
    const result = await engine.read(plan!.result);
    await destroy([plan!]);
    return result;
  };
  try {
    const want = await compute(plain), right: Choice[] = [], wrong: string[] = [];
    for (const choice of [usual, ...item.candidates.filter((candidate) => !same(candidate, usual))]) {
      let why: string | null = null;
      try {
        const error = same(choice, plain) ? 0 : distance(await compute(choice), want);
        if (!(error < tolerance(item.terms))) why = `is off by ${error.toExponential(1)}`;
      } catch (error) {
        engine.check(); // after an error of the device nothing goes on
        if (!(error instanceof DdpmError)) throw error;
        why = `does not run here (${error.message.split('\n')[0]})`;
      }
      if (why === null) right.push(choice);
      else wrong.push(`${sayChoice(choice)} ${why}`);
    }
    if (!right.includes(usual)) throw new DdpmError('E-KERNEL', `${made.op} ${item.label}: ${wrong[0]}. This device or its driver computes something else than it should. See: ${typedAlone('doctor')}`);
    return { right, wrong };
  } finally {
    engine.closeScope(scope);
  }
}
