// npm run bench -- peers: tfjs and jax-js at the same shapes on the same adapter, in turn with ours; every result is checked against ours before the clock runs.
import { record, Tape } from '../src/autograd.ts';
import { PRESETS, type PresetName } from '../src/cli/presets.ts';
import { Engine } from '../src/gpu/engine.ts';
import { paperDevice } from '../src/gpu/paper.ts';
import { attention } from '../src/ops/attention.ts';
import type { ConvDims } from '../src/ops/conv2d_choice.ts';
import { backwardInput, backwardWeight, forward } from '../src/ops/conv2d_kernels.ts';
import type { ConvDirection } from '../src/variants.ts';
import { groupNorm } from '../src/ops/group_norm.ts';
import { nhwcToNchw, sizeOf, Tensor } from '../src/tensor.ts';
import type { OpenedEngine } from '../src/node.ts';
import { readAndWrite } from './floor.ts';
import { noise } from './harness.ts';
import { imageOf, place, shapesIn, trainingOf } from './model.ts';

interface Job {
  run(): unknown;
  wait(outputs: unknown): Promise<void>;
  read(outputs: unknown): Promise<Float32Array[]>;
  dispose(outputs: unknown): void;
  free(): void;
}
type Dims = Readonly<Record<string, number>>;
type Data = Readonly<Record<string, Float32Array>>;
interface Peer {
  readonly name: string;
  readonly version: string;
  conv(dims: Dims, direction: ConvDirection, data: Data): Job;
  groupNorm(dims: Dims, backward: boolean, data: Data): Job;
  attention(dims: Dims, backward: boolean, data: Data): Job;
  readonly jax?: object;
}
export interface Comparison {
  readonly name: string;
  readonly flops: number;
  /** Median and smallest milliseconds: ours, then the peers'. */
  readonly ms: readonly number[];
  readonly min: readonly number[];
  readonly peers: readonly string[];
  /** The peers' time over ours, within rounds. */
  readonly ratios: readonly number[];
  readonly fastest: number;
  /** The same by the processor's time on all cores: its least milliseconds, and ratios. */
  readonly cpuMin: readonly number[];
  readonly cpuRatios: readonly number[];
  readonly fastestCpu: number;
  /** Of a 1 x 1 convolution that is less than five times as fast: the ratio of a kernel that only reads the input and writes the output. */
  readonly most?: number;
}
interface Runner {
  openPeers(engine: Engine): Promise<Peer[]>;
  least(job: Job): Promise<number>;
  compare(item: { name: string; flops: number; jobs: { peer: string; job: Job }[]; tolerance: number }): Promise<Comparison>;
  geometricMean(values: readonly number[]): number;
}

/** Ours: what `record` launches on tensors that live on, as one captured plan. */
function planned(engine: Engine, inputs: Tensor[], record: () => Tensor[]): Job {
  const plan = engine.capture(record);
  let runs = 0;
  return {
    // As within a training step: many dispatches a submit. The others batch theirs as they choose.
    run: () => void runs++,
    wait: () => {
      const encoder = engine.device.createCommandEncoder();
      for (; runs > 0; runs--) plan.encode(encoder);
      engine.submit(encoder);
      return engine.finished();
    },
    read: () => Promise.all(plan.result.map((t) => t.read())),
    dispose: () => {},
    free: () => {
      void plan.destroy();
      for (const t of inputs) t.free();
    },
  };
}

const put = (engine: Engine, shape: readonly number[], data: Float32Array) => Tensor.from(engine, shape, data);

function convJob(engine: Engine, dims: ConvDims, direction: ConvDirection, data: Data): Job {
  const { N, H, W, C, OH, OW, O, KH: K } = dims;
  const x = put(engine, [N, H, W, C], data['x']!), w = put(engine, [K, K, C, O], data['w']!), dy = put(engine, [N, OH, OW, O], data['dy']!);
  return planned(engine, [x, w, dy], () => {
    const y = Tensor.empty(engine, { forward: dy, input: x, weight: w }[direction].shape);
    if (direction === 'forward') forward(engine, { ...dims, x: x.slice, w: w.slice, bias: w.slice, per_image: w.slice, residual: w.slice, y: y.slice });
    else if (direction === 'input') backwardInput(engine, dims, dy.slice, w.slice, { slice: y.slice, accumulate: 0 });
    else backwardWeight(engine, dims, x.slice, dy.slice, { slice: y.slice, accumulate: 0 });
    return [y];
  });
}

