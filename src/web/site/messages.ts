// What the page asks of its worker, and what the worker tells: every call and event with its types.
import type { Metrics } from '../../cli/train-loop.ts';
import type { SamplerName } from '../../diffusion/samplers/table.ts';
import type { CheckResult } from './checks.ts';
import type { BenchLine } from './measure.ts';
import type { DataFacts, RunSettings, TrainData } from './run-file.ts';
import type { Preview, Sampling } from './run.ts';

export type { BenchLine, CheckResult };
export type Floats = Float32Array<ArrayBuffer>;

export interface DeviceFacts {
  readonly name: string;
  /** A CPU that plays a GPU. */
  readonly software: boolean;
  readonly features: readonly string[];
  readonly limits: Readonly<Record<string, number>>;
  /** Lanes of a subgroup, least and most; 0 where it is not said. */
  readonly subgroups: readonly [number, number];
}

export interface RunFacts {
  readonly step: number;
  readonly settings: RunSettings;
  readonly lr: number;
  readonly data: DataFacts;
  /** Rows of its table of classes, as in ModelFacts. */
  readonly classes: number;
  readonly losses: readonly number[];
  readonly parameters: number;
  /** Whether the browser keeps it; a later save may fail. */
  readonly kept: boolean;
}

export interface ModelFacts {
  readonly name: string;
  readonly parameters: number;
  readonly shape: readonly [height: number, width: number, channels: number];
  readonly T: number;
  /** Rows of the table of classes, the last of which stands for no class; 0 where the model has none. */
  readonly classes: number;
  /** The names of all but the last row, where they are known. */
  readonly classNames: readonly string[] | null;
}

export interface ModelFiles {
  readonly name: string;
  readonly weights: Uint8Array;
  /** The text of config.json; a run of the page has its own. */
  readonly config: string | null;
  readonly scheduler: string | null;
}

export interface DrawRequest {
  readonly method: SamplerName;
  readonly steps: number;
  readonly eta: number;
  readonly seed: number;
  readonly n: number;
  /** A row from the noise of sample 0 to that of sample 1, n images in all. */
  readonly interpolate: boolean;
  /** Of a model with classes: a class, or `all` for each in turn; null otherwise. */
  readonly label: string | null;
  /** w in uncond + w (cond - uncond); 1 for the class as it is. */
  readonly guidance: number;
  /** An image in [-1, 1], (H, W, C), where to paint it anew (1) or not (0), (H, W), and how often each stretch of the chain is gone over (RePaint). */
  readonly inpaint: { readonly known: Floats; readonly mask: Floats; readonly resamples: number } | null;
}

/** Calls: what is sent and what comes back. */
export interface Calls {
  device: { in: null; out: DeviceFacts };
  /** Places a run: a new one, one from a file, or the last one, which the browser may have kept. */
  start: { in: { data: TrainData; settings: RunSettings } | { file: Uint8Array; name: string; data: TrainData | null } | 'kept'; out: RunFacts };
  train: { in: null; out: { step: number; done: boolean } };
  pause: { in: null; out: null };
  lr: { in: number; out: null };
  /** What a run with classes draws from the next samples on. */
  sampling: { in: Sampling; out: null };
  /** Draws samples now; for a run that is not training. */
  samples: { in: null; out: null };
  save: { in: null; out: { step: number; bytes: Uint8Array } };
  /** The averaged weights in diffusers' layout. */
  export: { in: null; out: { weights: Uint8Array; config: string; scheduler: string } };
  lose: { in: null; out: null };
  model: { in: ModelFiles; out: ModelFacts };
  draw: { in: DrawRequest; out: Floats };
  cancel: { in: null; out: null };
  check: { in: string; out: CheckResult };
  bench: { in: null; out: readonly BenchLine[] };
}

export interface Events {
  metrics: Readonly<Metrics>;
  preview: { step: number; preview: Preview };
  samples: { step: number; samples: Floats };
  saved: { step: number };
  note: string;
  kernels: { done: number; total: number };
  /** x_t and the predicted x_0 after a step of the chain. */
  chain: { done: number; steps: number; t: number; x: Floats; x0: Floats };
}

export type ToWorker = { [K in keyof Calls]: { id: number; call: K; value: Calls[K]['in'] } }[keyof Calls];
export type FromWorker =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly error: { readonly code: string; readonly message: string } }
  | { [K in keyof Events]: { event: K; value: Events[K] } }[keyof Events];
