// Turns kernels/*.wgsl into src/gpu/kernels.gen.ts: expands #import, reads bindings, overrides and dims out of the WGSL, and refuses what breaks the house style.
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));

/** What a device must have been opened with for `enable NAME;`. */
const FEATURES: Readonly<Record<string, string>> = { subgroups: 'subgroups', f16: 'shader-f16', chromium_experimental_subgroup_matrix: 'chromium-experimental-subgroup-matrix' };

/** Permutations: a kernel that imports the one is written a second time, as NAME_suffix, with the other in its place. */
const PERMUTATIONS = [{ of: 'values', by: 'values_vec4', suffix: 'vec4' }, { of: 'operands', by: 'operands_f16', suffix: 'f16' }] as const;

interface Reflection {
  bindings: Record<string, 'read' | 'read_write'>;
  overrides: Record<string, string>;
  optional: Record<string, string>;
  dims: Record<string, string>;
  features: string[];
}

/** Reads a kernel's interface; throws, naming the file, where it does not follow the rules that the engine relies on. */
export function reflect(file: string, source: string): Reflection {
  const refuse = (why: string): never => {
    throw new Error(`kernels/${file}: ${why}`);
  };
  const lines = source.split('\n');
  if (!lines[0]?.startsWith('// ') || !lines[1]?.startsWith('// ')) refuse('the first line must be the mathematics and the second what an invocation or workgroup does, as comments');
  if (/\t| $/m.test(source)) refuse('no tabs and no trailing spaces');
  if ((source.match(/@compute/g) ?? []).length !== 1 || !/fn main\(/.test(source)) refuse('exactly one entry point, called main');

  const bindings: Reflection['bindings'] = {};
  let next = 0, dimsBound = false, written = false;
  for (const line of lines) {
    const m = /^@group\((\d+)\) @binding\((\d+)\) var<(.+?)> (\w+): (.+?);\s*(\/\/.*)?$/.exec(line);
    if (!m) {
      if (line.includes('@binding')) refuse(`cannot read the binding "${line}"`);
      continue;
    }
    const [, group, index, space, name, , comment] = m as unknown as [string, string, string, string, string, string, string | undefined];
    if (group !== '0' || Number(index) !== next++) refuse(`binding ${name}: group 0 only, numbered in order`);
    if (space === 'uniform') {
      if (name !== 'dims') refuse('the one uniform is called dims');
      dimsBound = true;
    } else {
      if (dimsBound) refuse('dims comes last');
      if (space !== 'storage, read' && space !== 'storage, read_write') refuse(`binding ${name}: "${space}" is not a storage access`);
      if (!comment) refuse(`binding ${name} needs its shape as a comment`);
      const access = space === 'storage, read' ? 'read' : 'read_write';
      if (written && access === 'read') refuse(`binding ${name}: inputs come before outputs`);
      written ||= access === 'read_write';
      bindings[name] = access;
    }
  }

  const overrides: Record<string, string> = {}, optional: Record<string, string> = {}, dims: Record<string, string> = {};
  for (const [, name, type, value] of source.matchAll(/^override (\w+): (u32|f32|i32|bool)( = .+)?;/gm)) (value ? optional : overrides)[name!] = type!;
  const struct = /^struct Dims \{([^}]*)\}/m.exec(expand(source));
  if (!!struct !== dimsBound) refuse('struct Dims and the uniform dims come together');
  for (const [, name, type] of (struct?.[1] ?? '').matchAll(/(\w+): (u32|i32|f32)/g)) dims[name!] = type!;
  const features = [...expand(source).matchAll(/^enable (\w+);/gm)].map(([, name]) => FEATURES[name!] ?? refuse(`enable ${name}: say in kernels/build.ts which feature of a device that is`));
  return { bindings, overrides, optional, dims, features };
}

/** Replaces each `#import name` line by kernels/shared/name.wgsl, once, its own imports first. */
export function expand(source: string, seen = new Set<string>()): string {
  return source.replace(/^#import (\w+)$/gm, (_, name: string) => {
    if (seen.has(name)) return '';
    seen.add(name);
    return expand(readFileSync(join(here, 'shared', `${name}.wgsl`), 'utf8').trimEnd(), seen);
  });
}

const json = (value: object) => JSON.stringify(value).replace(/"(\w+)":/g, ' $1: ').replace(/"/g, "'").replace('}', ' }');

/** Every kernel's name, interface and whole text. */
export function kernels(): { name: string; interface: Reflection; wgsl: string }[] {
  return readdirSync(here).filter((f) => f.endsWith('.wgsl')).sort().flatMap((file) => {
    const source = readFileSync(join(here, file), 'utf8'), name = basename(file, '.wgsl');
    const written = (as: string, text: string) => ({ name: as, interface: reflect(file, text), wgsl: expand(text) });
    const more = PERMUTATIONS.filter(({ of }) => source.includes(`\n#import ${of}\n`));
    return [written(name, source), ...more.map(({ of, by, suffix }) => written(`${name}_${suffix}`, source.replace(`\n#import ${of}\n`, `\n#import ${by}\n`)))];
  });
}

export function build(): string {
  const out = [
    '// Generated by kernels/build.ts from kernels/*.wgsl; do not edit.',
    '/* eslint-disable */',
  ];
  for (const { name, interface: r, wgsl } of kernels())
    out.push(
      '',
      `export const ${name} = {`,
      `  name: '${name}', features: ${JSON.stringify(r.features).replaceAll('"', "'")},`,
      `  bindings: ${json(r.bindings)}, overrides: ${json(r.overrides)}, optional: ${json(r.optional)}, dims: ${json(r.dims)},`,
      `  wgsl: ${JSON.stringify(wgsl)},`,
      '} as const;',
    );
  return out.join('\n') + '\n';
}

// Without an argument, the typed module; with a folder, the complete files, which compile by themselves.
if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const folder = process.argv[2];
  if (folder) mkdirSync(folder, { recursive: true });
  if (folder) for (const { name, wgsl } of kernels()) writeFileSync(join(folder, `${name}.wgsl`), wgsl);
  else {
    // An unchanged module is left as it is: another process may be reading it.
    const module = join(here, '../src/gpu/kernels.gen.ts'), text = build();
    if (!existsSync(module) || readFileSync(module, 'utf8') !== text) writeFileSync(module, text);
  }
}
