/**
 * Pictures in and out of the playground.
 *
 * @module
 */

/**
 * Reads a picture, cut to its middle square, at the size of a network's.
 *
 * @returns `[3, size, size]` in [0, 1]
 */
export async function pictureOf(
  url: string,
  size: number,
): Promise<Float32Array<ArrayBuffer>> {
  const image = new Image();
  image.src = url;
  await image.decode();
  const { naturalWidth: width, naturalHeight: height } = image;
  const side = Math.min(width, height);
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  context.imageSmoothingQuality = "high";
  context.drawImage(
    image,
    ...[(width - side) / 2, (height - side) / 2, side, side] as const,
    ...[0, 0, size, size] as const,
  );
  const { data } = context.getImageData(0, 0, size, size);
  const values = new Float32Array(3 * size * size);
  for (let i = 0; i < size * size; i++) {
    for (let c = 0; c < 3; c++) {
      values[c * size * size + i] = data[4 * i + c] / 255;
    }
  }
  return values;
}

/** A canvas as a PNG file. */
export function pngOf(canvas: HTMLCanvasElement): Promise<Blob> {
  const { promise, resolve, reject } = Promise.withResolvers<Blob>();
  canvas.toBlob((blob) =>
    blob ? resolve(blob) : reject(new Error("Cannot save the picture"))
  );
  return promise;
}
