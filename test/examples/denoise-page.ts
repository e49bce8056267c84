// A program that owns its device and its buffers: every frame denoises its own storage buffer by one step, in place, and draws from it, in one encoder, without a copy.
import { Clock, Engine, GaussianDiffusion, makeSchedule, Parameters, parseConfig, randomNormal, readModel, STREAM, Tensor, UNet } from 'ddpm.wgsl';

const shader = `
@group(0) @binding(0) var<storage, read> image: array<f32>; // (S, S, 1), about [-1, 1]
@vertex fn corner(@builtin(vertex_index) i: u32) -> @builtin(position) vec4f { return vec4f(f32(i & 1u) * 4.0 - 1.0, f32(i >> 1u) * 4.0 - 1.0, 0.0, 1.0); }
@fragment fn colour(@builtin(position) at: vec4f) -> @location(0) vec4f {
  return vec4f(vec3f(image[u32(at.y) * SIZE + u32(at.x)] * 0.5 + 0.5), 1.0);
}
override SIZE: u32;`;

/** Draws one sample on a square canvas as it appears, a frame for each of T steps. `image` is the caller's buffer of S x S float32: it holds x_0 at the end. */
export async function denoise(device: GPUDevice, canvas: HTMLCanvasElement, image: GPUBuffer, config: string, weights: Uint8Array, T: number, seed = 0): Promise<void> {
  const size = canvas.width;
  const context = canvas.getContext('webgpu')!, format = navigator.gpu.getPreferredCanvasFormat();
  context.configure({ device, format });
  const module = device.createShaderModule({ code: shader });
  const pipeline = device.createRenderPipeline({
    layout: 'auto', vertex: { module }, fragment: { module, constants: { SIZE: size }, targets: [{ format }] }, primitive: { topology: 'triangle-list' },
  });
  const bindings = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries: [{ binding: 0, resource: { buffer: image } }] });

  const engine = new Engine(device);
  const x = engine.borrow(image, [1, size, size, 1]); // the buffer itself, not a copy
  const unet = new UNet(parseConfig(config, 'config.json'));
  Parameters.place(engine, unet, { training: false }).write('values', readModel(weights, 'model.safetensors'), 'model.safetensors');
  const diffusion = new GaussianDiffusion(engine, makeSchedule({ name: 'cosine', T }));
  const clock = new Clock(engine), t = Tensor.empty(engine, [1]), x0 = Tensor.empty(engine, x.shape);
  const start = engine.capture(() => engine.copy(randomNormal(x.shape, clock, STREAM.prior).slice, x.slice));
  const step = engine.capture(() => engine.scope(() => diffusion.posteriorStep(x, unet.forward(x, t), t, x0, { clock })));
  await step.compile();

  clock.set({ seed });
  start.run();
  for (let at = T - 1; at >= 0; at--) {
    engine.write(t.slice, new Uint32Array([at]));
    const encoder = device.createCommandEncoder();
    step.encode(encoder);
    const pass = encoder.beginRenderPass({ colorAttachments: [{ view: context.getCurrentTexture().createView(), loadOp: 'clear', storeOp: 'store' }] });
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, bindings);
    pass.draw(3);
    pass.end();
    device.queue.submit([encoder.finish()]);
    await new Promise(requestAnimationFrame);
  }
  await engine.destroy();
}
