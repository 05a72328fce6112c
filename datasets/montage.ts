export interface MontageRow {
  label: string;
}
export interface MontageOptions {
  rows: MontageRow[];
}
export function montage() {}
