// Softmax of rows, and its gradient. No tape: attention records the whole.
import type { DeviceClass } from '../gpu/device-class.ts';
import type { Engine } from '../gpu/engine.ts';
import { grid, type Slice } from '../gpu/kernel.ts';
import * as k from '../gpu/kernels.gen.ts';
import { DEFAULTS } from '../variants.ts';

/** `rows` rows of `size` values, `ld` apart, the same in each slice. */
export interface Rows {
  readonly rows: number;
  readonly size: number;
  readonly ld: number;
}

/** Several invocations share a row on GPUs, so that neighbours read neighbours; on CPUs each has its own. */
export function softmaxLaunch(device: DeviceClass, rows: number) {
  const { workgroup: WG, lanes: LANES } = DEFAULTS[device].softmax;
  return { grid: grid(Math.ceil(rows / (WG / LANES))), overrides: { WG, LANES } };
}

/** y[r] = softmax(x[r]). */
export function softmaxForward(engine: Engine, x: Slice, y: Slice, rows: Rows): void {
  const { grid: workgroups, overrides } = softmaxLaunch(engine.deviceClass, rows.rows);
  engine.run(k.softmax_forward, workgroups, { x, y, ...rows, ...overrides });
}

/** dx from y = softmax(x) and dy. */
export function softmaxBackward(engine: Engine, y: Slice, dy: Slice, dx: Slice, rows: Rows): void {
  const { grid: workgroups, overrides } = softmaxLaunch(engine.deviceClass, rows.rows);
  engine.run(k.softmax_backward, workgroups, { y, dy, dx, ...rows, ...overrides });
}
