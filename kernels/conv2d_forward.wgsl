// y[n,oh,ow,o] = bias[o] + per_image[n,o] + residual[n,oh,ow,o] + sum_{kh,kw,c} x[n, oh*stride+kh-pad_top, ow*stride+kw-pad_left, c] * w[kh,kw,C0+c,o]
// One invocation computes one y. The plain kernel: any channel count. Images of 1 or 3 channels are faster padded to 4 for another, but on CPUs without subgroups.
#import index
#import stored
#import conv2d
@group(0) @binding(0) var<storage, read> x: array<Stored>;        // (N, H, W, C)
@group(0) @binding(1) var<storage, read> w: array<f32>;           // (KH, KW, WC, O)
@group(0) @binding(2) var<storage, read> bias: array<f32>;        // (O)
@group(0) @binding(3) var<storage, read> per_image: array<f32>;   // (N, O)
@group(0) @binding(4) var<storage, read> residual: array<Stored>; // (N, OH, OW, O)
@group(0) @binding(5) var<storage, read_write> y: array<Stored>;  // (N, OH, OW, O)
@group(0) @binding(6) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= dims.N * dims.OH * dims.OW * dims.O) { return; }
  let o = i % dims.O;
  let q = pixel(i / dims.O, dims.OH, dims.OW);
  var sum = 0.0;
  for (var kh = 0u; kh < dims.KH; kh++) {
    for (var kw = 0u; kw < dims.KW; kw++) {
      let p = input_pixel(q, kh, kw);
      if (p < 0) { continue; }
      let tap = ((kh * dims.KW + kw) * dims.WC + dims.C0) * dims.O + o;
      for (var c = 0u; c < dims.C; c++) { sum = fma(f32(x[u32(p) * dims.C + c]), w[tap + c * dims.O], sum); }
    }
  }
  if (dims.has_bias != 0u) { sum += bias[o]; }
  if (dims.has_per_image != 0u) { sum += per_image[q.n * dims.O + o]; }
  if (dims.has_residual != 0u) { sum += f32(residual[i]); }
  if (dims.accumulate != 0u) { sum += f32(y[i]); }
  y[i] = Stored(sum);
}
