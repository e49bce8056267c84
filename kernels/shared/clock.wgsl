// What the host writes before each step (src/clock.ts). Philox's counter is (element / 4, sample id, step, 0), its key (seed, stream).
struct Clock {
  seed: u32, step: u32, first: u32, unused: u32,
  lr: f32, ema_decay: f32,
}
