// Turns kernels/*.wgsl into src/gpu/kernels.gen.ts: expands #import, reads bindings, overrides and dims out of the WGSL, and refuses what breaks the house style.
import { existsSync, mkdirSync, readFileSync, readdirSync, utimesSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));

/** What a device must have been opened with for `enable NAME;`. */
const FEATURES: Readonly<Record<string, string>> = { subgroups: 'subgroups', f16: 'shader-f16', chromium_experimental_subgroup_matrix: 'chromium-experimental-subgroup-matrix' };

/** Which import stands for which. */
type Swaps = Readonly<Record<string, string>>;

/** Permutations: a kernel that imports the one is written a second time, as NAME_suffix, with the other in its place. */
const VEC4 = { swaps: { values: 'values_vec4' }, suffix: 'vec4' } as const, FACTORS = { swaps: { operands: 'operands_f16' }, suffix: 'f16' } as const;
/** For subgroups of four and of sixteen lanes, in place of eight. */
const LANES = [{ swaps: { subgroup_8: 'subgroup_4' }, suffix: 'lanes4' }, { swaps: { subgroup_8: 'subgroup_16' }, suffix: 'lanes16' }] as const;
/** What imports `stored` is written once more, as the `half` of what it is else, for activations that are float16; the factors of products are so too then. Half8 (shared/eights) is float16 in either form. */
const STORED = { swaps: { stored: 'stored_f16', eights: 'eights_f16' }, suffix: 'stored_f16' } as const;

/** Workgroup memory that every device has (WebGPU's default limit): a kernel that takes more says so. */
const WORKGROUP_BYTES = 16384;
const BYTES: Readonly<Record<string, number>> = { f32: 4, u32: 4, 'atomic<u32>': 4, vec2f: 8, vec4f: 16, f16: 2, 'vec4<f16>': 8 };

interface Reflection {
  bindings: Record<string, 'read' | 'read_write'>;
  overrides: Record<string, string>;
  optional: Record<string, string>;
  dims: Record<string, string>;
  features: string[];
  f16: string[];
  /** Bytes in the arrays of workgroup memory, by the overrides' defaults. */
  workgroupBytes: number;
}

/** Reads a kernel's interface; throws, naming the file, where it does not follow the rules that the engine relies on. */
export function reflect(file: string, source: string, swaps: Swaps = {}): Reflection {
  const refuse = (why: string): never => {
    throw new Error(`kernels/${file}: ${why}`);
  };
  const lines = source.split('\n');
  if (!lines[0]?.startsWith('// ') || !lines[1]?.startsWith('// ')) refuse('the first line must be the mathematics and the second what an invocation or workgroup does, as comments');
  if (/\t| $/m.test(source)) refuse('no tabs and no trailing spaces');
  if ((source.match(/@compute/g) ?? []).length !== 1 || !/fn main\(/.test(source)) refuse('exactly one entry point, called main');

  const bindings: Reflection['bindings'] = {}, f16: string[] = [], half = swaps['stored'] ? /\b(f16|Half8|Stored\w*)\b/ : /\b(f16|Half8)\b/;
  let next = 0, dimsBound = false, written = false;
  for (const line of lines) {
    const m = /^@group\((\d+)\) @binding\((\d+)\) var<(.+?)> (\w+): (.+?);\s*(\/\/.*)?$/.exec(line);
    if (!m) {
      if (line.includes('@binding')) refuse(`cannot read the binding "${line}"`);
      continue;
    }
    const [, group, index, space, name, type, comment] = m as unknown as [string, string, string, string, string, string, string | undefined];
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
      if (half.test(type)) f16.push(name);
    }
  }

  const overrides: Record<string, string> = {}, optional: Record<string, string> = {}, dims: Record<string, string> = {};
  for (const [, name, type, value] of source.matchAll(/^override (\w+): (u32|f32|i32|bool)( = .+)?;/gm)) (value ? optional : overrides)[name!] = type!;
  const whole = expand(source, swaps);
  if (whole.includes('/*')) refuse('a comment begins with // and ends with its line');
  const struct = /^struct Dims \{([^}]*)\}/m.exec(whole);
  if (!!struct !== dimsBound) refuse('struct Dims and the uniform dims come together');
  for (const [, name, type] of (struct?.[1] ?? '').matchAll(/(\w+): (u32|i32|f32)/g)) dims[name!] = type!;
  const features = [...whole.matchAll(/^enable (\w+);/gm)].map(([, name]) => FEATURES[name!] ?? refuse(`enable ${name}: say in kernels/build.ts which feature of a device that is`));
  const named = (pattern: RegExp) => new Map([...whole.matchAll(pattern)].map(([, name, value]) => [name!, value!]));
  const numbers = named(/^(?:override|const) (\w+)(?:: u32)? = (\d+)u;/gm), aliases = named(/^alias (\w+) = (\S+);/gm), structs = named(/^struct (\w+) \{([^}]*)\}/gm);
  // A struct in workgroup memory has members of one type: there is no padding.
  const bytesOf = (type: string): number => {
    if (BYTES[type] || aliases.has(type)) return BYTES[type] ?? bytesOf(aliases.get(type)!);
    const members = structs.get(type) ?? refuse(`workgroup memory of type ${type}: say in kernels/build.ts how many bytes that takes`);
    return [...members.matchAll(/\w+: (\w+)/g)].reduce((sum, [, member]) => sum + bytesOf(member!), 0);
  };
  const arrays = [...whole.matchAll(/^var<workgroup> \w+: array<(\S+), (.+)>;/gm)];
  const workgroupBytes = arrays.reduce((sum, [, type, count]) => {
    const plain = count!.replace(/\b[A-Za-z]\w*/g, (name) => numbers.get(name) ?? refuse(`workgroup memory of ${name} elements: a number, or overrides and constants`)).replace(/(\d)u\b/g, '$1');
    return sum + bytesOf(type!) * Number(/^[\d\s+*/()]+$/.test(plain) ? new Function(`return ${plain}`)() : refuse(`workgroup memory of "${count}" elements`));
  }, 0);
  return { bindings, overrides, optional, dims, features, f16, workgroupBytes };
}

