// What a 1 x 1 convolution spends on loads and stores alone: a kernel that reads every input once and writes every output once, and computes next to nothing between. A limit as near as it can be measured, not a proof.
import type { Engine } from '../src/gpu/engine.ts';
import { grid, type Kernel } from '../src/gpu/kernel.ts';
import type { Tensor } from '../src/tensor.ts';

/** Pixels of an invocation. */
const PIXELS = 4;

/** From C channels to O, multiples of four; written out, as a loop costs more than a load. Each output is a sum of its pixel's inputs: a compiler leaves none of them out. */
const kernel = (C: number, O: number, lanes: number) => ({
  name: `floor_${C}_${O}`, features: [], bindings: { x: 'read', y: 'read_write' }, overrides: {}, optional: {}, dims: {},
  wgsl: `@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@compute @workgroup_size(${lanes}) fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) li: u32) {
${Array.from({ length: PIXELS }, (_, i) => `  let p${i} = workgroup.x * ${lanes * PIXELS}u + ${lanes * i}u + li;
  let s${i} = ${Array.from({ length: C / 4 }, (_, c) => `x[p${i} * ${C / 4}u + ${c}u]`).join(' + ')};
${Array.from({ length: O / 4 }, (_, o) => `  y[p${i} * ${O / 4}u + ${o}u] = s${i} * ${o + 1}.0;`).join('\n')}`).join('\n')}
}`,
}) as const satisfies Kernel;

/** Reads x (pixels, C) and writes y (pixels, O). */
export function readAndWrite(engine: Engine, x: Tensor, y: Tensor, pixels: number): void {
  const lanes = engine.subgroupWidth || 64;
  engine.run(kernel(x.size / pixels, y.size / pixels, lanes), grid(Math.ceil(pixels / (PIXELS * lanes))), { x: x.slice, y: y.slice });
}
