// Factors are rounded to float16 in workgroup memory; products and sums are float32. Beyond 65,504 they become infinite.
enable f16;
alias Operand = f16;
alias Operand4 = vec4<f16>;
