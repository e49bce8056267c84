// What the view of a run shows, as the server sends it and as a report carries it.

/** A line of metrics.jsonl. */
export type MetricsLine = Readonly<Record<string, number | string | boolean | null | readonly (number | null)[]>>;

export interface SampleGrid {
  /** Steps done when it was drawn; null for the last grid, and for files that do not say. */
  readonly step: number | null;
  readonly name: string;
  readonly url: string;
}

export interface Run {
  /** Its folder, relative to the one that is viewed. */
  readonly id: string;
  readonly name: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly env: Readonly<Record<string, unknown>>;
  readonly samples: readonly SampleGrid[];
}

/** A run with all of its numbers, for a page that has no server. */
export interface RunReport extends Run {
  readonly lines: readonly MetricsLine[];
}