/** Replaces each `#import name` line by kernels/shared/name.wgsl, or by what stands for it, once, its own imports first; what it enables goes before all else but the first comments. */
export function expand(source: string, swaps: Swaps = {}): string {
  const seen = new Set<string>();
  const imports = (text: string): string =>
    text.replace(/^#import (\w+)$/gm, (_, name: string) => {
      if (seen.has(name)) return '';
      seen.add(name);
      return imports(readFileSync(join(here, 'shared', `${swaps[name] ?? name}.wgsl`), 'utf8').trimEnd());
    });
  const text = imports(source), enables = new Set(text.match(/^enable \w+;\n/gm));
  const rest = text.replace(/^enable \w+;\n/gm, ''), head = /^(\/\/.*\n)*/.exec(rest)![0];
  return head + [...enables].join('') + rest.slice(head.length);
}

const json = (value: object): string => JSON.stringify(value).replace(/"(\w+)":/g, ' $1: ').replace(/"/g, "'").replace('}', ' }');

interface Written {
  name: string;
  interface: Reflection;
  wgsl: string;
  /** The name of the same kernel for float16 activations. */
  half: string | null;
}

/** Every kernel's name, interface and whole text; one for float16 activations comes before the one that it belongs to. */
export function kernels(): Written[] {
  return readdirSync(here).filter((f) => f.endsWith('.wgsl')).sort().flatMap((file) => {
    const source = readFileSync(join(here, file), 'utf8'), name = basename(file, '.wgsl');
    const imports = (shared: string): boolean => source.includes(`\n#import ${shared}\n`);
    const written = (as: string, swaps: Swaps, half: string | null = null): Written => ({ name: as, interface: reflect(file, source, swaps), wgsl: expand(source, swaps), half });
    const both = (as: string, half: string, swaps: Swaps = {}): Written[] =>
      imports('stored') ? [written(half, { ...swaps, ...STORED.swaps }), written(as, swaps, half)] : [written(as, swaps)];
    const stored = `${name}_${STORED.suffix}`, vec4 = `${name}_${VEC4.suffix}`;
    if (imports('operands')) return [written(name, {}), ...both(`${name}_${FACTORS.suffix}`, stored, FACTORS.swaps)];
    if (imports('subgroup_8')) return [written(name, {}), ...LANES.map(({ suffix, swaps }) => written(`${name}_${suffix}`, swaps))];
    return [...both(name, stored), ...(imports('values') ? both(vec4, `${vec4}_${STORED.suffix}`, VEC4.swaps) : [])];
  });
}

/** Nobody reads comments in the library's strings. Lines stay where they are, for the messages of compilers. WGSL has no strings, in which // could be anything else. */
const withoutComments = (wgsl: string): string => wgsl.replace(/ *\/\/.*/g, '');

/** The typed module; `comments` stay in it where it is to be read, as on the pages of the kernels. */
export function build({ comments = false } = {}): string {
  const out = [
    '// Generated by kernels/build.ts from kernels/*.wgsl; do not edit.',
    '/* eslint-disable */',
    "import type { Kernel } from './kernel.ts';",
  ];
  for (const { name, interface: r, wgsl, half } of kernels())
    out.push(
      '',
      `export const ${name} = {`,
      `  name: '${name}', features: ${JSON.stringify(r.features).replaceAll('"', "'")},`,
      `  bindings: ${json(r.bindings)}, overrides: ${json(r.overrides)}, optional: ${json(r.optional)}, dims: ${json(r.dims)},`,
      ...(r.f16.length ? [`  f16: ${JSON.stringify(r.f16).replaceAll('"', "'")},`] : []),
      ...(r.workgroupBytes > WORKGROUP_BYTES ? [`  workgroupBytes: ${r.workgroupBytes},`] : []),
      ...(half ? [`  half: ${half} as Kernel,`] : []),
      `  wgsl: ${JSON.stringify(comments ? wgsl : withoutComments(wgsl))} as string,`,
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
    // An unchanged module is left as it is: another process may be reading it. Its time says which kernels it is of.
    const module = join(here, '../src/gpu/kernels.gen.ts'), started = new Date(), text = build();
    if (!existsSync(module) || readFileSync(module, 'utf8') !== text) writeFileSync(module, text);
    utimesSync(module, started, started);
  }
}
