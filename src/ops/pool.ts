// What networks that only look at images need: ReLU, pooling, bilinear resizing, channels side by side. Nothing here has a gradient.
import { pointwise, threads } from '../autograd.ts';
import { DdpmError } from '../errors.ts';
import * as k from '../gpu/kernels.gen.ts';
import { Tensor } from '../tensor.ts';
import { Columns } from './columns.ts';

/** max(x, 0), any shape. */
export function relu(x: Tensor): Tensor {
  const y = Tensor.empty(x.engine, x.shape);
  x.engine.run(k.relu_forward, pointwise(x.size), { x: x.slice, y: y.slice });
  return y;
}

export interface PoolOptions {
  /** Side of the window. */
  readonly kernel: number;
  readonly stride?: number;
  /** At every side, less than the kernel; it counts as nothing: neither in a maximum nor in a mean. */
  readonly padding?: number;
}

function pool(x: Tensor, kernels: readonly [typeof k.max_pool | typeof k.average_pool, typeof k.max_pool_vec4 | typeof k.average_pool_vec4], { kernel: K, stride = 1, padding: pad = 0 }: PoolOptions): Tensor {
  const { engine } = x;
  const [N, H, W, C] = x.shape as [number, number, number, number];
  const OH = Math.floor((H + 2 * pad - K) / stride) + 1, OW = Math.floor((W + 2 * pad - K) / stride) + 1;
  if (OH < 1 || OW < 1 || pad >= K) throw new DdpmError('E-SHAPE', `pooling by ${K} x ${K} with a padding of ${pad} does not fit images of ${H} x ${W}.`);
  const y = Tensor.empty(engine, [N, OH, OW, C]), args = { x: x.slice, y: y.slice, N, H, W, C, OH, OW, K, stride, pad };
  if (C % 4) engine.run(kernels[0], threads(y.size), args);
  else engine.run(kernels[1], threads(y.size / 4), args);
  return y;
}

/** (N, H, W, C) -> (N, OH, OW, C): the largest value of each window. */
export const maxPool = (x: Tensor, options: PoolOptions): Tensor => pool(x, [k.max_pool, k.max_pool_vec4], options);

/** (N, H, W, C) -> (N, OH, OW, C): the mean of each window, of what lies inside the image (PyTorch's count_include_pad = False). */
export const averagePool = (x: Tensor, options: PoolOptions): Tensor => pool(x, [k.average_pool, k.average_pool_vec4], options);

/** (N, H, W, C) -> (N, OH, OW, C), bilinear, as PyTorch's interpolate with align_corners = False. */
export function resizeBilinear(x: Tensor, OH: number, OW: number): Tensor {
  const [N, H, W, C] = x.shape as [number, number, number, number];
  const y = Tensor.empty(x.engine, [N, OH, OW, C]);
  x.engine.run(k.resize_bilinear, threads(y.size), { x: x.slice, y: y.slice, N, H, W, C, OH, OW });
  return y;
}

/** Tensors (N, H, W, C_i) -> (N, H, W, sum of C_i). */
export function concatenate(parts: readonly Tensor[]): Tensor {
  const { engine, shape } = parts[0]!;
  const pixels = shape.slice(0, -1), rows = pixels.reduce((a, b) => a * b, 1), stride = parts.reduce((sum, part) => sum + part.shape.at(-1)!, 0);
  if (parts.some((part) => part.shape.slice(0, -1).join() !== pixels.join())) throw new DdpmError('E-SHAPE', `concatenate: ${parts.map((part) => `(${part.shape.join(', ')})`).join(', ')} differ in more than their channels.`);
  const y = Tensor.empty(engine, [...pixels, stride]), columns = new Columns(engine);
  let first = 0;
  for (const part of parts) {
    const width = part.shape.at(-1)!;
    columns.cut(part.slice, y.slice, rows, width, width, { stride, first });
    first += width;
  }
  return y;
}
