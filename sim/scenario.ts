/**
 * What the runner knows of a scenario: a name and a function from a seed to a summary. A broken property is thrown as a
 * `Violation`, which the runner reports with the command that replays it.
 */

export class Violation extends Error {
  override name = 'Violation';
  /** Stable kebab-case, e.g. `agreement`. */
  readonly property: string;
  constructor(property: string, detail: string) {
    super(`${property}: ${detail}`);
    this.property = property;
  }
}

export interface ScenarioResult {
  /** One line for people. */
  readonly summary: string;
  /** Equal for two runs of one seed. */
  readonly trace: number;
  readonly numbers: Readonly<Record<string, number>>;
}

export interface Scenario {
  readonly name: string;
  readonly description: string;
  /** A canary must find a violation for some seed: it shows that the checkers can see. */
  readonly canary?: boolean;
  /** Its numbers are worth reading: their means over all seeds that have them are printed. */
  readonly means?: boolean;
  run(seed: number): Promise<ScenarioResult>;
}

export function holds(condition: boolean, property: string, detail: () => string): asserts condition {
  if (!condition) throw new Violation(property, detail());
}

/** The command that runs this seed again. */
export function replayCommand(scenario: string, seed: number): string {
  return `npm run sim -- --scenario ${scenario} --seed ${seed}`;
}
