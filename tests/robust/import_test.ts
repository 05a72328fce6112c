/**
 * Cards of other projects' networks, and networks loaded from their files.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { fileURLToPath } from "node:url";
import { Random } from "../../core/mod.ts";
import {
  decodeCheckpoint,
  encodeCheckpoint,
  encodeSafetensors,
  initializeModel,
  type ModelSpec,
} from "../../models/mod.ts";
import { importCheckpoint } from "../../robust/import.ts";
import { importFile, loadNetwork } from "../../robust/load.ts";
import { assertAllClose } from "../_assert.ts";
import { readTensors } from "../_fixtures.ts";
import { floats } from "../models/_fixture_network.ts";

const path = (name: string) =>
  fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));

Deno.test("importFile() writes down where the weights come from", async () => {
  const { checkpoint, notes } = await importFile(path("checkpoint_legacy.pt"));
  const { card } = await decodeCheckpoint(
    await encodeCheckpoint(checkpoint),
    "a",
  );
  assertEquals(card.dataset, "cifar10");
  assertEquals(card.classes[3], "cat");
  assertEquals(card.mean, [0.4914, 0.4822, 0.4465]);
  assertEquals([card.epoch, card.imageSize, card.attack], [3, 32, null]);
  assertEquals(card.extra?.imported, {
    file: "checkpoint_legacy.pt",
    format: "torch legacy",
    sha256: "bae2b34990d7ab72586f61e6eb559f9b82026238195ae64ccf2e4d1b6eb5f35d",
    epoch: 3,
    reported: { adv_prec1: 43.75 },
    notes,
  });
  assertEquals(notes.length, 3);
});

Deno.test("loadNetwork() loads a file of PyTorch as it is", async () => {
  const expected = await readTensors("cifar_eval");
  for (const file of ["checkpoint_zip.pt", "torchvision_style.pt"]) {
    const { network, card, notes } = await loadNetwork(path(file));
    const { logits } = await network.predict(floats(expected, "x"));
    const close = { tolerance: 2e-6, relative: "l2" } as const;
    assertAllClose(logits, expected.logits, close);
    assertEquals(card.architecture, "resnet18");
    assert(notes.length > 0);
    await network.release();
  }
});

function file(spec: Partial<ModelSpec>): Uint8Array {
  const full: ModelSpec = {
    architecture: "resnet10",
    form: "imagenet",
    width: 1,
    classes: 9,
    mean: [0, 0, 0],
    std: [1, 1, 1],
    ...spec,
  };
  return encodeSafetensors(initializeModel(full, new Random(0)));
}

Deno.test("importCheckpoint() tells the data set by form and classes", () => {
  const cardOf = (...args: Parameters<typeof importCheckpoint>) =>
    importCheckpoint(...args).checkpoint.card;
  const restricted = cardOf(file({}), "a.safetensors");
  assertEquals(restricted.dataset, "restricted_imagenet");
  assertEquals(restricted.classes[0], "Dog");
  assertEquals(restricted.mean, [0.4717, 0.4499, 0.3837]);
  assertEquals(restricted.imageSize, 224);
  const imagenet = cardOf(file({ classes: 1000 }), "a");
  assertEquals([imagenet.dataset, imagenet.classes[999]], ["imagenet", "999"]);
  assertEquals(imagenet.std, [0.229, 0.224, 0.225]);
  assertEquals(
    cardOf(file({ form: "cifar", classes: 10 }), "a").dataset,
    "cifar10",
  );
  const other = cardOf(file({ classes: 10 }), "a", {
    mean: [0, 0, 0],
    std: [1, 1, 1],
  });
  assertEquals([other.dataset, other.classes[9]], ["image_folder", "9"]);
  const subset = cardOf(file({ classes: 4 }), "a", {
    dataset: "restricted_imagenet",
  });
  assertEquals(subset.classes, ["0", "1", "2", "3"]);
});

Deno.test("importCheckpoint() asks for what it cannot tell", () => {
  assertThrows(
    () => importCheckpoint(file({ classes: 7 }), "a.pt"),
    TypeError,
    'Cannot import "a.pt": it holds no mean and std of its images',
  );
  assertThrows(
    () =>
      importCheckpoint(file({ classes: 7 }), "a.pt", { dataset: "cifar10" }),
    TypeError,
    "it has 7 classes and cifar10 has 10; pass another --dataset",
  );
});
