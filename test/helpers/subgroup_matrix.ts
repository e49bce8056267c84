// Kernels for tensor cores where there are none: their matrices taken apart, so that all but the multiplication itself runs as it is written.
import type { Engine } from '../../src/gpu/engine.ts';
import type { Kernel } from '../../src/gpu/kernel.ts';

/**
 * The kernel with each subgroup of 32 emulated by 32 invocations, and each matrix by what the draft of WGSL says it is: a loaded factor is where it lies in workgroup
 * memory (nothing writes there before it is used), a result is 8 of its 256 values an invocation.
 */
export function emulated<K extends Kernel>(kernel: K): K {
  const { wgsl } = kernel, [, left] = /subgroup_matrix_left<[^>]*>, \w+>\(&(\w+)/.exec(wgsl)!, [, right] = /subgroup_matrix_right<[^>]*>, \w+>\(&(\w+)/.exec(wgsl)!;
  const wide = (name: string): boolean => /array<vec4/.test(new RegExp(`var<workgroup> ${name}: (.*?);`).exec(wgsl)![1]);
  /** Element `at` of an array of scalars, or of vec4s; offsets and strides count elements of the array. */
  const value = (name: string): string => (wide(name) ? `${name}[at / 4u][at % 4u]` : `${name}[at]`);
  const factor = (name: string, array: string): string =>
    `fn ${name}(m: Factor, row: u32, column: u32) -> f32 {\n  let at = ${wide(array) ? 4 : 1}u * m.offset + select(row, column, m.turned) * ${wide(array) ? 4 : 1}u * m.stride + select(column, row, m.turned);\n  return f32(${value(array)});\n}`;
  const source = wgsl
    .replace(/^enable (subgroups|chromium_experimental_subgroup_matrix);\n/gm, '')
    .replace(/, @builtin\(subgroup_id\) subgroup: u32, @builtin\(subgroup_invocation_id\) lane: u32\) \{/, ') {\n  let subgroup = li / 32u;\n  let lane = li % 32u;')
    .replace(/subgroup_matrix_result<f32, 16, 16>/g, 'array<f32, 8>')
    .replace(/array<subgroup_matrix_right<f16, 16, 16>, (\d)>/g, 'array<Factor, $1>')
    .replace(/subgroupMatrixLoad<subgroup_matrix_(?:left|right)<f16, 16, 16>, (row|col)_major>\(&\w+, (.*?), (\w+)\);/g, (_, major: string, offset: string, stride: string) => `Factor(${offset}, ${stride}, ${major === 'col'});`)
    .replace(/subgroupMatrixMultiplyAccumulate\((\w+), (\w+\[j\]), (acc\[i\]\[j\])\)/g, 'multiplied($1, $2, $3, lane)')
    .replace(/subgroupMatrixStore<row_major>\(&out, (.*?), (acc\[i\]\[j\]), (\w+)\);/g, 'store($1, $2, $3, lane);');
  if (/subgroup_?[mM]atrix/.test(source.replace(/^\/\/.*$/gm, ''))) throw new Error(`${kernel.name}: there is a matrix that is not emulated`);
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
    let at = ${wide('out') ? 4 : 1}u * (offset + lane / 2u * stride) + lane % 2u * 8u + t;
    ${value('out')} = m[t];
  }
}
`;
  return { ...kernel, ...(kernel.half && { half: emulated(kernel.half) }), name: `${kernel.name}_emulated`, features: ['shader-f16'], wgsl: source.replace('@compute', `${functions}@compute`) };
}

/** Runs fn with the engine's tensor-core kernels emulated. */
export async function emulating(engine: Engine, fn: () => Promise<void>): Promise<void> {
  const { run } = engine, made = new Map<string, Kernel>();
  engine.run = ((kernel: Kernel, grid, args) => {
    if (!kernel.name.endsWith('_subgroup_matrix')) return run.call(engine, kernel, grid, args as never);
    if (!made.has(kernel.name)) made.set(kernel.name, emulated(kernel));
    return run.call(engine, made.get(kernel.name)!, grid, args as never);
  }) as typeof run;
  try {
    await fn();
  } finally {
    engine.run = run;
  }
}
