// `ddpm.wgsl/kernels`: every kernel with its interface and source, and a way to run one on buffers of one's own without an engine.

export { type BufferArgs, dispatch } from './gpu/dispatch.ts';
export { type Args, type ElementType, type Grid, grid, type Kernel, type Slice } from './gpu/kernel.ts';
export * from './gpu/kernels.gen.ts';
