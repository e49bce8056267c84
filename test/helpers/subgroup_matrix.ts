// Kernels for tensor cores where there are none: their matrices taken apart, so that all but the multiplication itself runs as it is written.
import type { Engine } from '../../src/gpu/engine.ts';
import type { Kernel } from '../../src/gpu/kernel.ts';
import { takePrecision } from '../../src/ops/precision.ts';

/** The lines that name one sum each, as tables and a loop over them: compilers that inline everything take minutes for what is written out. What is done at TILE 128 alone stands behind the rest. */
function looped(wgsl: string): string {
  const table = (name: string, numbers: readonly number[]): string => `  let ${name} = array<u32, ${numbers.length}>(${numbers.map((n) => `${n}u`).join(', ')});`;
  const multiply = /(for \(var k = 0u; k < \w+; k \+= 16u\) \{\n)([^]*?)\n {4}\}\n/, first = multiply.exec(wgsl)![2]!.split('if (TILE > 64u)')[0]!.split('MultiplyAccumulate').length - 1;
  const loop = (numbers: Readonly<Record<string, readonly number[]>>, run: string): string =>
    `${Object.entries(numbers).map(([name, values]) => table(name, values)).join('\n')}\n  for (var t = 0u; t < select(${first}u, ${Object.values(numbers)[0]!.length}u, TILE > 64u); t++) { ${run} }`;
  const factor = (name: string): number => Number(new RegExp(`let ${name} = (?:left_factor\\(top|right_factor\\(k, left)(?: \\+ (\\d+)u)?`).exec(wgsl)![1] ?? 0);
  const products = [...wgsl.matchAll(/s(\d)(\d) = subgroupMatrixMultiplyAccumulate\((\w+), (\w+), s(\d)(\d)\);/g)].map(([, i, j, a, b, u, v]) => ({ to: 4 * Number(i) + Number(j), of: 4 * Number(u) + Number(v), a: factor(a!), b: factor(b!) }));
  const settled = [...wgsl.matchAll(/settle\(s(\d)(\d), ((?:\w+, )?\w+)(?: \+ (\d+)u)?, (\w+)(?: \+ (\d+)u)?, subgroup, lane\);/g)];
  const offsets = settled.map(([, i, j, , row, , column]) => ({ s: 4 * Number(i) + Number(j), row: Number(row ?? 0), column: Number(column ?? 0) }));
  return wgsl
    .replace(/(?:  var s\d\d: Sums;.*\n)+/, '  var totals: array<array<f32, 8>, 16>;\n')
    .replace(multiply, (_, head: string) =>
      `${head}${loop({ to: products.map((p) => p.to), old: products.map((p) => p.of), i: products.map((p) => p.a), j: products.map((p) => p.b) }, 'totals[to[t]] = multiplied(left_factor(top + i[t], k), right_factor(k, left + j[t]), totals[old[t]], lane);')}\n    }\n`)
    .replace(/  settle\(s00[^]*\n\}\n/, `${loop({ which: offsets.map((o) => o.s), down: offsets.map((o) => o.row), right: offsets.map((o) => o.column) }, `settle(totals[which[t]], ${settled[0]![3]} + down[t], ${settled[0]![5]} + right[t], subgroup, lane);`)}\n}\n`);
}

/** The left factor's workgroup memory. */
const LEFT = /^var<workgroup> xs: array<vec4<f16>, (.+)>;.*\n/m;
/** How many elements it has, in terms of TILE. */
const sizeOfLeft = (wgsl: string): string => LEFT.exec(wgsl)![1]!.replace(/\b[A-Z]{2,}\b/g, (name) => (name === 'TILE' ? name : new RegExp(`const ${name} = (\\d+u);`).exec(wgsl)![1]!));

