// Which variant of a kernel computes a shape: told from outside, as `npm run tune` measured it, or what the op takes by itself. Every choice made is remembered.

/** A variant and the numbers that its launch may choose, such as how often a sum is split. Names and numbers only, since it is saved in files. */
export type Choice = Readonly<Record<string, string | number>>;

/** Choices by op and shape: `conv2d_forward H=28 W=28 …`. */
export type ChoiceTable = Readonly<Record<string, Choice>>;

/** One choice, with the shape that asked for it. */
export interface Made {
  /** The choice's name in a table. */
  readonly key: string;
  readonly op: string;
  readonly shape: Readonly<Record<string, number>>;
  /** The sizes that it was made at, of those that it must not depend on. */
  readonly at: ReadonlyMap<string, Readonly<Record<string, number>>>;
  readonly choice: Choice;
  /** Whether it was given, and is not the op's own. */
  readonly given: boolean;
}

type Sizes = Readonly<Record<string, number>>;

const keyOf = (op: string, shape: Sizes): string => [op, ...Object.entries(shape).map(([name, value]) => `${name}=${value}`)].join(' ');

/** One engine's choices. They follow from the shape and from what was given, never from a measurement during a run, so that a resumed run adds in the same order. */
export class Choices {
  readonly #given: ReadonlyMap<string, Choice>;
  readonly #made = new Map<string, Made & { readonly at: Map<string, Sizes> }>();
  readonly #refused = new Map<string, Choice>();

  constructor(table: ChoiceTable = {}) {
    this.#given = new Map(Object.entries(table));
  }

  /**
   * How to compute this shape: as given, if `takes` accepts that on this device, else `usual()`. `at` has the sizes that the choice must not depend on, such as the
   * batch: an image has the same bits in every batch.
   */
  of<C extends object>(op: string, shape: Sizes, at: Sizes, usual: () => C, takes: (choice: Choice) => boolean): C {
    const key = keyOf(op, shape), where = Object.values(at).join();
    let made = this.#made.get(key);
    if (!made) {
      const told = this.#given.get(key), given = told !== undefined && takes(told);
      if (told && !given) this.#refused.set(key, told);
      made = { key, op, shape, at: new Map(), choice: given ? told : (usual() as Choice), given };
      this.#made.set(key, made);
    }
    if (!made.at.has(where)) made.at.set(where, at);
    return made.choice as unknown as C;
  }

  /** Computes this shape this way from now on, for measuring. Plans that were captured before stay as they are. */
  force(op: string, shape: Sizes, choice: Choice): void {
    const key = keyOf(op, shape);
    this.#made.set(key, { key, op, shape, at: new Map(), choice, given: true });
  }

  /** Every choice made so far. */
  get made(): ReadonlyMap<string, Made> {
    return this.#made;
  }

  /** Given choices that this device or this version cannot take. */
  get refused(): ReadonlyMap<string, Choice> {
    return this.#refused;
  }

  /** All choices, given or made, as the constructor takes them. */
  table(): ChoiceTable {
    return Object.fromEntries([...this.#given, ...[...this.#made].map(([key, { choice }]) => [key, choice] as const)]);
  }
}
