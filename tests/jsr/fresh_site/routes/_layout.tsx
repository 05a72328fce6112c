import type { PageProps } from "fresh";

export default ({ Component }: PageProps) => (
  <div class="outer">
    <Component />
  </div>
);
