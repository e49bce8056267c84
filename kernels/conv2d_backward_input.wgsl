// dx[n,h,w,c] = sum_{kh,kw,o} dy[n, (h+pad_top-kh)/stride, (w+pad_left-kw)/stride, o] * w[kh,kw,C0+c,o], where the divisions are exact
// One invocation computes one dx. The plain kernel: any channel count.
#import index
#import stored
#import conv2d
@group(0) @binding(0) var<storage, read> dy: array<Stored>;       // (N, OH, OW, O)
@group(0) @binding(1) var<storage, read> w: array<f32>;           // (KH, KW, WC, O)
@group(0) @binding(2) var<storage, read_write> dx: array<Stored>; // (N, H, W, C)
@group(0) @binding(3) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= dims.N * dims.H * dims.W * dims.C) { return; }
  let c = i % dims.C;
  let q = pixel(i / dims.C, dims.H, dims.W);
  var sum = 0.0;
  for (var kh = 0u; kh < dims.KH; kh++) {
    for (var kw = 0u; kw < dims.KW; kw++) {
      let p = output_pixel(q, kh, kw);
      if (p < 0) { continue; }
      let tap = ((kh * dims.KW + kw) * dims.WC + dims.C0 + c) * dims.O;
      for (var o = 0u; o < dims.O; o++) { sum = fma(f32(dy[u32(p) * dims.O + o]), w[tap + o], sum); }
    }
  }
  if (dims.accumulate != 0u) { sum += f32(dx[i]); }
  dx[i] = Stored(sum);
}
