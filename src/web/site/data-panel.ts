// Where the images to train on come from: a data set that is served or dropped in, shapes made in code, one's own images, or drawings made here.
import { cifarKind, parseCifar } from '../../data/cifar.ts';
import { parseIdx } from '../../data/idx.ts';
import { makeShapes } from '../../data/shapes.ts';
import { DdpmError } from '../../errors.ts';
import { fill, h, short } from '../dom.ts';
import { imageGrid } from '../../io/picture.ts';
import { Pad } from './pad.ts';
import { dropZone, field, type Message, select } from './parts.ts';
import { dataSet, decodeImage, show, unpacked } from './pictures.ts';
import type { TrainData } from './run-file.ts';

const SOURCES = { shapes: 'Made-up shapes', 'fashion-mnist': 'Fashion-MNIST', cifar: 'CIFAR-10 or CIFAR-100', images: 'My images', drawings: 'My drawings' };
type Source = keyof typeof SOURCES;

/** Images of a data set that are shown. */
const SHOWN = 24;
const FASHION = 'train-images-idx3-ubyte';

export class DataPanel {
  readonly element: HTMLElement;
  readonly #message: Message;
  readonly #source = select(SOURCES, 'shapes', 'source');
  readonly #size = select<string>({ 16: '16 × 16', 28: '28 × 28', 32: '32 × 32', 64: '64 × 64' }, '28', 'size');
  readonly #channels = select<string>({ 1: 'grey', 3: 'colour' }, '1', 'channels');
  readonly #body = h('div');
  readonly #shown = h('canvas', { className: 'pixels', hidden: true, width: 1, height: 1, role: 'img', aria: { label: 'some of the images' } });
  readonly #about = h('p', { className: 'soft', id: 'data-about', role: 'status' });
  /** What was dropped or drawn, by source. */
  readonly #files = new Map<Source, TrainData>();
  #drawings: Uint8Array[] = [];
  #onData: (data: TrainData | null) => void;
  data: TrainData | null = null;

