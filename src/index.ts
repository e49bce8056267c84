// The public API for embedders: bring a GPUDevice; nothing here imports Node or opens a device (src/node.ts does that for Node).

export { DdpmError, type ErrorCode } from './errors.ts';

export type { Choice, Choices, ChoiceTable, Made } from './gpu/choices.ts';
export type { DeviceClass } from './gpu/device-class.ts';
export { Engine } from './gpu/engine.ts';
export type { Scope } from './gpu/scopes.ts';
export { type Args, type ElementType, type Grid, grid, type Kernel, type Slice } from './gpu/kernel.ts';
export type { Command, Plan } from './gpu/plan.ts';
export type { KernelTime } from './gpu/profile.ts';
export { engineRequirements } from './gpu/requirements.ts';
/** Every kernel as `engine.run` takes it; `kernels.silu_forward.wgsl` is its WGSL. */
export * as kernels from './gpu/kernels.gen.ts';
export { type BufferArgs, dispatch } from './gpu/dispatch.ts';

export { type Backward, type Destination, noGrad, record, Tape } from './autograd.ts';
export { Clock, type Tick } from './clock.ts';
export { STREAM } from './philox.ts';
export { nchwToNhwc, nhwcToNchw, ParameterTensor, sizeOf, Tensor } from './tensor.ts';

export { attention } from './ops/attention.ts';
export { matmul, type Operand } from './ops/matmul.ts';
export type { Clip, DynamicThreshold } from './ops/clip.ts';
export { cast } from './ops/cast.ts';
export { conv2d, type Conv2dOptions, linear, type LinearOptions } from './ops/conv2d.ts';
export { type EmbeddingOptions, placeFrequencies, timestepEmbedding } from './ops/embedding.ts';
export { groupNorm, type GroupNormOptions } from './ops/group_norm.ts';
export { gatherRows } from './ops/gather.ts';
export { type BoundInputs, mse, objective, type ObjectiveOptions, smoothL1, squaredError, variationalBound } from './ops/loss.ts';
export { add, dropout, silu, upsample } from './ops/pointwise.ts';
export { type Precision, PRECISIONS, usePrecision } from './ops/precision.ts';
export { DeviceImages, randomIntegers, randomNormal, shuffleIndices } from './ops/random.ts';

export * from './nn/index.ts';

export * from './diffusion/index.ts';

export { AdamW, type AdamWOptions, type StepLog } from './optim/adamw.ts';
export type { LossScale } from './optim/loss_scale.ts';
export { emaDecay, learningRate, LR_SCHEDULES, type LrSchedule } from './optim/schedules.ts';

export { toBytes } from './io/picture.ts';
export { modernNames, type ModelTensor, parseConfig, readModel } from './io/model.ts';
export { readScheduler, type SamplingFields, type Scheduler, withSampling } from './io/scheduler.ts';
export { type Dtype, readSafetensors, type SafeTensor, type SafeTensors, safetensorsChunks, type TensorData, type TensorToWrite, writeSafetensors } from './io/safetensors.ts';
