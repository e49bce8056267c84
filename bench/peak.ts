// The device's own ceilings: fused multiply-adds in registers, and a copy.
import type { Engine } from '../src/gpu/engine.ts';
import { grid, type Kernel } from '../src/gpu/kernel.ts';
import { expand } from '../kernels/build.ts';
import { measure } from './harness.ts';

/** The loop of multiply-adds. A test runs it: work that a compiler leaves out is no measure. */
export const fma = {
  name: 'peak_fma', features: [], bindings: { y: 'read_write' }, overrides: {}, optional: {}, dims: {},
  wgsl: `@group(0) @binding(0) var<storage, read_write> y: array<vec4f>;
struct Pair { a: vec4f, b: vec4f }
fn turn(s: Pair, k: vec4f) -> Pair {
  return Pair(fma(k.xxxx, s.a, fma(k.yyyy, s.a.yzwx, fma(k.zzzz, s.b, fma(k.wwww, s.b.zwxy, k)))), fma(k.xxxx, s.b, fma(k.yyyy, s.b.yzwx, fma(k.zzzz, s.a, fma(k.wwww, s.a.zwxy, k)))));
}
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  // Sums of products, as in a convolution: every new value needs values of both vectors, so that no compiler can finish one chain of the eight before it begins the next
  // (LLVM does, in llvmpipe, and a processor then waits for each addition). They converge: no infinities, no denormals. Few enough for a CPU's sixteen registers.
  let k = vec4f(0.11, 0.23, 0.29, 0.31) + f32(id.x) * 1e-9;
  var s = Pair(vec4f(1.0, 0.5, 2.0, 3.0), vec4f(0.3, 4.0, 0.7, 0.1));
  for (var i = 0u; i < 64u; i++) {
    // Written out eight times: a loop's own cost would show otherwise, and not every compiler unrolls one of this size.
${`    s = turn(s, k);
`.repeat(8)}  }
  y[id.x] = s.a + s.b;
}`,
} as const satisfies Kernel;

/** The same of two registers instead of three: on an H100 63.7 TFLOP/s where the other loop gives 48, which a GPU's kernels of products are nearer to. A compiler may finish one chain before it begins the next. */
export const chains = {
  name: 'peak_chains', features: [], bindings: { y: 'read_write' }, overrides: {}, optional: {}, dims: {},
  wgsl: `@group(0) @binding(0) var<storage, read_write> y: array<vec4f>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  let k = vec4f(0.999 + f32(id.x) * 1e-9);
  var a = vec4f(1.0);
  var b = vec4f(2.0);
  var c = vec4f(3.0);
  for (var i = 0u; i < 64u; i++) {
${`    a = fma(a, k, k);
    b = fma(b, k, k);
    c = fma(c, k, k);
`.repeat(16)}  }
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

/** GFLOP/s of register FMAs and GB/s of a copy, measured now: the best loop, and of a dozen times the best, since a ceiling that other work lowers is none. */
export async function peak(engine: Engine, software: boolean): Promise<{ gflops: number; gbs: number }> {
  const groups = software ? 1024 : 8192, bytes = software ? 1 << 25 : 1 << 29;
  const y = engine.allocate(Math.min(bytes, engine.device.limits.maxStorageBufferBindingSize));
  const x = engine.allocate(y.bytes);
  engine.clear(x);
  let gflops = 0;
  for (const [kernel, multiplyAdds] of [[fma, 512 * 8 * 4], [chains, 64 * 16 * 3 * 4]] as const) {
    const f = await measure(engine, { name: kernel.name, flops: groups * 64 * multiplyAdds * 2, bytes: 0, output: y, run: () => engine.run(kernel, [groups], { y }) });
    gflops = Math.max(gflops, (f.gflops * f.ms) / f.min);
  }
  const c = await measure(engine, { name: 'copy', flops: 0, bytes: 2 * y.bytes, output: y, run: () => engine.run(copy, grid(Math.ceil(y.bytes / 1024)), { x, y }) });
  engine.free(x);
  engine.free(y);
  return { gflops, gbs: (c.gbs * c.ms) / c.min };
}
