// The U-Net of diffusers' UNet2DModel and its training step in jax-js: forward, loss, gradients, clipping, AdamW and the moving average of the weights.

/** eps_theta(params, x (N, C, H, W), embedding (N, widths[0])). Every use of an array but the last takes `.ref`: jax-js counts references. */
function unet({ jit, numpy: np, lax, nn }, config) {
  const { block_out_channels: widths, layers_per_block: layers, norm_num_groups: groups, norm_eps: eps } = config;
  const convolve = new Map();
  const conv = (p, name, x, stride = 1, padding = [[1, 1], [1, 1]]) => {
    const key = `${stride} ${padding}`;
    if (!convolve.has(key)) convolve.set(key, jit((a, w, b) => lax.convGeneralDilated(a, w, [stride, stride], padding).add(b.reshape([1, -1, 1, 1]))));
    return convolve.get(key)(x, p[`${name}.weight`], p[`${name}.bias`]);
  };
  const linear = (p, name, x) => np.matmul(x, p[`${name}.weight`].transpose()).add(p[`${name}.bias`]);
  const normalise = (silu) => jit((x, gamma, beta) => {
    const [N, C, H, W] = x.shape;
    const g = x.reshape([N, groups, (C / groups) * H * W]);
    const centred = g.ref.sub(np.mean(g, 2, { keepdims: true }));
    const variance = np.mean(np.square(centred.ref), 2, { keepdims: true });
    const h = centred.div(np.sqrt(variance.add(eps))).reshape([N, C, H, W]).mul(gamma.reshape([1, C, 1, 1])).add(beta.reshape([1, C, 1, 1]));
    return silu ? nn.silu(h) : h;
  });
  const [plain, activated] = [normalise(false), normalise(true)];
  const norm = (p, name, x) => plain(x, p[`${name}.weight`], p[`${name}.bias`]);
  const normSilu = (p, name, x) => activated(x, p[`${name}.weight`], p[`${name}.bias`]);
  const resnet = (p, name, x, temb) => {
    const shortcut = `${name}.conv_shortcut.weight` in p ? conv(p, `${name}.conv_shortcut`, x.ref, 1, [[0, 0], [0, 0]]) : x.ref;
    let h = conv(p, `${name}.conv1`, normSilu(p, `${name}.norm1`, x));
    const time = linear(p, `${name}.time_emb_proj`, temb.ref);
    h = h.add(time.reshape([...time.shape, 1, 1]));
    return conv(p, `${name}.conv2`, normSilu(p, `${name}.norm2`, h)).add(shortcut);
  };
  const attention = (p, name, x) => {
    const [N, C, H, W] = x.shape;
    const h = norm(p, `${name}.group_norm`, x.ref).reshape([N, C, H * W]).transpose([0, 2, 1]);
    const [q, k, v] = ['to_q', 'to_k', 'to_v'].map((which, i) => linear(p, `${name}.${which}`, i < 2 ? h.ref : h));
    const weights = nn.softmax(np.matmul(q, k.transpose([0, 2, 1])).mul(1 / Math.sqrt(C)), -1);
    const y = linear(p, `${name}.to_out.0`, np.matmul(weights, v));
    return y.transpose([0, 2, 1]).reshape([N, C, H, W]).add(x);
  };
  const double = (x) => np.repeat(np.repeat(x, 2, 2), 2, 3);

  return (p, x, embedding) => {
    const temb = nn.silu(linear(p, 'time_embedding.linear_2', nn.silu(linear(p, 'time_embedding.linear_1', embedding))));
    let h = conv(p, 'conv_in', x);
    const skips = [h.ref];
    config.down_block_types.forEach((type, level) => {
      for (let i = 0; i < layers; i++) {
        h = resnet(p, `down_blocks.${level}.resnets.${i}`, h, temb);
        if (type === 'AttnDownBlock2D') h = attention(p, `down_blocks.${level}.attentions.${i}`, h);
        skips.push(h.ref);
      }
      if (level === widths.length - 1) return;
      h = conv(p, `down_blocks.${level}.downsamplers.0.conv`, h, 2, [[0, 1], [0, 1]]);
      skips.push(h.ref);
    });
    h = resnet(p, 'mid_block.resnets.0', h, temb);
    if (config.add_attention) h = attention(p, 'mid_block.attentions.0', h);
    h = resnet(p, 'mid_block.resnets.1', h, temb);
    config.up_block_types.forEach((type, level) => {
      for (let i = 0; i <= layers; i++) {
        h = resnet(p, `up_blocks.${level}.resnets.${i}`, np.concatenate([h, skips.pop()], 1), temb);
        if (type === 'AttnUpBlock2D') h = attention(p, `up_blocks.${level}.attentions.${i}`, h);
      }
      if (level < widths.length - 1) h = conv(p, `up_blocks.${level}.upsamplers.0.conv`, double(h));
    });
    temb.dispose();
    return conv(p, 'conv_out', normSilu(p, 'conv_norm_out', h));
  };
}