/** The kernel with `xs` in device memory, each workgroup's elements behind the one's before: llvmpipe has less workgroup memory than tiles of 128 take. */
function leftOutside(wgsl: string, bindings: number): string {
  const size = sizeOfLeft(wgsl), dims = `@binding(${bindings}) var<uniform> dims`;
  if (!wgsl.includes(dims)) throw new Error(`dims is not at binding ${bindings}`);
  return wgsl
    .replace(LEFT, '')
    .replace(/\bxs\[/g, 'xs[begin + ')
    .replaceAll('workgroupBarrier();', 'workgroupBarrier(); storageBarrier();')
    .replace(`@group(0) ${dims}`, `@group(0) @binding(${bindings}) var<storage, read_write> xs: array<vec4<f16>>;\n@group(0) @binding(${bindings + 1}) var<uniform> dims`)
    .replace('@compute', 'var<private> begin: u32;\n@compute')
    .replace(/(fn main\([^]*?\) \{\n)/, `$1  begin = (workgroup.x + workgroup.y * count.x) * (${size});\n`);
}

/**
 * The kernel with each subgroup of 32 emulated by 32 invocations, and each matrix by what the draft of WGSL says it is: a loaded factor is where it lies in workgroup
 * memory (nothing writes there before it is used), a result is 8 of its 256 values an invocation.
 */
export function emulated<K extends Kernel>(kernel: K): K {
  const { wgsl } = kernel, [, left] = /subgroupMatrixLoad<Left, \w+>\(&(\w+)/.exec(wgsl)!, [, right] = /subgroupMatrixLoad<Right, \w+>\(&(\w+)/.exec(wgsl)!;
  /** Element `at` of an array of vec4s; offsets and strides count vec4s. */
  const value = (name: string): string => `${name}[at / 4u][at % 4u]`;
  const factor = (name: string, array: string): string =>
    `fn ${name}(m: Factor, row: u32, column: u32) -> f32 {\n  let at = 4u * m.offset + select(row, column, m.turned) * 4u * m.stride + select(column, row, m.turned);\n  return f32(${value(array)});\n}`;
  const source = looped(wgsl)
    .replace(/^enable (subgroups|chromium_experimental_subgroup_matrix);\n/gm, '')
    .replace(/, @builtin\(subgroup_id\) subgroup: u32, @builtin\(subgroup_invocation_id\) lane: u32\) \{/, ') {\n  let subgroup = li / 32u;\n  let lane = li % 32u;')
    .replace(/subgroupMatrixLoad<(?:Left|Right), (row|col)_major>\(&\w+, (.*), ([^,]*)\);/g, (_, major: string, offset: string, stride: string) => `Factor(${offset}, ${stride}, ${major === 'col'});`)
    .replace(/subgroup_matrix_(?:left|right)<f16, 16, 16>/g, 'Factor')
    .replace(/subgroup_matrix_result<f32, 16, 16>/g, 'array<f32, 8>')
    .replace(/subgroupMatrixStore<row_major>\(&out, (.*?), (\w+), (\w+)\);/g, 'store($1, $2, $3, lane);');
  if (/subgroup_?[mM]atrix|\bs\d\d\b/.test(source.replace(/^\/\/.*$/gm, ''))) throw new Error(`${kernel.name}: there is a matrix that is not emulated`);
  const functions = `
struct Factor { offset: u32, stride: u32, turned: bool }
${factor('left_at', left)}
${factor('right_at', right)}
fn multiplied(a: Factor, b: Factor, c: array<f32, 8>, lane: u32) -> array<f32, 8> {
  var sum = c;
  for (var t = 0u; t < 8u; t++) { for (var k = 0u; k < 16u; k++) { sum[t] += left_at(a, lane / 2u, k) * right_at(b, k, lane % 2u * 8u + t); } }
  return sum;
}
fn store(offset: u32, m: array<f32, 8>, stride: u32, lane: u32) {
  for (var t = 0u; t < 8u; t++) {
    let at = 4u * (offset + lane / 2u * stride) + lane % 2u * 8u + t;
    ${value('out')} = m[t];
  }
}
`;
  return {
    ...kernel, ...(kernel.half && { half: emulated(kernel.half) }), name: `${kernel.name}_emulated`, features: ['shader-f16'], bindings: { ...kernel.bindings, xs: 'read_write' }, f16: [...(kernel.f16 ?? []), 'xs'],
    wgsl: leftOutside(source.replace('@compute', `${functions}@compute`), Object.keys(kernel.bindings).length),
  };
}

/** Runs fn with the engine's tensor-core kernels emulated, and where there are such once more with tiles of 128: small shapes take those of 64. More workgroups than those need find nothing to do. */
export async function emulating(engine: Engine, fn: () => Promise<void>): Promise<void> {
  const { run } = engine, made = new Map<string, Kernel>();
  let TILE = 0;
  engine.run = ((kernel: Kernel, grid, args) => {
    if (!/_subgroup_matrix(_stored_f16)?$/.test(kernel.name)) return run.call(engine, kernel, grid, args as never);
    if (!made.has(kernel.name)) made.set(kernel.name, emulated(kernel));
    const given = { TILE: 64, ...(args as object), ...(TILE && { TILE }) }, size = new Function('TILE', `return ${sizeOfLeft(kernel.wgsl).replace(/(\d)u\b/g, '$1')}`)(given.TILE) as number;
    const xs = engine.allocate(8 * size * grid[0] * (grid[1] ?? 1), 'f16');
    run.call(engine, made.get(kernel.name)!, grid, { ...given, xs } as never);
    engine.free(xs);
  }) as typeof run;
  try {
    await fn();
    TILE = 128;
    if (made.size) await fn();
  } finally {
    engine.run = run;
  }
}

/** What onCores() is called with: tensor cores too if DDPM_TEST_TENSOR_CORES=1. */
export const CORES: readonly boolean[] = process.env['DDPM_TEST_TENSOR_CORES'] === '1' ? [false, true] : [false];

/** Runs fn with products on tensor cores, or on what the engine takes. */
export async function onCores(cores: boolean, engine: Engine, fn: () => Promise<void>): Promise<void> {
  if (!cores) return fn();
  const names = [...engine.half], { storage } = engine;
  takePrecision(engine, { half: new Set(['conv2d_subgroup_matrix', 'conv2d_backward_weight_subgroup_matrix', 'matmul_subgroup_matrix']), storage });
  try {
    await emulating(engine, fn);
  } finally {
    takePrecision(engine, { half: new Set(names), storage });
  }
}
