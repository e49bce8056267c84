// Dynamic loss scaling (Micikevicius et al., 2018): what keeps small gradients from becoming zero in float16, on the device.
import { DdpmError } from '../errors.ts';
import type { Engine } from '../gpu/engine.ts';
import type { Slice } from '../gpu/kernel.ts';
import type { NamedTensors } from '../nn/parameters.ts';

/** As PyTorch's GradScaler starts. */
const INITIAL = 65536;
/** Good steps in a row after which the scale is doubled; a bad one halves it (kernels/gradient_norm.wgsl). */
export const GROWTH = 2000;
/** A step that is not finite at this scale is no overflow of float16. */
export const LEAST_SCALE = 1;
const NAME = 'loss_scale';

/** The loss is multiplied by S before backward, and the gradients divided by it before they are used. S is a power of two, so that this alone changes no digit. */
export class LossScale {
  readonly engine: Engine;
  /** (2): S, good steps since it changed. */
  readonly slice: Slice;

  /** Call outside of captures. */
  constructor(engine: Engine, initial = INITIAL) {
    this.engine = engine;
    this.slice = engine.allocate(8);
    engine.write(this.slice, Float32Array.of(initial, 0));
  }

  /** For a checkpoint. */
  async read(): Promise<Map<string, { shape: number[]; data: Float32Array<ArrayBuffer> }>> {
    return new Map([[NAME, { shape: [2], data: await this.engine.read(this.slice) }]]);
  }

  /**
   * Takes a checkpoint's state; false where it has none, as after float32 steps: then it starts anew.
   *
   * @throws DdpmError E-FILE if it is not what a step could have left
   */
  write(tensors: NamedTensors, source: string): boolean {
    const tensor = tensors.get(NAME);
    if (!tensor) return false;
    const [scale = NaN, steps = NaN] = Float32Array.from(tensor.data);
    if (tensor.data.length !== 2 || !(scale >= LEAST_SCALE && Number.isInteger(Math.log2(scale)) && Number.isInteger(steps) && steps >= 0 && steps < GROWTH))
      throw new DdpmError('E-FILE', `${source}: ${NAME} is (${Array.from(tensor.data).join(', ')}), and should be a power of two and how many good steps ago it changed; it is damaged.`);
    this.engine.write(this.slice, Float32Array.of(scale, steps));
    return true;
  }

  free(): void {
    this.engine.free(this.slice);
  }
}
