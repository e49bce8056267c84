// Where the images to train on come from: a data set that is served or dropped in, shapes made in code, one's own images, or drawings made here.
import { classCount } from '../../data/images.ts';
import { makeShapes } from '../../data/shapes.ts';
import { DdpmError } from '../../errors.ts';
import { fill, h, short } from '../dom.ts';
import { imageGrid } from '../../io/picture.ts';
import { cifarImages, folderImages, labelled, type Located, readIdx } from './data-files.ts';
import { Pad, pixelsOf } from './pad.ts';
import { dropZone, field, Message, select } from './parts.ts';
import { show } from './pictures.ts';
import { dataSet, type TrainData } from './run-file.ts';

const SOURCES = { shapes: 'Made-up shapes', 'fashion-mnist': 'Fashion-MNIST', cifar: 'CIFAR-10 or CIFAR-100', images: 'My images', drawings: 'My drawings' };
type Source = keyof typeof SOURCES;

/** Images of a data set that are shown. */
const SHOWN = 24;
const FASHION = 'train-images-idx3-ubyte', FASHION_LABELS = 'train-labels-idx1-ubyte';

export class DataPanel {
  readonly element: HTMLElement;
  readonly #message = new Message();
  readonly #source = select(SOURCES, 'shapes', 'source');
  readonly #size = select<string>({ 16: '16 × 16', 28: '28 × 28', 32: '32 × 32', 64: '64 × 64' }, '28', 'size');
  readonly #channels = select<string>({ 1: 'grey', 3: 'colour' }, '1', 'channels');
  readonly #body = h('div');
  readonly #shown = h('canvas', { className: 'pixels', hidden: true, width: 1, height: 1, role: 'img', aria: { label: 'some of the images' } });
  readonly #about = h('p', { className: 'soft', id: 'data-about', role: 'status' });
  readonly #class = h('input', { id: 'drawing-class', placeholder: 'none', autocomplete: 'off' });
  /** What was dropped or drawn, by source. */
  readonly #files = new Map<Source, TrainData>();
  #drawings: { readonly drawing: OffscreenCanvas; readonly of: string }[] = [];
  /** The files that the images came from: another size is made from them. */
  #located: readonly Located[] = [];
  /** Counts what was asked for: what an earlier wish gives is not wanted any more. */
  #asked = 0;
  readonly #onData: (data: TrainData | null) => void;
  data: TrainData | null = null;

