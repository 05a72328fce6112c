/** A number that is taken over when it is whole and within its limits. */
export function NumberField(
  { label, value, min, max, step, hint, onInput }: {
    readonly label: string;
    readonly value: number;
    readonly min: number;
    readonly max: number;
    readonly step: number | "any";
    readonly hint?: string;
    readonly onInput: (value: number) => void;
  },
) {
  return (
    <label class="field">
      <span>
        {label} {hint && <small>{hint}</small>}
      </span>
      <input
        type="number"
        value={value}
        min={min}
        max={max}
        step={step}
        onChange={({ currentTarget }) => {
          const { valueAsNumber, validity } = currentTarget;
          if (validity.valid && Number.isFinite(valueAsNumber)) {
            onInput(valueAsNumber);
          } else currentTarget.value = String(value);
        }}
      />
    </label>
  );
}
