// A perfect network on a device, for data that are N(mean, std^2) in every pixel.
import { threads } from '../../src/autograd.ts';
import type { DiffusionModel } from '../../src/diffusion/gaussian.ts';
import type { Engine } from '../../src/gpu/engine.ts';
import type { Kernel } from '../../src/gpu/kernel.ts';
import { Tensor } from '../../src/tensor.ts';
import type { Gaussian } from '../ref/sampler.ts';
import { upload } from './gpu.ts';

/** eps = factor[t] x + offset[t]: what a perfect network knows about data that are N(mean, std^2). */
const affine = {
  name: 'test_affine', features: [], bindings: { x: 'read', t: 'read', table: 'read', eps: 'read_write' }, overrides: {}, optional: {}, dims: { N: 'u32', size: 'u32' },
  wgsl: `
struct Dims { N: u32, size: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> t: array<u32>;
@group(0) @binding(2) var<storage, read> table: array<vec2f>;
@group(0) @binding(3) var<storage, read_write> eps: array<f32>;
@group(0) @binding(4) var<uniform> dims: Dims;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let i = id.x;
  if (i >= dims.N * dims.size) { return; }
  let row = table[t[i / dims.size]];
  eps[i] = row.x * x[i] + row.y;
}`,
} as const satisfies Kernel;

export function perfect(engine: Engine, gaussian: Gaussian): DiffusionModel {
  const { T } = gaussian.schedule, table = upload(engine, [T, 2], Float32Array.from({ length: 2 * T }, (_, i) => (({ factor, offset }) => (i % 2 ? offset : factor))(gaussian.eps(i >> 1))));
  return (x, t) => {
    const eps = Tensor.empty(engine, x.shape), N = x.shape[0]!;
    engine.run(affine, threads(x.size), { x: x.slice, t: t.slice, table: table.slice, eps: eps.slice, N, size: x.size / N });
    return eps;
  };
}
