import { time } from "../format.ts";
import type { ResultsOrigin } from "../pages.ts";

/** Whose results these are, when they were made, and whether in short. */
export function Origin({ isGallery, quick, created }: ResultsOrigin) {
  return (
    <p class="muted">
      {isGallery
        ? "The reference gallery that comes with the project. "
        : "Your own results. "}
      {quick && "Made with fewer pictures and steps (--quick). "}
      {created && `Made on ${time(created)} UTC.`}
    </p>
  );
}
