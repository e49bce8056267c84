// `ddpm.wgsl/diffusion`: schedules, GaussianDiffusion, samplers and the training step.

export { type DiffusionModel, GaussianDiffusion, type MeanVariance, type TableName } from './gaussian.ts';
export { type Bits, Likelihood, priorBits } from './likelihood.ts';
export { boundTable, DiffusionLoss, type LossName, type LossOptions, LOSSES, minSnrWeights } from './losses.ts';
export { noiseTable, type OutputTable, type Prediction, PREDICTION_TYPES, PREDICTIONS, startTable, type TargetTable, targetTable } from './prediction.ts';
export { respace, respacedTimesteps } from './respace.ts';
export { type Draw, Sampler, type SamplerOptions, type SampleStep } from './sampler.ts';
export type { Row } from './samplers/row.ts';
export { type SamplerName, SAMPLERS, type SamplerTable, samplerTable, type TableOptions } from './samplers/table.ts';
export { type BetaOptions, makeBetas, makeSchedule, rescaleZeroSnr, type Schedule, type ScheduleName, SCHEDULES, type ScheduleSource, type ScheduleSpec } from './schedule.ts';
export { karrasTimesteps, SAMPLER_SPACINGS, type SamplerSpacing, solverTimesteps, type Spacing, SPACINGS, timesteps } from './spacing.ts';
export { isLearned, logVarianceTable, type Variance, VARIANCES } from './variance.ts';
export { ImportanceSampling, TIME_SAMPLINGS, type TimeSampling } from './timestep-sampling.ts';
export { Training, type TrainingOptions } from './training.ts';

export { edit, type Edited, type EditOptions } from './uses/edit.ts';
export { type BatchOptions, diffuse, drawNoise, fromStrength, type Shape, type UseOptions } from './uses/encode.ts';
export { type ConditionalModel, type Guidance, guided } from './uses/guidance.ts';
export { inpaint, type InpaintOptions, repaintPath, repeatMask } from './uses/inpaint.ts';
export { interpolate, interpolateLatents, type InterpolateOptions, slerp } from './uses/interpolate.ts';
export { decodeDdim, encodeDdim, invert, type Inverted, type InvertOptions } from './uses/invert.ts';
