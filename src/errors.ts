// One error class for everything a user can run into: a stable code, and a message that says what happened, why, and what to do.

/** Stable codes, the same in the library and on the command line. */
export type ErrorCode =
  | 'E-USAGE' // a flag, a setting or an argument is wrong
  | 'E-DATA' // a data set file is missing, damaged or of the wrong kind
  | 'E-FILE' // any other file: safetensors, checkpoint, run folder, image
  | 'E-NETWORK' // a download failed
  | 'E-MODEL' // a config or a checkpoint does not fit the model
  | 'E-SHAPE' // tensors whose shapes do not go together
  | 'E-ENGINE' // the engine was used in a way it does not allow
  | 'E-KERNEL' // a WGSL kernel did not compile or was called wrongly
  | 'E-LIMIT' // the device's limits are too small
  | 'E-MEMORY' // the device has no memory left
  | 'E-NO-ADAPTER' // no usable WebGPU adapter
  | 'E-DEVICE-LOST' // the device was lost
  | 'E-NONFINITE' // the loss or a gradient is not finite
  | 'E-ABORTED'; // an AbortSignal was aborted

/** Process exit codes: 1 failure, 2 usage, 3 no usable GPU, 4 device lost, 5 loss not finite (130, interrupted and saved, is not an error). */
const EXIT: Partial<Record<ErrorCode, number>> = { 'E-USAGE': 2, 'E-NO-ADAPTER': 3, 'E-DEVICE-LOST': 4, 'E-NONFINITE': 5 };

/**
 * The error that this library throws where the caller can do something about it. `code` is stable; the message says what happened, why, and what to do; `exitCode` is the
 * command line's.
 */
export class DdpmError extends Error {
  override readonly name = 'DdpmError';
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
  get exitCode(): number {
    return EXIT[this.code] ?? 1;
  }
}

/** Throws E-ABORTED, its cause the signal's reason, where the signal was aborted. `what` was going on. */
export function throwIfAborted(signal: AbortSignal | undefined, what: string): void {
  if (signal?.aborted) throw new DdpmError('E-ABORTED', `${what} was aborted.`, { cause: signal.reason });
}
