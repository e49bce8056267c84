// Group normalisation, alone or followed by SiLU, over one tensor or over two read as one.
import { type Destination, pointwise, record } from '../autograd.ts';
import type { Clock } from '../clock.ts';
import { DdpmError } from '../errors.ts';
import { fold, termsRoom } from '../folds.ts';
import type { DeviceClass } from '../gpu/device-class.ts';
import type { Engine } from '../gpu/engine.ts';
import * as k from '../gpu/kernels.gen.ts';
import { requireShapes, sameShape, Tensor } from '../tensor.ts';
import { DEFAULTS, isWorkgroup } from '../variants.ts';

/** Groups, the epsilon added to a variance (1e-5), and whether SiLU follows in the same pass. Source: Wu & He, 2018. */
export interface GroupNormOptions {
  readonly groups: number;
  readonly eps?: number;
  readonly silu?: boolean;
  /** Drops a share p of the result, with dropout()'s mask. */
  readonly dropout?: { readonly p: number; readonly clock: Clock; readonly stream: number } | null;
}

/** How a workgroup stands before G groups of `size` columns each, to read at least `columns` side by side: the groups that it takes, and the columns that its invocations do at once. */
export function neighbours(G: number, size: number, columns: number): { readonly groups: number; readonly columns: number } {
  if (size >= columns) return { groups: 1, columns };
  let groups = Math.min(G, Math.ceil(columns / size));
  while (G % groups) groups--;
  return { groups, columns: groups * size };
}

/**
 * The overrides of a workgroup of so many invocations and columns before G groups of `size` columns each. Where it would fill half of a CPU's subgroup, as eight invocations do of sixteen lanes, it takes two
 * groups, each in half of it: the same bits.
 */
export function normOverrides({ deviceClass, subgroupWidth }: Pick<Engine, 'deviceClass' | 'subgroupWidth'>, { workgroup: WG, columns = 1 }: { readonly workgroup: number; readonly columns?: number }, G: number, size: number): Record<'WG' | 'GROUPS' | 'COLS', number> {
  if (deviceClass === 'cpu-subgroups' && subgroupWidth === 2 * WG && columns === 1 && G % 2 === 0) return { WG: 2 * WG, GROUPS: 2, COLS: 2 };
  const { groups: GROUPS, columns: COLS } = neighbours(G, size, columns);
  return { WG, GROUPS, COLS };
}

/** Invocations of a workgroup over P pixels, and the columns that they read side by side: of four channels each where `vec4` is set, else four times as many of one. */
export function usualNorm(device: DeviceClass, P: number, vec4: boolean): { workgroup: number; columns?: number } {
  const { many, short, long, columns } = DEFAULTS[device].groupNorm;
  return { workgroup: P >= many ? long : short, ...(columns > 1 && { columns: vec4 ? columns : 4 * columns }) };
}

/**
 * x (N, H, W, C), or two such tensors whose channels are read as concatenated -> (N, H, W, C), normalised over the pixels and channels of each group.
 * gamma and beta are (C); without beta, gamma is (N, 2, C): scale and offset of each image, such as film() makes.
 * Throws E-SHAPE where channels, groups and weights do not go together.
 */
export function groupNorm(x: Tensor | readonly [Tensor, Tensor], gamma: Tensor, beta: Tensor | null, { groups: G, eps = 1e-5, silu = false, dropout = null }: GroupNormOptions): Tensor {
  const [a, b] = x instanceof Tensor ? [x, null] : x;
  const { engine } = a;
  const N = a.shape[0]!, C0 = a.shape.at(-1)!, C1 = b?.shape.at(-1) ?? 0, C = C0 + C1, P = a.size / (N * C0);
  if (b) requireShapes(sameShape(a, b, false), 'groupNorm', 'two inputs that differ in their channels alone', { x: a, x2: b });
  if (gamma.size !== (beta ? C : 2 * N * C) || (beta && beta.size !== C) || C % G) throw new DdpmError('E-SHAPE', `groupNorm: ${C} channels, ${G} groups and ${gamma.size} weights do not go together.`);
  const vec4 = (C / G) % 4 === 0 && C0 % 4 === 0;
  const launch = (op: string) => {
    const choice = engine.choices.of(
      op, { P, C0, C1, G }, { N }, () => usualNorm(engine.deviceClass, P, vec4),
      ({ workgroup: size, columns: beside = 1, ...rest }) => isWorkgroup(size) && isWorkgroup(beside) && (beside === 1 || 2 * beside <= size) && !Object.keys(rest).length,
    );
    const overrides = normOverrides(engine, choice, G, C / G / (vec4 ? 4 : 1));
    return { grid: [G / overrides.GROUPS, N] as const, overrides };
  };
  const dims = { N, P, C0, C1, G, silu: Number(silu), eps, accumulate: 0, accumulate2: 0, per_image: beta ? 0 : 2 * C, TWO: Number(b !== null), stream: dropout?.stream ?? 0, p: dropout?.p ?? 0, DROP: Number(!!dropout) };
  const inputs = { x: a.slice, x2: (b ?? a).slice, gamma: gamma.slice, beta: (beta ?? gamma).slice };
  const y = Tensor.empty(engine, [...a.shape.slice(0, -1), C], a.type);
  const stats = engine.allocate(16 * N * G + 16);
  const forward = launch('group_norm_forward');
  engine.run(vec4 ? k.group_norm_forward_vec4 : k.group_norm_forward, forward.grid, { ...dims, ...forward.overrides, ...inputs, clock: dropout?.clock.slice ?? gamma.slice, y: y.slice, stats });

  return record(
    y,
    [a, b, gamma, beta],
    (dy, [dx, dx2, dgamma, dbeta]) => {
      // With one gamma for each image, the terms are the gradient.
      const whole = !beta && dgamma && !dgamma.accumulate, late = !!beta && [dgamma, dbeta].every((to) => !to || to.late);
      const { grid, overrides } = launch('group_norm_backward');
      const part = whole ? dgamma.slice : termsRoom(engine, 8 * N * C, late);
      // A gradient that nobody wants still needs a place: the kernels write all of them.
      const first = dx?.slice ?? engine.allocate(a.slice.bytes, a.type), accumulate = dx?.accumulate ?? 0;
      engine.run(vec4 ? k.group_norm_backward_vec4 : k.group_norm_backward, grid, { ...dims, ...overrides, ...inputs, dy, stats, part, dx: first, accumulate });
      if (!beta) {
        if (dgamma?.accumulate) engine.run(k.accumulate, pointwise(gamma.size), { x: part, y: dgamma.slice, copy: 0 });
        if (!whole) engine.free(part);
      } else {
        const sum = (to: Destination | null | undefined, from: number) => (to ? [{ y: to.slice, accumulate: to.accumulate, from, terms: N, step: 2 * C, size: C }] : []);
        fold(engine, part, [...sum(dgamma, 0), ...sum(dbeta, C)]);
      }
      if (b && (dx || dx2)) {
        const second = dx2?.slice ?? engine.allocate(b.slice.bytes, b.type);
        engine.run(vec4 ? k.group_norm_backward_input_vec4 : k.group_norm_backward_input, grid, { ...dims, ...overrides, ...inputs, dy, stats, dx: first, dx2: second, accumulate, accumulate2: dx2?.accumulate ?? 0 });
        if (!dx2) engine.free(second);
      }
      if (!dx) engine.free(first);
    },
    { saved: [stats] },
  );
}
