/**
 * Writes a network as a self-contained ONNX file, for other programs: weights
 * inside, standard operators of opset 17, any number of images.
 *
 *   deno task export --model runs/cifar-l2 --out forward.onnx
 *   deno task export --model runs/cifar-l2 --what pgd-step --norm linf \
 *     --out step.onnx
 *
 * Inputs and outputs are float32 and have these names; n is any number:
 *
 *   forward         images -> representation, logits
 *   representation  images -> representation
 *   input-gradient  images, labels or target -> gradient, losses
 *   pgd-step        the same, center, epsilon, stepSize -> next, losses
 *
 * images [n, 3, h, w] are in [0, 1]; labels [n, classes] are one-hot rows for
 * --objective cross-entropy; target [n, d] are representations for
 * match-representation. epsilon and stepSize are scalars; a positive step
 * ascends, a negative one descends. The model's card is in the metadata.
 *
 * @module
 */
import {
  EXPORT_KINDS,
  EXPORT_OBJECTIVES,
  exportNetwork,
  OPSET,
  writeFileAtomic,
} from "../mod.ts";
import {
  type FlagTable,
  type ParsedFlags,
  runScript,
  SCRIPT_FLAGS,
  type ScriptContext,
  UsageError,
} from "./_cli.ts";
import {
  checkFile,
  normOf,
  openModel,
  Recorder,
  SIZE_FLAG,
  weightsOf,
} from "./_run.ts";

/** Flags of this script. */
export const FLAGS = {
  model: {
    type: "string",
    required: true,
    help: "run folder, .safetensors or .pt file, or shipped name",
  },
  out: { type: "path", required: true, help: ".onnx file to write" },
  what: {
    type: "choice",
    choices: EXPORT_KINDS,
    default: "forward",
    help: "what the file computes",
  },
  objective: {
    type: "choice",
    choices: EXPORT_OBJECTIVES,
    default: "cross-entropy",
    help: "what the gradient is of",
  },
  norm: {
    type: "choice",
    choices: ["l2", "linf", "2", "inf"],
    default: "l2",
    aliases: ["constraint"],
    help: "ball of pgd-step",
  },
  ...SIZE_FLAG,
  json: { type: "path", help: "also write the Run's JSON here" },
  ...SCRIPT_FLAGS,
} as const satisfies FlagTable;

/** Writes the file; the work of this script. */
export async function main(
  flags: ParsedFlags<typeof FLAGS>,
  { args, note, print }: ScriptContext,
): Promise<void> {
  const { out } = flags;
  if (!/\.onnx$/i.test(out)) {
    throw new UsageError(`Cannot write "${out}": name a .onnx file with --out`);
  }
  await checkFile(out);
  const recorder = await Recorder.open("export", flags, null, { args });
  const model = await openModel(flags.model, { provider: "cpu" });
  const { card, network: { spec, parameters } } = model;
  const { bytes, inputs, outputs, operators } = exportNetwork(
    spec,
    parameters,
    {
      what: flags.what as (typeof EXPORT_KINDS)[number],
      objective: flags.objective as (typeof EXPORT_OBJECTIVES)[number],
      norm: normOf(flags.norm),
      size: flags.size ?? card.imageSize,
      card,
    },
  );
  await writeFileAtomic(out, bytes);
  const weights = [await weightsOf("exported", model)];
  const described = (infos: typeof inputs) =>
    infos.map(({ name, dtype, shape }) => ({ name, dtype, shape }));
  await recorder.write({
    provider: "none",
    weights,
    metrics: {
      out,
      bytes: bytes.length,
      opset: OPSET,
      inputs: described(inputs),
      outputs: described(outputs),
      operators: Object.fromEntries(operators),
    },
  }, flags.json);
  const show = (infos: typeof inputs) =>
    infos.map(({ name, shape }) => `${name} [${shape.join(", ")}]`).join(", ");
  note(`Opset ${OPSET}, ${(bytes.length / 1e6).toFixed(1)} MB`);
  print(`Inputs: ${show(inputs)}`);
  print(`Outputs: ${show(outputs)}`);
  print(out);
}

if (import.meta.main) await runScript(import.meta, FLAGS, {}, main);
