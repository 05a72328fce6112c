/** A figure as one image, which links to its file. */
export function WholeFigure(
  { src, alt, caption }: {
    readonly src: string;
    readonly alt: string;
    readonly caption?: string;
  },
) {
  return (
    <figure class="headline">
      <a href={src}>
        <img src={src} alt={alt} loading="lazy" />
      </a>
      {caption && <figcaption>{caption}</figcaption>}
    </figure>
  );
}
