import type { ModelSummary } from "../views.ts";

/** A choice of networks. */
export function ModelSelect(
  { name, models, value, none, disabled, onPick }: {
    readonly name: string;
    readonly models: readonly ModelSummary[];
    readonly value: { value: string };
    readonly none?: boolean;
    readonly disabled: boolean;
    readonly onPick: () => void;
  },
) {
  return (
    <select
      name={name}
      value={value.value}
      disabled={disabled}
      onChange={({ currentTarget }) => {
        value.value = currentTarget.value;
        onPick();
      }}
    >
      {none && <option value="">none</option>}
      {models.map(({ key, label }) => (
        <option key={key} value={key}>{label}</option>
      ))}
    </select>
  );
}
