// `ddpm.wgsl/nn`: modules, their parameters, and the U-Net.

export { type DownBlockType, readConfig, type UNetConfig, type UNetFields, type UpBlockType } from './config.ts';
export { type Init, normal, ones, varianceScaling, zeros } from './init.ts';
export { Attention, type BlockOptions, Conv2d, Downsample2D, Embedding, GroupNorm, Linear, type Mode, ResnetBlock2D, Upsample2D } from './layers.ts';
export { type Layout, Module, Parameter, parametersOf } from './parameter.ts';
export { type BufferName, type Chunk, type NamedTensors, Parameters } from './parameters.ts';
export { type ForwardOptions, UNet } from './unet.ts';
