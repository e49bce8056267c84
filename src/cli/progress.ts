// Progress of a run: one redrawn line with a bar on a terminal, plain lines elsewhere.

import { styleText } from 'node:util';

/** Where progress goes: process.stderr, or anything like it. */
export interface Sink {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

/** What is known after a training step. */
export interface StepReport {
  /** Steps done, from 1. */
  readonly step: number;
  readonly loss: number;
  readonly gradNorm: number;
  readonly lr: number;
  /** Milliseconds a step, lately. */
  readonly ms: number;
  readonly imagesPerSecond: number;
}

export interface ProgressOptions {
  /** The last step of the run. */
  readonly total: number;
  /** auto is bar on a terminal and lines elsewhere; none shows events only. */
  readonly mode?: 'auto' | 'bar' | 'lines' | 'none';
  /** In lines mode, the steps that are multiples of this are printed, and the last. */
  readonly every?: number;
  readonly colour?: boolean;
  /** Milliseconds; for tests. */
  readonly now?: () => number;
}

const CLEAR_LINE = '\r\x1b[2K';
const REDRAW_MS = 80; // more often costs time and shows nothing
const BAR = { min: 8, max: 24 };

export class Progress {
  readonly #sink: Sink;
  readonly #total: number;
  readonly #every: number;
  readonly #mode: 'bar' | 'lines' | 'none';
  readonly #colour: boolean;
  readonly #now: () => number;
  #drawn = ''; // the line that stands on the terminal, to put back below an event
  #drawnAt = -Infinity;
  #ms = NaN;
  #timed = 0;

  constructor(sink: Sink, { total, mode = 'auto', every = 1, colour = !process.env['NO_COLOR'], now = Date.now }: ProgressOptions) {
    this.#sink = sink;
    this.#total = total;
    this.#every = every;
    this.#mode = mode === 'auto' ? (sink.isTTY ? 'bar' : 'lines') : mode;
    this.#colour = colour && sink.isTTY === true;
    this.#now = now;
  }

