// Float64 twins of the convolution kernels: NHWC activations, HWIO weights, and the sums that make bias gradients.

type Floats = ArrayLike<number>;

/** The shape of one convolution. The padding at the bottom and right is implied by OH and OW. */
export interface ConvShape {
  N: number;
  H: number;
  W: number;
  C: number;
  O: number;
  KH: number;
  KW: number;
  stride: number;
  /** [top, left] */
  pad: readonly [number, number];
  OH: number;
  OW: number;
  /** Input channels of the weight, and the first one that this call uses. A conv over a skip connection [h, skip] is two calls. */
  wC?: number;
  c0?: number;
}

/** Calls f(x index, w index, y index) for every product of the convolution: forward and both backwards are this one loop. */
function eachProduct(s: ConvShape, f: (xi: number, wi: number, yi: number) => void): void {
  const { N, H, W, C, O, KH, KW, stride, pad, OH, OW, wC = C, c0 = 0 } = s;
  for (let n = 0; n < N; n++)
    for (let oh = 0; oh < OH; oh++)
      for (let ow = 0; ow < OW; ow++)
        for (let kh = 0; kh < KH; kh++)
          for (let kw = 0; kw < KW; kw++) {
            const ih = oh * stride + kh - pad[0], iw = ow * stride + kw - pad[1];
            if (ih < 0 || ih >= H || iw < 0 || iw >= W) continue;
            for (let c = 0; c < C; c++)
              for (let o = 0; o < O; o++)
                f(((n * H + ih) * W + iw) * C + c, ((kh * KW + kw) * wC + c0 + c) * O + o, ((n * OH + oh) * OW + ow) * O + o);
          }
}

/** x (N,H,W,C), w (KH,KW,wC,O) → y (N,OH,OW,O); optionally + bias (O) + perImage (N,O) + residual (N,OH,OW,O). */
export function conv2d(a: ConvShape & { x: Floats; w: Floats; bias?: Floats; perImage?: Floats; residual?: Floats }): Float64Array {
  const { x, w, bias, perImage, residual, N, O, OH, OW } = a;
  const y = new Float64Array(N * OH * OW * O);
  eachProduct(a, (xi, wi, yi) => (y[yi] += x[xi] * w[wi]));
  for (let i = 0; i < y.length; i++) {
    const o = i % O, n = Math.floor(i / (OH * OW * O));
    if (bias) y[i] += bias[o];
    if (perImage) y[i] += perImage[n * O + o];
    if (residual) y[i] += residual[i];
  }
  return y;
}

/** dy (N,OH,OW,O), w (KH,KW,wC,O) → dx (N,H,W,C). */
export function conv2dBackwardInput(a: ConvShape & { dy: Floats; w: Floats }): Float64Array {
  const { dy, w, N, H, W, C } = a;
  const dx = new Float64Array(N * H * W * C);
  eachProduct(a, (xi, wi, yi) => (dx[xi] += dy[yi] * w[wi]));
  return dx;
}

/** w (KH,KW,wC,O) → (KH,KW,O,C): its taps from last to first and its input channels [c0, c0 + C) as outputs, as the input's gradient reads it. */
export function turned({ KH, KW, C, O, wC = C, c0 = 0 }: ConvShape, w: Floats): Float64Array {
  return Float64Array.from({ length: KH * KW * O * C }, (_, i) => {
    const c = i % C, o = Math.floor(i / C) % O, tap = Math.floor(i / (C * O));
    return w[((KH * KW - 1 - tap) * wC + c0 + c) * O + o];
  });
}

/** x (N,H,W,C), dy (N,OH,OW,O) → dw (KH,KW,wC,O), zero outside the input channels [c0, c0 + C). */
export function conv2dBackwardWeight(a: ConvShape & { x: Floats; dy: Floats }): Float64Array {
  const { x, dy, C, O, KH, KW, wC = C } = a;
  const dw = new Float64Array(KH * KW * wC * O);
  eachProduct(a, (xi, wi, yi) => (dw[wi] += x[xi] * dy[yi]));
  return dw;
}

/** dy (N,P,C) → (N,C): the gradient of what was added per image and channel. */
export function sumPixels(dy: Floats, N: number, P: number, C: number): Float64Array {
  const out = new Float64Array(N * C);
  for (let n = 0; n < N; n++) for (let p = 0; p < P; p++) for (let c = 0; c < C; c++) out[n * C + c] += dy[(n * P + p) * C + c];
  return out;
}

/** x (M,C) → (C): the gradient of a bias. */
export function sumRows(x: Floats, M: number, C: number): Float64Array {
  return sumPixels(x, 1, M, C);
}
