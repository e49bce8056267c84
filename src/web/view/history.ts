// The numbers of one run in columns, as its lines arrive.
import type { MetricsLine } from './run.ts';

/** The columns that have a chart. */
export const COLUMNS = ['loss', 'grad_norm', 'lr', 'images_per_s'] as const;
export type Column = (typeof COLUMNS)[number];

export class History {
  readonly step: number[] = [];
  readonly columns: Readonly<Record<Column, number[]>> = { loss: [], grad_norm: [], lr: [], images_per_s: [] };
  /** Loss by noise level, where the metrics have it: the latest values of each, and how many there are. */
  readonly levels: number[][] = [];
  epoch = 0;
  skipped = 0;

  add(line: MetricsLine): void {
    const step = line['step'];
    if (typeof step !== 'number') return;
    // A run that went on from an earlier checkpoint writes its steps again.
    while (this.step.length > 0 && this.step.at(-1)! >= step) this.#pop();
    this.step.push(step);
    for (const name of COLUMNS) this.columns[name].push(typeof line[name] === 'number' ? line[name] : NaN);
    if (typeof line['epoch'] === 'number') this.epoch = line['epoch'];
    if (line['nonfinite'] !== undefined) this.skipped++;
    const levels = line['loss_by_t'];
    if (Array.isArray(levels))
      (levels as readonly (number | null)[]).forEach((value, i) => {
        const of = (this.levels[i] ??= []);
        if (value !== null && of.push(value) > 200) of.shift();
      });
  }

  #pop(): void {
    this.step.pop();
    for (const name of COLUMNS) this.columns[name].pop();
  }

  get last(): number {
    return this.step.at(-1) ?? 0;
  }

  /** The mean of the last finite values of a column. */
  recent(column: Column, count = 50): number {
    const values = this.columns[column].slice(-count).filter(Number.isFinite);
    return values.reduce((a, b) => a + b, 0) / values.length;
  }
}
