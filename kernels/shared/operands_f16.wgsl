// Factors are rounded to float16 in workgroup memory, and infinite beyond 65,504; products and sums are float32.
enable f16;
alias Operand = f16;
alias Operand4 = vec4<f16>;
