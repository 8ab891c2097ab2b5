/** Runs seeds of a scenario and collects what happened. Knows scenarios by name; prints nothing. */
import { consensusCanary, consensusScenario } from './consensus/scenario.ts';
import { dilocoCanary, dilocoScenario, stagesScenario } from './diloco/scenario.ts';
import { auditsScenario, economyScenario } from './ledger/scenario.ts';
import { pipelineScenario } from './pipeline/scenario.ts';
import { replayCommand, type Scenario, type ScenarioResult, Violation } from './scenario.ts';

export const scenarios: readonly Scenario[] = [
  consensusScenario,
  consensusCanary,
  dilocoScenario,
  stagesScenario,
  dilocoCanary,
  pipelineScenario,
  auditsScenario,
  economyScenario,
];

export type SeedReport = { readonly seed: number } & (
  | { readonly ok: true; readonly result: ScenarioResult }
  /** `property` is `crash` when the code under test, or the simulator, threw something else. */
  | { readonly ok: false; readonly property: string; readonly detail: string; readonly replay: string }
);

export async function runSeed(scenario: Scenario, seed: number): Promise<SeedReport> {
  try {
    return { seed, ok: true, result: await scenario.run(seed) };
  } catch (error) {
    const property = error instanceof Violation ? error.property : 'crash';
    const detail =
      error instanceof Violation ? error.message : String(error instanceof Error ? error.stack : error);
    return { seed, ok: false, property, detail, replay: replayCommand(scenario.name, seed) };
  }
}
