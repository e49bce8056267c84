// Eight numbers as tensor cores' kernels read them, 16 bytes of float16 at a time. In loads of 8 bytes a convolution takes a quarter to two fifths longer on an H100; with a matrix of two
// columns in place of four words, which is loaded by columns, a fifth to two thirds.
// kernels/build.ts writes a second form, NAME_stored_f16, with eights_f16.
alias Half8 = vec4u;
alias Stored8 = mat2x4f;
fn packed(v: Stored8) -> Half8 { return vec4u(bitcast<vec2u>(vec4<f16>(v[0])), bitcast<vec2u>(vec4<f16>(v[1]))); }
fn first_four(v: Half8) -> vec4<f16> { return bitcast<vec4<f16>>(v.xy); }
fn last_four(v: Half8) -> vec4<f16> { return bitcast<vec4<f16>>(v.zw); }