  constructor(message: Message, onData: (data: TrainData | null) => void) {
    this.#message = message;
    this.#onData = onData;
    this.element = h('section', { className: 'card' }, h('h2', {}, 'Data'), field('Images', this.#source), this.#body, this.#about, this.#shown);
    for (const control of [this.#source, this.#size, this.#channels])
      control.addEventListener('change', () => {
        if (control !== this.#source) {
          // Another size asks for the images again.
          this.#drawings = [];
          this.#files.delete('images');
          this.#files.delete('drawings');
        }
        void this.#open();
      });
    queueMicrotask(() => void this.#open()); // its owner is not ready before it has been made
  }

  get #image() {
    const side = Number(this.#size.value);
    return { height: side, width: side, channels: Number(this.#channels.value) };
  }

  async #open(): Promise<void> {
    const source = this.#source.value as Source;
    this.#message.clear();
    const sizes = [field('Size', this.#size), field('Colours', this.#channels)];
    this.#set(this.#files.get(source) ?? null);
    if (source === 'shapes') {
      fill(this.#body, ...sizes);
      const { height: size, channels } = this.#image;
      const { name, count, height, width, pixels } = makeShapes({ count: 2000, size, channels: channels as 1 | 3 });
      this.#set({ name, count, height, width, channels, pixels: new Uint8Array(pixels) });
    } else if (source === 'fashion-mnist') {
      fill(this.#body, dropZone('idx-files', `Drop ${FASHION}.gz here, or any IDX file of images`, '.gz,.idx,*', (files) => void this.#take(files)));
      if (!this.data) await this.#fetchFashion();
    } else if (source === 'cifar') {
      fill(this.#body, dropZone('cifar-files', 'Drop data_batch_1.bin to data_batch_5.bin here (or some of them), or train.bin of CIFAR-100', '.bin,*', (files) => void this.#take(files)));
    } else if (source === 'images') {
      fill(this.#body, ...sizes, dropZone('image-files', 'Drop images here: the middle of each is cut out and scaled', 'image/*', (files) => void this.#take(files)));
    } else fill(this.#body, ...sizes, this.#makePad());
  }

  #makePad(): HTMLElement {
    const pad = new Pad(this.#image.height, 'drawing pad');
    const add = h('button', { type: 'button', className: 'primary', id: 'add-drawing' }, 'Add'), clear = h('button', { type: 'button' }, 'Clear'), undo = h('button', { type: 'button' }, 'Take the last back');
    add.addEventListener('click', () => {
      this.#drawings.push(pad.pixels(this.#image.channels));
      pad.clear();
      this.#drawn();
    });
    clear.addEventListener('click', () => pad.clear());
    undo.addEventListener('click', () => {
      this.#drawings.pop();
      this.#drawn();
    });
    return h('div', { className: 'stack', style: 'gap: .5rem' }, pad.element, h('div', { className: 'row' }, add, clear, undo), h('p', { className: 'faint' }, 'Draw one thing some ten times, each a little different.'));
  }

  #drawn(): void {
    const data = this.#drawings.length ? dataSet('drawings', this.#image, this.#drawings) : null;
    if (data) this.#files.set('drawings', data);
    else this.#files.delete('drawings');
    this.#set(data);
  }

  async #fetchFashion(): Promise<void> {
    this.#about.textContent = 'looking for it on this server …';
    const answer = await fetch(`data/${FASHION}.gz`).catch(() => null);
    if (this.#source.value !== 'fashion-mnist') return;
    if (!answer?.ok) {
      this.#about.textContent = 'This server does not have it. Drop the file in.';
      return;
    }
    const set = await idxImages(new Uint8Array(await answer.arrayBuffer()), FASHION, 'fashion-mnist');
    // What was dropped in meanwhile is what is wanted.
    if (this.#source.value === 'fashion-mnist' && !this.#files.has('fashion-mnist')) this.#keep('fashion-mnist', set);
  }

  #keep(source: Source, set: TrainData): void {
    this.#files.set(source, set);
    this.#set(set);
  }

  /** Files that were dropped or chosen: what the source is of, and IDX by its name anywhere. */
  async #take(files: readonly File[]): Promise<void> {
    this.#message.clear();
    try {
      const named = (f: File): boolean => /idx\d-ubyte|\.idx$|\.gz$/.test(f.name), idx = files.filter(named);
      if (idx.length > 0 || this.#source.value === 'fashion-mnist') {
        const file = idx.find((f) => f.name.includes('images')) ?? idx[0] ?? files[0];
        if (file) this.#keep('fashion-mnist', await idxImages(new Uint8Array(await file.arrayBuffer()), file.name, file.name.replace(/\.gz$/, '')));
        return;
      }
      if (this.#source.value === 'cifar') {
        this.#keep('cifar', await cifarImages(files));
        return;
      }
      const images: Uint8Array[] = [];
      let failure: unknown = null;
      for (const file of files) {
        try {
          images.push(await decodeImage(file, file.name, this.#image));
        } catch (error) {
          failure ??= error;
        }
      }
      if (failure) this.#message.error(failure);
      if (images.length === 0) return;
      this.#keep('images', dataSet('images', this.#image, images));
    } catch (error) {
      this.#message.error(error);
    }
  }

  #set(data: TrainData | null): void {
    this.data = data;
    this.#onData(data);
    this.#shown.hidden = data === null;
    this.#about.textContent = data ? `${short(data.count)} ${data.count === 1 ? 'image' : 'images'} of ${data.height} × ${data.width}${data.channels === 3 ? ', colour' : ''}` : '';
    if (!data) return;
    const { height, width, channels, pixels, count } = data, n = Math.min(SHOWN, count), size = height * width * channels;
    show(this.#shown, imageGrid(pixels.subarray(0, n * size), n, height, width, channels, 8, { pad: 1, background: 0 }));
    this.#shown.style.width = '100%';
  }
}

async function idxImages(bytes: Uint8Array<ArrayBuffer>, file: string, name: string): Promise<TrainData> {
  const { shape, data } = parseIdx(await unpacked(bytes, file), file), [count = 0, height = 0, width = 0, channels = 1] = shape;
  if (shape.length < 3 || count === 0) throw new DdpmError('E-DATA', `${file} has the sizes ${shape.join(' × ')}, and images need count × height × width. These may be the labels; take the file with the images.`);
  return { name, count, height, width, channels, pixels: new Uint8Array(data) };
}

/** Batches of either CIFAR, by name: the order that Node reads them in. */
async function cifarImages(dropped: readonly File[]): Promise<TrainData> {
  const files = await Promise.all([...dropped].sort((a, b) => (a.name < b.name ? -1 : 1)).map(async (file) => ({ name: file.name, bytes: new Uint8Array(await file.arrayBuffer()) })));
  const kind = cifarKind(files[0]!.bytes), { count, height, width, channels, pixels } = parseCifar(files, kind);
  return { name: kind, count, height, width, channels, pixels: new Uint8Array(pixels) };
}
