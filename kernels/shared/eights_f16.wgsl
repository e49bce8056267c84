// Eight numbers as tensor cores' kernels read them, where activations are float16.
alias Half8 = vec4u;
alias Stored8 = vec4u;
fn packed(v: Stored8) -> Half8 { return v; }
fn first_four(v: Half8) -> vec4<f16> { return bitcast<vec4<f16>>(v.xy); }
fn last_four(v: Half8) -> vec4<f16> { return bitcast<vec4<f16>>(v.zw); }
