// The device's own ceilings: fused multiply-adds in registers, and a copy.
import type { Engine } from '../src/gpu/engine.ts';
import { grid, type Kernel } from '../src/gpu/kernel.ts';
import { expand } from '../kernels/build.ts';
import { measure } from './harness.ts';

const fma = {
  name: 'peak_fma', features: [], bindings: { y: 'read_write' }, overrides: {}, optional: {}, dims: {},
  wgsl: `@group(0) @binding(0) var<storage, read_write> y: array<vec4f>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  let k = vec4f(0.999 + f32(id.x) * 1e-9);
  // Three chains of four: enough in flight for any device, and few enough to stay in a CPU's sixteen registers.
  var a = vec4f(1.0);
  var b = vec4f(2.0);
  var c = vec4f(3.0);
  for (var i = 0u; i < 64u; i++) {
    // Unrolled sixteen times by the compiler: a loop's own cost would show otherwise.
    for (var j = 0u; j < 16u; j++) {
      a = fma(a, k, k);
      b = fma(b, k, k);
      c = fma(c, k, k);
    }
  }
  y[id.x] = a + b + c;
}`,
} as const satisfies Kernel;

const copy = {
  name: 'peak_copy', features: [], bindings: { x: 'read', y: 'read_write' }, overrides: {}, optional: {}, dims: {},
  wgsl: `${expand('#import index')}
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i < arrayLength(&y)) { y[i] = x[i]; }
}`,
} as const satisfies Kernel;

/** GFLOP/s of register FMAs and GB/s of a copy, measured now: the best of a dozen, since a ceiling that other work lowers is none. */
export async function peak(engine: Engine, software: boolean): Promise<{ gflops: number; gbs: number }> {
  const groups = software ? 64 : 8192, bytes = software ? 1 << 25 : 1 << 29;
  const y = engine.allocate(Math.min(bytes, engine.device.limits.maxStorageBufferBindingSize));
  const x = engine.allocate(y.bytes);
  engine.clear(x);
  const f = await measure(engine, { name: 'fma', flops: groups * 64 * 1024 * 3 * 4 * 2, bytes: 0, output: y, run: () => engine.run(fma, [groups], { y }) });
  const c = await measure(engine, { name: 'copy', flops: 0, bytes: 2 * y.bytes, output: y, run: () => engine.run(copy, grid(Math.ceil(y.bytes / 1024)), { x, y }) });
  engine.free(x);
  engine.free(y);
  return { gflops: (f.gflops * f.ms) / f.min, gbs: (c.gbs * c.ms) / c.min };
}
