import type { PageProps } from "fresh";

export default async function Layout({ Component }: PageProps) {
  await Promise.resolve();
  return (
    <div class="inner">
      <Component />
    </div>
  );
}
