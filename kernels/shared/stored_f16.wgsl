// Activations and their gradients are rounded to float16 when written; arithmetic is float32. Beyond 65,504 they become infinite.
enable f16;
alias Stored = f16;
alias Stored4 = vec4<f16>;
