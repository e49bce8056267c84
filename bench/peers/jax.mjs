// jax-js on WebGPU in Node, as bench/peers/run.mjs drives it: jitted ops of a U-Net. Its convolutions are NCHW and OIHW: data are turned on the host, before the clock runs.
import { readFileSync } from 'node:fs';

/** (a, b, c, d) read in the order of `axes`. */
function turn(data, shape, axes) {
  const out = new Float32Array(data.length), strides = [1, 1, 1, 1];
  for (let i = 2; i >= 0; i--) strides[i] = strides[i + 1] * shape[i + 1];
  const [n, s] = [axes.map((a) => shape[a]), axes.map((a) => strides[a])];
  let i = 0;
  for (let a = 0; a < n[0]; a++) for (let b = 0; b < n[1]; b++) for (let c = 0; c < n[2]; c++) for (let d = 0; d < n[3]; d++) out[i++] = data[a * s[0] + b * s[1] + c * s[2] + d * s[3]];
  return out;
}

/** Opens the backend; the global navigator.gpu is the device's. `settle` awaits a promise of the device without burning a core. */
export async function open(settle) {
  const jax = await import('@jax-js/jax');
  const { numpy: np, lax, nn } = jax;
  if (!(await jax.init('webgpu')).includes('webgpu')) throw new Error('jax-js found no WebGPU');
  jax.defaultDevice('webgpu');

  const put = (shape, data) => np.array(data).reshape(shape);
  /** The gradients of sum(f(a, b, c) * dy). */
  const gradients = (f) => jax.grad((a, b, c, dy) => np.sum(f(a, b, c).mul(dy)), { argnums: [0, 1, 2] });
  const same = (outputs) => outputs;
  const job = (inputs, compute, home = same) => {
    const jitted = jax.jit(compute);
    return {
      run: () => [jitted(...inputs.map((t) => t.ref))].flat(),
      wait: (outputs) => settle(jax.blockUntilReady(outputs)),
      read: async (outputs) => home(await Promise.all(outputs.map(async (t) => new Float32Array(await settle(t.ref.data()))))),
      dispose: (outputs) => outputs.forEach((t) => t.dispose()),
      free: () => inputs.forEach((t) => t.dispose()),
    };
  };

  return {
    jax,
    name: 'jax-js',
    version: JSON.parse(readFileSync(new URL('node_modules/@jax-js/jax/package.json', import.meta.url), 'utf8')).version,
    conv({ N, H, W, C, OH, OW, O, K, stride, pad_top, pad_left }, direction, data) {
      const x = () => put([N, C, H, W], turn(data.x, [N, H, W, C], [0, 3, 1, 2]));
      const w = () => put([O, C, K, K], turn(data.w, [K, K, C, O], [3, 2, 0, 1]));
      const dy = () => put([N, O, OH, OW], turn(data.dy, [N, OH, OW, O], [0, 3, 1, 2]));
      const far = (size, out, near) => (out - 1) * stride + K - size - near;
      const padding = [[pad_top, far(H, OH, pad_top)], [pad_left, far(W, OW, pad_left)]];
      const conv = (a, b) => lax.convGeneralDilated(a, b, [stride, stride], padding);
      const images = (h, wide, c) => ([t]) => [turn(t, [N, c, h, wide], [0, 2, 3, 1])];
      if (direction === 'forward') return job([x(), w()], conv, images(OH, OW, O));
      // The gradient of sum(conv * dy); jit drops the forward convolution, which is linear.
      const scalar = (a, b, d) => np.sum(conv(a, b).mul(d));
      if (direction === 'input') return job([np.zeros([N, C, H, W]), w(), dy()], jax.grad(scalar), images(H, W, C));
      return job([x(), np.zeros([O, C, K, K]), dy()], jax.grad(scalar, { argnums: 1 }), ([t]) => [turn(t, [O, C, K, K], [2, 3, 1, 0])]);
    },
    groupNorm({ N, P, C, G, eps }, backward, data) {
      const forward = (x, gamma, beta) => {
        const groups = x.reshape([N, P, G, C / G]);
        const centred = groups.ref.sub(np.mean(groups, [1, 3], { keepdims: true }));
        const variance = np.mean(np.square(centred.ref), [1, 3], { keepdims: true });
        return nn.silu(centred.div(np.sqrt(variance.add(eps))).reshape([N, P, C]).mul(gamma).add(beta));
      };
      const inputs = [put([N, P, C], data.x), put([C], data.gamma), put([C], data.beta)];
      if (!backward) return job(inputs, forward);
      return job([...inputs, put([N, P, C], data.dy)], gradients(forward));
    },
    attention({ N, T, C }, backward, data) {
      // Its own dotProductAttention needs a newer Node; this is what it does.
      const forward = (q, k, v) => np.matmul(nn.softmax(np.matmul(q, k.transpose([0, 2, 1])).mul(1 / Math.sqrt(C)), -1), v);
      const inputs = [data.q, data.k, data.v].map((values) => put([N, T, C], values));
      if (!backward) return job(inputs, forward);
      return job([...inputs, put([N, T, C], data.dy)], gradients(forward));
    },
  };
}
