// Animated PNG: an ordinary PNG whose further frames are extra chunks, so every viewer shows at least the first frame.

import { deflateSync } from 'node:zlib';
import { type ApngOptions, joinApng, scanlines } from './apng-chunks.ts';
import type { Picture } from './picture.ts';

/** An animated PNG from frames of one size. @throws DdpmError as joinApng does */
export const encodeApng = (frames: readonly Picture[], options: ApngOptions = {}): Uint8Array => joinApng(frames, (frame) => deflateSync(scanlines(frame)), options);
