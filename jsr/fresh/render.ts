/**
 * From components to HTML, with islands marked for the browser.
 *
 * @module
 */
import { Signal } from "@preact/signals-core";
import { stringify } from "devalue";
import {
  type ComponentChildren,
  type ComponentType,
  createContext,
  Fragment,
  h,
  isValidElement,
  options,
  toChildArray,
  type VNode,
} from "preact";
import { useContext } from "preact/hooks";
import { jsxTemplate } from "preact/jsx-runtime";
import { renderToString } from "preact-render-to-string";
import type { Context, PageProps, RouteComponent } from "./context.ts";
import { Head } from "./runtime.ts";
import type { Snapshot } from "./snapshot.ts";

// deno-lint-ignore no-explicit-any
type Props = any;
type AnyVNode = VNode<Props>;

/** What a page collects while it is rendered. */
interface Page {
  readonly path: string;
  readonly snapshot: Snapshot | null;
  readonly head: ComponentChildren[];
  /** Scripts of the islands met, by name. */
  readonly islands: Record<string, string>;
  /** Props of each island met. */
  readonly props: Props[];
  hasBody: boolean;
}

/** The page being rendered; rendering is synchronous. */
let current: Page | null = null;

/** Whether a component is below an island. */
const Inside = createContext(false);

/** Islands within islands, left as they are. */
const plain = new WeakSet<object>();

/** Calls an async component; others are left to Preact. */
export async function renderComponent<S>(
  ctx: Context<S>,
  component: RouteComponent<unknown, S>,
  data: unknown,
  Component: () => ComponentChildren,
): Promise<AnyVNode | Response> {
  const { params, url, req, state, error, route, config, info, isPartial } =
    ctx;
  const props: PageProps<unknown, S> = {
    ...{ params, url, req, state, error, route, config, info, isPartial },
    data,
    Component,
  };
  if (component.constructor.name !== "AsyncFunction") {
    return h(component as ComponentType<Props>, props);
  }
  const result = await component(props);
  if (result instanceof Response) return result;
  return h(Fragment, null, result as ComponentChildren) as AnyVNode;
}

/** Renders a vnode inside the context's layouts and app. */
export async function renderTree<S>(
  ctx: Context<S>,
  vnode: VNode | null,
): Promise<string | Response> {
  const { app, layouts } = ctx.tree;
  let inner: ComponentChildren = vnode;
  for (const { component } of layouts.toReversed()) {
    const child: ComponentChildren = inner;
    const result: AnyVNode | Response = await renderComponent(
      ctx,
      component,
      null,
      () => child,
    );
    if (result instanceof Response) return result;
    inner = result;
  }
  let content: ComponentChildren = null;
  const outer = app
    ? await renderComponent(ctx, app, null, () => content)
    : null;
  if (outer instanceof Response) return outer;
  const page: Page = {
    path: ctx.url.pathname,
    snapshot: ctx.snapshot,
    head: [],
    islands: {},
    props: [],
    hasBody: false,
  };
  current = page;
  try {
    // The page goes first, as it says what is in the head around it.
    let html = renderToString(h(Fragment, null, inner));
    content = jsxTemplate([html]);
    if (outer) html = renderToString(outer);
    if (!page.hasBody) {
      html = renderToString(h("html", null, [
        h("head", null, h("meta", { charset: "utf-8" })),
        h("body", null, jsxTemplate([html])),
      ]));
    }
    return `<!DOCTYPE html>${html}`;
  } finally {
    current = null;
  }
}

/** Called by Preact before each vnode is rendered. */
const hooks = options as { __b?: (vnode: AnyVNode) => void };
const before = hooks.__b;
hooks.__b = (vnode) => {
  if (current) prepare(vnode, current);
  before?.(vnode);
};

function prepare(vnode: AnyVNode, page: Page): void {
  const { type, props } = vnode as { type: unknown; props: Props };
  if (type === Head) {
    page.head.push(props.children);
    vnode.props = {};
  } else if (type === "head") {
    const added = page.head.flatMap((item) => toChildArray(item));
    const isTitle = (child: unknown) =>
      isValidElement(child) && child.type === "title";
    const own = toChildArray(props.children).filter((child) =>
      !(isTitle(child) && added.some(isTitle))
    );
    vnode.props = { ...props, children: [...own, ...added] };
  } else if (type === "body") {
    page.hasBody = true;
    vnode.props = { ...props, children: [props.children, h(Scripts, null)] };
  } else if (type === "a" && typeof props.href === "string") {
    vnode.props = { ...props, ...currentLink(props.href, page.path) };
  } else if (typeof type === "function" && !plain.has(vnode)) {
    const info = page.snapshot?.islands.get(type as ComponentType);
    if (!info) return;
    const component = type as ComponentType<Props>;
    vnode.type = Island as unknown as ComponentType<Props>;
    vnode.props = { component, props, name: info.name, url: info.url };
  }
}

/** Marks links to the page itself and to those above it. */
function currentLink(href: string, path: string): Props {
  const target = URL.parse(href, "http://localhost/");
  if (!href.startsWith("/") || !target) return {};
  if (target.pathname === path) {
    return { "aria-current": "page", "data-current": "true" };
  }
  return target.pathname !== "/" && path.startsWith(`${target.pathname}/`)
    ? { "aria-current": "true", "data-ancestor": "true" }
    : {};
}

interface IslandProps {
  readonly component: ComponentType<Props>;
  readonly props: Props;
  readonly name: string;
  readonly url: string;
}

function Island({ component, props, name, url }: IslandProps): AnyVNode {
  const inner = h(component, props) as AnyVNode;
  plain.add(inner);
  if (useContext(Inside)) return inner;
  if (props.children !== undefined) {
    throw new Error(`Unsupported: children of island "${name}"`);
  }
  const { islands, props: all } = current!;
  islands[name] = url;
  const index = all.push(props) - 1;
  return h("div", {
    style: "display:contents",
    "data-island": `${name}:${index}`,
  }, h(Inside.Provider, { value: true }, inner)) as unknown as AnyVNode;
}

/** What the browser needs; nothing on pages without islands. */
function Scripts(): VNode | null {
  const { islands, props, snapshot } = current!;
  if (props.length === 0) return null;
  const state = stringify([islands, props], {
    // Both kinds come back as what they were; computed ones as constants.
    Signal: (value: unknown) => value instanceof Signal && [value.peek()],
    Refused: (value: unknown) => {
      const isArray = ArrayBuffer.isView(value) &&
        !(value instanceof Uint8Array);
      if (!isArray && !isValidElement(value)) return false;
      throw new Error("Unsupported: typed arrays and JSX in islands' props");
    },
  });
  return h(Fragment, null, [
    h("script", {
      type: "application/json",
      id: "fresh-state",
      dangerouslySetInnerHTML: { __html: state.replaceAll("<", "\\u003c") },
    }),
    ...Object.values(islands).map((href) =>
      h("link", { rel: "modulepreload", href })
    ),
    h("script", { type: "module", src: snapshot!.client }),
  ]);
}
