// `ddpm.wgsl/nn`: modules, their parameters, and the U-Net.

export { readConfig, type UNetConfig, type UNetFields } from './config.ts';
export { type Init, normal, ones, varianceScaling, zeros } from './init.ts';
export { Attention, Conv2d, Downsample2D, Embedding, GroupNorm, Linear, ResnetBlock2D, Upsample2D } from './layers.ts';
export { type Layout, Module, Parameter, parametersOf } from './parameter.ts';
export { type BufferName, type NamedTensors, Parameters } from './parameters.ts';
export { type ForwardOptions, UNet } from './unet.ts';
