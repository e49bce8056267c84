// How the data of a command are read: as its flags say, and where they are silent, as the run read them that the model is of.

import type { LoadOptions } from '../data/dataset.ts';
import { settingsFromJson } from './flags.ts';
import type { RunFolder } from './run-folder.ts';
import { TRAIN, type TrainSettings } from './settings.ts';

type Reading = { readonly [K in 'imageSize' | 'channels' | 'labels' | 'skipBad' | 'data']?: TrainSettings[K] | null };

/**
 * Options for loadDataset. Other data than the run's are brought to the size and the channels of its own; which labels, and what to do with damaged
 * files, is a matter of each data set.
 */
export function readingOptions(flags: Reading, run?: RunFolder): Pick<LoadOptions, 'imageSize' | 'channels' | 'labels' | 'skipBad'> {
  const ran: Partial<TrainSettings> = run ? settingsFromJson(TRAIN, run.config(), run.file('config.json')) : {};
  const same = (flags.data ?? ran.data) === ran.data;
  const imageSize = flags.imageSize ?? ran.imageSize, channels = flags.channels ?? ran.channels, labels = flags.labels ?? (same ? ran.labels : null);
  return {
    ...(imageSize && { imageSize }), ...(channels && { channels: channels === '1' ? 1 : 3 }), ...(labels && { labels }),
    skipBad: flags.skipBad ?? (same && ran.skipBad) ?? false,
  };
}