/** The loads and stores of a 1 x 1 convolution from so many channels to so many. */
function floorJob(engine: Engine, pixels: number, [from, to]: readonly [number, number]): Job {
  const x = put(engine, [pixels, from], noise(pixels * from));
  return planned(engine, [x], () => {
    const y = Tensor.empty(engine, [pixels, to]);
    readAndWrite(engine, x, y, pixels);
    return [y];
  });
}

/** y = op(inputs), or with dy the gradients of sum (y dy), whose value nobody computes. */
function opJob(engine: Engine, inputs: Tensor[], dy: Tensor | null, op: () => Tensor): Job {
  if (!dy) return planned(engine, inputs, () => [engine.scope(op)]);
  for (const t of inputs) t.requiresGrad = true;
  return planned(engine, [...inputs, dy], () => {
    const tape = new Tape(engine);
    tape.backward(tape.record(() => record(Tensor.empty(engine, [1]), [op()], (_, [to]) => engine.copy(dy.slice, to!.slice))));
    return inputs.map((t) => tape.gradient(t));
  });
}

/** How many times as fast as the faster library a kernel should be. */
const AIM = 5;
/** Of one convolution, and of all that a training step runs forward. */
const MAX_FLOPS = 3e8, MAX_STEP_FLOPS = 2e10;
const flopsOf = ({ OH, OW, O, C, KH, KW }: ConvDims) => 2 * OH * OW * O * C * KH * KW;

/** The largest batch up to the one asked for that the slowest library here still gets through. */
function within(most: number, batch: number, flops: number): number {
  let N = batch;
  while (N > 1 && N * flops > most) N = Math.floor(N / 2);
  return N;
}

/** What a preset's training step convolves on the way forward, of one image, and how often. */
function convolutions(preset: PresetName): { readonly dims: ConvDims; readonly calls: number }[] {
  const paper = new Engine(paperDevice());
  return [...shapesIn(paper, () => trainingOf(paper, preset, 1))].flatMap(([kernel, shapes]) =>
    /^conv2d_(forward|(3x3_)?(tiled|subgroup))$/.test(kernel) ? shapes.filter(({ args }) => !args['TRANSPOSED']).map(({ args, calls }) => ({ dims: args as unknown as ConvDims, calls })) : []);
}

/** Images of a training step that jax-js still gets through, of those asked for. */
export const stepBatch = (preset: PresetName, batch: number): number => within(MAX_STEP_FLOPS, batch, convolutions(preset).reduce((sum, { dims, calls }) => sum + calls * flopsOf(dims), 0));

/** The distinct ones with at least 16 channels on both sides. */
export function convShapes(preset: PresetName, batch: number): ConvDims[] {
  const found = new Map<string, ConvDims>();
  for (const { dims: s } of convolutions(preset))
    if (s.C >= 16 && s.O >= 16 && s.H * s.W > 1)
      found.set([s.H, s.C, s.O, s.KH, s.stride].join(), { ...s, N: within(MAX_FLOPS, batch, flopsOf(s)), WC: s.C, C0: 0, has_bias: 0, has_per_image: 0, has_residual: 0, accumulate: 0, splits: 1 });
  return [...found.values()].sort((a, b) => b.H - a.H || a.C - b.C || a.O - b.O);
}

const dataOf = (sizes: Record<string, readonly number[]>): Data => Object.fromEntries(Object.entries(sizes).map(([name, shape], i) => [name, noise(sizeOf(shape) + i).subarray(i)]));

