// A checkpoint of a run that cannot be read, and the one to take in its place.

import { DdpmError } from '../errors.ts';
import { readCheckpoint, readModelConfig } from '../io/checkpoint.ts';
import { quoted } from './command.ts';
import type { Checkpoint, RunFolder } from './run-folder.ts';

/**
 * What `read` gives; where the checkpoint that it reads is damaged, its error names the newest other one of the run that is whole. `typed` is the command that takes it.
 *
 * @throws DdpmError that of `read`
 */
export async function orNameAnother<T>({ run, checkpoint }: { readonly run: RunFolder; readonly checkpoint: Checkpoint }, typed: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof DdpmError && error.code === 'E-FILE')) throw error;
    throw new DdpmError('E-FILE', `${error.message}\n${await another(run, checkpoint, typed)}`, { cause: error });
  }
}

async function another(run: RunFolder, { step }: Checkpoint, typed: string): Promise<string> {
  const others = run.checkpoints().filter((each) => each.step !== step).reverse();
  const isWhole = (path: string): Promise<boolean> => Promise.all([readModelConfig(path), readCheckpoint(path)]).then(() => true, () => false);
  for (const { step: older, path } of others) if (await isWhole(path)) return `The newest whole checkpoint of the run is that of step ${older}: ${typed} ${quoted(path)}`;
  return `The run has ${others.length ? 'no other checkpoint that is whole' : 'no other checkpoint'}.`;
}
