// Pieces of source text, for showing.

/** A function of a file, with the comment above it. */
export function functionIn(source: string, name: string): string {
  const lines = source.split('\n'), first = lines.findIndex((line) => new RegExp(`^export (function|const) ${name}\\b`).test(line));
  if (first < 0) return source;
  let from = first, to = first;
  while (from > 0 && /^(\/\*\*|\/\/| \*)/.test(lines[from - 1]!)) from--;
  // A function ends with a brace at the margin, a constant with a semicolon at the end of a line.
  const ends = lines[first]!.startsWith('export function') ? (line: string) => line === '}' : (line: string) => line.endsWith(';');
  while (to < lines.length - 1 && !ends(lines[to]!)) to++;
  return lines.slice(from, to + 1).join('\n');
}
