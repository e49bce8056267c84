// One channel at a time. kernels/build.ts writes a second form, NAME_vec4, with values_vec4.
#import stored
alias Values = f32;
alias StoredValues = Stored;
const WIDTH = 1u;
fn channel_sum(v: Values) -> f32 { return v; }
fn of_four(v: vec4f, element: u32) -> Values { return v[element % 4u]; }
fn first_channel(v: Values) -> f32 { return v; }