function* cases(engine: Engine, peers: readonly Peer[], preset: PresetName, batch: number) {
  const jobsOf = (ours: Job, theirs: (peer: Peer) => Job) => [{ peer: 'ours', job: ours }, ...peers.map((peer) => ({ peer: peer.name, job: theirs(peer) }))];
  for (const dims of convShapes(preset, batch)) {
    const { N, H, W, C, OH, OW, O, KH: K, stride } = dims; // a U-Net's are square
    const data = dataOf({ x: [N, H, W, C], w: [K, K, C, O], dy: [N, OH, OW, O] });
    for (const direction of ['forward', 'input', 'weight'] as const) {
      const terms = { forward: K * K * C, input: K * K * O, weight: N * OH * OW }[direction];
      yield {
        name: `conv2d ${direction}/${N}x${H}x${W} ${C}->${O} k${K}${stride > 1 ? ` s${stride}` : ''}`, flops: 2 * N * OH * OW * O * K * K * C,
        // Two orders of summing k random products differ by about sqrt(k) 2^-24 of the sum each, and twice that where a convolution filters.
        tolerance: Math.sqrt(terms) * 2 ** -22 + 2 ** -21, jobs: () => jobsOf(convJob(engine, dims, direction, data), (peer) => peer.conv({ ...dims, K }, direction, data)),
        ...(K === 1 && stride === 1 && direction !== 'weight' && { floor: () => floorJob(engine, N * H * W, direction === 'forward' ? [C, O] : [O, C]) }),
      };
    }
  }
  const widths = [...new Set(PRESETS[preset].model.block_out_channels)], G = PRESETS[preset].model.norm_num_groups;
  const { size } = imageOf(preset), N = 4;
  for (const [level, C] of widths.entries())
    for (const backward of [false, true]) {
      const P = (size >> level) ** 2, eps = 1e-6, shape = [N, P, C];
      const data = dataOf({ x: shape, gamma: [C], beta: [C], dy: shape });
      const ours = () => {
        const [x, gamma, beta, dy] = [put(engine, [N, P, 1, C], data['x']!), put(engine, [C], data['gamma']!), put(engine, [C], data['beta']!), put(engine, [N, P, 1, C], data['dy']!)];
        return opJob(engine, [x, gamma, beta], backward ? dy : null, () => groupNorm(x, gamma, beta, { groups: G, eps, silu: true }));
      };
      yield {
        name: `group_norm_silu ${backward ? 'gradients' : 'forward'}/${N}x${P} ${C} g${G}`, flops: 15 * N * P * C,
        tolerance: Math.sqrt(N * P) * 2 ** -21, jobs: () => jobsOf(ours(), (peer) => peer.groupNorm({ N, P, C, G, eps }, backward, data)),
      };
    }
  for (const [T, C] of [[196, 128], [256, 256], [49, 128], [16, 256]] as const)
    for (const backward of [false, true]) {
      const shape = [N, T, C], data = dataOf({ q: shape, k: shape, v: shape, dy: shape });
      const ours = () => {
        const [q, k, v, dy] = ['q', 'k', 'v', 'dy'].map((name) => put(engine, shape, data[name]!)) as [Tensor, Tensor, Tensor, Tensor];
        return opJob(engine, [q, k, v], backward ? dy : null, () => attention(q, k, v, 1));
      };
      yield {
        name: `attention ${backward ? 'gradients' : 'forward'}/${N}x${T} ${C}`, flops: (backward ? 3 : 1) * 4 * N * T * T * C,
        tolerance: Math.sqrt(T + C) * 2 ** -20, jobs: () => jobsOf(ours(), (peer) => peer.attention({ N, T, C }, backward, data)),
      };
    }
}

/** Prints a row for each shape and each library; returns them for the record. */
export async function peers({ engine }: OpenedEngine, preset: PresetName, filters: readonly string[], batch: number): Promise<Comparison[]> {
  const path = './peers/run.mjs'; // not type-checked: its packages are installed only by who wants them
  const { openPeers, compare, geometricMean, least } = (await import(path)) as Runner;
  const others = await openPeers(engine);
  console.log(`beside ${others.map((p) => `${p.name} ${p.version}`).join(' and ')}; milliseconds are medians, ratios are medians of what was run in turn\n`);
  const rows: Comparison[] = [];
  const wanted = (name: string) => filters.every((f) => name.includes(f));
  const report = (row: Comparison) => {
    rows.push(row);
    const theirs = row.peers.map((peer, i) => `${peer} ${row.ms[i + 1]!.toFixed(2).padStart(9)} ms = ${row.ratios[i]!.toFixed(1).padStart(5)}x, ${row.cpuRatios[i]!.toFixed(1).padStart(5)}x by CPU time`);
    console.log(`${row.name.padEnd(46)} ours ${row.ms[0]!.toFixed(3).padStart(8)} ms ${row.flops ? `${(row.flops / row.ms[0]! / 1e6).toFixed(1).padStart(6)} GFLOP/s` : ''.padStart(14)}   ${theirs.join('   ')}` +
      `${row.most ? `   loads and stores alone ${row.most.toFixed(1)}x` : ''}`);
  };
  for (const { jobs, floor, ...item } of cases(engine, others, preset, batch)) {
    if (!wanted(item.name)) continue;
    const row = await compare({ ...item, jobs: jobs() });
    report(floor && row.fastestCpu < AIM ? { ...row, most: Math.min(...row.cpuMin.slice(1)) / (await least(floor())) } : row);
  }
  if (wanted('training step')) report(await trainingStep(engine, others.find((p) => p.jax)!, preset, stepBatch(preset, batch), compare));
  for (const family of ['conv2d forward', 'conv2d input', 'conv2d weight', 'conv2d', 'group_norm_silu', 'attention', 'training step']) {
    const of = rows.filter((r) => r.name.startsWith(family));
    if (of.length === 0) continue;
    const ratios = (what: 'fastest' | 'fastestCpu') => `geometric mean ${geometricMean(of.map((r) => r[what])).toFixed(1)}x, least ${Math.min(...of.map((r) => r[what])).toFixed(1)}x, ${of.filter((r) => r[what] >= AIM).length} of ${of.length} at ${AIM}x`;
    const never = of.filter(({ most = Infinity }) => most < AIM).length;
    const rates = of.map((r) => r.flops / r.min[0]! / 1e6);
    console.log(`${family.padEnd(16)} against the faster of the two: ${ratios('fastest')}; by CPU time ${ratios('fastestCpu')}${never ? `, ${never} that loads and stores alone keep below` : ''}` +
      `${family.startsWith('conv') ? `; ours least ${Math.min(...rates).toFixed(0)} GFLOP/s, ${rates.filter((r) => r >= 25).length} at 25` : ''}`);
  }
  return rows;
}