  constructor(onData: (data: TrainData | null) => void) {
    this.#onData = onData;
    this.element = h('section', { className: 'card' }, h('h2', {}, 'Data'), field('Images', this.#source), this.#body, this.#message.element, this.#about, this.#shown);
    for (const control of [this.#source, this.#size, this.#channels])
      control.addEventListener('change', () => {
        if (control !== this.#source) {
          this.#files.delete('images');
          this.#files.delete('drawings');
        }
        this.#open();
      });
    queueMicrotask(() => this.#open()); // its owner is not ready before it has been made
  }

  get #image() {
    const side = Number(this.#size.value);
    return { height: side, width: side, channels: Number(this.#channels.value) };
  }

  #open(): void {
    const source = this.#source.value as Source;
    this.#asked++;
    this.#message.clear();
    const sizes = [field('Size', this.#size), field('Colours', this.#channels)];
    this.#set(this.#files.get(source) ?? null);
    if (source === 'shapes') {
      fill(this.#body, ...sizes);
      const { height: size, channels } = this.#image;
      const { name, count, height, width, pixels, labels, classes } = makeShapes({ count: 2000, size, channels: channels as 1 | 3 });
      this.#set({ name, count, height, width, channels, pixels: new Uint8Array(pixels), labels, classes });
    } else if (source === 'fashion-mnist') {
      fill(this.#body, dropZone('idx-files', 'Drop its training images and labels here (.gz), or other images and labels in IDX files', '.gz,.idx,*', (files) => void this.#take(source, 'reading', () => this.#readIdx(files))));
      if (!this.data) void this.#take(source, 'looking for it on this server', () => this.#fetchFashion(), 'This server does not have it. Drop its files in.');
    } else if (source === 'cifar') {
      fill(this.#body, dropZone('cifar-files', 'Drop cifar-10-binary.tar.gz or cifar-100-binary.tar.gz here, or some of its files', '.gz,.bin,.txt,*', (files) => void this.#take(source, 'reading', () => cifarImages(files))));
    } else if (source === 'images') {
      fill(this.#body, ...sizes, dropZone('image-files', 'Drop images or a folder here: the middle of each image is cut out and scaled, and folders in the folder are classes', 'image/*', (_, located) => void this.#takeImages(located), true));
      if (!this.data && this.#located.length > 0) void this.#takeImages(this.#located);
    } else {
      fill(this.#body, ...sizes, this.#makePad());
      this.#drawn();
    }
  }

  #makePad(): HTMLElement {
    const pad = new Pad(this.#image.height, 'drawing pad');
    const add = h('button', { type: 'button', className: 'primary', id: 'add-drawing' }, 'Add'), clear = h('button', { type: 'button' }, 'Clear'), undo = h('button', { type: 'button' }, 'Take the last back');
    add.addEventListener('click', () => {
      const drawing = pad.drawing();
      this.#message.clear();
      if (pixelsOf(drawing, this.#image.height, 1).every((v) => v === 0)) return this.#message.error(new DdpmError('E-DATA', 'nothing is drawn on the pad. Draw with the mouse, a finger or the arrow keys, then add it.'));
      this.#drawings.push({ drawing, of: this.#class.value.trim() });
      pad.clear();
      this.#drawn();
    });
    clear.addEventListener('click', () => pad.clear());
    undo.addEventListener('click', () => {
      this.#drawings.pop();
      this.#drawn();
    });
    return h('div', { className: 'stack', style: 'gap: .5rem' }, pad.element, field('Its class', this.#class), h('div', { className: 'row' }, add, clear, undo),
      h('p', { className: 'faint' }, 'Draw one thing some ten times, each a little different. Of several things give every drawing its class, and the model learns which is which.'));
  }

  #drawn(): void {
    const image = this.#image, images = this.#drawings.map(({ drawing }) => pixelsOf(drawing, image.height, image.channels));
    const data = images.length ? dataSet('drawings', image, images, this.#drawings.map(({ of }) => of)) : null;
    if (data) this.#files.set('drawings', data);
    else this.#files.delete('drawings');
    this.#set(data);
  }

  /** Shows data of a source once they are read, unless something else was asked for meanwhile; then it is false. */
  async #take(source: Source, doing: string, read: () => Promise<TrainData | null>, missing = ''): Promise<boolean> {
    const asked = ++this.#asked;
    this.#message.clear();
    this.#about.textContent = `${doing} …`;
    const set = await read().catch((error: unknown) => {
      if (asked === this.#asked) this.#message.error(error);
    });
    if (asked !== this.#asked) return false;
    if (set) this.#files.set(source, set);
    this.#set(set ?? this.data);
    if (set === null) this.#about.textContent = missing;
    return !!set;
  }

  async #fetchFashion(): Promise<TrainData | null> {
    const [answer, labels] = await Promise.all([FASHION, FASHION_LABELS].map((file) => fetch(`data/${file}.gz`).catch(() => null)));
    if (!answer?.ok) return null;
    const set = { ...((await readIdx(new Uint8Array(await answer.arrayBuffer()), FASHION)) as TrainData), name: 'fashion-mnist' };
    return labels?.ok ? labelled(set, (await readIdx(new Uint8Array(await labels.arrayBuffer()), FASHION_LABELS)) as Uint8Array, FASHION_LABELS) : set;
  }

  async #takeImages(located: readonly Located[]): Promise<void> {
    const size = this.#image, bad: Error[] = [];
    const taken = await this.#take('images', `reading ${short(located.length)} ${located.length === 1 ? 'file' : 'files'}`, async () => {
      const set = await folderImages(located, size, (error) => bad.push(error));
      if (!set) throw bad[0] ?? new DdpmError('E-DATA', `there are no images among the ${located.length} files that were chosen.`);
      return set;
    });
    if (!taken) return;
    this.#located = located;
    if (bad[0]) this.#message.error(new DdpmError('E-DATA', `${bad[0].message} ${bad.length === 1 ? 'It was' : `It and ${bad.length - 1} more were`} left out.`));
  }

  /** Images, their labels or both; labels alone are of the images that are there. */
  async #readIdx(files: readonly File[]): Promise<TrainData> {
    const named = files.filter(({ name }) => /idx\d-ubyte|\.idx$/.test(name)); // in a folder there may be others
    const read = await Promise.all((named.length ? named : files).map(async (file) => ({ name: file.name, found: await readIdx(new Uint8Array(await file.arrayBuffer()), file.name) })));
    const images = read.find(({ name, found }) => !(found instanceof Uint8Array) && !name.startsWith('t10k')) ?? read.find(({ found }) => !(found instanceof Uint8Array));
    const labels = read.find(({ name, found }) => found instanceof Uint8Array && (!images || name.startsWith('t10k') === images.name.startsWith('t10k')));
    const set = (images?.found as TrainData | undefined) ?? this.#files.get('fashion-mnist');
    if (!set) throw new DdpmError('E-DATA', `${read[0]?.name} holds labels, and the images that they are of are not there yet: choose both files.`);
    return labels ? labelled(set, labels.found as Uint8Array, labels.name) : set;
  }

  #set(data: TrainData | null): void {
    this.data = data;
    this.#onData(data);
    this.#shown.hidden = data === null;
    this.#about.textContent = data ? `${short(data.count)} ${data.count === 1 ? 'image' : 'images'} of ${data.height} × ${data.width}${data.channels === 3 ? ', colour' : ''}${data.labels ? `, ${classCount({ labels: data.labels, classes: data.classes })} classes` : ''}` : '';
    if (!data) return;
    const { height, width, channels, pixels, count } = data, n = Math.min(SHOWN, count), size = height * width * channels;
    show(this.#shown, imageGrid(pixels.subarray(0, n * size), n, height, width, channels, 8, { pad: 1, background: 0 }));
    this.#shown.style.width = '100%';
  }
}
