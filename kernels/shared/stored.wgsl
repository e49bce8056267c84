// The type of stored activations. kernels/build.ts writes a second form, NAME_stored_f16, with stored_f16.
alias Stored = f32;
alias Stored4 = vec4f;
