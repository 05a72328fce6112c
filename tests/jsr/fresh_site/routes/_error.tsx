import { HttpError, type PageProps } from "fresh";

export default ({ error, state }: PageProps<unknown, { seen?: string }>) => (
  <p class="error">
    {error instanceof HttpError ? error.status : "other"} {state.seen}
  </p>
);
