// Several linear layers of one input as one product: their weights are laid side by side for it, and its result is cut into theirs.
import { type Destination, record } from '../autograd.ts';
import { DdpmError } from '../errors.ts';
import { fold, move, termsRoom } from '../folds.ts';
import type { Slice } from '../gpu/kernel.ts';
import { Tensor } from '../tensor.ts';
import type { ConvDims } from './conv2d_choice.ts';
import { backwardInput, backwardWeight, forward } from './conv2d_kernels.ts';

export interface LinearWeights {
  /** (1, 1, C, O). */
  readonly w: Tensor;
  /** (O). */
  readonly bias: Tensor;
}

const up64 = (count: number) => 64 * Math.ceil(count / 64);
const range = ({ buffer, offset }: Slice, first: number, count: number): Slice => ({ buffer, offset: offset + 4 * first, bytes: 4 * count });

/** x (..., C) -> for each layer x W + b, (..., O). */
export function linears(x: Tensor, layers: readonly LinearWeights[]): Tensor[] {
  const { engine } = x, C = x.shape.at(-1)!, rows = x.size / C;
  for (const { w, bias } of layers)
    if (w.shape.length !== 4 || w.shape[2] !== C || w.size !== C * bias.size)
      throw new DdpmError('E-SHAPE', `linears: the weight (${w.shape.join(', ')}) and the bias (${bias.shape.join(', ')}) do not fit the input (${x.shape.join(', ')}).`);
  const widths = layers.map(({ bias }) => bias.size), O = widths.reduce((a, b) => a + b, 0);
  const columns: number[] = [], starts: number[] = [];
  let column = 0, start = 0;
  for (const width of widths) {
    columns.push(column);
    starts.push(start);
    column += width;
    start += up64(rows * width);
  }
  const dims: ConvDims = {
    N: 1, H: rows, W: 1, C, OH: rows, OW: 1, O, KH: 1, KW: 1, stride: 1, pad_top: 0, pad_left: 0, WC: C, C0: 0, has_bias: 1, has_per_image: 0, has_residual: 0, accumulate: 0, splits: 1,
  };
  // (C, O) of weights, and behind it (O) of biases.
  const behind = up64(C * O), joined = engine.allocate(4 * (behind + O)), weights = range(joined, 0, C * O);
  move(engine, joined, layers.flatMap(({ w, bias }, j) => [
    { from: w.slice, size: w.size, row: widths[j]!, stride: O, to: columns[j]! },
    { from: bias.slice, size: bias.size, to: behind + columns[j]! },
  ]));
  const side = engine.allocate(4 * rows * O), y = Tensor.empty(engine, [start]);
  forward(engine, { ...dims, x: x.slice, w: weights, bias: range(joined, behind, O), per_image: x.slice, residual: x.slice, y: side });
  move(engine, y.slice, widths.map((width, j) => ({ from: side, first: columns[j]!, size: rows * width, row: width, pitch: O, stride: width, to: starts[j]! })));
  engine.free(side);
  const parts = widths.map((width, j) => new Tensor(engine, [...x.shape.slice(0, -1), width], range(y.slice, starts[j]!, rows * width)));

  record(
    y,
    [x, ...layers.map(({ w }) => w), ...layers.map(({ bias }) => bias)],
    (dy, [dx, ...rest]) => {
      const dside = engine.allocate(4 * rows * O);
      move(engine, dside, widths.map((width, j) => ({ from: dy, first: starts[j]!, size: rows * width, row: width, stride: O, to: columns[j]! })));
      if (dx) backwardInput(engine, dims, dside, weights, dx);
      const wanted = rest.filter((to): to is Destination => to !== null);
      if (wanted.length) {
        const terms = termsRoom(engine, 4 * (behind + O), wanted.every(({ late }) => late));
        backwardWeight(engine, dims, x.slice, dside, { slice: range(terms, 0, C * O), accumulate: 0 }, { slice: range(terms, behind, O), accumulate: 0 });
        const sum = (to: Destination | null, from: number, size: number, row: number) => (to ? [{ y: to.slice, accumulate: to.accumulate, from, terms: 1, step: 0, size, row, pitch: O }] : []);
        fold(engine, terms, widths.flatMap((width, j) => [...sum(rest[j]!, columns[j]!, C * width, width), ...sum(rest[widths.length + j]!, behind + columns[j]!, width, width)]));
      }
      engine.free(dside);
    },
    { saved: [joined], parts },
  );
  return parts;
}
