// The names of the figures that sample draws; their own file, as the settings need no more than the names.
export const FIGURES = ['trajectory', 'x0-trajectory', 'last-steps', 'forward', 'mean-only'] as const;
export type Figure = (typeof FIGURES)[number];
