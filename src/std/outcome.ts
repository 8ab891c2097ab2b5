/**
 * Expected failures. `Outcome` is for inputs that may be hostile (a rejection is one coded reason and changes
 * nothing); `CodedError` is for failures that end what the user asked for (one clear line and an exit code).
 */

export type Rejection = { readonly ok: false; readonly code: string; readonly detail: string };
export type Accepted<T> = { readonly ok: true; readonly value: T };
export type Outcome<T> = Accepted<T> | Rejection;

export function accept<T>(value: T): Accepted<T> {
  return { ok: true, value };
}

/** `code` is stable kebab-case, for machines; `detail` is for people. */
export function reject(code: string, detail = ''): Rejection {
  return { ok: false, code, detail };
}

/** A failure the user can act on: `code` is stable kebab-case, `message` is one clear line. */
export class CodedError extends Error {
  override name = 'CodedError';
  readonly code: string;
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
