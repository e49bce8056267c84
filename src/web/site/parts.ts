// Parts that several pages have: a message, a field, a drop zone, a button that is busy while it works.
import { fill, h } from '../dom.ts';

/** Where a page says what went wrong or what has happened. */
export class Message {
  readonly element = h('div', { role: 'alert', hidden: true });

  error(error: unknown): void {
    const { code, message } = error as { code?: string; message?: string };
    this.#say('message', `${code ? `${code}  ` : ''}${message ?? String(error)}`);
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
  h('input', { type: 'number', id, value: String(value), min: String(more.min ?? ''), max: String(more.max ?? ''), step: String(more.step ?? 1) });

/** A place to drop files onto, which also opens the file chooser. */
export function dropZone(id: string, text: string, accept: string, take: (files: File[]) => void): HTMLElement {
  const input = h('input', { type: 'file', multiple: true, accept, id, hidden: true });
  const button = h('button', { type: 'button' }, 'Choose files');
  button.addEventListener('click', () => input.click());
  input.addEventListener('change', () => {
    take([...(input.files ?? [])]);
    input.value = ''; // so that the same file can be chosen again
  });
  const zone = h('div', { className: 'drop' }, h('p', { style: 'margin: 0 auto .5rem' }, text), button, input);
  zone.addEventListener('dragover', (event) => {
    event.preventDefault();
    zone.classList.add('over');
  });
  zone.addEventListener('dragleave', () => zone.classList.remove('over'));
  zone.addEventListener('drop', (event) => {
    event.preventDefault();
    zone.classList.remove('over');
    take([...(event.dataTransfer?.files ?? [])]);
  });
  return zone;
}

/** Numbers with their names, replaced as a whole. */
export function facts(element: HTMLElement, rows: readonly (readonly [string, string])[]): void {
  fill(element, ...rows.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))));
}
