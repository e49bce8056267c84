// The initialisation of DDPM: variance scaling, and almost zero where a block ends (Ho et al., 2020, nn.py).
import { normal4, philox4x32, STREAM, unit } from '../philox.ts';

/** How a parameter starts: at a constant, by variance scaling, or standard normal. */
export type Init = { readonly kind: 'constant'; readonly value: number } | { readonly kind: 'variance-scaling'; readonly scale: number } | { readonly kind: 'normal' };

/** Starts a parameter at 0. */
export const zeros: Init = { kind: 'constant', value: 0 };
/** Starts a parameter at 1. */
export const ones: Init = { kind: 'constant', value: 1 };
/** Standard normal: how PyTorch starts an embedding. */
export const normal: Init = { kind: 'normal' };

/** Uniform on +-sqrt(6 scale / (fan_in + fan_out)); a scale of 0 means 1e-10, as in the original. */
export const varianceScaling = (scale = 1): Init => ({ kind: 'variance-scaling', scale: scale || 1e-10 });

/** Values in a file's layout. `index` is the parameter's place in the model: it keeps the draws of parameters apart. */
export function initialise(init: Init, shape: readonly number[], seed: number, index: number): Float32Array<ArrayBuffer> {
  const [fanOut = 1, fanIn = 1, ...kernel] = shape;
  const size = shape.reduce((a, b) => a * b, 1);
  const out = new Float32Array(size);
  if (init.kind === 'constant') return out.fill(init.value);
  const receptive = kernel.reduce((a, b) => a * b, 1);
  const bound = init.kind === 'normal' ? 0 : Math.sqrt((6 * init.scale) / ((fanIn + fanOut) * receptive));
  for (let i = 0; i < size; i += 4) {
    const words = philox4x32([i / 4, index, 0, 0], [seed, STREAM.init]);
    const values = init.kind === 'normal' ? normal4(words) : words.map((word) => (2 * unit(word) - 1) * bound);
    for (let j = 0; j < 4 && i + j < size; j++) out[i + j] = values[j]!;
  }
  return out;
}
