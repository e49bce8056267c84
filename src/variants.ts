// The variants of kernels, and the table of what each class of device takes for a shape unless it was told otherwise (src/gpu/choices.ts; `npm run tune` measures).
import type { DeviceClass } from './gpu/device-class.ts';

export type ConvDirection = 'forward' | 'input' | 'weight';

/**
 * `plain` takes any channel counts, the GEMMs multiples of four, `padded` makes them so for a GEMM. On CPUs `subgroup` spreads values by broadcast, and
 * `subgroup3x3` does so for 3 x 3 convolutions that keep the size; on GPUs, and CPUs without subgroups, `tiled` goes through workgroup memory, and so does `tiled3x3`, which needs more of it than WebGPU's default.
 */
export const CONV_VARIANTS = ['plain', 'subgroup', 'subgroup3x3', 'tiled', 'tiled3x3', 'padded'] as const;
export type ConvVariant = (typeof CONV_VARIANTS)[number];

/** Batched products: through workgroup memory, 32 x 32 a workgroup or, of aligned rows, 64 x 64 for GPUs; or on CPUs by broadcast, which needs aligned rows. */
export const MATMUL_VARIANTS = ['tiled', 'tiled64', 'subgroup'] as const;
export type MatmulVariant = (typeof MATMUL_VARIANTS)[number];

/** With float16 factors, in place of any GEMM: `subgroup_matrix` on tensor cores; `tiled_f16` rounds them on the way into workgroup memory; on CPUs `rounded` makes rounded copies for the float32 kernels. */
export type HalfVariant = 'subgroup_matrix' | 'tiled_f16' | 'rounded';

/** For y, dx and dw. */
type Three = Readonly<Record<ConvDirection, ConvVariant>>;
const all = (variant: ConvVariant): Three => ({ forward: variant, input: variant, weight: variant });

interface Defaults {
  /** Convolutions whose channels are multiples of four: 3 x 3 that keep the size, and all others. Where the device has no room for `tiled3x3` it is `tiled`. */
  readonly conv3x3: Three;
  readonly conv: Three;
  /** Convolutions with other channels, such as those of the images. */
  readonly narrow: Three;
  /** The first that takes the operands. */
  readonly matmul: readonly MatmulVariant[];
  /** Invocations that normalise neighbouring groups: from `many` pixels on `long`, below `short`; and the columns, of four channels where these allow it, that they read side by side. */
  readonly groupNorm: { readonly many: number; readonly short: number; readonly long: number; readonly columns: number };
  /** Invocations that sum, and the columns that they share; from `stages` rows on in two stages. */
  readonly sums: { readonly workgroup: number; readonly columns: number; readonly stages: number };
  /** Invocations that share a row of softmax, and those of a workgroup. */
  readonly softmax: { readonly workgroup: number; readonly lanes: number };
  /** Invocations that fold 256 sums. */
  readonly folding: number;
  /** Whether these fold four at a time where all lengths are multiples of four. */
  readonly fours: boolean;
  /** Invocations that sum 4,096 squares. */
  readonly squares: number;
  /** Bytes of terms that wait for the end of backward. On CPUs few: what lies in their caches is folded sooner than it is fetched again. */
  readonly waiting: number;
}

// On a CPU a workgroup is one subgroup: barriers between coroutines cost more than the loads they would share.
const CPU = { groupNorm: { many: 1, short: 8, long: 8, columns: 1 }, sums: { workgroup: 8, columns: 1, stages: Infinity }, softmax: { workgroup: 64, lanes: 1 }, folding: 64, fours: true, squares: 16, waiting: 2 ** 20 } as const;

/**
 * Where an image has 1 or 3 channels they are padded to 4: on a CPU at a tenth of the plain kernels' cost, on an H100 at a third (128 x 32 x 32, 3 to 128 channels and back: 0.7 ms
 * for 1.8; the weight's gradient 0.7 for 31).
 */
export const DEFAULTS: Readonly<Record<DeviceClass, Defaults>> = {
  gpu: {
    conv3x3: all('tiled3x3'), conv: all('tiled'), narrow: all('padded'), matmul: ['tiled64', 'tiled'],
    groupNorm: { many: 256, short: 64, long: 256, columns: 8 }, sums: { workgroup: 256, columns: 8, stages: 4097 },
    softmax: { workgroup: 256, lanes: 32 }, folding: 256, fours: false, squares: 64, waiting: 3 * 2 ** 25,
  },
  'cpu-subgroups': { conv3x3: all('subgroup3x3'), conv: all('subgroup'), narrow: all('padded'), matmul: ['subgroup', 'tiled'], ...CPU },
  cpu: { conv3x3: all('tiled3x3'), conv: all('tiled'), narrow: { forward: 'plain', input: 'plain', weight: 'padded' }, matmul: ['tiled'], ...CPU },
  swiftshader: { conv3x3: all('plain'), conv: all('plain'), narrow: all('plain'), matmul: ['tiled'], ...CPU },
};

/** Workgroups that keep a device busy: a weight's gradient is split until there are so many. Those of `tiled` and `tiled3x3` are multiples of an H100's 132 multiprocessors. */
export const BUSY: Readonly<Record<Exclude<ConvVariant | HalfVariant, 'padded' | 'rounded'>, number>> = { plain: 4096, subgroup: 6, subgroup3x3: 6, tiled: 1056, tiled_f16: 1056, tiled3x3: 792, subgroup_matrix: 512 };

/** Whether a number, perhaps out of a file, is a size of workgroup whose halves can meet: a power of two, and what every device takes. */
export const isWorkgroup = (size: unknown): size is number => typeof size === 'number' && [1, 2, 4, 8, 16, 32, 64, 128, 256].includes(size);

/** Sizes of workgroup worth measuring. */
export const workgroupsOf = (device: DeviceClass): readonly number[] => (device === 'gpu' ? [32, 64, 128, 256] : [8, 16, 32]);
