// A run or a model on the device as a whole or not at all.
import type { Engine } from '../../gpu/engine.ts';

/** What `make` allocates stays where it returns, and is freed where it throws. */
export function wholly<T>(engine: Engine, make: () => T): T {
  const scope = engine.openScope(false);
  try {
    const made = make();
    scope.slices.clear();
    return made;
  } finally {
    engine.closeScope(scope);
  }
}
