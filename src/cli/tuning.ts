// What `npm run tune` measured: a file for each adapter in the user's cache folder. Each run keeps the choices that it was trained with, in the same form, so that it goes on with them.

import { createHash } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { cacheFolder } from '../data/pixel-cache.ts';
import { DdpmError } from '../errors.ts';
import type { Choice, Choices, ChoiceTable } from '../gpu/choices.ts';
import { isSoftware } from '../gpu/device-class.ts';
import * as kernels from '../gpu/kernels.gen.ts';
import { writeAtomic } from '../io/files.ts';
import { openEngine, type OpenedEngine } from '../node.ts';
import type { Precision } from '../ops/precision.ts';
import { typedAlone } from '../typed.ts';
import { describeDevice, say } from './command.ts';

/** Marks the file; the value is the version of its form. */
const MARK = 'ddpm.wgsl tuning';
const VERSION = 1;
/** In a run folder. */
export const TUNING = 'tuning.json';

/** What an adapter is known by; the description names the driver. */
const ADAPTER = ['vendor', 'architecture', 'device', 'description'] as const;
type Adapter = Readonly<Record<(typeof ADAPTER)[number], string>>;
const adapterOf = (info: Adapter): Adapter => ({ vendor: info.vendor, architecture: info.architecture, device: info.device, description: info.description });
const nameOf = ({ vendor, architecture, device, description }: Adapter): string => description || [vendor, architecture, device].filter(Boolean).join(' ') || 'an adapter without a name';

export interface TuningFile {
  readonly adapter: Adapter;
  /** A digest of the kernels that were measured. */
  readonly kernels: string;
  readonly date: string;
  readonly choices: ChoiceTable;
}

const digest = (...texts: readonly string[]): string => createHash('sha256').update(JSON.stringify(texts)).digest('hex').slice(0, 16);

/** Times of other kernels say nothing about these. */
export const kernelDigest = (): string => digest(...Object.values(kernels).map(({ name, wgsl }) => `${name}\n${wgsl}`).sort());

/** Where the choices of an adapter lie: $XDG_CACHE_HOME/ddpm.wgsl/tuning/NAME-DIGEST.json, or in ~/.cache. */
export function tuningPath(info: Adapter, env: NodeJS.ProcessEnv = process.env): string {
  const adapter = adapterOf(info), name = nameOf(adapter).split(/[:(]/)[0]!.toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-|-$/g, '');
  return join(cacheFolder(env), 'tuning', `${name}-${digest(...Object.values(adapter)).slice(0, 8)}.json`);
}

/** @throws DdpmError E-FILE where it cannot be written */
export function writeTuning(path: string, { adapter, choices, kernels: measured, date }: TuningFile): Promise<void> {
  const lines = Object.entries(choices).sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, choice]) => `    ${JSON.stringify(key)}: ${JSON.stringify(choice)}`);
  const head = JSON.stringify({ [MARK]: VERSION, adapter: adapterOf(adapter), kernels: measured, date }, null, 2).slice(0, -2);
  return writeAtomic(path, `${head},\n  "choices": {${lines.length ? `\n${lines.join(',\n')}\n  ` : ''}}\n}\n`);
}

/** @throws DdpmError E-FILE saying what is wrong with it */
export function readTuning(path: string): TuningFile {
  const wrong = (why: string, cause?: unknown): DdpmError => new DdpmError('E-FILE', `${path} ${why}`, { cause });
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw wrong(`cannot be read: ${(error as Error).message}`, error);
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw wrong(`is damaged: ${(error as Error).message}`, error);
  }
  const plain = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value);
  if (!plain(json) || !(MARK in json)) throw wrong(`holds no choices of kernels, as ${typedAlone('tune')} writes them and each run has in its ${TUNING}.`);
  if (json[MARK] !== VERSION) throw wrong(`has the format ${String(json[MARK])}, and this version reads ${VERSION}.`);
  const { adapter, kernels: measured, date, choices } = json;
  const isChoice = (value: unknown): value is Choice => plain(value) && Object.values(value).every((v) => typeof v === 'string' || Number.isFinite(v));
  const good = plain(adapter) && ADAPTER.every((name) => typeof adapter[name] === 'string') && typeof measured === 'string' && typeof date === 'string' && plain(choices) && Object.values(choices).every(isChoice);
  if (!good) throw wrong('is damaged: it needs an adapter, a digest of kernels, a date and choices of names and numbers.');
  return { adapter: adapter as unknown as Adapter, kernels: measured as string, date: date as string, choices: choices as ChoiceTable };
}

/** The choices that a command starts with, and where they are from. */
export interface Tuning {
  readonly choices: ChoiceTable;
  /** For the header, after the numbers of what was used; null where the table of defaults alone decides. */
  readonly from: string | null;
  readonly warnings: readonly string[];
}

