// What activations and their gradients are stored as, here float32. A kernel that imports this exists twice: kernels/build.ts writes NAME_stored_f16 with stored_f16 in its place.
alias Stored = f32;
alias Stored4 = vec4f;
