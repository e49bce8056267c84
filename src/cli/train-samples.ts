// The sample grids of a run under way: drawn with its averaged weights, by a sampler that is kept from one grid to the next.

import type { GaussianDiffusion } from '../diffusion/gaussian.ts';
import { Sampler, type SamplerOptions } from '../diffusion/sampler.ts';
import { writeAtomic } from '../io/files.ts';
import { encodePng } from '../io/png.ts';
import { type SamplingFields, withSampling } from '../io/scheduler.ts';
import type { Parameters } from '../nn/parameters.ts';
import type { UNet } from '../nn/unet.ts';
import { drawSamples, sampleGrid } from './command.ts';
import { Network } from './network.ts';
import { showCompiling } from './progress.ts';
import { BATCH, type ImageShape } from './sampling.ts';

const INTERRUPTED = new Error('interrupted');

export interface SampleGridsOptions {
  readonly unet: UNet;
  readonly parameters: Parameters;
  readonly diffusion: GaussianDiffusion;
  readonly sampling: SamplingFields;
  readonly image: ImageShape;
  /** Images in a grid. */
  readonly n: number;
  readonly seed: number;
  /** Asked between steps: a grid that nobody waits for any more is left. */
  readonly stop: { readonly requested: boolean };
  readonly onEvent: (text: string) => void;
}

export class SampleGrids {
  readonly #options: SampleGridsOptions;
  readonly #network: Network;
  #sampler: Sampler | null = null;
  #steps = 0;

  constructor(options: SampleGridsOptions) {
    const { unet, diffusion, image, n } = (this.#options = options);
    // Of a model with classes, each in turn.
    this.#network = new Network(diffusion.engine, unet, [Math.min(n, BATCH), ...image], { label: null, guidance: 1 });
  }

  /** Draws with DDIM in so many steps and writes a PNG; false where a stop was asked for meanwhile, and nothing is written. */
  async draw(path: string, steps: number): Promise<boolean> {
    const { parameters, diffusion, sampling, image, n, seed, stop, onEvent } = this.#options;
    if (this.#steps !== steps || !this.#sampler) {
      await this.#sampler?.destroy();
      const options = withSampling<SamplerOptions>({ method: 'ddim', steps }, { ...sampling, schedule: diffusion.schedule });
      const sampler = (this.#sampler = parameters.use('ema', () => new Sampler(this.#network.model, diffusion, [Math.min(n, BATCH), ...image], options)));
      this.#steps = steps;
      await showCompiling((progress) => sampler.compile(progress));
    }
    try {
      const onStep = (): void => {
        if (stop.requested) throw INTERRUPTED;
      };
      const samples = await drawSamples(this.#sampler, { n, seed, onBatch: (first) => this.#network.begin(first), onStep });
      const onNaN = (count: number): void => onEvent(`  warning: ${count} values of the samples are not numbers, and black in the picture`);
      await writeAtomic(path, encodePng(sampleGrid(samples, image, { classes: this.#network.classes, onNaN })));
    } catch (error) {
      if (error === INTERRUPTED) return false;
      throw error;
    }
    return true;
  }
}
