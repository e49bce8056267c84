// What a check is: arguments for one kernel, and what its float64 twin makes of them.
import type { Tick } from '../../../clock.ts';
import type { DeviceClass } from '../../../gpu/device-class.ts';
import type { Grid, Kernel } from '../../../gpu/kernel.ts';
import type * as k from '../../../gpu/kernels.gen.ts';
import { normal4, philox4x32 } from '../../../philox.ts';
import type { Draw } from '../../../../test/ref/random.ts';

export type Floats = ArrayLike<number>;
export type Name = keyof typeof k;

/** What a binding should hold afterwards, and how far each value may be off; 0 is exact. `pick` takes the values that count out of what was read. */
export interface Wanted {
  readonly want: Floats;
  readonly off: Floats | 0;
  readonly pick?: (got: Float32Array | Uint32Array) => Floats;
}

export interface Case<K extends Kernel = Kernel> {
  readonly shape: string;
  readonly grid: Grid;
  /** Uploaded. A binding that is in neither list is one that the kernel does not touch here; `clock` says TICK. */
  readonly inputs: { readonly [B in keyof K['bindings']]?: Float32Array | Uint32Array };
  /** Every field of dims, and overrides. */
  readonly numbers: { readonly [N in keyof K['dims']]: number } & { readonly [N in keyof K['overrides'] | keyof K['optional']]?: number };
  readonly outputs: { readonly [B in keyof K['bindings']]?: Wanted };
  readonly clock?: Tick;
}

export interface Check<K extends Kernel = Kernel> {
  /** File and name of the twin in test/ref. */
  readonly twin: readonly [file: string, name: string];
  /** `stored` is what storage makes of activations: with float16 it rounds them. `on`: the class of device whose workgroups to take, by default a CPU's. */
  readonly make: (stored?: Stored, on?: DeviceClass) => Case<K>;
}

/** What storage makes of numbers. */
export type Stored = (v: Float32Array) => Float32Array;
export const whole: Stored = (v) => v;

/** A part of the table: the check of a kernel by the kernel's name. */
export type Checks = { readonly [N in Name]?: Check<(typeof k)[N]> };

export const TICK = { seed: 5, step: 9, first: 4 };
/** What the device draws for N samples with that clock. */
export const draw = (stream: number, N: number, count: number, step = TICK.step): Draw => ({ seed: TICK.seed, stream, step, samples: Array.from({ length: N }, (_, n) => TICK.first + n), count });

/** Standard normals of a counter: the same numbers on every device. */
export function values(count: number, stream: number): Float32Array {
  const out = new Float32Array(count);
  for (let i = 0; i < count; i += 4) out.set(normal4(philox4x32([i, 0, 0, 7], [11, stream])).slice(0, Math.min(4, count - i)), i);
  return out;
}

/** Integers below `high`, all over the place. */
export const integers = (count: number, high: number): Uint32Array => Uint32Array.from({ length: count }, (_, i) => (i * 37 + 11) % high);
