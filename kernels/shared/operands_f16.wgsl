// Factors are rounded to float16 as they enter workgroup memory; products and sums are float32. What exceeds 65,504 becomes infinite.
enable f16;
alias Operand = f16;
alias Operand4 = vec4<f16>;
