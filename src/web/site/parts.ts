// Parts that several pages have: a message, a field, a drop zone, a button that is busy while it works.
import { DdpmError } from '../../errors.ts';
import { fill, h } from '../dom.ts';
import type { Located } from './data-files.ts';

/** Where a page says what went wrong or what has happened. */
export class Message {
  readonly element = h('div', { role: 'alert', hidden: true });

  /** On a narrow screen it may be far from what was done. */
  error(error: unknown): void {
    // The browser's own errors have numbers as codes, which say nothing.
    const { code, message } = error as { code?: unknown; message?: string };
    this.#say('message', `${typeof code === 'string' ? `${code}  ` : ''}${message ?? String(error)}`);
    this.element.scrollIntoView({ block: 'nearest' });
  }

  note(text: string): void {
    this.#say('message note', text);
  }

  clear(): void {
    this.element.hidden = true;
  }

  #say(className: string, text: string): void {
    this.element.hidden = false;
    this.element.className = className;
    this.element.textContent = text;
  }
}

/** Runs what a button does: it is off meanwhile, and errors are shown. */
export async function busy(button: HTMLButtonElement, message: Message, work: () => Promise<unknown>): Promise<void> {
  button.disabled = true;
  message.clear();
  try {
    await work();
  } catch (error) {
    message.error(error);
  } finally {
    button.disabled = false;
  }
}

export const field = (label: string, control: HTMLElement): HTMLElement => h('label', { className: 'field' }, label, control);

export function select<T extends string>(options: Readonly<Record<T, string>>, value: T, id: string): HTMLSelectElement {
  return h('select', { id }, ...Object.entries<string>(options).map(([name, label]) => h('option', { value: name, selected: name === value }, label)));
}

export const number = (id: string, value: number, more: { min?: number; max?: number; step?: number | 'any' } = {}): HTMLInputElement =>
  h('input', { type: 'number', id, value: String(value), min: String(more.min ?? ''), max: String(more.max ?? ''), step: String(more.step ?? 1), required: true });

/** @throws DdpmError E-USAGE for the first of these fields that has none of its numbers; one that is off counts not */
export function need(...fields: readonly HTMLInputElement[]): void {
  const wrong = fields.find(({ disabled, step, validity: { valueMissing, badInput, rangeUnderflow, rangeOverflow, stepMismatch } }) => !disabled && (valueMissing || badInput || rangeUnderflow || rangeOverflow || (step === '1' && stepMismatch)));
  if (!wrong) return;
  wrong.focus();
  const { labels, value, step, min, max } = wrong, name = labels![0]!.firstChild!.textContent;
  throw new DdpmError('E-USAGE', `${name} ${value === '' ? 'has no number' : `is ${value}`}: it must be a ${step === '1' ? 'whole number' : 'number'}${min && max ? ` from ${min} to ${max}` : min ? ` of at least ${min}` : ''}.`);
}

/** The choice of a class by name or number: each in turn, one, or none, which has the last of `rows`. */
export const classOptions = (rows: number, names: readonly string[] | null): HTMLOptionElement[] => [
  h('option', { value: 'all' }, 'each in turn'),
  ...Array.from({ length: rows }, (_, i) => h('option', { value: String(i) }, i === rows - 1 ? 'none' : (names?.[i] ?? String(i)))),
];

/** A place to drop files and folders onto, which also opens the file chooser, where `folders` is set for folders too. Files of a folder come with their paths. */
export function dropZone(id: string, text: string, accept: string, take: (files: File[], located: Located[]) => void, folders = false): HTMLElement {
  const chooser = (props: { id: string; accept?: string; webkitdirectory?: boolean }, label: string): HTMLElement[] => {
    const input = h('input', { type: 'file', multiple: true, hidden: true, ...props }), button = h('button', { type: 'button' }, label);
    button.addEventListener('click', () => input.click());
    input.addEventListener('change', () => {
      const files = [...(input.files ?? [])];
      take(files, files.map((file) => ({ file, path: file.webkitRelativePath || file.name })));
      input.value = ''; // so that the same file can be chosen again
    });
    return [button, input];
  };
  const zone = h('div', { className: 'drop', role: 'group', aria: { label: text } }, h('p', { style: 'margin: 0 auto .5rem' }, text), h('div', { className: 'row', style: 'justify-content: center' },
    ...chooser({ id, accept }, 'Choose files'), ...(folders ? chooser({ id: `${id}-folder`, webkitdirectory: true }, 'Choose a folder') : [])));
  zone.addEventListener('dragover', (event) => {
    if (!event.dataTransfer?.types.includes('Files')) return;
    event.preventDefault();
    zone.classList.add('over');
  });
  zone.addEventListener('dragleave', () => zone.classList.remove('over'));
  zone.addEventListener('drop', (event) => {
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    zone.classList.remove('over');
    // Entries are there during the event alone, and files can be read later.
    const entries = [...event.dataTransfer.items].flatMap((item) => item.webkitGetAsEntry() ?? []), files = [...event.dataTransfer.files];
    if (entries.every((entry) => entry.isFile)) take(files, files.map((file) => ({ file, path: file.name })));
    else void Promise.all(entries.map(filesBelow)).then((found) => take(found.flat().map(({ file }) => file), found.flat()));
  });
  return zone;
}

/** Says how far something is, or how it ended: screen readers hear the end alone. */
export function say(status: HTMLElement, text: string, { counting = false } = {}): void {
  status.ariaLive = counting ? 'off' : 'polite';
  status.textContent = text;
}

/** Numbers with their names, replaced as a whole. */
export function facts(element: HTMLElement, rows: readonly (readonly [string, string])[]): void {
  fill(element, ...rows.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))));
}

/** The files of a folder that was dropped, at any depth. A file that cannot be read is passed over. */
async function filesBelow(entry: FileSystemEntry): Promise<Located[]> {
  if (entry.isFile) {
    const file = await new Promise<File | null>((done) => (entry as FileSystemFileEntry).file(done, () => done(null)));
    return file ? [{ file, path: entry.fullPath.replace(/^\//, '') }] : [];
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader(), found: Located[] = [];
  // A reader gives a hundred at a time, and none at the end.
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((done) => reader.readEntries(done, () => done([])));
    if (some.length === 0) return found;
    for (const each of some) found.push(...(await filesBelow(each)));
  }
}
