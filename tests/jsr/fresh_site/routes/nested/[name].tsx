import { HttpError, type PageProps } from "fresh";

export default function Name({ params }: PageProps) {
  if (params.name === "teapot") throw new HttpError(418, "short and stout");
  return <p>{params.name}</p>;
}
