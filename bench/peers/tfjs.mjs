// TensorFlow.js on WebGPU in Node, as bench/peers/run.mjs drives it: the ops that a U-Net is made of, in its own layout (NHWC, HWIO), which is ours too.
import { createRequire } from 'node:module';
import { register } from 'tsx/cjs/api';

const require = createRequire(import.meta.url);

/** Opens the backend; the global navigator.gpu is the device's. `settle` awaits a promise of the device without burning a core. */
export async function open(settle) {
  // Node's bundle leaves the gradients out; their sources are ES modules without extensions, which plain Node does not load.
  const undo = register();
  const tf = require('@tensorflow/tfjs-core');
  require('@tensorflow/tfjs-core/dist/register_all_gradients');
  require('@tensorflow/tfjs-backend-webgpu');
  undo();
  await tf.setBackend('webgpu');
  const backend = tf.backend();

  /** `compute` makes one tensor or several from tensors that live on. */
  const job = (inputs, compute) => ({
    run: () => [tf.tidy(compute)].flat(),
    wait: async () => {
      if (!backend.commandEncoder) return settle(backend.device.queue.onSubmittedWorkDone());
      backend.endComputePassEncoder();
      backend.submitQueue();
      await settle(backend.device.queue.onSubmittedWorkDone());
    },
    read: async (outputs) => Promise.all(outputs.map(async (t) => new Float32Array(await t.data()))),
    dispose: (outputs) => tf.dispose(outputs),
    free: () => tf.dispose(inputs),
  });
  const put = (shape, data) => tf.tensor(data, shape, 'float32');

  return {
    name: 'tfjs',
    version: tf.version_core,
    conv({ N, H, W, C, OH, OW, O, K, stride, pad_top, pad_left }, direction, data) {
      const x = put([N, H, W, C], data.x), filter = put([K, K, C, O], data.w), dy = put([N, OH, OW, O], data.dy);
      const far = (size, out, near) => Math.max(0, (out - 1) * stride + K - size - near);
      const pad = [[0, 0], [pad_top, far(H, OH, pad_top)], [pad_left, far(W, OW, pad_left)], [0, 0]];
      const attributes = { strides: [stride, stride], pad, dataFormat: 'NHWC', dimRoundingMode: undefined };
      const run = (kernel, inputs, more) => tf.engine().runKernel(kernel, inputs, { ...attributes, ...more });
      return job([x, filter, dy], {
        forward: () => tf.conv2d(x, filter, stride, pad),
        input: () => run('Conv2DBackpropInput', { dy, filter }, { inputShape: x.shape }),
        weight: () => run('Conv2DBackpropFilter', { x, dy }, { filterShape: filter.shape }),
      }[direction]);
    },
    groupNorm({ N, P, C, G, eps }, backward, data) {
      const x = put([N, P, C], data.x), gamma = put([C], data.gamma), beta = put([C], data.beta), dy = put([N, P, C], data.dy);
      const forward = (a, g, b) => {
        const groups = tf.reshape(a, [N, P, G, C / G]);
        const { mean, variance } = tf.moments(groups, [1, 3], true);
        const normal = tf.mul(tf.sub(groups, mean), tf.rsqrt(tf.add(variance, eps)));
        const h = tf.add(tf.mul(tf.reshape(normal, [N, P, C]), g), b);
        return tf.mul(h, tf.sigmoid(h));
      };
      return job([x, gamma, beta, dy], () => (backward ? tf.grads(forward)([x, gamma, beta], dy) : forward(x, gamma, beta)));
    },
    attention({ N, T, C }, backward, data) {
      const [q, k, v, dy] = [data.q, data.k, data.v, data.dy].map((values) => put([N, T, C], values));
      const forward = (a, b, c) => tf.matMul(tf.softmax(tf.mul(tf.matMul(a, b, false, true), 1 / Math.sqrt(C))), c);
      return job([q, k, v, dy], () => (backward ? tf.grads(forward)([q, k, v], dy) : forward(q, k, v)));
    },
  };
}
