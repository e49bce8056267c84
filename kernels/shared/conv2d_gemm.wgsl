// A convolution and its gradient by the input as one GEMM over k = (kh, kw, channel): its channels, in vec4s. A tap is kh * KW + kw. For kernels with the overrides TRANSPOSED and TWO.
fn gemm_cin4() -> u32 { return select(select(dims.C, dims.WC, TWO), dims.O, TRANSPOSED) / 4u; }
fn gemm_cout4() -> u32 { return select(dims.O, dims.C, TRANSPOSED) / 4u; }
