// What all parts of the page make their elements with. Everything that comes from outside becomes text nodes, never
// markup: passages may hold some.

export const $ = (id) => document.getElementById(id);

export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

// In the language of the text, which may run from right to left.
export function written(element) {
  element.dir = "auto";
  return element;
}

export function button(text, pressed = null) {
  const made = make("button", "", text);
  made.type = "button";
  if (pressed !== null) made.setAttribute("aria-pressed", pressed);
  return made;
}

export const isPressed = (element) => element.getAttribute("aria-pressed") === "true";
export const press = (element, on) => element.setAttribute("aria-pressed", on);

// A link to a source, in a tab of its own.
export function link(address) {
  const made = make("a");
  made.setAttribute("href", address);
  made.setAttribute("rel", "noopener");
  made.setAttribute("target", "_blank");
  return made;
}
