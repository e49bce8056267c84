// What a product takes of each factor, here all of it. A kernel that imports this exists twice: kernels/build.ts writes NAME_f16 with operands_f16 in its place.
alias Operand = f32;
alias Operand4 = vec4f;
