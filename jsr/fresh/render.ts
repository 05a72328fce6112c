/**
 * From components to HTML, with islands marked for the browser.
 *
 * @module
 */
// deno-lint-ignore-file no-explicit-any
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
import type { Context, RouteComponent } from "./context.ts";
import { Head } from "./runtime.ts";
import type { IslandInfo, Snapshot } from "./snapshot.ts";

/** What a page collects while it is rendered. */
interface Page {
  readonly path: string;
  readonly snapshot: Snapshot | null;
  readonly head: ComponentChildren[];
  /** Scripts of the islands met, by name, and props of each. */
  readonly islands: Record<string, string>;
  readonly props: object[];
  hasBody: boolean;
}

/** The page being rendered; rendering is synchronous. */
let current: Page | null = null;

/** Whether a component is below an island, and vnodes left as they are. */
const Inside = createContext(false);
const plain = new WeakSet<object>();

/** Calls an async component; others are left to Preact. */
export async function renderComponent<S>(
  ctx: Context<S>,
  component: RouteComponent<any, S>,
  data: unknown,
  Component: () => ComponentChildren,
): Promise<VNode | Response> {
  const { params, url, req, state, error, route, config, info } = ctx;
  const props = {
    ...{ params, url, req, state, error, route, config, info },
    ...{ isPartial: false, data, Component },
  };
  if (component.constructor.name !== "AsyncFunction") {
    return h(component as ComponentType<any>, props);
  }
  const result = await component(props);
  return result instanceof Response
    ? result
    : h(Fragment, null, result as ComponentChildren);
}

/** Renders a vnode inside the context's layouts and app. */
export async function renderTree<S>(
  ctx: Context<S>,
  vnode: VNode | null,
): Promise<string | Response> {
  const { app, layouts } = ctx.tree;
  let inner: VNode | null = vnode;
  for (const { component } of layouts.toReversed()) {
    const child: VNode | null = inner;
    const result: VNode | Response = await renderComponent(
      ctx,
      component,
      null,
      () => child,
    );
    if (result instanceof Response) return result;
    inner = result;
  }
  let content: VNode | null = null;
  const outer = app
    ? await renderComponent(ctx, app, null, () => content)
    : null;
  if (outer instanceof Response) return outer;
  const { url: { pathname: path }, snapshot } = ctx;
  const page: Page = {
    ...{ path, snapshot, hasBody: false },
    ...{ head: [], islands: {}, props: [] },
  };
  current = page;
  try {
    // The page goes first, as it says what is in the head around it.
    let html = renderToString(h(Fragment, null, inner));
    content = jsxTemplate([html]);
    if (outer) html = renderToString(outer);
    if (!page.hasBody) {
      const head = h("head", null, h("meta", { charset: "utf-8" }));
      const body = h("body", null, jsxTemplate([html]));
      html = renderToString(h("html", null, head, body));
    }
    return `<!DOCTYPE html>${html}`;
  } finally {
    current = null;
  }
}

/** Preact calls this before it renders a vnode. */
const hooks = options as { __b?: (vnode: VNode<any>) => void };
const before = hooks.__b;
hooks.__b = (vnode) => {
  if (current) prepare(vnode, current);
  before?.(vnode);
};

function prepare(vnode: VNode<any>, page: Page): void {
  const { props } = vnode;
  const type = vnode.type as unknown;
  if (type === Head) {
    page.head.push(props.children);
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
  } else if (type === "a" && /^\/(?!\/)/.test(props.href)) {
    const target = props.href.replace(/[?#].*$/s, "");
    const isAbove = target !== "/" && page.path.startsWith(`${target}/`);
    if (target === page.path) {
      Object.assign(props, { "aria-current": "page", "data-current": "true" });
    } else if (isAbove) {
      Object.assign(props, { "aria-current": "true", "data-ancestor": "true" });
    }
  } else if (typeof type === "function" && !plain.has(vnode)) {
    const info = page.snapshot?.islands.get(type as ComponentType);
    if (!info) return;
    vnode.type = Island as ComponentType<any>;
    vnode.props = { ...info, component: type, props };
  }
}

function Island(
  { component, props, name, url }: IslandInfo & {
    component: ComponentType<any>;
    props: object;
  },
): VNode {
  const inner = h(component, props);
  plain.add(inner);
  if (useContext(Inside)) return inner;
  if ("children" in props) {
    throw new Error(`Unsupported: children of island "${name}"`);
  }
  current!.islands[name] = url;
  const index = current!.props.push(props) - 1;
  return h(
    "div",
    { style: "display:contents", "data-island": `${name}:${index}` },
    h(Inside.Provider, { value: true }, inner),
  ) as VNode<any>;
}

/** What the browser needs; nothing on pages without islands. */
function Scripts(): VNode | null {
  const { islands, props, snapshot } = current!;
  if (props.length === 0) return null;
  const state = stringify([islands, props], {
    // Signals come back as such, computed ones as constants.
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
