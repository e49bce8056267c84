// The device's own ceilings: fused multiply-adds in registers, products of matrices on tensor cores, and a copy.
import type { Engine } from '../src/gpu/engine.ts';
import { grid, type Kernel } from '../src/gpu/kernel.ts';
import { SUBGROUP_MATRIX } from '../src/gpu/requirements.ts';
import { HALF } from '../src/ops/half.ts';
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

/** The same of two registers instead of three: on an H100 61 to 64 TFLOP/s where the other loop gives 48, which a GPU's kernels of products are nearer to. A compiler may finish one chain before it begins the next. */
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

const SIDE = [0, 1, 2, 3] as const;
const each = (line: (i: number, j: number) => string): string => SIDE.flatMap((i) => SIDE.map((j) => line(i, j))).join('\n');

/** Products of matrices in registers, on tensor cores: sixteen sums a subgroup, each a name, as in kernels/conv2d_subgroup_matrix.wgsl. */
export const cores = {
  name: 'peak_cores', features: ['shader-f16', 'subgroups', SUBGROUP_MATRIX], bindings: { y: 'read_write' }, overrides: {}, optional: {}, dims: {},
  wgsl: `enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
@group(0) @binding(0) var<storage, read_write> y: array<f32>;
var<workgroup> xs: array<f16, 1536>; // 64 rows of 24
@compute @workgroup_size(128) fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) li: u32, @builtin(subgroup_id) subgroup: u32) {
  for (var i = li; i < 1536u; i += 128u) { xs[i] = f16(f32((i * 7u + id.x) % 13u) * 0.01); }
  workgroupBarrier();
${SIDE.map((i) => `  let a${i} = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&xs, ${16 * 24 * i}u, 24u);
  let b${i} = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, row_major>(&xs, ${16 * 24 * i + 8}u, 24u);`).join('\n')}
${each((i, j) => `  var s${i}${j}: subgroup_matrix_result<f32, 16, 16>;`)}
  for (var t = 0u; t < 256u; t++) {
${each((i, j) => `    s${i}${j} = subgroupMatrixMultiplyAccumulate(a${i}, b${j}, s${i}${j});`)}
  }
${each((i, j) => `  subgroupMatrixStore<row_major>(&y, ((id.x % 64u * 4u + subgroup) * 16u + ${4 * i + j}u) * 256u, s${i}${j}, 16u);`)}
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

/** What a device can: GFLOP/s of FMAs, of products of matrices where it has tensor cores that are used, and GB/s. */
export interface Peak {
  readonly gflops: number;
  readonly coresGflops: number | null;
  readonly gbs: number;
}

/** GFLOP/s of register FMAs and GB/s of a copy, measured now: the best loop, and of a dozen times the best, since a ceiling that other work lowers is none. */
export async function peak(engine: Engine, software: boolean): Promise<Peak> {
  const groups = software ? 1024 : 8192, bytes = software ? 1 << 25 : 1 << 29;
  const y = engine.allocate(Math.min(bytes, engine.device.limits.maxStorageBufferBindingSize));
  const x = engine.allocate(y.bytes);
  engine.clear(x);
  let gflops = 0;
  for (const [kernel, multiplyAdds] of [[fma, 512 * 8 * 4], [chains, 64 * 16 * 3 * 4]] as const) {
    const f = await measure(engine, { name: kernel.name, flops: groups * 64 * multiplyAdds * 2, bytes: 0, output: y, run: () => engine.run(kernel, [groups], { y }) });
    gflops = Math.max(gflops, (f.gflops * f.ms) / f.min);
  }
  let coresGflops: number | null = null;
  if (engine.half.has(HALF.conv.subgroup_matrix.name)) {
    const m = await measure(engine, { name: cores.name, flops: groups * 4 * 256 * 16 * 16 ** 3 * 2, bytes: 0, output: y, run: () => engine.run(cores, [groups], { y }) });
    coresGflops = (m.gflops * m.ms) / m.min;
  }
  const c = await measure(engine, { name: 'copy', flops: 0, bytes: 2 * y.bytes, output: y, run: () => engine.run(copy, grid(Math.ceil(y.bytes / 1024)), { x, y }) });
  engine.free(x);
  engine.free(y);
  return { gflops, coresGflops, gbs: (c.gbs * c.ms) / c.min };
}
