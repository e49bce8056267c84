// A run of the page as one safetensors file: weights, averages, moments, the losses so far, and where they are few the images; all else is JSON in its metadata.
import { classCount, classesAmong } from '../../data/images.ts';
import { DdpmError } from '../../errors.ts';
import { BUFFERS, type BufferName, type NamedTensors } from '../../nn/parameters.ts';
import { readSafetensors, type TensorToWrite, writeSafetensors } from '../../io/safetensors.ts';
import type { Prediction } from '../../diffusion/prediction.ts';
import type { TimeSampling } from '../../diffusion/timestep-sampling.ts';
import { type ImageSize, type ModelName, MODELS } from './models.ts';

export interface TrainData extends ImageSize {
  readonly name: string;
  readonly count: number;
  /** (count, height, width, channels) */
  readonly pixels: Uint8Array<ArrayBuffer>;
  /** (count), the class of each image, or null where none are known. */
  readonly labels: Uint8Array | Uint16Array | null;
  /** The name of each class, or null where they are plain numbers. */
  readonly classes: readonly string[] | null;
}

/** What is told about images without giving them. */
export type DataFacts = Omit<TrainData, 'pixels' | 'labels'>;

export interface RunSettings {
  readonly model: ModelName;
  readonly steps: number;
  readonly batchSize: number;
  readonly lr: number;
  readonly timesteps: number;
  /** What the network predicts. v goes with min-SNR weights of 5, as in the preset tiny of the command line. */
  readonly predict: Extract<Prediction, 'eps' | 'v'>;
  readonly timeSampling: Extract<TimeSampling, 'uniform' | 'weighted'>;
  readonly seed: number;
  readonly flip: boolean;
  /** Of a model that learns the classes: the share of images that it sees without theirs. null: it learns none. */
  readonly labelDropout: number | null;
  /** Steps between saves. */
  readonly saveEvery: number;
  /** Steps between previews of predicted x_0. */
  readonly previewEvery: number;
  /** Steps between grids of samples. */
  readonly sampleEvery: number;
}

export interface SavedRun {
  readonly step: number;
  readonly settings: RunSettings;
  /** The learning rate at the time: the page may have changed it. */
  readonly lr: number;
  readonly data: DataFacts;
  /** Loss of each step so far; NaN for those that were skipped. */
  readonly losses: readonly number[];
  readonly tensors: Readonly<Record<SavedBuffer, NamedTensors>>;
  /** What AdamW keeps besides its moments. */
  readonly optimizer: NamedTensors;
  readonly labels: TrainData['labels'];
  /** The images themselves, where they were few enough to keep. */
  readonly pixels: Uint8Array<ArrayBuffer> | null;
}

/** The classes that the model of a run learns; 0 where it learns none. */
export const classesIn = ({ labelDropout }: RunSettings, { labels, classes }: Pick<TrainData, 'labels' | 'classes'>): number => (labelDropout !== null && labels ? classCount({ labels, classes }) : 0);

/** Gradients are made anew in every step. */
const SAVED = BUFFERS.filter((name) => name !== 'grads') as SavedBuffer[];
export type SavedBuffer = Exclude<BufferName, 'grads'>;

/** Images of one size as a data set, and the name of each one's class where all have one. */
export function dataSet(name: string, size: ImageSize, images: readonly Uint8Array[], classOf: readonly string[] = []): TrainData {
  const each = size.height * size.width * size.channels, pixels = new Uint8Array(images.length * each), classes = classesAmong([...classOf].sort());
  images.forEach((image, i) => pixels.set(image, i * each));
  return { name, ...size, count: images.length, pixels, labels: classes && Uint16Array.from(classOf, (one) => classes.indexOf(one)), classes };
}

const KEY = 'ddpm.wgsl.run';
const FORMAT = 1;
/** Bytes of images that a file carries at most; a data set that is larger is one that others have too. */
const CARRIED = 16 * 2 ** 20;

type Content = Omit<SavedRun, 'tensors' | 'optimizer' | 'pixels'> & { readonly tensors: Readonly<Record<SavedBuffer, ReadonlyMap<string, TensorToWrite>>>; readonly optimizer: ReadonlyMap<string, TensorToWrite>; readonly pixels: Uint8Array };

export function encodeRun({ tensors, optimizer, pixels, labels, losses, ...rest }: Content): Uint8Array {
  const all = new Map<string, TensorToWrite>();
  for (const buffer of SAVED) for (const [name, tensor] of tensors[buffer]) all.set(`${buffer}.${name}`, tensor);
  for (const [name, tensor] of optimizer) all.set(`optimizer.${name}`, tensor);
  all.set('history.loss', { shape: [losses.length], data: Float32Array.from(losses) });
  const { count, height, width, channels } = rest.data;
  if (labels) all.set('data.labels', { shape: [count], data: labels });
  if (pixels.length <= CARRIED) all.set('data.pixels', { shape: [count, height, width, channels], data: pixels });
  return writeSafetensors(all, { format: 'pt', [KEY]: JSON.stringify({ format: FORMAT, ...rest }) });
}

type State = { readonly format: number } & Omit<SavedRun, 'tensors' | 'optimizer' | 'pixels' | 'labels' | 'losses'>;

/** What a file says of its run, null where that is not whole. */
function stateIn(text: string): State | null {
  try {
    const state = JSON.parse(text) as State, { step, lr, settings: { model, steps, batchSize, timesteps, seed }, data: { count, height, width, channels } } = state;
    return Object.hasOwn(MODELS, model) && Number.isFinite(lr) && [step, steps, batchSize, timesteps, seed, count, height, width, channels].every(Number.isInteger) ? state : null;
  } catch {
    return null;
  }
}

/** @throws DdpmError E-FILE where it is no safetensors file, none of a run, or damaged */
export function decodeRun(bytes: Uint8Array, name: string): SavedRun {
  const { tensors, metadata } = readSafetensors(bytes, name);
  const text = metadata[KEY];
  if (text === undefined) throw new DdpmError('E-FILE', `${name} is a safetensors file and not a run that this page saved: it has no "${KEY}". Weights to sample from belong on the page Sample.`);
  const state = stateIn(text);
  if (!state) throw new DdpmError('E-FILE', `${name} is damaged: what its "${KEY}" says of the run is not whole. Load another save.`);
  if (state.format !== FORMAT) throw new DdpmError('E-FILE', `${name} has the format ${state.format}, and this page reads ${FORMAT}. It was saved by a newer version.`);
  const of = (buffer: SavedBuffer | 'optimizer'): NamedTensors =>
    new Map([...tensors].flatMap(([key, { shape, data }]) => (key.startsWith(`${buffer}.`) ? [[key.slice(buffer.length + 1), { shape, data: data as Float32Array }] as const] : [])));
  const losses = tensors.get('history.loss')?.data as Float32Array | undefined, pixels = tensors.get('data.pixels')?.data as Uint8Array<ArrayBuffer> | undefined;
  // What files of earlier versions do not say: there were no classes, all predicted eps, and t was uniform.
  const { predict = 'eps', timeSampling = 'uniform', labelDropout = null } = state.settings;
  return {
    step: state.step, settings: { ...state.settings, predict, timeSampling, labelDropout }, lr: state.lr, data: { ...state.data, classes: state.data.classes ?? null },
    losses: Array.from(losses ?? []), labels: (tensors.get('data.labels')?.data as TrainData['labels'] | undefined) ?? null, pixels: pixels ?? null,
    tensors: Object.fromEntries(SAVED.map((buffer) => [buffer, of(buffer)])) as unknown as Record<SavedBuffer, NamedTensors>, optimizer: of('optimizer'),
  };
}