const NONE: Tuning = { choices: {}, from: null, warnings: [] };

/**
 * What --tuning says: `auto` is what was measured on this adapter, if anything was; `off` is the table of defaults; else a file, or a run that has one. A run that goes on
 * has recorded its choices: give its folder as `recorded`.
 *
 * @throws DdpmError E-FILE for a named file that is missing or damaged; any other that is so is passed over with a warning
 */
export function tuningFor(info: Adapter, setting: string, recorded: string | null = null): Tuning {
  if (recorded !== null) return fromRun(info, join(recorded, TUNING));
  if (setting === 'off') return NONE;
  if (setting === 'auto') return measuredHere(info);
  const path = existsSync(setting) && statSync(setting).isDirectory() ? join(setting, TUNING) : setting;
  const { choices, adapter, date } = readTuning(path);
  return { choices, from: `from ${path}${sameDevice(adapter, info) ? '' : `, made on ${nameOf(adapter)}`}, ${day(date)}`, warnings: [] };
}

function measuredHere(info: Adapter): Tuning {
  const path = tuningPath(info);
  if (!existsSync(path)) return NONE;
  const passOver = (why: string): Tuning => ({ ...NONE, warnings: [`${why} The table of defaults is used; to measure again: ${typedAlone('tune')}`] });
  try {
    const { choices, kernels: measured, date } = readTuning(path);
    if (measured !== kernelDigest()) return passOver(`${path} was measured with other kernels, on ${day(date)}.`);
    return { choices, from: `measured on this device, ${day(date)}`, warnings: [] };
  } catch (error) {
    if (!(error instanceof DdpmError)) throw error;
    return passOver(error.message);
  }
}

function fromRun(info: Adapter, path: string): Tuning {
  const other = 'from here on the numbers may differ in their last digits from a run without a break';
  // Runs from before there were choices were trained with the table.
  if (!existsSync(path)) return NONE;
  try {
    const { choices, adapter, kernels: trained } = readTuning(path);
    if (!sameDevice(adapter, info)) {
      const here = measuredHere(info);
      return { ...here, warnings: [`the run was trained on ${nameOf(adapter)}: its kernels are chosen anew for this device, and ${other}`, ...here.warnings] };
    }
    return { choices, from: `as ${path} recorded`, warnings: trained === kernelDigest() ? [] : [`the kernels are not those that the run was trained with: ${other}`] };
  } catch (error) {
    if (!(error instanceof DdpmError)) throw error;
    return { ...NONE, warnings: [`${error.message} The table of defaults is used, and ${other}`] };
  }
}

/** Whatever its driver is now, which a CPU that plays a GPU has in its name. */
const sameDevice = (a: Adapter, b: Adapter): boolean => a.vendor === b.vendor && a.architecture === b.architecture && (a.device === b.device || (isSoftware(a) && isSoftware(b)));

const day = (date: string): string => date.slice(0, 10);

/** The header's line: how many of what was asked for so far was given. */
export function describeTuning({ made }: Choices, { from }: Tuning): string | null {
  const given = [...made.values()].filter((each) => each.given).length;
  return from === null ? null : `${given} of ${made.size} choices of kernels ${from}`;
}

/** What cannot be done here, for a warning. */
export function describeRefused({ refused }: Choices): string | null {
  const [first] = refused;
  if (!first) return null;
  const [key, choice] = first;
  return `${refused.size} ${refused.size === 1 ? 'choice' : 'choices'} of kernels cannot be followed on this device, such as ${Object.values(choice).join(' ')} for ${key}: the table of defaults is used for ${refused.size === 1 ? 'it' : 'them'}`;
}

/** Writes what a run was trained with so far. */
export const recordTuning = (folder: string, info: Adapter, choices: Choices): Promise<void> =>
  writeTuning(join(folder, TUNING), { adapter: adapterOf(info), kernels: kernelDigest(), date: new Date().toISOString(), choices: choices.table() });

/** Opens the device for a command, with the choices that --tuning names or the folder of a run recorded, and says what was opened. */
export async function openTuned({ gpu, tuning: setting, precision }: { readonly gpu: string | null; readonly tuning: string; readonly precision: Precision }, recorded: string | null = null): Promise<{ opened: OpenedEngine; tuning: Tuning }> {
  let tuning = NONE;
  const opened = await openEngine({ ...(gpu !== null && { gpu }), precision, choices: (info) => (tuning = tuningFor(info, setting, recorded)).choices });
  say('device', describeDevice(opened));
  for (const warning of [...tuning.warnings, ...opened.warnings]) say('warning', warning);
  return { opened, tuning };
}
