/** Every bound of the OpenAI-compatible routes, together. Requests beyond one get a coded error, and nothing changes. */

export const bodyBytesMax = 1024 * 1024;

/** Generations at once on one node, unless told otherwise; each choice of a request is one. */
export const generationsMaxDefault = 32;
export const choicesPerPromptMax = 8;

/** Stop texts of a request; the chat template adds its own. */
export const stopsMax = 4;
export const stopLengthMax = 256;

export const completionLogprobsMax = 5;
export const chatLogprobsMax = 20;

/** New tokens of a completion that does not say, as OpenAI has it; a chat answer may fill the context. */
export const completionTokensDefault = 16;

/** A longer text is refused before it is encoded: no token of ordinary text is this long on average. */
export const charactersPerTokenMax = 64;

/** A reader that takes nothing of its stream for so long loses it, and the generation ends. */
export const stallMsMax = 30_000;

/** A comment line after this much silence, so that proxies and readers can tell a slow answer from a dead link. */
export const heartbeatMs = 15_000;

/** `Retry-After` of refusals that pass by themselves. */
export const retryAfterSeconds = 1;