/**
 * A training step on given noise: `tensors` by name in PyTorch's layout, `batch` with x0 and noise (N, C, H, W), the embedding of t, and the two coefficients of
 * q(x_t | x_0), (N). `lossAndGradients` for the check, `step` for the clock.
 */
export function jaxTraining(jax, config, tensors, batch, { lr, ema, gradClip }) {
  const { numpy: np } = jax;
  const model = unet(jax, config);
  const names = [...tensors.keys()];
  const place = (fill) => Object.fromEntries(names.map((name) => [name, np.array(fill(tensors.get(name).data)).reshape([...tensors.get(name).shape])]));
  const zeros = (data) => new Float32Array(data.length);
  let state = { w: place((d) => d), m: place(zeros), v: place(zeros), e: place((d) => d) };
  const { shape } = batch;
  const inputs = () => [np.array(batch.x0).reshape(shape), np.array(batch.noise).reshape(shape), np.array(batch.embedding).reshape([shape[0], -1]), ...[batch.signal, batch.sigma].map((c) => np.array(c).reshape([shape[0], 1, 1, 1]))];

  const loss = (w, x0, noise, embedding, signal, sigma) => {
    const xt = x0.mul(signal).add(noise.ref.mul(sigma));
    return np.mean(np.square(model(w, xt, embedding).sub(noise)));
  };
  const both = jax.valueAndGrad(loss);
  const refs = (tree) => Object.fromEntries(Object.entries(tree).map(([k, t]) => [k, t.ref]));
  const update = jax.jit((w, m, v, e, g, scale, c1, c2) => {
    const clipped = g.mul(scale);
    const m1 = m.mul(0.9).add(clipped.ref.mul(0.1)), v1 = v.mul(0.999).add(np.square(clipped).mul(0.001));
    const w1 = w.sub(m1.ref.mul(c1).div(np.sqrt(v1.ref.mul(c2)).add(1e-8)).mul(lr));
    return [w1.ref, m1, v1, e.mul(ema).add(w1.mul(1 - ema))];
  });
  // Jitted in pieces: as one function the step of `tiny` had not compiled after nine minutes.
  const step = (w, m, v, e, c1, c2, ...rest) => {
    const [value, g] = both(refs(w), ...rest);
    const norm = np.sqrt(names.map((n) => np.sum(np.square(g[n].ref))).reduce((a, b) => a.add(b)));
    const scale = np.minimum(np.array(gradClip).div(norm), 1);
    const next = { w: {}, m: {}, v: {}, e: {} };
    for (const n of names) {
      [next.w[n], next.m[n], next.v[n], next.e[n]] = update(w[n], m[n], v[n], e[n], g[n], scale.ref, c1.ref, c2.ref);
    }
    scale.dispose();
    c1.dispose();
    c2.dispose();
    return [value, next];
  };
  let count = 0;
  return {
    lossAndGradients: () => both(refs(state.w), ...inputs()),
    /** Runs one step; returns its loss, which is ready when the step's own sums are. */
    step: () => {
      count++;
      const corrections = [0.9, 0.999].map((beta) => np.array(1 / (1 - beta ** count)));
      const [value, next] = step(state.w, state.m, state.v, state.e, ...corrections, ...inputs());
      state = next;
      return value;
    },
  };
}
