// API.md, made from the declarations and docstrings in dist/: what each entry of the package exports, with its source's own words.
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

export interface Export {
  readonly name: string;
  readonly typeOnly: boolean;
  /** The declaration file, from dist/. */
  readonly file: string;
}

const ENTRIES: readonly (readonly [title: string, file: string, what: string])[] = [
  ['ddpm.wgsl', 'index.d.ts', 'For any device that has WebGPU: pages, workers and Node. By folder:'],
  ['ddpm.wgsl/node', 'node.d.ts', 'For Node: opens a device, and reads and writes files. By folder:'],
  ['ddpm.wgsl/kernels', 'kernels.d.ts', 'Every kernel by the name of its file, such as `silu_forward`: a `Kernel`, with its interface and its WGSL, whose comments are in the files `ddpm.wgsl/kernels/*.wgsl`. Also `dispatch`, `BufferArgs`, `Grid` and `Kernel`, as above.'],
];

/** What a declaration file exports, through its re-exports. The kernels themselves are a list of their own. */
export function exportsOf(dist: string, file: string): Export[] {
  const text = readFileSync(join(dist, file), 'utf8'), found: Export[] = [];
  const source = (of: string): string => join(dirname(file), of).replaceAll('\\', '/').replace(/\.[jt]s$/, '.d.ts');
  const home = (name: string, of: string): string => exportsOf(dist, of).find((e) => e.name === name)?.file ?? of;
  for (const [, typeOnly, names, of] of text.matchAll(/^export (type )?\{([^}]*)\} from '([^']+)';/gm))
    for (const each of names!.split(',').map((n) => n.trim()).filter(Boolean)) found.push({ name: each.replace(/^type /, ''), typeOnly: !!typeOnly || each.startsWith('type '), file: home(each.replace(/^type /, ''), source(of!)) });
  for (const [, of] of text.matchAll(/^export \* from '([^']+)';/gm)) if (!of!.includes('kernels.gen')) found.push(...exportsOf(dist, source(of!)));
  for (const [, kind, name] of text.matchAll(/^export (?:declare )?(?:abstract )?(class|function|const|interface|type) (\w+)/gm)) found.push({ name: name!, typeOnly: kind === 'interface' || kind === 'type', file });
  return found;
}

/** A declaration and the comment before it. */
export function declaration(text: string, name: string): { doc: string; code: string } {
  const start = new RegExp(`^export (?:declare )?(?:abstract )?(?:class|function|const|interface|type) ${name}\\b`, 'm').exec(text);
  if (!start) throw new Error(`no declaration of ${name}`);
  // To the line that closes it: the first at the margin that ends in } or ;.
  const rest = text.slice(start.index), end = /^(?:\S.*)?[};]$/m.exec(rest)!;
  const code = rest.slice(0, end.index + end[0].length).replace(/^ +(?:private .*|#private;)\n/gm, '').replace(/^export (declare )?/, '');
  const before = /\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\s*$/.exec(text.slice(0, start.index))?.[1] ?? '';
  return { doc: before.split('\n').map((line) => line.replace(/^\s*\* ?/, '').trimEnd()).join('\n').trim(), code };
}

export function apiPage(dist: string): string {
  const out = ['# The API of ddpm.wgsl', '', 'Made by `npm run api` from the declarations and docstrings. `ddpm.wgsl/nn` and `ddpm.wgsl/diffusion` are parts of `ddpm.wgsl`.'];
  const described = new Set<string>(), taken = new Map<string, number>();
  /** The anchor that GitHub gives a heading: `Grid` and `grid` are #grid and #grid-1. */
  const anchor = (name: string): string => {
    const slug = name.toLowerCase(), before = taken.get(slug) ?? 0;
    taken.set(slug, before + 1);
    return before ? `${slug}-${before}` : slug;
  };
  for (const [title, file, what] of ENTRIES) {
    const folders = new Map<string, string[]>(), parts: string[] = [];
    for (const { name, file: from } of exportsOf(dist, file)) {
      if (described.has(`${from} ${name}`)) continue;
      described.add(`${from} ${name}`);
      const { doc, code } = declaration(readFileSync(join(dist, from), 'utf8'), name), folder = /^(\w+\/)?/.exec(from)![0];
      folders.set(folder, [...(folders.get(folder) ?? []), `[${name}](#${anchor(name)})`]);
      parts.push('', `### ${name}`, '', ...(doc ? [doc, ''] : []), '```ts', code, '```');
    }
    out.push('', `## ${title}`, '', what, '', ...[...folders].map(([folder, names]) => `- \`src/${folder}\`: ${names.join(', ')}`), ...parts);
  }
  return out.join('\n').trimEnd() + '\n';
}
