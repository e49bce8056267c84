// Activations are rounded to float16 when written, and infinite beyond 65,504; arithmetic is float32.
enable f16;
alias Stored = f16;
alias Stored4 = vec4<f16>;
