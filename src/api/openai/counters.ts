/** What the text routes have done since the start: counted here, shown by the metrics. Knows no HTTP. */

export type GenerationOutcome = 'stop' | 'length' | 'disconnected' | 'stalled' | 'failed';

export interface TextCounts {
  /** By route and HTTP status. */
  readonly requests: readonly {
    readonly route: string;
    readonly status: number;
    readonly count: number;
  }[];
  /** Generations by how they ended. */
  readonly ended: Readonly<Record<GenerationOutcome, number>>;
  readonly promptTokens: number;
  /** Tokens drawn. */
  readonly completionTokens: number;
  /** Generations that run now, and responses that are being streamed. */
  readonly generations: number;
  readonly streams: number;
}

export interface TextCounters {
  request(route: string, status: number): void;
  ended(outcome: GenerationOutcome): void;
  promptTokens(count: number): void;
  completionToken(): void;
  streamOpened(): void;
  streamClosed(): void;
  /** `generations` are those that run now. */
  counts(generations: number): TextCounts;
}

export function createTextCounters(): TextCounters {
  const requests = new Map<string, { route: string; status: number; count: number }>();
  const ended: Record<GenerationOutcome, number> = {
    stop: 0,
    length: 0,
    disconnected: 0,
    stalled: 0,
    failed: 0,
  };
  let promptTokens = 0;
  let completionTokens = 0;
  let streams = 0;
  return {
    request(route, status) {
      const key = `${route} ${status}`;
      const entry = requests.get(key) ?? { route, status, count: 0 };
      entry.count += 1;
      requests.set(key, entry);
    },
    ended: (outcome) => void (ended[outcome] += 1),
    promptTokens: (count) => void (promptTokens += count),
    completionToken: () => void (completionTokens += 1),
    streamOpened: () => void (streams += 1),
    streamClosed: () => void (streams -= 1),
    counts: (generations) => ({
      requests: [...requests.values()].map((entry) => ({ ...entry })),
      ended: { ...ended },
      promptTokens,
      completionTokens,
      generations,
      streams,
    }),
  };
}
