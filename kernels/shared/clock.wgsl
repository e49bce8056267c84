// The 64 bytes that the host writes before a step: all that differs from step to step (src/clock.ts).
// A counter for Philox is (block of four elements, sample id, step, 0), its key (seed, stream).
struct Clock {
  seed: u32, step: u32, first: u32, unused: u32,
  lr: f32, ema_decay: f32,
}