/** A whole training step against jax-js: loss and gradients of the same weights, images, t and noise are compared first. */
async function trainingStep(engine: Engine, peer: Peer, preset: PresetName, batch: number, compare: Runner['compare']): Promise<Comparison> {
  const path = './peers/unet_jax.mjs';
  const { jaxTraining } = (await import(path)) as { jaxTraining: (...args: unknown[]) => { lossAndGradients(): unknown[]; step(): unknown } };
  const { unet, parameters, diffusion, size, channels } = place(engine, preset);
  const shape = [batch, size, size, channels] as const, nchw = [batch, channels, size, size];
  const x0 = noise(sizeOf(shape)), eps = noise(sizeOf(shape) + 1).subarray(1);
  const t = Uint32Array.from({ length: batch }, (_, i) => Math.floor(((i + 0.5) / batch) * diffusion.T));
  const first = unet.config.block_out_channels[0]!, half = first / 2;
  const embedding = new Float32Array(batch * first);
  t.forEach((at, n) => {
    for (let i = 0; i < half; i++) {
      const f = Math.exp((-Math.log(10000) * i) / (half - unet.config.freq_shift));
      embedding[n * first + i] = Math.sin(at * f);
      embedding[n * first + half + i] = Math.cos(at * f);
    }
  });
  const { schedule } = diffusion;
  const tensors = await parameters.read('values');
  const { lr, ema, gradClip } = PRESETS[preset];
  const column = (table: Float64Array) => Float32Array.from(t, (at) => table[at]!);
  const theirs = jaxTraining(peer.jax, unet.config, tensors, {
    shape: nchw, x0: nhwcToNchw(x0, shape), noise: nhwcToNchw(eps, shape), embedding, signal: column(schedule.sqrtAlphasCumprod), sigma: column(schedule.sqrtOneMinusAlphasCumprod),
  }, { lr, ema, gradClip });
  // The check, once; then both run whole steps.
  const inputs = [put(engine, shape, x0), put(engine, shape, eps)] as const, steps = Tensor.from(engine, [batch], t);
  const plan = engine.capture(() => {
    const tape = new Tape(engine);
    const loss = tape.record(() => diffusion.trainLosses((x, at) => unet.forward(x, at), inputs[0], steps, { noise: inputs[1] }));
    tape.backward(loss);
    return loss;
  });
  plan.run();
  const names = [...tensors.keys()], gradients = await parameters.read('grads');
  const want = [await plan.result.read(), ...names.map((n) => gradients.get(n)!.data)];
  type Array_ = { ref: Array_; data(): Promise<Float32Array>; dispose(): void };
  const [loss, grads] = theirs.lossAndGradients() as [Array_, Record<string, Array_>];
  const got = await Promise.all([loss, ...names.map((n) => grads[n]!)].map(async (a) => new Float32Array(await engine.settle(a.data()))));
  const { training } = trainingOf(engine, preset, batch);
  await training.plan.compile();
  let step = 0;
  const { jax } = peer as unknown as { jax: { blockUntilReady(tree: unknown): Promise<unknown> } };
  return compare({
    // Sums over the whole network: float32 keeps five digits of them.
    name: `training step/${preset} batch ${batch}`, flops: 0, tolerance: 1e-4,
    jobs: [
      { peer: 'ours', job: { run: () => training.run(step++), wait: () => engine.finished(), read: async () => want, dispose: () => {}, free: () => {} } },
      { peer: peer.name, job: { run: () => theirs.step(), wait: (outputs) => engine.settle(jax.blockUntilReady(outputs)).then(() => {}), read: async () => got, dispose: () => {}, free: () => {} } },
    ],
  });
}
