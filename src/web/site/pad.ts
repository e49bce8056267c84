// A pad to draw on: white on black, with the mouse, a finger or a pen; and with the arrow keys and the space bar.
import { h } from '../dom.ts';
import { fromRgba } from './pictures.ts';

/** Lines are drawn this much finer than the images are, and scaled down. */
const FINER = 10;

export class Pad {
  readonly element: HTMLCanvasElement;
  readonly #ctx: CanvasRenderingContext2D;
  readonly #size: number;
  #cursor = { x: 0.5, y: 0.5 };

  constructor(size: number, label: string, { width = 2.2, colour = '#fff' } = {}) {
    this.#size = size;
    this.element = h('canvas', { width: size * FINER, height: size * FINER, tabIndex: 0, className: 'pad', role: 'img', aria: { label: `${label}; arrow keys draw, with shift they move the pen alone, and space draws a point` } });
    this.#ctx = this.element.getContext('2d', { willReadFrequently: true })!;
    Object.assign(this.#ctx, { lineWidth: width * FINER, lineCap: 'round', lineJoin: 'round', strokeStyle: colour });
    let from: { x: number; y: number } | null = null;
    const at = (event: PointerEvent) => {
      const box = this.element.getBoundingClientRect();
      return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
    };
    this.element.addEventListener('pointerdown', (event) => {
      this.element.setPointerCapture(event.pointerId);
      from = at(event);
      this.#line(from, from);
    });
    this.element.addEventListener('pointermove', (event) => {
      if (!from) return;
      for (const each of event.getCoalescedEvents?.().length ? event.getCoalescedEvents() : [event]) {
        const to = at(each);
        this.#line(from, to);
        from = to;
      }
    });
    for (const end of ['pointerup', 'pointercancel'] as const) this.element.addEventListener(end, () => (from = null));
    this.element.addEventListener('keydown', (event) => this.#key(event));
  }

  #key(event: KeyboardEvent): void {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], ' ': [0, 0] }[event.key];
    if (!move) return;
    event.preventDefault();
    const before = this.#cursor, clamp = (v: number): number => Math.min(1, Math.max(0, v));
    this.#cursor = { x: clamp(before.x + move[0]! / this.#size), y: clamp(before.y + move[1]! / this.#size) };
    for (const [name, value] of Object.entries(this.#cursor)) this.element.style.setProperty(`--${name}`, `${100 * value}%`);
    // With shift the pen is lifted.
    if (!event.shiftKey) this.#line(before, this.#cursor);
  }

  #line(from: { x: number; y: number }, to: { x: number; y: number }): void {
    const { width, height } = this.element;
    this.#ctx.beginPath();
    this.#ctx.moveTo(from.x * width, from.y * height);
    this.#ctx.lineTo(to.x * width + 0.01, to.y * height);
    this.#ctx.stroke();
  }

  clear(): void {
    this.#ctx.clearRect(0, 0, this.element.width, this.element.height);
  }

  /** A copy of what is drawn, as fine as the lines are. */
  drawing(): OffscreenCanvas {
    const { width, height } = this.element, copy = new OffscreenCanvas(width, height);
    copy.getContext('2d')!.drawImage(this.element, 0, 0);
    return copy;
  }

  /** How much of each pixel is covered, (size, size), in [0, 1]. */
  cover(): Float32Array<ArrayBuffer> {
    const rgba = scaled(this.element, this.#size, false);
    return Float32Array.from({ length: rgba.length / 4 }, (_, i) => rgba[4 * i + 3]! / 255);
  }
}

/** A square drawing at another size, (size, size, 4), on black or on nothing. */
function scaled(drawing: CanvasImageSource, size: number, black: boolean): Uint8ClampedArray {
  const ctx = new OffscreenCanvas(size, size).getContext('2d')!;
  if (black) ctx.fillRect(0, 0, size, size);
  ctx.imageSmoothingQuality = 'high';
  ctx.drawImage(drawing, 0, 0, size, size);
  return ctx.getImageData(0, 0, size, size).data;
}

/** A square drawing as an image, (size, size, channels). */
export const pixelsOf = (drawing: CanvasImageSource, size: number, channels: number): Uint8Array => fromRgba(scaled(drawing, size, true), channels);
