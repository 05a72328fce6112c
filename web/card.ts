/**
 * Cards of checkpoints, read without the weights.
 *
 * @module
 */
import {
  type Card,
  CARD_SCHEMA_VERSION,
  type CardSanity,
  rules,
} from "../models/mod.ts";

export type { Card };

/** No card is longer; a longer header is a damaged file. */
const LARGEST_HEADER = 16 << 20;

const interval = rules.optional(rules.checkRecord({
  low: rules.nonNegative,
  high: rules.nonNegative,
  n: rules.count,
}));

const anyText = rules.rule((value) => typeof value === "string", "text");
const bool = rules.rule(
  (value) => typeof value === "boolean",
  "true or false",
);

const SANITY_RULES = rules.checkRecord({
  images: rules.count,
  norm: rules.text,
  epsilon: rules.nonNegative,
  steps: rules.count,
  checks: rules.listOf(
    rules.checkRecord({ name: rules.text, passed: bool, detail: anyText }),
    "a list",
  ),
});

/** Whether a run's metric is a checklist as cards have it. */
export function isSanity(value: unknown): value is CardSanity {
  return SANITY_RULES(value, "sanity") === null;
}

/** What pages read of a card; loading a network checks all of it. */
const CARD_RULES = rules.checkRecord({
  architecture: rules.text,
  form: rules.text,
  dataset: rules.text,
  width: rules.count,
  imageSize: rules.count,
  epoch: rules.count,
  classes: rules.listOf(rules.text, "a list of class names"),
  attack: rules.nullable(rules.checkRecord({
    norm: rules.text,
    epsilon: rules.nonNegative,
    stepSize: rules.nonNegative,
    steps: rules.count,
  })),
  accuracies: rules.checkRecord({
    clean: rules.optional(rules.nonNegative),
    cleanInterval: interval,
    images: rules.optional(rules.count),
    adversarial: rules.optional(rules.listOf(
      rules.checkRecord({
        attack: rules.optional(rules.text),
        interval,
        epsilon: rules.nonNegative,
        steps: rules.count,
        stepSize: rules.nonNegative,
        restarts: rules.count,
        accuracy: rules.nonNegative,
      }),
      "a list",
    )),
  }),
  sanity: rules.optional(SANITY_RULES),
  training: rules.optional(rules.checkRecord({
    seconds: rules.nonNegative,
    provider: rules.text,
    cpu: rules.text,
    threads: rules.count,
    preset: rules.optional(rules.text),
  })),
  data: rules.optional(rules.checkRecord({
    name: rules.text,
    images: rules.count,
    preprocessing: rules.text,
  })),
  evaluation: rules.optional(rules.checkRecord({
    complete: bool,
    preprocessing: rules.text,
  })),
  extra: rules.optional(rules.object("an object")),
});

/**
 * Reads the card of a checkpoint from the header of its file.
 *
 * @throws {SyntaxError} If the file holds no card that pages can show
 */
export async function readCard(path: string): Promise<Card> {
  const fail = (what: string): never => {
    throw new SyntaxError(`Cannot read checkpoint "${path}": ${what}`);
  };
  using file = await Deno.open(path);
  const { size } = await file.stat();
  const start = await readBytes(file, 8);
  if (start.length < 8) fail("the file is too short");
  const length = new DataView(start.buffer).getBigUint64(0, true);
  if (length > LARGEST_HEADER || length + 8n > size) {
    fail("its header is longer than the file");
  }
  let card: unknown;
  try {
    const header = await readBytes(file, Number(length));
    const { __metadata__ } = JSON.parse(new TextDecoder().decode(header));
    card = JSON.parse(__metadata__.card);
  } catch {
    fail("it has no card, so robust-reps did not write it");
  }
  const problem = rules.checkVersion(card, "the card", CARD_SCHEMA_VERSION) ??
    CARD_RULES(card, "the card");
  if (problem) fail(problem);
  return card as Card;
}

async function readBytes(
  file: Deno.FsFile,
  length: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length);
  let at = 0;
  while (at < length) {
    const count = await file.read(bytes.subarray(at));
    if (count === null) break;
    at += count;
  }
  return bytes.subarray(0, at);
}
