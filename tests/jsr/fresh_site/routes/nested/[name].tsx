import { HttpError, type PageProps } from "fresh";

export default async function Name({ params }: PageProps) {
  await Promise.resolve();
  if (params.name === "teapot") throw new HttpError(418, "short and stout");
  if (params.name === "raw") return new Response("raw");
  return <p>{params.name}</p>;
}
