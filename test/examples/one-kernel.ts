// One kernel alone: SiLU(group norm(x)) on buffers of one's own, recorded into an encoder of one's own, without an engine.
import { dispatch, group_norm_forward } from 'ddpm.wgsl/kernels';

/** x (N, P, C) -> y of the same shape, normalised over the pixels and channels of each of G groups; gamma and beta are (C). Every buffer has the usage STORAGE. */
export function normalise(device: GPUDevice, buffers: Record<'x' | 'gamma' | 'beta' | 'y' | 'stats', GPUBuffer>, [N, P, C, G]: readonly [number, number, number, number]): void {
  const encoder = device.createCommandEncoder();
  dispatch(device, encoder, group_norm_forward, [G, N], {
    ...buffers, x2: buffers.x, clock: buffers.x, stream: 0, p: 0, N, P, C0: C, C1: 0, G, eps: 1e-5, silu: 1, TWO: 0, per_image: 0, accumulate: 0, accumulate2: 0,
  });
  device.queue.submit([encoder.finish()]);
}
