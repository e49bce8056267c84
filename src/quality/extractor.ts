// What turns images into the features that distances are measured between.

import type { Features } from './frechet.ts';

/** Images of 8 bits a channel, (count, height, width, channels): both the real ones and, quantised, the generated ones. */
export interface Images {
  readonly count: number;
  readonly height: number;
  readonly width: number;
  /** 1 or 3. */
  readonly channels: number;
  readonly pixels: Uint8Array;
}

export interface Extractor {
  readonly name: string;
  /** Says which features they are, for the protocol; figures of different protocols cannot be compared. */
  readonly protocol: string;
  features(images: Images, onProgress?: (done: number) => void): Promise<Features>;
}

/** The pixels themselves, in [-1, 1]: needs no weights, and sees brightness and position rather than what is shown. */
export const pixels: Extractor = {
  name: 'pixels',
  protocol: 'pixels in [-1, 1]',
  features: async ({ count, height, width, channels, pixels: bytes }) => ({
    count,
    width: height * width * channels,
    data: Float32Array.from(bytes, (byte) => byte / 127.5 - 1),
  }),
};
