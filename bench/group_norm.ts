// Group norm with SiLU and attention, forward and backward as the tape runs them, at the shapes of a preset.
import { Tape } from '../src/autograd.ts';
import type { Engine } from '../src/gpu/engine.ts';
import { attention } from '../src/ops/attention.ts';
import { groupNorm } from '../src/ops/group_norm.ts';
import { mse } from '../src/ops/loss.ts';
import { sizeOf, Tensor } from '../src/tensor.ts';
import { type Case, noise } from './harness.ts';
import type { Shape } from './model.ts';

const random = (engine: Engine, shape: readonly number[]): Tensor => Tensor.from(engine, shape, noise(sizeOf(shape)));

export function* groupNormCases(engine: Engine, { N, P, C0, C1, G }: Shape): Generator<Case> {
  const x = random(engine, [N!, P!, 1, C0!]), x2 = C1 ? random(engine, [N!, P!, 1, C1]) : null;
  const C = C0! + C1!, gamma = random(engine, [C]), beta = random(engine, [C]);
  const input = x2 ? ([x, x2] as const) : x;
  const run = () => engine.scope(() => groupNorm(input, gamma, beta, { groups: G!, eps: 1e-6, silu: true })).free();
  const values = N! * P! * C;
  // About fifteen operations a value; what counts is memory.
  yield { name: `group_norm_silu_forward/${N}x${P} ${C0}${C1 ? `+${C1}` : ''} g${G}`, flops: 15 * values, bytes: 8 * values, output: x.slice, run };
  for (const tensor of [x, x2, gamma, beta]) tensor?.free();
}

export function* attentionCases(engine: Engine, [N, T, C, heads]: readonly [number, number, number, number]): Generator<Case> {
  const [q, k, v] = [0, 1, 2].map(() => random(engine, [N, T, C])) as [Tensor, Tensor, Tensor];
  const goal = random(engine, [N, T, C]);
  const flops = 4 * N * T * T * C, bytes = 16 * N * T * C;
  yield { name: `attention_forward/${N}x${T} ${C} h${heads}`, flops, bytes, output: q.slice, run: () => engine.scope(() => attention(q, k, v, heads)).free() };
  for (const tensor of [q, k, v]) tensor.requiresGrad = true;
  const both = () => {
    const tape = new Tape(engine);
    const loss = tape.record(() => mse(attention(q, k, v, heads), goal));
    tape.backward(loss);
    for (const tensor of [q, k, v]) tape.gradient(tensor).free();
    loss.free();
  };
  yield { name: `attention_forward_backward/${N}x${T} ${C} h${heads}`, flops: 3 * flops, bytes: 3 * bytes, output: q.slice, run: both };
  for (const tensor of [q, k, v, goal]) tensor.free();
}
