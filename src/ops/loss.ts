// Mean squared error.
import { pointwise, record, threads } from '../autograd.ts';
import * as k from '../gpu/kernels.gen.ts';
import { Tensor } from '../tensor.ts';

/** mean((pred - goal)^2) over everything, shape (1); `each` gets the mean of every image, shape (N). No gradient flows to goal. */
export function mse(pred: Tensor, goal: Tensor, each?: Tensor): Tensor {
  const { engine } = pred;
  const N = pred.shape[0]!;
  const images = each ?? Tensor.empty(engine, [N]);
  const loss = Tensor.empty(engine, [1]);
  engine.run(k.mse_forward, threads(N), { pred: pred.slice, goal: goal.slice, each: images.slice, N, size: pred.size / N });
  engine.run(k.mean, [1], { x: images.slice, y: loss.slice, N });
  if (!each) images.free();
  return record(loss, [pred], (dloss, [dpred]) => {
    if (dpred) engine.run(k.mse_backward, pointwise(pred.size), { pred: pred.slice, goal: goal.slice, dloss, dpred: dpred.slice, size: pred.size, accumulate: dpred.accumulate });
  });
}
