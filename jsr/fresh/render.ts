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
  Fragment,
  h,
  isValidElement,
  options,
  toChildArray,
  type VNode,
} from "preact";
import { jsxTemplate } from "preact/jsx-runtime";
import { renderToString } from "preact-render-to-string";
import type { Context, PageProps } from "./context.ts";
import { Head } from "./runtime.ts";
import type { Snapshot } from "./dev.ts";
import { unsupported } from "./unsupported.ts";

/** What a page collects while it is rendered. */
interface Page {
  readonly path: string;
  readonly snapshot: Snapshot<any>;
  readonly head: ComponentChildren[];
  /** Scripts of the islands met, and props of each. */
  readonly scripts: Set<string>;
  readonly props: object[];
  /** The island being rendered; one within another is a plain component. */
  island: VNode<any> | null;
}

/** The page being rendered; rendering is synchronous. */
let current: Page | null = null;

/** Props of the component of a route. */
export function propsOf<D, S>(
  { req, url, params, state, error }: Context<S>,
  data: D,
  Component: () => ComponentChildren = () => null,
): PageProps<D, S> {
  return { req, url, params, state, error, data, Component };
}

/** Renders a vnode inside the app. */
export function renderPage<S>(
  ctx: Context<S>,
  vnode: VNode<any> | null,
): string {
  const { snapshot, url: { pathname: path } } = ctx;
  const lists = { head: [], scripts: new Set<string>(), props: [] };
  current = { path, snapshot, ...lists, island: null };
  try {
    // The page goes first, as it says what is in the head around it.
    const inner = jsxTemplate([renderToString(h(Fragment, null, vnode))]);
    const app = h(snapshot.app, propsOf(ctx, null, () => inner));
    return `<!DOCTYPE html>${renderToString(app)}`;
  } finally {
    current = null;
  }
}

// Preact calls one hook before it renders a vnode, and one after it.
const hooks = options as Record<"__b" | "diffed", (vnode: VNode<any>) => void>;
const { __b: before, diffed: after } = hooks;
hooks.__b = (vnode) => {
  if (current) prepare(vnode, current);
  before?.(vnode);
};
hooks.diffed = (vnode) => {
  if (current?.island === vnode) current.island = null;
  after?.(vnode);
};

function prepare(vnode: VNode<any>, page: Page): void {
  const { props } = vnode;
  const type: unknown = vnode.type;
  if (type === Head) {
    page.head.push(...toChildArray(props.children));
  } else if (type === "head") {
    const isTitle = (child: unknown) =>
      isValidElement(child) && child.type === "title";
    const hasTitle = page.head.some(isTitle);
    const own = toChildArray(props.children)
      .filter((child) => !hasTitle || !isTitle(child));
    vnode.props = { ...props, children: [own, page.head] };
  } else if (type === "body") {
    vnode.props = { ...props, children: [props.children, h(Scripts, null)] };
  } else if (type === "a") {
    const [path] = String(props.href).split(/[?#]/);
    if (path === page.path) {
      Object.assign(props, { "aria-current": "page", "data-current": "true" });
    } else if (path.length > 1 && page.path.startsWith(`${path}/`)) {
      Object.assign(props, { "aria-current": "true", "data-ancestor": "true" });
    }
  } else if (!page.island) {
    const script = page.snapshot.islands.get(type);
    if (!script) return;
    if ("children" in props) unsupported("children of islands");
    page.island = vnode;
    page.scripts.add(script);
    const index = page.props.push(props) - 1;
    vnode.type = "div";
    vnode.props = {
      style: "display:contents",
      "data-island": `${script.replace(/^.*\//, "")}:${index}`,
      children: h(type as any, props),
    };
  }
}

/** What the browser needs; nothing on pages without islands. */
function Scripts(): VNode | null {
  const { scripts, props, snapshot: { client } } = current!;
  if (props.length === 0) return null;
  const state = stringify(props, {
    // Signals come back as such, computed ones as constants.
    Signal: (value: unknown) => value instanceof Signal && [value.peek()],
    Refused: (value: unknown) => {
      const isArray = ArrayBuffer.isView(value) &&
        !(value instanceof Uint8Array);
      return (isArray || isValidElement(value)) &&
        unsupported("typed arrays and JSX in islands' props");
    },
  });
  return h(Fragment, null, [
    h("script", {
      type: "application/json",
      id: "fresh-state",
      dangerouslySetInnerHTML: { __html: state.replaceAll("<", "\\u003c") },
    }),
    ...Array.from(scripts, (href) => h("link", { rel: "modulepreload", href })),
    h("script", { type: "module", src: client }),
  ]);
}
