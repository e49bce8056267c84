// The type of a product's factors. kernels/build.ts writes a second form, NAME_f16, with operands_f16.
alias Operand = f32;
alias Operand4 = vec4f;
