// y = s round(x / s), s = 2^(e - 10) with e the exponent of x, at least -14: x to the nearest float16 number, as float32; infinite from 65,520
// One invocation rounds four values. For CPUs, where float32 kernels on rounded factors are 30 times faster than kernels with workgroup memory.
// By arithmetic: llvmpipe skips the rounding of f32(f16(x)), and of the second number in unpack2x16float(pack2x16float(v)).
#import index
@group(0) @binding(0) var<storage, read> x: array<vec4f>;       // (values)
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>; // (values)

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = thread_index(id, count);
  if (i >= arrayLength(&y)) { return; }
  let bits = bitcast<vec4u>(x[i]);
  let size = bits & vec4u(0x7fffffffu);
  let fits = size < vec4u(0x477ff000u);
  // Biased by 127. Both scales are powers of two, so only round() rounds, ties to even.
  let exponent = clamp(size >> vec4u(23u), vec4u(113u), vec4u(142u));
  let near = round(select(vec4f(0.0), x[i], fits) * bitcast<vec4f>((vec4u(264u) - exponent) << vec4u(23u))) * bitcast<vec4f>((exponent - vec4u(10u)) << vec4u(23u));
  // A NaN stays one.
  let infinite = bitcast<vec4f>((bits & vec4u(0x80000000u)) | max(size, vec4u(0x7f800000u)));
  y[i] = select(infinite, near, fits);
}
