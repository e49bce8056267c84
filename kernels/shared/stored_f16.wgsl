// Activations and their gradients are stored as float16, and rounded once, as they are written; arithmetic is float32. What exceeds 65,504 becomes infinite.
enable f16;
alias Stored = f16;
alias Stored4 = vec4<f16>;
