/**
 * A conversation as one plain text that a base model, which has no chat template of its own, can continue. Documented in
 * docs/http-api.md; knows no tokens.
 */

export interface ChatMessage {
  readonly role: 'system' | 'developer' | 'user' | 'assistant';
  readonly content: string;
}

/** What the model would write next if it went on with the user's part, too. */
export const chatStops: readonly string[] = ['\nUser:'];

/**
 * System and developer texts stand first, each a paragraph; then `User: …` and `Assistant: …` lines in their order; then
 * `Assistant:`, which the answer continues. Contents are trimmed, so that the lines always look the same.
 */
export function chatPrompt(messages: readonly ChatMessage[]): string {
  const isSystem = ({ role }: ChatMessage) => role === 'system' || role === 'developer';
  const system = messages.filter(isSystem).map(({ content }) => `${content.trim()}\n\n`);
  const turns = messages
    .filter((message) => !isSystem(message))
    .map(({ role, content }) => `${role === 'user' ? 'User' : 'Assistant'}: ${content.trim()}\n`);
  return `${system.join('')}${turns.join('')}Assistant:`;
}

/** Drops the white space that an answer begins with (the template leaves the space after `Assistant:` to the model). */
export function leadingTrimmer(): (text: string) => string {
  let hasBegun = false;
  return (text) => {
    if (hasBegun) return text;
    const rest = text.trimStart();
    hasBegun = rest !== '';
    return rest;
  };
}
