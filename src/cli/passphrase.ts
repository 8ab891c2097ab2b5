/**
 * Where a passphrase comes from: a file, the environment, or the terminal without being shown. Never the command line,
 * which every user of the machine can read.
 */
import { StringDecoder } from 'node:string_decoder';
import { readFileBounded } from '../platform/nodejs/files.ts';
import { CodedError } from '../std/outcome.ts';
import { InterruptedError } from './errors.ts';

export const passphraseVariable = 'NEUROSHARD_PASSPHRASE';
const fileBytesMax = 4096;

/** A terminal that can be read without showing what is typed. */
export interface SecretTerminal {
  readonly isTTY?: boolean;
  setRawMode?(raw: boolean): unknown;
  on(event: 'data', listener: (data: Uint8Array) => void): unknown;
  off(event: 'data', listener: (data: Uint8Array) => void): unknown;
  resume(): unknown;
  pause(): unknown;
}

export interface PassphraseOptions {
  readonly passphraseFile?: string | undefined;
  readonly environment?: Readonly<Record<string, string | undefined>>;
  readonly terminal?: SecretTerminal;
  readonly write?: (text: string) => void;
}

/** What was given without asking; undefined when nothing was. Throws CodedError `bad-passphrase`, and those of reading a file. */
export async function givenPassphrase(options: PassphraseOptions): Promise<string | undefined> {
  const { passphraseFile, environment = process.env } = options;
  if (passphraseFile === undefined) return environment[passphraseVariable] || undefined;
  const bytes = await readFileBounded(passphraseFile, fileBytesMax);
  // The first line, so that a file written by an editor means what it shows.
  const passphrase = new TextDecoder().decode(bytes).split(/\r?\n/, 1)[0]!;
  if (passphrase === '')
    throw new CodedError('bad-passphrase', `${passphraseFile} begins with an empty line`);
  return passphrase;
}

/** As above, and asks where somebody is there; else `passphrase-needed`. */
export async function passphraseFor(what: string, options: PassphraseOptions): Promise<string> {
  const given = await givenPassphrase(options);
  if (given !== undefined) return given;
  const terminal = options.terminal ?? process.stdin;
  if (!terminal.isTTY || !terminal.setRawMode) {
    const ways = `set ${passphraseVariable} or give --passphrase-file`;
    throw new CodedError('passphrase-needed', `${what} needs its passphrase: ${ways}`);
  }
  const write = options.write ?? ((text) => void process.stderr.write(text));
  return await ask(`Passphrase of ${what}: `, terminal, write);
}

/** For a new key: asks twice. Throws CodedError `passphrases-differ`. */
export async function newPassphrase(what: string, options: PassphraseOptions): Promise<string> {
  const first = await passphraseFor(what, options);
  if ((await givenPassphrase(options)) !== undefined) return first;
  const again = await passphraseFor(`${what}, again`, options);
  if (first !== again) throw new CodedError('passphrases-differ', 'the two passphrases are not the same');
  return first;
}

const [enter, lineFeed, endOfText, endOfFile, backspace, del] = ['\r', '\n', '\x03', '\x04', '\b', '\x7f'];

function ask(prompt: string, terminal: SecretTerminal, write: (text: string) => void): Promise<string> {
  return new Promise((resolve, reject) => {
    const decoder = new StringDecoder('utf8');
    let typed: string[] = [];
    const end = (settle: () => void) => {
      terminal.off('data', onData);
      terminal.setRawMode?.(false);
      terminal.pause();
      write('\n');
      settle();
    };
    const onData = (data: Uint8Array) => {
      for (const character of decoder.write(Buffer.from(data))) {
        if (character === enter || character === lineFeed || character === endOfFile)
          return end(() => resolve(typed.join('')));
        if (character === endOfText) return end(() => reject(new InterruptedError('SIGINT', 130)));
        if (character === backspace || character === del) typed = typed.slice(0, -1);
        else if (character >= ' ') typed.push(character);
      }
    };
    write(prompt);
    terminal.setRawMode?.(true);
    terminal.on('data', onData);
    terminal.resume();
  });
}