  /** Call it for each step whose loss has arrived; it decides what is shown. */
  update(report: StepReport): void {
    if (Number.isFinite(report.ms)) {
      // Smoothed, so that the time left does not jump with every step: a mean that forgets, of all reports but the first, whose steps are slow.
      const before = this.#timed++;
      this.#ms = before < 2 ? report.ms : this.#ms + Math.max(0.1, 1 / before) * (report.ms - this.#ms);
    }
    const last = report.step >= this.#total;
    if (this.#mode === 'lines' && (last || report.step % this.#every === 0)) this.#sink.write(`step ${Object.values(this.#parts(report)).join(' | ')}\n`);
    if (this.#mode !== 'bar' || (!last && this.#now() - this.#drawnAt < REDRAW_MS)) return;
    this.#drawnAt = this.#now();
    this.#drawn = this.#barLine(report);
    this.#sink.write(CLEAR_LINE + this.#drawn);
  }

  /** A line that stays: a checkpoint, a sample grid, a warning. It scrolls above the bar. */
  event(text: string): void {
    this.#sink.write(this.#drawn ? `${CLEAR_LINE}${text}\n${this.#drawn}` : `${text}\n`);
  }

  /** Leaves the last state of the bar where it is and goes to a new line. */
  finish(): void {
    if (this.#drawn) this.#sink.write('\n');
    this.#drawn = '';
  }

  #parts({ step, loss, gradNorm, lr, imagesPerSecond, ms }: StepReport) {
    const total = String(this.#total);
    return {
      step: `${String(step).padStart(total.length)}/${total}`,
      percent: `${String(Math.floor(100 * this.#share(step))).padStart(3)}%`,
      loss: `loss ${fixed(loss, 4)}`,
      gradNorm: `gnorm ${fixed(gradNorm, 2)}`,
      lr: `lr ${lr.toExponential(1)}`,
      ms: `${fixed(ms, ms < 10 ? 2 : ms < 100 ? 1 : 0)} ms`,
      rate: `${fixed(imagesPerSecond, imagesPerSecond < 10 ? 1 : 0)} img/s`,
      eta: `eta ${formatTime(((this.#total - step) * this.#ms) / 1000)}`,
    };
  }

  /** A line that wraps cannot be redrawn in place: a narrow terminal loses what is least missed first, and the end of the line last. */
  #barLine(report: StepReport): string {
    const room = (this.#sink.columns || 80) - 1;
    const parts: Partial<Record<string, string>> = this.#parts(report);
    const text = (): string => ' ' + Object.values(parts).join('  ');
    for (const part of ['lr', 'percent', 'gradNorm'] as const) if (text().length + BAR.min > room) delete parts[part];
    const width = Math.min(BAR.max, room - text().length);
    if (width < BAR.min) return text().trimStart().slice(0, room);
    const done = Math.floor(width * this.#share(report.step));
    return this.#paint('green', '█'.repeat(done)) + this.#paint('gray', '░'.repeat(width - done)) + text();
  }

  #share(step: number): number {
    return Math.min(1, step / this.#total);
  }

  #paint(colour: 'green' | 'gray', text: string): string {
    // The sink was asked already; styleText would ask process.stdout.
    return this.#colour && text ? styleText(colour, text, { validateStream: false }) : text;
  }
}

/** Seconds as 6:45 or 1:02:03; unknown as "?". */
export function formatTime(seconds: number): string {
  if (!Number.isFinite(seconds)) return '?';
  const s = Math.max(0, Math.round(seconds));
  const two = (n: number): string => String(n).padStart(2, '0');
  const minutes = Math.floor(s / 60);
  return minutes < 60 ? `${minutes}:${two(s % 60)}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(s % 60)}`;
}

const fixed = (value: number, digits: number): string => (Number.isFinite(value) ? value.toFixed(digits) : String(value));

/** A bar on a terminal for work of a known length; nothing elsewhere. */
export class Bar {
  readonly #total: number;
  readonly #start = performance.now();
  #drawnAt = -Infinity;

  constructor(total: number) {
    this.#total = total;
  }

  draw(done: number): void {
    const now = performance.now();
    if (!process.stderr.isTTY || now - this.#drawnAt < REDRAW_MS) return;
    this.#drawnAt = now;
    const share = done / this.#total, full = Math.floor(BAR.max * share);
    const left = ((now - this.#start) / 1000) * (1 / share - 1);
    process.stderr.write(`${CLEAR_LINE}${'█'.repeat(full)}${'░'.repeat(BAR.max - full)}  ${Math.floor(100 * share)}%  eta ${formatTime(left)}`);
  }

  /** Takes the bar away; returns the time it stood there. */
  clear(): string {
    if (process.stderr.isTTY) process.stderr.write(CLEAR_LINE);
    return `${((performance.now() - this.#start) / 1000).toFixed(1)} s`;
  }
}

/** Off a terminal, this often says how far compiling is. */
const COMPILING_MS = 5000;

type Compiled = (done: number, total: number) => void;

/** Shows how many kernels are compiled, half a minute's work for a CPU the first time: on a terminal in one line, which is taken away with the last. */
export function compiling(sink: Sink = process.stderr, now: () => number = () => performance.now()): Compiled {
  let said = now();
  return (done, total) => {
    if (sink.isTTY) sink.write(`${CLEAR_LINE}kernels  ${done} of ${total}${done < total ? '' : CLEAR_LINE}`);
    else if (done < total && now() - said >= COMPILING_MS) {
      said = now();
      sink.write(`kernels  ${done} of ${total} compiled\n`);
    }
  };
}

/** The same of what `compile` does. Returns the time it took. */
export async function showCompiling(compile: (progress: Compiled) => Promise<void>, sink: Sink = process.stderr, now: () => number = () => performance.now()): Promise<string> {
  const start = now();
  await compile(compiling(sink, now));
  return `${((now() - start) / 1000).toFixed(1)} s`;
}
