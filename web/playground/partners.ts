/**
 * Which networks the playground sets side by side.
 *
 * @module
 */
import type { ModelSummary } from "../views.ts";

/** A robust network and its standard partner, if there are. */
export function pairOf(
  models: readonly ModelSummary[],
): [ModelSummary, ModelSummary | undefined] {
  const first =
    models.find((model) => model.epsilon > 0 && partnerOf(model, models)) ??
      models[0];
  return [first, partnerOf(first, models)];
}

/**
 * A standard network of the same data for a robust one, or a robust one for a
 * standard one; of the same architecture, if there is one.
 */
export function partnerOf(
  { architecture, dataset, epsilon, imageSize }: ModelSummary,
  models: readonly ModelSummary[],
): ModelSummary | undefined {
  const others = models.filter((other) =>
    other.dataset === dataset && other.imageSize === imageSize &&
    (other.epsilon > 0) !== (epsilon > 0)
  );
  return others.find((other) => other.architecture === architecture) ??
    others[0];
}
